//! Anthropic's Messages API, version 2023-06-01.

use serde::Serialize;
use serde_json::{Value, json};

use crate::config::StructuredOutput;
use crate::providers::ModelRef;
use crate::request::{ChatRequest, Message, ToolChoice};
use crate::wire::{ANSWER, system};

mod stream;

pub(crate) use stream::Stream;

/// The API wants a limit; this is what it gets when neither request nor configuration has one.
const DEFAULT_MAX_TOKENS: u32 = 4_096;

/// Body of `POST /v1/messages`.
#[derive(Serialize)]
pub(crate) struct Body<'a> {
    model: &'a str,
    max_tokens: u32,
    stream: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<WireTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<Value>,
    messages: Vec<WireMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop_sequences: &'a [String],
}

#[derive(Serialize)]
struct WireTool<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    input_schema: &'a Value,
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

#[derive(Serialize)]
struct Block<'a> {
    #[serde(flatten)]
    content: Content<'a>,
    /// The prompt up to and with this block is to be cached.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<Value>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Content<'a> {
    Text {
        text: &'a str,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: &'a Value,
    },
    ToolResult {
        tool_use_id: &'a str,
        content: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
}

impl<'a> Body<'a> {
    pub(crate) fn new(model: &'a ModelRef, request: &'a ChatRequest) -> Self {
        let output = model.structured_output();
        let schema = request.output_schema.as_ref();
        let answer_tool = schema.filter(|_| output == StructuredOutput::Tool);
        let mut tools: Vec<_> = request
            .tools
            .iter()
            .map(|tool| WireTool {
                name: &tool.name,
                description: &tool.description,
                input_schema: &tool.parameters,
            })
            .collect();
        tools.extend(answer_tool.map(|schema| WireTool {
            name: ANSWER,
            description: "Gives the final answer.",
            input_schema: schema,
        }));
        let cached = request.prompt_cache_key.is_some();
        let mut messages = messages(&request.messages);
        if cached {
            mark(&mut messages);
        }
        let system = system(request, output).filter(|text| !text.is_empty());
        Self {
            model: &model.name,
            max_tokens: request.max_tokens.or(model.config.max_tokens).unwrap_or(DEFAULT_MAX_TOKENS),
            stream: true,
            tool_choice: tool_choice(request, answer_tool.is_some()).filter(|_| !tools.is_empty()),
            tools,
            system: system.map(|text| match cached {
                true => json!([{"type": "text", "text": text, "cache_control": breakpoint()}]),
                false => json!(text),
            }),
            messages,
            output_config: schema
                .filter(|_| output == StructuredOutput::JsonSchema)
                .map(|schema| json!({"format": {"type": "json_schema", "schema": schema}})),
            temperature: request.temperature.or(model.config.temperature),
            stop_sequences: &request.stop,
        }
    }
}

fn tool_choice(request: &ChatRequest, answer_tool: bool) -> Option<Value> {
    let mut choice = match &request.tool_choice {
        // With other tools on offer the model may use those first, unless it may use none.
        choice if answer_tool && !request.tools.is_empty() && *choice != ToolChoice::None => {
            json!({"type": "any"})
        }
        _ if answer_tool => json!({"type": "tool", "name": ANSWER}),
        ToolChoice::Auto if request.parallel_tool_calls.is_none() => return None,
        ToolChoice::Auto => json!({"type": "auto"}),
        ToolChoice::None => return Some(json!({"type": "none"})),
        ToolChoice::Required => json!({"type": "any"}),
        ToolChoice::Tool(name) => json!({"type": "tool", "name": name}),
    };
    if let Some(parallel) = request.parallel_tool_calls {
        choice["disable_parallel_tool_use"] = json!(!parallel);
    }
    Some(choice)
}

fn breakpoint() -> Value {
    json!({"type": "ephemeral"})
}

/// Where a conversation is cached, next to its system prompt; the API takes four such places in all. The first
/// message and the last one; and the one that was the last when the turn before was asked for, because a reader looks
/// back only 20 blocks from a place, and the results of a wide turn are more.
fn mark(messages: &mut [WireMessage<'_>]) {
    let Some(last) = messages.len().checked_sub(1) else { return };
    let turn = messages.iter().rposition(|message| message.role == "assistant");
    for at in [Some(0), Some(last), turn.and_then(|turn| turn.checked_sub(1))].into_iter().flatten() {
        if let Some(block) = messages[at].content.last_mut() {
            block.cache_control = Some(breakpoint());
        }
    }
}

/// The results of one turn's tool calls must stand in one user message, right after that turn.
fn messages(messages: &[Message]) -> Vec<WireMessage<'_>> {
    let mut out: Vec<WireMessage<'_>> = Vec::with_capacity(messages.len());
    let mut after_tool = false;
    for message in messages {
        let is_tool = matches!(message, Message::Tool { .. });
        let (role, content) = match message {
            Message::User { content } => ("user", vec![Content::Text { text: content }]),
            Message::Assistant { content, tool_calls } => {
                // Empty text blocks are refused.
                let text = Some(content.as_str()).filter(|text| !text.is_empty());
                let text = text.map(|text| Content::Text { text });
                let calls = tool_calls.iter().map(|call| Content::ToolUse {
                    id: &call.id,
                    name: &call.name,
                    input: &call.arguments,
                });
                ("assistant", text.into_iter().chain(calls).collect())
            }
            Message::Tool { tool_call_id, content, is_error } => {
                let result = Content::ToolResult { tool_use_id: tool_call_id, content, is_error: *is_error };
                ("user", vec![result])
            }
        };
        let content: Vec<_> =
            content.into_iter().map(|content| Block { content, cache_control: None }).collect();
        match out.last_mut() {
            Some(last) if is_tool && after_tool => last.content.extend(content),
            _ => out.push(WireMessage { role, content }),
        }
        after_tool = is_tool;
    }
    out
}

#[cfg(test)]
mod tests;
