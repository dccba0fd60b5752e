//! Chat Completions as spoken by OpenAI and everything that is compatible with it.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::config::StructuredOutput;
use crate::providers::ModelRef;
use crate::request::{ChatRequest, Message, Tool, ToolChoice};
use crate::wire::{ANSWER, system};

mod calls;
mod stream;

pub(crate) use stream::Stream;

/// Body of `POST /chat/completions`; borrows, since prompts are large and calls many.
#[derive(Serialize)]
pub(crate) struct Body<'a> {
    model: &'a str,
    messages: Vec<WireMessage<'a>>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<WireTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_key: Option<&'a str>,
}

enum WireMessage<'a> {
    System(String),
    Other(&'a Message),
}

#[derive(Serialize)]
struct WireTool<'a> {
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    parameters: &'a Value,
}

impl<'a> Body<'a> {
    pub(crate) fn new(model: &'a ModelRef, request: &'a ChatRequest) -> Self {
        let provider = &model.provider;
        let output = model.structured_output();
        let max_tokens = request.max_tokens.or(model.config.max_tokens);
        let schema = request.output_schema.as_ref();
        let answer_tool = schema.filter(|_| output == StructuredOutput::Tool);

        let system = system(request, output).map(WireMessage::System);
        let messages = request.messages.iter().map(WireMessage::Other);
        let mut tools: Vec<_> = request.tools.iter().map(WireTool::of).collect();
        tools.extend(answer_tool.map(WireTool::answer));
        let tool_choice = match (&request.tool_choice, answer_tool) {
            // With other tools on offer the model may use those first, unless it may use none.
            (choice, Some(_)) if !request.tools.is_empty() && *choice != ToolChoice::None => {
                Some(json!("required"))
            }
            (_, Some(_)) => Some(json!({"type": "function", "function": {"name": ANSWER}})),
            _ if tools.is_empty() => None,
            (ToolChoice::Auto, None) => None,
            (ToolChoice::None, None) => Some(json!("none")),
            (ToolChoice::Required, None) => Some(json!("required")),
            (ToolChoice::Tool(name), None) => Some(json!({"type": "function", "function": {"name": name}})),
        };
        let response_format = schema.and_then(|schema| match output {
            StructuredOutput::JsonSchema => Some(json!({
                "type": "json_schema",
                "json_schema": {"name": ANSWER, "schema": schema, "strict": fits_strict(schema)},
            })),
            StructuredOutput::JsonObject => Some(json!({"type": "json_object"})),
            StructuredOutput::Tool => None,
        });
        let new_name = provider.max_completion_tokens;
        Self {
            model: &model.name,
            messages: system.into_iter().chain(messages).collect(),
            stream: true,
            stream_options: provider.stream_usage.then(|| json!({"include_usage": true})),
            parallel_tool_calls: request.parallel_tool_calls.filter(|_| !tools.is_empty()),
            tools,
            tool_choice,
            response_format,
            max_completion_tokens: max_tokens.filter(|_| new_name),
            max_tokens: max_tokens.filter(|_| !new_name),
            temperature: request.temperature.or(model.config.temperature),
            stop: &request.stop,
            prompt_cache_key: request.prompt_cache_key.as_deref().filter(|_| provider.prompt_cache_key),
        }
    }
}

impl<'a> WireTool<'a> {
    fn of(tool: &'a Tool) -> Self {
        Self::named(&tool.name, &tool.description, &tool.parameters)
    }

    fn answer(schema: &'a Value) -> Self {
        Self::named(ANSWER, "Gives the final answer.", schema)
    }

    fn named(name: &'a str, description: &'a str, parameters: &'a Value) -> Self {
        Self { r#type: "function", function: Function { name, description, parameters } }
    }
}

impl Serialize for WireMessage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Plain<'a> {
            role: &'static str,
            content: &'a str,
        }
        #[derive(Serialize)]
        struct Turn<'a> {
            role: &'static str,
            // Null beside tool calls: some servers take an empty string for an answer.
            content: Option<&'a str>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            tool_calls: Vec<Value>,
        }
        #[derive(Serialize)]
        struct Answer<'a> {
            role: &'static str,
            tool_call_id: &'a str,
            content: &'a str,
        }
        let (role, content) = match self {
            WireMessage::System(text) => ("system", text),
            WireMessage::Other(Message::User { content }) => ("user", content),
            WireMessage::Other(Message::Assistant { content, tool_calls }) => {
                let calls = tool_calls.iter().map(|call| {
                    json!({"id": call.id, "type": "function", "function":
                        {"name": call.name, "arguments": call.arguments.to_string()}})
                });
                return Turn {
                    role: "assistant",
                    content: Some(content.as_str()).filter(|text| !text.is_empty() || tool_calls.is_empty()),
                    tool_calls: calls.collect(),
                }
                .serialize(serializer);
            }
            WireMessage::Other(Message::Tool { tool_call_id, content, .. }) => {
                return Answer { role: "tool", tool_call_id, content }.serialize(serializer);
            }
        };
        Plain { role, content }.serialize(serializer)
    }
}

/// OpenAI refuses `strict` for schemas with an object that is open or has optional fields; such a
/// schema is sent as a wish, and the check after the answer makes it binding.
fn fits_strict(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            let object = map.contains_key("properties") || map.get("type") == Some(&json!("object"));
            let properties = map.get("properties").and_then(Value::as_object);
            let required = map.get("required").and_then(Value::as_array);
            let all_required = properties.is_none_or(|properties| {
                properties
                    .keys()
                    .all(|key| required.is_some_and(|names| names.iter().any(|name| name == key.as_str())))
            });
            let closed = map.get("additionalProperties") == Some(&Value::Bool(false));
            (!object || (closed && all_required)) && map.values().all(fits_strict)
        }
        Value::Array(items) => items.iter().all(fits_strict),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
