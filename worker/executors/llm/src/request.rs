//! One chat request in the words of neither API; [`crate::wire`] turns it into each.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ToolCall;

/// A chat request. Only `model` and at least one message are needed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatRequest {
    /// An alias from configuration (`fast`) or `provider/model` (`openai/gpt-4.1-mini`).
    pub model: String,
    /// System prompt; sent first, so keep it static for the provider's prompt cache.
    pub system: Option<String>,
    /// The conversation, oldest first.
    pub messages: Vec<Message>,
    /// Tools on offer. Keep their order stable: they are part of the cached prefix.
    pub tools: Vec<Tool>,
    /// Whether and which tool must be called. Ignored without tools.
    pub tool_choice: ToolChoice,
    /// `Some(false)` asks for at most one tool call in the turn.
    pub parallel_tool_calls: Option<bool>,
    /// JSON schema that the answer must satisfy; the result is in [`crate::ChatResponse::json`].
    pub output_schema: Option<Value>,
    /// Most tokens to generate. Falls back to the model's configuration; Anthropic needs one and
    /// gets 4,096 when neither says.
    pub max_tokens: Option<u32>,
    /// Sampling temperature. Falls back to the model's configuration, else the provider's default.
    pub temperature: Option<f32>,
    /// Strings that end generation.
    pub stop: Vec<String>,
    /// Which run and task the call belongs to.
    pub metadata: Metadata,
    /// Stable key of this call, sent as `Idempotency-Key`. It must not contain the attempt, or a
    /// callee that honours it cannot recognise a repeat.
    pub idempotency_key: Option<String>,
    /// Hand over calls whose arguments are no JSON, with the text as their arguments, instead of failing the whole
    /// answer; for callers that check arguments and tell the model what was wrong.
    pub keep_broken_calls: bool,
    /// Routing key for the provider's prompt cache.
    pub prompt_cache_key: Option<String>,
}

/// Names of the run and task, sent as `X-Trireme-Run` and `X-Trireme-Task` for gateways and logs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Run id.
    pub run: Option<String>,
    /// Task id.
    pub task: Option<String>,
}

/// One message of the conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "lowercase", deny_unknown_fields)]
pub enum Message {
    /// What the user said.
    User {
        /// Text.
        content: String,
    },
    /// What the model said before.
    Assistant {
        /// Text; empty when the turn was only tool calls.
        #[serde(default)]
        content: String,
        /// Tool calls of that turn, each answered by a later `Tool` message.
        #[serde(default)]
        tool_calls: Vec<ToolCall>,
    },
    /// The result of one tool call.
    Tool {
        /// [`ToolCall::id`] that this answers.
        tool_call_id: String,
        /// The result as text, JSON where it is structured.
        content: String,
        /// The tool failed and `content` says why. Anthropic is told by `is_error`; OpenAI has no
        /// such field and sees only the content.
        #[serde(default)]
        is_error: bool,
    },
}

/// A tool on offer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Name, 1 to 64 of `[A-Za-z0-9_-]`.
    pub name: String,
    /// What it does, for the model.
    #[serde(default)]
    pub description: String,
    /// JSON schema of its arguments, an object.
    pub parameters: Value,
}

/// Which tool the model must call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No tool.
    None,
    /// At least one tool.
    Required,
    /// This one.
    Tool(String),
}

impl ChatRequest {
    /// A request to `model` with one user message.
    pub fn new(model: impl Into<String>, prompt: impl Into<String>) -> Self {
        Self { model: model.into(), messages: vec![Message::user(prompt)], ..Self::default() }
    }

    /// Every text that must not come back in an error excerpt.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.system.as_deref().into_iter().chain(self.messages.iter().map(|message| match message {
            Message::User { content }
            | Message::Assistant { content, .. }
            | Message::Tool { content, .. } => content.as_str(),
        }))
    }
}

impl ChatRequest {
    /// Bytes of what the model is shown: instructions, messages and tools.
    pub fn prompt_bytes(&self) -> usize {
        let json = |value: &Value| value.to_string().len();
        let calls = self.messages.iter().flat_map(|message| match message {
            Message::Assistant { tool_calls, .. } => &tool_calls[..],
            Message::User { .. } | Message::Tool { .. } => &[],
        });
        let texts = self.texts().map(str::len);
        let calls = calls.map(|call| call.name.len() + json(&call.arguments));
        let tools = self.tools.iter();
        let tools = tools.map(|tool| tool.name.len() + tool.description.len() + json(&tool.parameters));
        texts.chain(calls).chain(tools).sum()
    }
}

impl Message {
    /// A user message.
    pub fn user(content: impl Into<String>) -> Self {
        Self::User { content: content.into() }
    }

    /// An assistant turn: its text and tool calls.
    pub fn assistant(content: impl Into<String>, tool_calls: Vec<ToolCall>) -> Self {
        Self::Assistant { content: content.into(), tool_calls }
    }

    /// A successful tool result.
    pub fn tool(tool_call_id: impl Into<String>, content: impl Into<String>) -> Self {
        Self::Tool { tool_call_id: tool_call_id.into(), content: content.into(), is_error: false }
    }
}
