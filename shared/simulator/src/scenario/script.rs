//! Scripts: how a model pursues a goal, told once for every style of asking it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::TextMatch;

/// A goal, the tool calls that lead to it and the answer that follows from their results. From it follow turns
/// with native tool calls, plans in text, and answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Shown in the ledger; `scripts[i]` unless told.
    #[serde(default)]
    pub name: Option<String>,
    /// On the text of the user messages.
    pub goal: TextMatch,
    /// The calls, each after those whose results it uses.
    pub steps: Vec<Step>,
    /// Template of the text before the calls of a turn; none unless told. Plans have none: their grammar is terse.
    #[serde(default)]
    pub thought: Option<String>,
    /// Template of the answer.
    pub answer: String,
    /// Said instead of `answer` where the request has a JSON schema; its strings are templates.
    #[serde(default)]
    pub json: Option<Value>,
    /// How many results the answer needs at least, in which text alone ("no result in time") is none. With fewer, a model
    /// that is offered a tool `replan` calls it. 0 unless told: it answers from whatever is there.
    #[serde(default)]
    pub needs: usize,
    /// Where the model gets stuck; nowhere unless told.
    #[serde(default)]
    pub stuck: Option<Stuck>,
}

/// One call of a script.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Letters, digits and `_`; later steps and the templates refer to it.
    pub id: String,
    /// The tool.
    pub tool: String,
    /// Arguments. A string `$id.field` is that part of an earlier result and keeps its type; `${id.field}` inside a
    /// string is its text.
    #[serde(default)]
    pub arguments: Map<String, Value>,
}

/// A model that asks for the same again, in other words, instead of going on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stuck {
    /// The step whose call is repeated once it has its result.
    pub at: String,
    /// How often, unless it is nudged: by a user message after the first turn, or by a result that speaks of
    /// `already` or `repeat`.
    pub times: u64,
}
