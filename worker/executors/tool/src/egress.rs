//! The hardened way out: which hosts a call may reach when the host came out of arguments.
//!
//! Vetting happens where the connection is made: the client's own resolver refuses a name when any
//! of its addresses is not allowed, and hands on exactly the addresses that it vetted, so a second
//! DNS answer cannot slip in. Addresses written in the URL never reach the resolver and are vetted
//! by [`Egress::vet_url`], which every hop of a redirect passes too.

pub(crate) mod address;
mod rule;

use std::{net::SocketAddr, sync::Arc};

use reqwest::{
    Client, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};

pub use self::rule::AllowRule;
use crate::{BuildError, EgressConfig, Error};

/// The two clients of a process and the policy between them. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Egress {
    policy: Arc<EgressConfig>,
    /// For hosts that the operator wrote.
    trusted: Client,
    /// For hosts that came out of arguments.
    vetted: Client,
}

/// Who chose the host of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// The operator, in the config.
    Operator,
    /// Somebody else: arguments or a redirect.
    Stranger,
}

/// Resolves names and refuses those with an address that is not allowed.
#[derive(Debug)]
struct VettingResolver(Arc<EgressConfig>);

/// The resolver's refusal, found again in the chain of causes of the client's error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

// === impl Egress ===

impl Egress {
    pub fn new(config: &EgressConfig) -> Result<Self, BuildError> {
        let policy = Arc::new(config.clone());
        // No proxy from the environment: it would resolve names behind our back.
        let builder = || {
            Client::builder()
                .no_proxy()
                .redirect(redirect::Policy::none())
                .referer(false)
                .connect_timeout(std::time::Duration::from_secs(10))
                .user_agent(concat!("trireme/", env!("CARGO_PKG_VERSION")))
        };
        let client = |b: reqwest::ClientBuilder| b.build().map_err(|e| BuildError::Client(chain(&e)));
        Ok(Self {
            trusted: client(builder())?,
            vetted: client(builder().dns_resolver(VettingResolver(policy.clone())))?,
            policy,
        })
    }

    /// The client for `host`.
    pub fn client(&self, host: Host) -> &Client {
        match host {
            Host::Operator => &self.trusted,
            Host::Stranger => &self.vetted,
        }
    }

    /// Refuses what can be told from the URL alone.
    pub fn vet_url(&self, url: &Url) -> Result<(), Error> {
        let deny = |reason: &str| Error::EgressDenied { target: shown(url), reason: reason.to_owned() };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(deny("only http and https URLs can be fetched"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(deny("a URL with a user name or password is not fetched"));
        }
        let host = url.host_str().ok_or_else(|| deny("the URL has no host"))?;
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        let allowed = self.policy.allow.iter().any(|rule| match ip {
            Some(ip) => rule.matches_ip(ip),
            None => rule.matches_host(host),
        });
        // A name may still resolve into an allowed network, which only the resolver sees; scheme
        // and port stay restricted for it, so intranet names by http need a rule of their own.
        if allowed {
            return Ok(());
        }
        if let Some(why) = ip.and_then(address::not_public) {
            return Err(deny(&format!("{why}; an operator can allow it in `egress.allow`")));
        }
        match (url.scheme(), url.port_or_known_default()) {
            ("https", Some(443)) => Ok(()),
            ("http", Some(80)) if self.policy.http => Ok(()),
            ("http", Some(80)) => Err(deny("plain http is off; use https, or have `egress.http` set")),
            _ => Err(deny(
                "the port is not the standard one; an operator can allow the host in `egress.allow`",
            )),
        }
    }
}

// === impl VettingResolver ===

impl Resolve for VettingResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            vet_addresses(&policy, name.as_str(), &found)?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Refuses a name when any of its addresses is neither public nor allowed.
fn vet_addresses(policy: &EgressConfig, name: &str, found: &[SocketAddr]) -> Result<(), Refused> {
    if policy.allow.iter().any(|rule| rule.matches_host(name)) {
        return Ok(());
    }
    for ip in found.iter().map(SocketAddr::ip) {
        if policy.allow.iter().any(|rule| rule.matches_ip(ip)) {
            continue;
        }
        if let Some(why) = address::not_public(ip) {
            return Err(Refused(format!(
                "{name} resolves to {ip}: {why}; an operator can allow it in `egress.allow`"
            )));
        }
    }
    Ok(())
}

/// The resolver's refusal in the causes of `error`, as an error of ours.
pub(crate) fn refusal(target: &Url, error: &reqwest::Error) -> Option<Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(Refused(reason)) = current.downcast_ref::<Refused>() {
            return Some(Error::EgressDenied { target: shown(target), reason: reason.clone() });
        }
        cause = current.source();
    }
    None
}

/// A URL as errors show it: without query, fragment and user, which may hold secrets.
pub(crate) fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or("?");
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    crate::error::shorten(&format!("{}://{host}{port}{}", url.scheme(), url.path()), 300)
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        let more = current.to_string();
        // Many errors repeat their cause in their own text.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = current.source();
    }
    crate::error::excerpt(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow: &[&str], http: bool) -> EgressConfig {
        EgressConfig { allow: allow.iter().map(|r| r.parse().unwrap()).collect(), http }
    }

    fn egress(allow: &[&str], http: bool) -> Egress {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Egress::new(&policy(allow, http)).unwrap()
    }

    #[test]
    fn url_table() {
        let strict = egress(&[], false);
        let refused = |e: &Egress, url: &str| e.vet_url(&url.parse().unwrap()).is_err();
        for url in [
            "http://example.com/",
            "https://example.com:8443/",
            "ftp://example.com/",
            "https://u@example.com/",
            "https://u:p@example.com/",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest",
            "file:///etc/passwd",
        ] {
            assert!(refused(&strict, url), "{url}");
        }
        for url in ["https://example.com/", "https://93.184.216.34/", "https://[2606:2800:220:1::1]/"] {
            assert!(!refused(&strict, url), "{url}");
        }
        assert!(!refused(&egress(&[], true), "http://example.com/"));
        let open = egress(&["127.0.0.0/8", "*.corp.example"], false);
        assert!(!refused(&open, "http://127.0.0.1:8080/"));
        assert!(!refused(&open, "http://a.corp.example:9/"));
        assert!(refused(&open, "http://corp.example.evil.com/"));
    }

    #[test]
    fn one_bad_address_of_many_refuses_the_name() {
        let addresses = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|a| SocketAddr::new(a.parse().unwrap(), 0)).collect()
        };
        let strict = policy(&[], false);
        assert!(vet_addresses(&strict, "a", &addresses(&["93.184.216.34", "2606:2800:220:1::1"])).is_ok());
        let error = vet_addresses(&strict, "a", &addresses(&["93.184.216.34", "10.0.0.1"])).unwrap_err();
        assert!(error.to_string().contains("10.0.0.1"), "{error}");
        assert!(vet_addresses(&policy(&["10.0.0.0/8"], false), "a", &addresses(&["10.0.0.1"])).is_ok());
        assert!(vet_addresses(&policy(&["a"], false), "a", &addresses(&["10.0.0.1"])).is_ok());
    }
}
