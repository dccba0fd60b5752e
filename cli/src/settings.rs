//! The one configuration of the product: a file (`--config`), then `TRIREME__…` from the environment.
//! Parsed, checked and printable before any socket opens.

mod layers;
mod tls;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest time limit that makes sense of one call.
const MAX_TIME: Duration = Duration::from_secs(24 * 3600);

/// Everything that can be configured. Every field has a default.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// RabbitMQ; together with `redis` it makes a fleet.
    pub amqp: Amqp,
    /// Redis; together with `amqp` it makes a fleet.
    pub redis: Redis,
    /// The coordinator's HTTP server and sweeper.
    pub coordinator: trireme_coordinator::Config,
    /// The worker's pools and limits.
    pub worker: trireme_worker::Config,
    /// Model providers by name.
    pub providers: BTreeMap<String, trireme_llm::ProviderConfig>,
    /// Model aliases.
    pub models: BTreeMap<String, trireme_llm::ModelConfig>,
    /// HTTP tools by name.
    pub tools: BTreeMap<String, trireme_tool::ToolConfig>,
    /// MCP servers by name.
    pub mcp: BTreeMap<String, trireme_tool::McpConfig>,
    /// Bounds of every tool call.
    pub tool_limits: trireme_tool::Limits,
    /// Where tools may connect to.
    pub egress: trireme_tool::EgressConfig,
    /// Traces.
    pub telemetry: trireme_telemetry::traces::Config,
}

/// RabbitMQ.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Amqp {
    /// `amqp://user:password@host:5672/vhost`, or `amqps://`.
    #[serde(skip_serializing)]
    pub url: Option<String>,
    /// `classic` or `quorum`; see docs/decisions/hint-queues.md.
    pub queue_type: Option<trireme_backend_cluster::QueueType>,
    /// Certificates (PEM) of the authority that signed the server's; default: the public ones.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate (PEM, with its chain), where the server asks for one; needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// Its private key (PEM).
    pub key_file: Option<PathBuf>,
}

/// Redis.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// `redis://host:6379/0`, or `rediss://`.
    #[serde(skip_serializing)]
    pub url: Option<String>,
    /// Put before every key and queue name; default `trireme`.
    pub prefix: Option<String>,
    /// Number of shards, fixed at the first start; default 1.
    pub shards: Option<u16>,
    /// Connections per process; default 8.
    pub connections: Option<usize>,
    /// Certificates (PEM) of the authority that signed the server's; default: the public ones.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate (PEM, with its chain), where the server asks for one; needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// Its private key (PEM).
    pub key_file: Option<PathBuf>,
}

impl Settings {
    /// Reads `file`, if there is one, and the environment.
    pub fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        let mut environment = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with("TRIREME__")) else { continue };
            let Some(value) = value.to_str() else { bail!("{name}: is not UTF-8") };
            environment.insert(name.to_owned(), value.to_owned());
        }
        Self::from_parts(file, &environment)
    }

    fn from_parts(file: Option<&Path>, environment: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let settings: Self = layers::read(file, environment).context("configuration")?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> anyhow::Result<()> {
        self.worker.check().map_err(|error| anyhow::anyhow!("worker.{error}"))?;
        self.coordinator.validate().context("coordinator")?;
        self.telemetry.check()?;
        if self.redis.shards.is_some_and(|shards| !(1..=1024).contains(&shards)) {
            bail!("redis.shards: use 1 to 1024");
        }
        if self.redis.connections.is_some_and(|connections| !(1..=1024).contains(&connections)) {
            bail!("redis.connections: use 1 to 1024");
        }
        let limits = &self.tool_limits;
        for (field, bytes) in [("output_bytes", limits.output_bytes), ("args_bytes", limits.args_bytes)] {
            if !(1..=1 << 30).contains(&bytes) {
                bail!("tool_limits.{field}: use 1 to {}", 1 << 30);
            }
        }
        if limits.timeout.is_zero() || limits.timeout > MAX_TIME {
            bail!("tool_limits.timeout: use more than zero, at most 24h");
        }
        let word = |prefix: &String| {
            (1..=64).contains(&prefix.len())
                && prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        if self.redis.prefix.as_ref().is_some_and(|prefix| !word(prefix)) {
            bail!("redis.prefix: use 1 to 64 of A-Z a-z 0-9 _ . -");
        }
        self.amqp.files().load("amqp", "amqps", self.amqp.url.as_deref())?;
        self.redis.files().load("redis", "rediss", self.redis.url.as_deref())?;
        match (&self.amqp.url, &self.redis.url) {
            (Some(_), None) => {
                bail!("amqp.url is set but redis.url is not: a fleet needs both (TRIREME__REDIS__URL)")
            }
            (None, Some(_)) => {
                bail!("redis.url is set but amqp.url is not: a fleet needs both (TRIREME__AMQP__URL)")
            }
            _ => Ok(()),
        }
    }

    /// The two URLs of a fleet.
    pub fn urls(&self) -> anyhow::Result<(&str, &str)> {
        match (&self.amqp.url, &self.redis.url) {
            (Some(amqp), Some(redis)) => Ok((amqp, redis)),
            _ => bail!(
                "a fleet needs TRIREME__AMQP__URL and TRIREME__REDIS__URL (or amqp.url and redis.url in --config); \
                 without services use `trireme dev` or `trireme run`"
            ),
        }
    }

    /// The configuration in effect for people and logs: wherever a secret may stand, `***` does.
    pub fn shown(&self) -> anyhow::Result<String> {
        let mut shown = serde_json::to_value(self)?;
        hide(&mut shown, false);
        Ok(serde_json::to_string_pretty(&shown)?)
    }

    /// The fleet that the two URLs name.
    pub fn cluster(&self) -> anyhow::Result<trireme_backend_cluster::Config> {
        let (amqp, redis) = self.urls()?;
        let mut cluster = trireme_backend_cluster::Config::new(amqp, redis);
        if let Some(prefix) = &self.redis.prefix {
            cluster.prefix.clone_from(prefix);
        }
        cluster.shards = self.redis.shards.unwrap_or(cluster.shards);
        cluster.redis_connections = self.redis.connections.unwrap_or(cluster.redis_connections);
        cluster.queue_type = self.amqp.queue_type.unwrap_or(cluster.queue_type);
        cluster.amqp_tls = self.amqp.files().load("amqp", "amqps", Some(amqp))?;
        cluster.redis_tls = self.redis.files().load("redis", "rediss", Some(redis))?;
        Ok(cluster)
    }

    /// What the model providers are built from.
    pub fn llm(&self) -> trireme_llm::Config {
        trireme_llm::Config {
            providers: self.providers.clone(),
            models: self.models.clone(),
            ..trireme_llm::Config::default()
        }
    }

    /// What the tools are built from.
    pub fn tool(&self) -> trireme_tool::Config {
        trireme_tool::Config {
            tools: self.tools.clone(),
            mcp: self.mcp.clone(),
            limits: self.tool_limits.clone(),
            egress: self.egress.clone(),
        }
    }
}

/// Hides what operators put secrets into beside the fields made for them: queries and credentials of URLs, query
/// parameters and bodies of tools, arguments of stdio servers.
fn hide(value: &mut Value, all: bool) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                // of a tool `args` is a schema; of a stdio server a list of arguments
                let secret =
                    matches!(name.as_str(), "query" | "body") || (name == "args" && member.is_array());
                hide(member, all || secret);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, all)),
        Value::String(text) if all => *text = "***".into(),
        Value::String(text) => {
            if let Some((scheme, rest)) = text.split_once("://") {
                let host = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                let from = rest[..host].rfind('@').map_or(0, |at| at + 1);
                let credentials = if from > 0 { "***@" } else { "" };
                let (address, query) = rest[from..].split_once('?').unwrap_or((&rest[from..], ""));
                let query = if query.is_empty() { "" } else { "?***" };
                *text = format!("{scheme}://{credentials}{address}{query}");
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_env(pairs: &[(&str, &str)]) -> anyhow::Result<Settings> {
        Settings::from_parts(None, &pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect())
    }

    #[test]
    fn numbers_are_taken_as_they_are() {
        let refused = |name: &str, value: &str| format!("{:#}", from_env(&[(name, value)]).err().unwrap());
        for value in ["1.5", "-1", "1e3", "18446744073709551616", "0x10", "", "99999999"] {
            let error = refused("TRIREME__WORKER__SLOTS", value);
            assert!(error.contains("worker.slots"), "{value}: {error}");
        }
        let error = refused("TRIREME__WORKER__SLOTS", "1.5");
        assert!(error.contains("TRIREME__WORKER__SLOTS") && error.contains("1.5"), "{error}");
        assert!(refused("TRIREME__REDIS__SHARDS", "70000").contains("redis.shards"));
        assert!(refused("TRIREME__COORDINATOR__MAX_BODY", "9999999999999").contains("max_body"));
        assert!(refused("TRIREME__COORDINATOR__BODY_TIMEOUT", "1year").contains("body_timeout"));
        assert!(refused("TRIREME__TOOL_LIMITS__OUTPUT_BYTES", "0").contains("tool_limits.output_bytes"));
        assert_eq!(from_env(&[("TRIREME__WORKER__SLOTS", "7")]).unwrap().worker.slots, Some(7));
    }

    #[test]
    fn texts_that_look_like_numbers_stay_as_they_are() {
        for prefix in ["0123", "1e5", "007.50", "true", "null"] {
            let settings =
                from_env(&[("TRIREME__REDIS__PREFIX", prefix), ("TRIREME__WORKER__SLOTS", "3")]).unwrap();
            assert_eq!(settings.redis.prefix.as_deref(), Some(prefix));
            assert_eq!(settings.worker.slots, Some(3));
        }
        let error = format!("{:#}", from_env(&[("TRIREME__WORKER__SLOTS__X", "1")]).err().unwrap());
        assert!(error.contains("worker.slots"), "{error}");
        assert!(from_env(&[("TRIREME____WORKER", "1")]).is_err());
    }

    #[test]
    fn the_environment_gives_a_fleet_its_two_urls() {
        let settings = from_env(&[("TRIREME__AMQP__URL", "amqp://a"), ("TRIREME__REDIS__URL", "redis://r")]);
        assert_eq!(settings.unwrap().urls().unwrap(), ("amqp://a", "redis://r"));
        let error = format!("{:#}", from_env(&[("TRIREME__AMQP__URL", "amqp://a")]).err().unwrap());
        assert!(error.contains("TRIREME__REDIS__URL"), "{error}");
        assert!(format!("{:#}", from_env(&[]).unwrap().urls().unwrap_err()).contains("trireme dev"));
    }

    #[test]
    fn an_unknown_field_and_a_wrong_value_are_named() {
        let error = format!("{:#}", from_env(&[("TRIREME__WORKER__SLOTZ", "1")]).err().unwrap());
        assert!(error.contains("slotz"), "{error}");
        let error = format!("{:#}", from_env(&[("TRIREME__WORKER__SLOTS", "many")]).err().unwrap());
        assert!(error.contains("worker.slots"), "{error}");
    }

    #[test]
    fn secrets_in_other_places_are_hidden() {
        let mut value = serde_json::json!({
            "providers": {"x": {"base_url": "https://u:SECRET@h/v1?key=SECRET", "proxy": "http://u:SECRET@p:1"}},
            "tools": {"t": {"url": "https://h/a?k=SECRET", "query": {"k": "SECRET"}, "body": ["SECRET"],
                            "args": {"type": "object"}}},
            "mcp": {"m": {"stdio": {"command": "server", "args": ["--token=SECRET"]}}},
        });
        hide(&mut value, false);
        let text = value.to_string();
        assert!(!text.contains("SECRET"), "{text}");
        for kept in
            ["https://***@h/v1?***", "http://***@p:1", "https://h/a?***", r#""type":"object""#, "server"]
        {
            assert!(text.contains(kept), "{kept} is not in {text}");
        }
    }

    #[test]
    fn urls_are_not_printed() {
        let settings = from_env(&[
            ("TRIREME__AMQP__URL", "amqp://u:secret@a"),
            ("TRIREME__REDIS__URL", "redis://:secret@r"),
        ]);
        assert!(!serde_json::to_string(&settings.unwrap()).unwrap().contains("secret"));
    }
}
