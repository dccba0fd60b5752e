//! Rules for HTTP tools.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Fault, Latency, Match, Range};

/// One rule for tools: when it applies, what is answered, what goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolRule {
    /// Shown in the ledger; `tools[i]` unless told.
    #[serde(default)]
    pub name: Option<String>,
    /// Glob (`*`, `?`) on the name in the path.
    pub tool: String,
    /// Further conditions.
    #[serde(default)]
    pub when: ToolWhen,
    /// Applies to the first so many matching calls only; later ones try the next rule.
    #[serde(default)]
    pub times: Option<u64>,
    /// Applies to the first so many calls of each distinct content only.
    #[serde(default)]
    pub times_each: Option<u64>,
    /// Applies with this probability, drawn from the call's content and occurrence.
    #[serde(default)]
    pub chance: Option<f64>,
    /// How long the answer takes; none unless told.
    #[serde(default)]
    pub latency: Latency,
    /// The answer; name and arguments unless told.
    #[serde(default)]
    pub respond: ToolResponse,
    /// What goes wrong; nothing unless told.
    #[serde(default)]
    pub fault: Option<Fault>,
}

/// Conditions on a tool call.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ToolWhen {
    /// Conditions by argument name; a value that is no string is compared as compact JSON, a
    /// missing one never matches.
    pub args: Match,
    /// The nth call, from 1, that meets all the other conditions of this rule.
    pub nth: Option<Range>,
}

/// What a tool answers: one of the three.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ToolResponse {
    /// JSON value; its strings are templates.
    pub json: Option<Value>,
    /// Template of a `text/plain` answer.
    pub text: Option<String>,
    /// A JSON string of so many bytes, for size limits; at most 1 GiB.
    pub filler_bytes: Option<u64>,
}
