//! Messages, as documented in Anthropic's API reference (checked fields only; others pass).

use serde_json::Value;

use super::{
    Answered, Called, Message, Prompt, Refusal, Role, flag, number_in, positive, text_field, tool_name,
};
use crate::Kind;

pub(super) fn parse(body: &Value) -> Result<Prompt, Refusal> {
    let model = text_field(body, "model").ok_or_else(|| Refusal::of("model", "model: Field required"))?;
    let max_tokens = positive(body, "max_tokens")?
        .ok_or_else(|| Refusal::of("max_tokens", "max_tokens: Field required"))?;
    let list =
        body["messages"].as_array().ok_or_else(|| Refusal::of("messages", "messages: Field required"))?;
    if list.is_empty() {
        return Err(Refusal::of("messages", "messages: at least one message is required"));
    }
    number_in(body, "temperature", 0.0..=1.0)?;
    let (tools, tool_text) = tools(&body["tools"])?;
    Ok(Prompt {
        kind: Kind::Anthropic,
        model: model.to_owned(),
        system: texts(&body["system"], "system")?,
        messages: messages(list)?,
        tools,
        tool_text,
        parallel: !flag(&body["tool_choice"], "disable_parallel_tool_use")?,
        max_tokens: Some(max_tokens),
        stream: flag(body, "stream")?,
        include_usage: false,
        cache_key: None,
        schema: schema(body),
        hash: 0,
    })
}

/// The schema of structured output, under its current name or the one of the beta.
fn schema(body: &Value) -> Option<Value> {
    [&body["output_config"]["format"], &body["output_format"]]
        .into_iter()
        .find(|format| format["type"] == "json_schema")
        .map(|format| format["schema"].clone())
}

fn tools(list: &Value) -> Result<(Vec<String>, String), Refusal> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut text = String::new();
    let mut names = Vec::with_capacity(list.len());
    for (i, tool) in list.iter().enumerate() {
        names.push(tool_name(tool["name"].as_str(), &format!("tools.{i}.name"))?);
        // Tools that run at the provider have a dated type and no schema.
        let own = matches!(tool["type"].as_str(), None | Some("custom"));
        if own && !tool["input_schema"].is_object() {
            let place = format!("tools.{i}.input_schema");
            return Err(Refusal::of(&place, format!("{place}: Field required")));
        }
        text.push_str(&tool.to_string());
    }
    Ok((names, text))
}

fn messages(list: &[Value]) -> Result<Vec<Message>, Refusal> {
    let mut messages: Vec<Message> = Vec::with_capacity(list.len());
    for (i, raw) in list.iter().enumerate() {
        let place = format!("messages.{i}");
        let role = match raw["role"].as_str() {
            Some("user") => Role::User,
            Some("assistant") if i > 0 => Role::Assistant,
            Some("assistant") => {
                return Err(Refusal::of(&place, "messages: first message must use the \"user\" role"));
            }
            _ => {
                let place = format!("{place}.role");
                return Err(Refusal::of(&place, format!("{place}: Input should be 'user' or 'assistant'")));
            }
        };
        let before = messages.last().map(|m| m.calls.as_slice()).unwrap_or_default();
        let message = blocks(role, &raw["content"], before, &place)?;
        if let Some(call) = before.iter().find(|call| !message.results.iter().any(|r| r.id == call.id)) {
            return Err(unanswered(&place, &call.id));
        }
        messages.push(message);
    }
    match messages.last().and_then(|message| message.calls.first()) {
        Some(call) => Err(unanswered(&format!("messages.{}", list.len() - 1), &call.id)),
        None => Ok(messages),
    }
}

fn unanswered(place: &str, id: &str) -> Refusal {
    Refusal::of(
        place,
        format!(
            "{place}: `tool_use` ids were found without `tool_result` blocks immediately after: {id}. Each `tool_use` block must have a corresponding `tool_result` block in the next message"
        ),
    )
}

fn blocks(role: Role, content: &Value, before: &[Called], place: &str) -> Result<Message, Refusal> {
    let mut message = Message { role, ..Message::default() };
    let blocks = match content {
        Value::String(text) => {
            message.text.clone_from(text);
            return Ok(message);
        }
        Value::Array(blocks) => blocks,
        _ => return Err(Refusal::of(place, format!("{place}.content: Field required"))),
    };
    let mut said = Vec::new();
    for (i, block) in blocks.iter().enumerate() {
        let place = format!("{place}.content.{i}");
        match block["type"].as_str() {
            Some("text") => said.push(block["text"].as_str().unwrap_or_default()),
            Some("tool_use") if role == Role::Assistant => {
                let (Some(id), Some(name), true) =
                    (text_field(block, "id"), text_field(block, "name"), block["input"].is_object())
                else {
                    return Err(Refusal::of(
                        &place,
                        format!("{place}: tool_use needs id, name and an input object"),
                    ));
                };
                message.calls.push(Called {
                    id: id.to_owned(),
                    name: name.to_owned(),
                    arguments: block["input"].to_string(),
                });
            }
            Some("tool_result") if role == Role::User => {
                let id = block["tool_use_id"].as_str().unwrap_or_default();
                let Some(call) = before.iter().find(|call| call.id == id) else {
                    return Err(Refusal::of(
                        &place,
                        format!(
                            "{place}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each `tool_result` block must have a corresponding `tool_use` block in the previous message"
                        ),
                    ));
                };
                message.results.push(Answered {
                    id: call.id.clone(),
                    name: call.name.clone(),
                    text: texts(&block["content"], &place)?,
                });
            }
            Some("image" | "document" | "thinking" | "redacted_thinking" | "search_result") => {}
            other => {
                let other = other.unwrap_or("nothing");
                return Err(Refusal::of(
                    &place,
                    format!("{place}: Input tag '{other}' does not match any of the expected tags"),
                ));
            }
        }
    }
    message.text = said.join("\n");
    Ok(message)
}

/// A string, or a list of blocks of which the text blocks count.
fn texts(value: &Value, place: &str) -> Result<String, Refusal> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(blocks) => {
            let texts: Vec<&str> = blocks.iter().filter_map(|block| block["text"].as_str()).collect();
            Ok(texts.join("\n"))
        }
        _ => Err(Refusal::of(place, format!("{place}: Input should be a valid string or list"))),
    }
}
