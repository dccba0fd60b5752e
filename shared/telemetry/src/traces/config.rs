//! What is configured, and what the standard variables add to it.

use std::{collections::BTreeMap, time::Duration};

use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::sampler::{PER_SECOND, Sampler};

/// Weight that waits in the queue: about 16 MiB.
const QUEUE: usize = 16_384;
/// How long spans wait for others at most.
const DELAY: Duration = Duration::from_secs(1);
/// How long one export may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Traces. What is set here goes before the standard `OTEL_…` variables.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Put prompts, outputs, and arguments and results of tools on spans, each up to 16 KiB. Default no.
    pub content: bool,
    /// Where traces go.
    pub otlp: Otlp,
}

/// An OTLP collector.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// Base URL of its HTTP receiver, as in `http://collector:4318`; `/v1/traces` is added. Default:
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, then `OTEL_EXPORTER_OTLP_ENDPOINT`; without any, traces are off.
    pub endpoint: Option<String>,
    /// Share of the runs that are traced, 0 to 1, where the request's `traceparent` does not decide it. Default: as
    /// `OTEL_TRACES_SAMPLER` says, else all.
    pub ratio: Option<f64>,
    /// Most new traces a second of one coordinator, and as many at once; runs over that are not traced, unless the
    /// request's `traceparent` says so. 0 for no bound. Default: 50 where nothing says which runs are traced, none
    /// where `ratio` or `OTEL_TRACES_SAMPLER` do.
    pub per_second: Option<u32>,
}

/// Something that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub(super) String);

/// What comes of all that.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) endpoint: String,
    pub(super) sampler: Sampler,
    /// Most new traces a second.
    pub(super) per_second: Option<u32>,
    /// Attributes of the process.
    pub(super) resource: BTreeMap<String, String>,
    pub(super) headers: HeaderMap,
    pub(super) queue: usize,
    pub(super) delay: Duration,
    pub(super) timeout: Duration,
}

/// An address without what may be secret in it.
pub(super) fn shown(endpoint: &str) -> String {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    format!("{scheme}://{}", host.rsplit('@').next().unwrap_or_default())
}

/// The pairs of a list as in `key=value,other=its%20value`.
fn pairs(name: &str, list: &str) -> Result<Vec<(String, String)>, Invalid> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        (!key.trim().is_empty()).then(|| (key.trim().to_owned(), value.into_owned()))
    };
    let list = list.split(',').filter(|part| !part.trim().is_empty()).map(pair);
    let all: Option<Vec<_>> = list.collect();
    // what it says may be a token
    all.ok_or_else(|| {
        Invalid(format!("{name}: not a list like key=value,key=value with %XX for what is special"))
    })
}

impl Config {
    /// Says what can't be used, the environment aside.
    pub fn check(&self) -> Result<(), Invalid> {
        self.plan("", |_| None).map(|_| ())
    }

    /// `None` where no traces are wanted.
    pub(super) fn plan(
        &self,
        service: &'static str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Plan>, Invalid> {
        // set and empty is not set, as the specification has it
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        if let Some(ratio) = self.otlp.ratio.filter(|ratio| !(0.0..=1.0).contains(ratio)) {
            return Err(Invalid(format!("telemetry.otlp.ratio: {ratio} is not from 0 to 1")));
        }
        // with what stands behind a base
        let below = "/v1/traces";
        let endpoint = match self.otlp.endpoint.clone().filter(|endpoint| !endpoint.is_empty()) {
            Some(base) => Some(("telemetry.otlp.endpoint", base, below)),
            None => {
                let exporter = variable("OTEL_TRACES_EXPORTER");
                if let Some(other) = exporter.as_deref().filter(|name| !["none", "otlp"].contains(name)) {
                    return Err(Invalid(format!(
                        "OTEL_TRACES_EXPORTER: {other:?} is not there; use otlp or none"
                    )));
                }
                let disabled = variable("OTEL_SDK_DISABLED")
                    .is_some_and(|value| value.eq_ignore_ascii_case("true"))
                    || exporter.is_some_and(|name| name == "none");
                let own = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
                let all = "OTEL_EXPORTER_OTLP_ENDPOINT";
                let given = variable(own).map(|url| (own, url, ""));
                given.or_else(|| variable(all).map(|base| (all, base, below))).filter(|_| !disabled)
            }
        };
        let Some((place, endpoint, below)) = endpoint else { return Ok(None) };
        // what it says may be secret
        let url = reqwest::Url::parse(&endpoint);
        let fits = |url: reqwest::Url| {
            matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none()
        };
        if !url.is_ok_and(fits) {
            let wanted = "use an http:// or https:// URL with a host, and nothing behind its path";
            return Err(Invalid(format!("{place}: {wanted}")));
        }
        let endpoint =
            if below.is_empty() { endpoint } else { endpoint.trim_end_matches('/').to_owned() + below };
        // what is said for traces goes before what is said for all signals
        let either = |ending: &str| {
            let names =
                ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"].map(|start| format!("{start}{ending}"));
            names.into_iter().find_map(|name| variable(&name).map(|value| (name, value)))
        };
        if let Some((name, value)) = either("PROTOCOL").filter(|(_, value)| value != "http/protobuf") {
            return Err(Invalid(format!("{name}: {value:?} is not spoken; use http/protobuf")));
        }
        let said = self.otlp.ratio.is_some() || variable("OTEL_TRACES_SAMPLER").is_some();
        let per_second = self.otlp.per_second.or((!said).then_some(PER_SECOND)).filter(|limit| *limit > 0);
        let sampler = match (self.otlp.ratio, variable("OTEL_TRACES_SAMPLER")) {
            (Some(ratio), _) => Sampler { parent: true, ratio },
            (None, None) => Sampler { parent: true, ratio: 1.0 },
            (None, Some(name)) => Sampler::named(name.trim(), variable("OTEL_TRACES_SAMPLER_ARG").as_deref())
                .map_err(Invalid)?,
        };
        let number = |name: &str| match variable(name) {
            None => Ok(None),
            Some(text) => match text.trim().parse::<u32>() {
                Ok(number) if number > 0 => Ok(Some(number)),
                _ => Err(Invalid(format!("{name}: {text:?} is no positive number"))),
            },
        };
        let ms = |name: &str| number(name).map(|ms| ms.map(|ms| Duration::from_millis(ms.into())));
        let timeout = match ms("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")? {
            Some(timeout) => Some(timeout),
            None => ms("OTEL_EXPORTER_OTLP_TIMEOUT")?,
        };
        if let Some((name, value)) = either("COMPRESSION").filter(|(_, value)| value != "none") {
            return Err(Invalid(format!("{name}: {value:?} is not spoken; leave it out")));
        }
        // a collector that must be trusted, or that asks who we are: not to be passed over in silence
        for ending in ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"] {
            if let Some((name, _)) = either(ending) {
                let instead = "add the authority to the system's certificates (SSL_CERT_FILE), or send over a local collector";
                return Err(Invalid(format!("{name}: not supported; {instead}")));
            }
        }
        let mut headers = HeaderMap::new();
        if let Some((name, list)) = either("HEADERS") {
            for (key, value) in pairs(&name, &list)? {
                // what it says may be a token
                let wrong = |what| Invalid(format!("{name}: the {what} of a header can't be sent"));
                let key = HeaderName::try_from(key).map_err(|_| wrong("name"))?;
                let mut value = HeaderValue::try_from(value).map_err(|_| wrong("value"))?;
                value.set_sensitive(true);
                headers.insert(key, value);
            }
        }
        let mut resource: BTreeMap<String, String> = [
            ("service.name", service.to_owned()),
            ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id", uuid::Uuid::now_v7().to_string()),
            ("telemetry.sdk.name", "trireme".to_owned()),
            ("telemetry.sdk.language", "rust".to_owned()),
            ("telemetry.sdk.version", env!("CARGO_PKG_VERSION").to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        let attributes = "OTEL_RESOURCE_ATTRIBUTES";
        if let Some(list) = variable(attributes) {
            resource.extend(pairs(attributes, &list)?);
        }
        if let Some(name) = variable("OTEL_SERVICE_NAME") {
            resource.insert("service.name".to_owned(), name);
        }
        Ok(Some(Plan {
            endpoint,
            sampler,
            per_second,
            resource,
            headers,
            queue: number("OTEL_BSP_MAX_QUEUE_SIZE")?.map_or(QUEUE, |size| size as usize),
            delay: ms("OTEL_BSP_SCHEDULE_DELAY")?.unwrap_or(DELAY),
            timeout: timeout.unwrap_or(TIMEOUT),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(config: &Config, variables: &[(&str, &str)]) -> Result<Option<Plan>, Invalid> {
        let of =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        config.plan("trireme-worker", of)
    }

    fn at(endpoint: &str) -> Config {
        Config { otlp: Otlp { endpoint: Some(endpoint.into()), ..Otlp::default() }, ..Config::default() }
    }

    #[test]
    fn off_unless_somebody_says_where_to() {
        let none = Config::default();
        assert!(plan(&none, &[]).unwrap().is_none());
        assert!(plan(&none, &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]).unwrap().is_none());
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318/");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://own:4318/path");
        let endpoint = |config: &Config, variables: &[(&str, &str)]| {
            plan(config, variables).unwrap().map(|plan| plan.endpoint)
        };
        assert_eq!(endpoint(&none, &[all]).as_deref(), Some("http://all:4318/v1/traces"));
        assert_eq!(endpoint(&none, &[all, own]).as_deref(), Some("http://own:4318/path"));
        assert_eq!(endpoint(&at("https://set"), &[all, own]).as_deref(), Some("https://set/v1/traces"));
        assert_eq!(endpoint(&none, &[all, ("OTEL_SDK_DISABLED", "True")]), None);
        assert_eq!(endpoint(&none, &[all, ("OTEL_TRACES_EXPORTER", "none")]), None);
    }

    #[test]
    fn what_is_set_goes_before_the_variables() {
        let sampler = ("OTEL_TRACES_SAMPLER", "always_off");
        let mut config = at("http://c");
        assert_eq!(
            plan(&config, &[sampler]).unwrap().unwrap().sampler,
            Sampler { parent: false, ratio: 0.0 }
        );
        let per_second = |config: &Config, variables: &[(&str, &str)]| {
            plan(config, variables).unwrap().unwrap().per_second
        };
        assert_eq!((per_second(&config, &[]), per_second(&config, &[sampler])), (Some(PER_SECOND), None));
        config.otlp.ratio = Some(0.5);
        assert_eq!(plan(&config, &[sampler]).unwrap().unwrap().sampler, Sampler { parent: true, ratio: 0.5 });
        assert_eq!(per_second(&config, &[]), None);
        config.otlp.per_second = Some(7);
        assert_eq!(per_second(&config, &[]), Some(7));
        config.otlp = Otlp { per_second: Some(0), ratio: None, ..config.otlp };
        assert_eq!(per_second(&config, &[]), None);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let wrong =
            |config: &Config, variable: (&str, &str)| plan(config, &[variable]).unwrap_err().to_string();
        let set = at("http://c");
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_TRACES_SAMPLER", "xray"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/key.pem"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Bearer"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a b=c"),
            ("OTEL_RESOURCE_ATTRIBUTES", "=x"),
        ] {
            assert!(wrong(&set, (name, value)).contains(name), "{name}");
        }
        for endpoint in ["collector:4317", "https://h:99999", "http://h:4318/?x=1", "http://", "http://a b"] {
            assert!(wrong(&at(endpoint), ("", "")).contains("telemetry.otlp.endpoint"), "{endpoint}");
        }
        assert!(wrong(&Config::default(), ("OTEL_TRACES_EXPORTER", "zipkin")).contains("zipkin"));
        assert!(
            wrong(&Config::default(), ("OTEL_EXPORTER_OTLP_ENDPOINT", "x"))
                .contains("OTEL_EXPORTER_OTLP_ENDPOINT")
        );
        let mut config = set;
        config.otlp.ratio = Some(1.5);
        assert!(wrong(&config, ("", "")).contains("telemetry.otlp.ratio"));
    }

    #[test]
    fn the_service_has_a_name_and_secrets_are_not_shown() {
        let resource =
            |variables: &[(&str, &str)]| plan(&at("http://c"), variables).unwrap().unwrap().resource;
        assert_eq!(resource(&[])["service.name"], "trireme-worker");
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=b, team = a%20b");
        assert_eq!(resource(&[attributes])["service.name"], "b");
        assert_eq!(resource(&[attributes])["team"], "a b");
        assert_eq!(resource(&[attributes, ("OTEL_SERVICE_NAME", "c")])["service.name"], "c");
        let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20SECRET");
        let headers = plan(&at("http://c"), &[headers]).unwrap().unwrap().headers;
        assert_eq!(headers["authorization"], "Bearer SECRET");
        assert!(!format!("{headers:?}").contains("SECRET"));
        assert_eq!(shown("https://user:SECRET@host:4318/v1/traces?key=SECRET"), "https://host:4318");
    }
}
