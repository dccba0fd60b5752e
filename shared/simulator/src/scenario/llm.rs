//! Rules for model calls.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Fault, Latency, Range, Span, TextMatch};
use crate::Kind;

/// One rule: when it applies, what is answered, what goes wrong.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LlmRule {
    /// Shown in the ledger; `rules[i]` unless told.
    pub name: Option<String>,
    /// All given conditions must hold; none means always.
    pub when: LlmWhen,
    /// Applies to the first so many matching calls only; later ones try the next rule.
    pub times: Option<u64>,
    /// Applies to the first so many calls of each distinct content only. Unlike `times` this does
    /// not depend on the order of calls: "each request fails once".
    pub times_each: Option<u64>,
    /// Applies with this probability, drawn from the call's content and occurrence.
    pub chance: Option<f64>,
    /// The answer; the repeatable echo unless told.
    pub respond: LlmResponse,
    /// What goes wrong; nothing unless told.
    pub fault: Option<Fault>,
}

/// Conditions on a model call.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LlmWhen {
    /// `openai` or `anthropic`.
    pub api: Option<Kind>,
    /// Glob (`*`, `?`) on the whole model name.
    pub model: Option<String>,
    /// On the text of the last user message that has any.
    pub last_user: Option<TextMatch>,
    /// On the system text.
    pub system: Option<TextMatch>,
    /// On all text of the request, tool results included.
    pub anywhere: Option<TextMatch>,
    /// On the text of the first user message that has any.
    pub goal: Option<TextMatch>,
    /// On all tool results so far, joined by newlines.
    pub all_results: Option<TextMatch>,
    /// How many tool results there are so far.
    pub result_count: Option<Range>,
    /// On the tool results at the end of the conversation, joined by newlines.
    pub tool_results: Option<TextMatch>,
    /// Whether the conversation ends in tool results.
    pub has_tool_results: Option<bool>,
    /// Glob on the name of a tool whose result ends the conversation.
    pub tool_result_of: Option<String>,
    /// Glob on the name of a tool that the request offers.
    pub offers_tool: Option<String>,
    /// Whether the request offers any tool.
    pub offers_tools: Option<bool>,
    /// Whether several calls may come in one turn: OpenAI's `parallel_tool_calls`, Anthropic's
    /// `tool_choice.disable_parallel_tool_use` the other way round. They may unless the request says no.
    pub parallel: Option<bool>,
    /// 1 plus the number of assistant messages so far.
    pub turn: Option<Range>,
    /// Streamed or not.
    pub stream: Option<bool>,
    /// The nth call, from 1, that meets all the other conditions of this rule.
    pub nth: Option<Range>,
}

/// What a model answers and how fast.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LlmResponse {
    /// Template of the text.
    pub text: Option<String>,
    /// Value sent as JSON text; its strings are templates. Instead of `text`.
    pub json: Option<Value>,
    /// Tool calls after the text, in order.
    pub tool_calls: Vec<ToolCall>,
    /// Until the first token.
    pub time_to_first_token: Option<Latency>,
    /// Prompt tokens read in a second, before the first token and on top of `time_to_first_token`.
    pub prompt_tokens_per_second: Option<f64>,
    /// Pace after that; unlimited unless told.
    pub tokens_per_second: Option<f64>,
    /// Least time between two chunks of the stream.
    pub chunk_interval: Option<Span>,
    /// Numbers to report instead of the counted ones.
    pub usage: UsageOverride,
    /// Why the answer ends; follows from the answer unless told.
    pub stop: Option<Stop>,
}

/// One tool call of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// The tool.
    pub name: String,
    /// A map whose strings are templates, or one template of the raw argument text (which may be
    /// invalid JSON on purpose). `{}` unless told.
    #[serde(default)]
    pub arguments: Value,
}

/// Token numbers to report instead of the counted ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UsageOverride {
    /// Tokens of the request.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer.
    pub completion_tokens: Option<u64>,
    /// Tokens of the request that were read from a prompt cache; none unless told.
    pub cached_tokens: Option<u64>,
}

/// Why an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The model had said all: `stop` / `end_turn`.
    Stop,
    /// The token limit: `length` / `max_tokens`.
    Length,
    /// It waits for tool results: `tool_calls` / `tool_use`.
    ToolCalls,
    /// `content_filter` / `refusal`.
    Refusal,
}
