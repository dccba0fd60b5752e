//! The one configuration of the product: a file (`--config`), then `TRIREME__…` from the environment.
//! Parsed, checked and printable before any socket opens.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
}

impl Settings {
    /// Reads `file`, if there is one, and the environment.
    pub fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        let environment = std::env::vars().filter(|(name, _)| name.starts_with("TRIREME__")).collect();
        Self::from_parts(file, environment)
    }

    fn from_parts(
        file: Option<&Path>,
        environment: std::collections::HashMap<String, String>,
    ) -> anyhow::Result<Self> {
        let mut builder = config::Config::builder();
        if let Some(file) = file {
            if !file.exists() {
                bail!("{}: no such file", file.display());
            }
            builder = builder.add_source(config::File::from(file));
        }
        let environment = config::Environment::with_prefix("TRIREME")
            .prefix_separator("__")
            .separator("__")
            .try_parsing(true)
            .source(Some(environment));
        let place = file.map_or_else(|| "environment".to_owned(), |file| file.display().to_string());
        let settings: Self = builder
            .add_source(environment)
            .build()
            .and_then(config::Config::try_deserialize)
            .with_context(|| format!("configuration ({place})"))?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> anyhow::Result<()> {
        self.worker.check().map_err(|error| anyhow::anyhow!("worker.{error}"))?;
        self.coordinator.validate().context("coordinator")?;
        if self.redis.shards.is_some_and(|shards| !(1..=1024).contains(&shards)) {
            bail!("redis.shards: use 1 to 1024");
        }
        let word = |prefix: &String| {
            (1..=64).contains(&prefix.len())
                && prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        if self.redis.prefix.as_ref().is_some_and(|prefix| !word(prefix)) {
            bail!("redis.prefix: use 1 to 64 of A-Z a-z 0-9 _ . -");
        }
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
        Settings::from_parts(None, pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect())
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
