//! The operator's declarations of tools and MCP servers, as they stand in the config file.
//!
//! Everything here is data; [`crate::Builder`] turns it into tools and says what is wrong with it.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use trireme_secrets::{Missing, SecretName};

use crate::{AllowRule, Effect};

/// Tools, MCP servers and their limits.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// HTTP tools by name.
    pub tools: BTreeMap<String, ToolConfig>,
    /// MCP servers by name.
    pub mcp: BTreeMap<String, McpConfig>,
    /// Bounds of every call.
    pub limits: Limits,
    /// Where hosts that come out of arguments may lie.
    pub egress: EgressConfig,
}

/// Bounds of every call.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest output in bytes, after decompression. Default 8 MiB.
    pub output_bytes: usize,
    /// Largest arguments in bytes of JSON. Default 1 MiB.
    pub args_bytes: usize,
    /// Longest time of one call for tools that do not say. Default 30 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

/// Where hosts that come out of arguments may lie: by default any public address, by https.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressConfig {
    /// Hosts (`intranet.example`, `*.example`), addresses and networks (`10.0.0.0/8`) that may be
    /// reached although they are not public, by http too, on any port.
    pub allow: Vec<AllowRule>,
    /// Also allow plain http (port 80) to public addresses. Default false.
    pub http: bool,
}

/// An HTTP tool. `url`, `query`, `body` and `resource` are templates over `args`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolConfig {
    /// For people and models.
    #[serde(default)]
    pub description: String,
    /// HTTP method. Default GET.
    #[serde(default)]
    pub method: Method,
    /// URL template; values are percent-encoded, unless the URL is one whole value.
    pub url: String,
    /// Headers, sent as they stand. Never shown.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
    /// Query parameters; a whole value that is null or absent leaves its parameter out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
    /// JSON body whose strings are templates; a whole `{{ args.x }}` keeps its type. Without it,
    /// POST, PUT and PATCH send the arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// JSON schema of the arguments. Default: any object. `default`s of its top level are filled in.
    #[serde(default = "any_object")]
    pub args: Value,
    /// Longest time of one call. Default [`Limits::timeout`].
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// What a call may do. Default `write`.
    #[serde(default)]
    pub effect: Effect,
    /// Template that names what a call touches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// JSON pointer of the part of the answer that is the result. Default: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Most calls at once in one process. Default: no bound of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<usize>,
    /// Let a host that comes out of arguments be any host at all. Default false.
    #[serde(default)]
    pub allow_private: bool,
}

/// HTTP methods that a tool may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Method {
    #[default]
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

/// An MCP server: exactly one of `stdio` and `http`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct McpConfig {
    /// A child process of the worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdio: Option<McpStdio>,
    /// A remote server that speaks streamable HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<McpHttp>,
    /// When to start the session. Default `eager`.
    pub start: Start,
    /// Longest time for starting and for listing the tools. Default 20 s.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub start_timeout: Option<Duration>,
    /// Longest time of one call. Default [`Limits::timeout`].
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Effect of tools that are not listed in `tools`. Default `write`; a server's own hints are
    /// not trusted.
    pub effect: Effect,
    /// How the server's tools are named. Default `prefixed`.
    pub names: Naming,
    /// Most calls at once to this server from one process. Default 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_once: Option<usize>,
    /// What the operator says about single tools, by the server's name for them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tools: BTreeMap<String, McpToolConfig>,
}

/// Starts an MCP server as a child process, in its own process group.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct McpStdio {
    /// Program, best as an absolute path.
    pub command: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its whole environment: nothing is inherited. Never shown.
    #[serde(default)]
    pub env: BTreeMap<String, Secret>,
    /// Names of variables that the child gets from the worker's environment, such as `PATH`.
    #[serde(default)]
    pub pass_env: Vec<String>,
}

/// Where an MCP server listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct McpHttp {
    /// Its endpoint, such as `http://127.0.0.1:8000/mcp`.
    pub url: String,
    /// Headers of every request. Never shown.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
}

/// What the operator says about one tool of an MCP server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct McpToolConfig {
    /// What a call may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// Longest time of one call.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// When an MCP session starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// When the registry is built; a server that does not start fails the build.
    #[default]
    Eager,
    /// At the first call. Until then its tools are not in the list.
    Lazy,
}

/// How tools of an MCP server are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Naming {
    /// `server.tool`.
    #[default]
    Prefixed,
    /// `tool`.
    Plain,
}

/// A string that is never shown: its `Debug` and its serialised form are `***`. Where it ends in `secret://NAME`, that
/// is looked up when it is used, see [`trireme_secrets`].
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self { output_bytes: 8 * 1024 * 1024, args_bytes: 1024 * 1024, timeout: Duration::from_secs(30) }
    }
}

// === impl ToolConfig ===

impl ToolConfig {
    /// A GET tool with every other field at its default.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            description: String::new(),
            method: Method::Get,
            url: url.into(),
            headers: BTreeMap::new(),
            query: BTreeMap::new(),
            body: None,
            args: any_object(),
            timeout: None,
            effect: Effect::default(),
            resource: None,
            result: None,
            at_once: None,
            allow_private: false,
        }
    }
}

// === impl Secret ===

impl Secret {
    /// The string itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Secret {
    /// Whether it names a secret instead of being one.
    pub(crate) fn is_named(&self) -> bool {
        self.0.contains(trireme_secrets::SCHEME)
    }

    /// The string itself, with the secret that it names.
    pub(crate) fn find(&self) -> Result<String, Missing> {
        match SecretName::parse(&self.0) {
            None => Ok(self.0.clone()),
            Some(named) => named.and_then(|(before, name)| Ok(format!("{before}{}", name.find()?))),
        }
    }

    /// What is wrong with the name, if it has one.
    pub(crate) fn check_name(&self) -> Result<(), Missing> {
        SecretName::parse(&self.0).map_or(Ok(()), |named| named.map(|_| ()))
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

fn any_object() -> Value {
    serde_json::json!({"type": "object"})
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_whole_config_is_read_and_printed_without_secrets() {
        let config: Config = serde_json::from_value(json!({
            "tools": {"search": {"url": "http://h/{{ args.q }}", "method": "POST", "timeout": "1500ms",
                "effect": "read", "headers": {"authorization": "Bearer hunter2"}}},
            "mcp": {"files": {"stdio": {"command": "/bin/x", "env": {"TOKEN": "hunter2"}}, "start": "lazy"}},
            "limits": {"output_bytes": 10},
            "egress": {"allow": ["127.0.0.1", "10.0.0.0/8", "*.corp.example"]},
        }))
        .unwrap();
        assert_eq!(config.tools["search"].timeout, Some(Duration::from_millis(1500)));
        assert_eq!(config.limits.args_bytes, 1024 * 1024);
        let printed = format!("{config:?}{}", serde_json::to_string(&config).unwrap());
        assert!(!printed.contains("hunter2"), "{printed}");
    }

    #[test]
    fn unknown_fields_are_errors() {
        for bad in [
            json!({"toolz": {}}),
            json!({"tools": {"a": {"url": "u", "verb": "GET"}}}),
            json!({"mcp": {"a": {"command": "sh"}}}),
            json!({"limits": {"output": 1}}),
        ] {
            let error = serde_json::from_value::<Config>(bad).unwrap_err().to_string();
            assert!(error.contains("unknown field"), "{error}");
        }
    }
}
