//! Chat completions, as documented in OpenAI's API reference (checked fields only; others pass).

use serde_json::Value;

use super::{
    Answered, Called, Message, Prompt, Refusal, Role, flag, flag_or, number_in, positive, text_field,
    tool_name,
};
use crate::Kind;

pub(super) fn parse(body: &Value) -> Result<Prompt, Refusal> {
    let model = text_field(body, "model")
        .ok_or_else(|| Refusal::of("model", "you must provide a model parameter"))?;
    let list = body["messages"]
        .as_array()
        .ok_or_else(|| Refusal::of("messages", "missing required parameter: 'messages'"))?;
    if list.is_empty() {
        return Err(Refusal::of("messages", "[] is too short - 'messages'"));
    }
    number_in(body, "temperature", 0.0..=2.0)?;
    number_in(body, "top_p", 0.0..=1.0)?;
    if !matches!(body["n"].as_u64(), None | Some(1)) {
        return Err(Refusal::of("n", "the simulator gives one choice only"));
    }
    let stream = flag(body, "stream")?;
    let options = &body["stream_options"];
    if !options.is_null() && !stream {
        return Err(Refusal::of(
            "stream_options",
            "the 'stream_options' parameter is only allowed when 'stream' is enabled",
        ));
    }
    let max_tokens = positive(body, "max_completion_tokens")?.or(positive(body, "max_tokens")?);
    let (tools, tool_text) = tools(&body["tools"])?;
    let (system, messages) = messages(list)?;
    Ok(Prompt {
        kind: Kind::OpenAi,
        model: model.to_owned(),
        system,
        messages,
        tools,
        tool_text,
        parallel: flag_or(body, "parallel_tool_calls", true)?,
        max_tokens,
        stream,
        include_usage: flag(options, "include_usage")?,
        cache_key: text_field(body, "prompt_cache_key").map(str::to_owned),
        schema: schema(&body["response_format"])?,
        hash: 0,
    })
}

fn tools(list: &Value) -> Result<(Vec<String>, String), Refusal> {
    let list = match list {
        Value::Null => return Ok((Vec::new(), String::new())),
        Value::Array(list) if !list.is_empty() => list,
        _ => return Err(Refusal::of("tools", "tools: must be a list with at least one tool")),
    };
    let mut text = String::new();
    let mut names = Vec::with_capacity(list.len());
    for (i, tool) in list.iter().enumerate() {
        if tool["type"] != "function" {
            let place = format!("tools[{i}].type");
            return Err(Refusal::of(
                &place,
                format!("invalid value for '{place}': only 'function' is supported"),
            ));
        }
        let name = tool["function"]["name"].as_str();
        names.push(tool_name(name, &format!("tools[{i}].function.name"))?);
        text.push_str(&tool.to_string());
    }
    Ok((names, text))
}

fn schema(format: &Value) -> Result<Option<Value>, Refusal> {
    match format["type"].as_str() {
        Some("json_schema") => {
            let schema = &format["json_schema"];
            if text_field(schema, "name").is_none() {
                let place = "response_format.json_schema.name";
                return Err(Refusal::of(place, format!("missing required parameter: '{place}'")));
            }
            Ok(Some(schema["schema"].clone()))
        }
        Some("json_object") => {
            Ok(Some(serde_json::json!({"type": "object", "properties": {"answer": {"type": "string"}}})))
        }
        Some("text") => Ok(None),
        None if format.is_null() => Ok(None),
        _ => Err(Refusal::of("response_format", "invalid value for 'response_format.type'")),
    }
}

fn messages(list: &[Value]) -> Result<(String, Vec<Message>), Refusal> {
    let mut system = Vec::new();
    let mut messages = Vec::new();
    // Calls of the latest assistant message that still wait for their result.
    let mut open: Vec<Called> = Vec::new();
    for (i, message) in list.iter().enumerate() {
        let place = format!("messages[{i}]");
        let text = content(&message["content"], &place)?;
        let role = message["role"].as_str().unwrap_or_default();
        if role != "tool" && !open.is_empty() {
            return Err(unanswered(&open, &place));
        }
        match role {
            "system" | "developer" => system.push(text),
            "user" if message["content"].is_null() => {
                return Err(Refusal::of(&place, format!("{place}.content: expected a string or a list")));
            }
            "user" => messages.push(Message { text, ..Message::default() }),
            "assistant" => {
                let calls = calls(&message["tool_calls"], &place)?;
                if calls.is_empty() && message["content"].is_null() {
                    return Err(Refusal::of(
                        &place,
                        format!("{place}: an assistant message needs content or tool_calls"),
                    ));
                }
                open.clone_from(&calls);
                messages.push(Message { role: Role::Assistant, text, calls, results: Vec::new() });
            }
            "tool" => {
                let id = message["tool_call_id"].as_str().unwrap_or_default();
                let Some(at) = open.iter().position(|call| call.id == id) else {
                    return Err(Refusal::of(
                        &format!("{place}.role"),
                        "messages with role 'tool' must be a response to a preceding message with 'tool_calls'",
                    ));
                };
                let call = open.remove(at);
                let result = Answered { id: call.id, name: call.name, text };
                messages.push(Message { role: Role::Tool, results: vec![result], ..Message::default() });
            }
            other => {
                return Err(Refusal::of(
                    &format!("{place}.role"),
                    format!(
                        "invalid value: '{other}'. Supported values are: 'system', 'developer', 'assistant', 'user' and 'tool'"
                    ),
                ));
            }
        }
    }
    if !open.is_empty() {
        return Err(unanswered(&open, "messages"));
    }
    Ok((system.join("\n"), messages))
}

fn unanswered(open: &[Called], place: &str) -> Refusal {
    let ids: Vec<&str> = open.iter().map(|call| call.id.as_str()).collect();
    Refusal::of(
        place,
        format!(
            "an assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'; these did not have response messages: {}",
            ids.join(", ")
        ),
    )
}

fn calls(list: &Value, place: &str) -> Result<Vec<Called>, Refusal> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .enumerate()
        .map(|(i, call)| {
            let place = format!("{place}.tool_calls[{i}]");
            let function = &call["function"];
            match (text_field(call, "id"), function["name"].as_str(), function["arguments"].as_str()) {
                (Some(id), Some(name), Some(arguments)) => {
                    Ok(Called { id: id.to_owned(), name: name.to_owned(), arguments: arguments.to_owned() })
                }
                _ => Err(Refusal::of(
                    &place,
                    format!("{place}: needs id, function.name and function.arguments as strings"),
                )),
            }
        })
        .collect()
}

/// A string, or a list of parts of which the text parts count.
fn content(value: &Value, place: &str) -> Result<String, Refusal> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let mut texts = Vec::new();
            for part in parts {
                match part["type"].as_str() {
                    Some("text" | "refusal") => texts.push(part["text"].as_str().unwrap_or_default()),
                    Some("image_url" | "input_audio" | "file") => {}
                    _ => return Err(Refusal::of(place, format!("{place}.content: unknown part type"))),
                }
            }
            Ok(texts.join("\n"))
        }
        _ => Err(Refusal::of(place, format!("{place}.content: expected a string or a list"))),
    }
}
