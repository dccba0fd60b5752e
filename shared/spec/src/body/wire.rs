//! A body as it is stored: small JSON with the templates as they were written.

use serde::{Deserialize, Serialize};
use trireme_model::{Payload, merge::Merge};

use super::Role;
use crate::agent::AgentCall;

/// Exactly one of `llm`, `tool`, `map` and `agent`, or `merge` alone for a join.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Wire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm: Option<LlmWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<ToolWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<MapWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentWire>,
    /// Of joins and maps; whoever reads their value merges by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<Merge>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LlmWire {
    pub model: String,
    /// Alias and what it stands for, where `model` is a template and may name one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    pub messages: Vec<MessageWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Payload>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stream: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MessageWire {
    pub role: Role,
    pub content: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ToolWire {
    pub name: String,
    pub args: Payload,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MapWire {
    pub over: Payload,
    #[serde(rename = "do")]
    pub each: Box<Wire>,
}

/// The call with templates where it will have texts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AgentWire {
    /// Alias and what it stands for, where one of the models is a template and may name one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<(String, String)>,
    #[serde(flatten)]
    pub call: AgentCall,
}
