//! One line of the operator's `egress.allow`.

use std::{convert::Infallible, fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A host, a host suffix, an address or a network that may be reached although it is not public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowRule {
    /// `127.0.0.1`, `10.0.0.0/8`, `fd00::/8`.
    Net(IpNet),
    /// `intranet.example`: this host alone.
    Host(String),
    /// `*.example`: every host below it.
    Below(String),
}

// === impl AllowRule ===

impl AllowRule {
    pub(crate) fn matches_ip(&self, ip: IpAddr) -> bool {
        matches!(self, Self::Net(net) if net.contains(&ip.to_canonical()))
    }

    pub(crate) fn matches_host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        match self {
            Self::Net(_) => false,
            Self::Host(name) => host == *name,
            Self::Below(suffix) => host.strip_suffix(suffix.as_str()).is_some_and(|head| head.ends_with('.')),
        }
    }
}

impl FromStr for AllowRule {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        if let Some(net) = bare.parse().ok().or_else(|| bare.parse::<IpAddr>().ok().map(IpNet::from)) {
            return Ok(Self::Net(net));
        }
        let name = text.trim_end_matches('.').to_ascii_lowercase();
        Ok(match name.strip_prefix("*.") {
            Some(suffix) => Self::Below(suffix.to_owned()),
            None => Self::Host(name),
        })
    }
}

impl fmt::Display for AllowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) => net.fmt(f),
            Self::Host(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

impl Serialize for AllowRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AllowRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // A slash is a network or a mistake, never a host name.
        let rule = text.parse().unwrap_or_else(|never: Infallible| match never {});
        if !matches!(rule, Self::Net(_)) && (text.is_empty() || text.contains(['/', ':', ' '])) {
            return Err(serde::de::Error::custom(format!(
                "`{text}` is not a host, an address or a network such as 10.0.0.0/8"
            )));
        }
        Ok(rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> AllowRule {
        serde_json::from_value(text.into()).unwrap()
    }

    #[test]
    fn rules_match_what_they_say() {
        assert!(rule("127.0.0.1").matches_ip("127.0.0.1".parse().unwrap()));
        assert!(rule("127.0.0.1").matches_ip("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!rule("127.0.0.1").matches_ip("127.0.0.2".parse().unwrap()));
        assert!(rule("fd00::/8").matches_ip("fd12::1".parse().unwrap()));
        assert!(rule("A.example.").matches_host("a.EXAMPLE"));
        assert!(!rule("a.example").matches_host("b.a.example"));
        assert!(rule("*.a.example").matches_host("b.a.example"));
        assert!(!rule("*.a.example").matches_host("ba.example"));
        assert!(!rule("*.a.example").matches_host("a.example"));
    }

    #[test]
    fn mistakes_are_refused() {
        for bad in ["", "10.0.0.0/99", "http://x", "a b"] {
            assert!(serde_json::from_value::<AllowRule>(bad.into()).is_err(), "{bad}");
        }
    }
}
