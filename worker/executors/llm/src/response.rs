//! What comes back: events while the answer streams, then the whole answer.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Something that happened while the answer streamed, in wire order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ChatEvent<'a> {
    /// The first generated token of any kind arrived; once per call, before any text or tool call.
    FirstToken,
    /// More text of the answer; never empty.
    TextDelta(&'a str),
    /// A tool call whose arguments have closed. The answer may still go on, so a tool with side
    /// effects should wait for the response; a read-only one can start now.
    ToolCall(&'a ToolCall),
    /// Tokens used so far as the provider reports them: cumulative, the last one counts. It comes
    /// before the end on Anthropic, so even a call that is cut later has its cost booked.
    Usage(&'a Usage),
}

/// A tool call with complete, parsed arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Position among the calls of this turn, from 0, in the order in which they began.
    pub index: u32,
    /// The provider's id, unique within the turn; made up as `call_<index>` when it sent none.
    /// A repeated request gets other ids: never use it as an effect key.
    pub id: String,
    /// Name of the tool.
    pub name: String,
    /// Arguments; valid JSON, not yet checked against the tool's schema.
    pub arguments: Value,
}

/// Tokens of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Usage {
    /// All prompt tokens, cached ones included (Anthropic's three counts are added up).
    pub input: u64,
    /// All generated tokens, reasoning included.
    pub output: u64,
    /// Part of `input` that was read from the provider's prompt cache.
    pub cached_input: u64,
    /// Part of `input` that was written to the provider's prompt cache.
    pub cache_write_input: u64,
    /// Part of `output` spent on reasoning, where reported.
    pub reasoning: u64,
}

/// Why generation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model was done, or met a stop string.
    Stop,
    /// The token limit was reached: the text is cut.
    Length,
    /// The model asks for tools.
    ToolCalls,
    /// A filter cut the answer, or the model refused; the text then holds the refusal, if any.
    ContentFilter,
    /// Another reason, as the provider spells it.
    Other(String),
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatResponse {
    /// Text of the answer; empty when it is only tool calls.
    pub text: String,
    /// Tool calls in the order in which they began.
    pub tool_calls: Vec<ToolCall>,
    /// Why generation ended.
    pub finish_reason: FinishReason,
    /// Tokens, or zeros when `usage_reported` is false.
    pub usage: Usage,
    /// Whether the provider reported usage at all.
    pub usage_reported: bool,
    /// Cost in millionths of a US dollar, when the model has prices and usage was reported.
    pub cost_usd_micros: Option<u64>,
    /// From sending the request to the first generated token.
    pub ttft: Duration,
    /// From the call to its end, waiting for a slot included.
    pub duration: Duration,
    /// `provider/model` as asked for, alias resolved.
    pub model: String,
    /// Model as the provider names it in its answer (often a dated snapshot).
    pub served_model: Option<String>,
    /// The provider's id of this answer.
    pub id: Option<String>,
    /// The answer as JSON, valid against the request's `output_schema`. `None` without a schema,
    /// and when the turn asks for tools instead of answering.
    pub json: Option<Value>,
    /// `json` needed local repair (code fences or prose removed, brackets closed).
    pub json_repaired: bool,
}
