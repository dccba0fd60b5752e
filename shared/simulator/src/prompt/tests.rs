use serde_json::{Value, json};

use super::*;

fn openai(body: Value) -> Result<Prompt, Refusal> {
    Prompt::parse(Kind::OpenAi, body.to_string().as_bytes())
}

fn anthropic(body: Value) -> Result<Prompt, Refusal> {
    Prompt::parse(Kind::Anthropic, body.to_string().as_bytes())
}

fn call(id: &str) -> Value {
    json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": id, "type": "function", "function": {"name": "search", "arguments": "{}"}}]})
}

#[test]
fn openai_is_read_into_the_common_shape() {
    let prompt = openai(json!({"model": "m", "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "find it"}]},
        call("c1"),
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
    ]}))
    .unwrap();
    assert_eq!(("be brief", "find it", 2), (prompt.system.as_str(), prompt.last_user(), prompt.turn()));
    assert_eq!("search", prompt.last_results()[0].name);
    assert_eq!("be brief\nfind it\nfound", prompt.all_text());
    // 8 + 7 + search{} 8 + 5 = 28 bytes.
    assert_eq!(7, prompt.tokens());
}

#[test]
fn both_providers_are_read_alike() {
    let prompt = anthropic(json!({"model": "m", "max_tokens": 9, "system": "be brief", "messages": [
        {"role": "user", "content": "find it"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "search", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "found"}]},
    ]}))
    .unwrap();
    assert_eq!(("be brief", "find it", 2), (prompt.system.as_str(), prompt.last_user(), prompt.turn()));
    assert_eq!("found", prompt.last_results_text());
    assert_eq!((7, Some(9)), (prompt.tokens(), prompt.max_tokens));
}

#[test]
fn the_hash_is_of_the_content_only() {
    let hash =
        |id: &str, text: &str, stream: bool| {
            openai(json!({"model": "m", "stream": stream, "messages": [
            {"role": "user", "content": text}, call(id), {"role": "tool", "tool_call_id": id, "content": "r"},
        ]})).unwrap().hash()
        };
    assert_eq!(hash("a", "x", false), hash("b", "x", true));
    assert_ne!(hash("a", "x", false), hash("a", "y", false));
}

#[test]
fn openai_refuses_what_the_provider_refuses() {
    let user = json!({"role": "user", "content": "hi"});
    let refused = |body: Value| openai(body).unwrap_err().message;
    assert!(refused(json!({"messages": [user]})).contains("model"));
    assert!(refused(json!({"model": "m"})).contains("messages"));
    assert!(refused(json!({"model": "m", "messages": []})).contains("too short"));
    assert!(refused(json!({"model": "m", "messages": [{"role": "bot", "content": "x"}]})).contains("'bot'"));
    assert!(
        refused(
            json!({"model": "m", "messages": [user, {"role": "tool", "tool_call_id": "c", "content": ""}]})
        )
        .contains("must be a response")
    );
    assert!(refused(json!({"model": "m", "messages": [user, call("c1"), user]})).contains("c1"));
    assert!(refused(json!({"model": "m", "messages": [user, call("c1")]})).contains("c1"));
    assert!(
        refused(json!({"model": "m", "messages": [user], "stream_options": {"include_usage": true}}))
            .contains("stream_options")
    );
    assert!(refused(json!({"model": "m", "messages": [user], "temperature": 3})).contains("temperature"));
    assert!(refused(json!({"model": "m", "messages": [user], "max_tokens": 0})).contains("max_tokens"));
    assert!(refused(json!({"model": "m", "messages": [user], "tools": [{"type": "function", "function": {"name": "a b"}}]})).contains("tools[0]"));
    assert!(Prompt::parse(Kind::OpenAi, b"{").unwrap_err().message.contains("JSON"));
}

#[test]
fn anthropic_refuses_what_the_provider_refuses() {
    let user = json!({"role": "user", "content": "hi"});
    let used =
        json!({"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "a", "input": {}}]});
    let result =
        json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t2", "content": ""}]});
    let refused = |body: Value| anthropic(body).unwrap_err().message;
    let with = |messages: Value| json!({"model": "m", "max_tokens": 5, "messages": messages});
    assert_eq!("max_tokens: Field required", refused(json!({"model": "m", "messages": [user]})));
    assert_eq!("model: Field required", refused(json!({"max_tokens": 5, "messages": [user]})));
    assert!(refused(with(json!([]))).contains("at least one"));
    assert!(refused(with(json!([{"role": "system", "content": "x"}]))).contains("messages.0.role"));
    assert!(refused(with(json!([used]))).contains("first message"));
    assert!(refused(with(json!([user, result]))).contains("unexpected `tool_use_id`"));
    assert!(refused(with(json!([user, used, user]))).contains("without `tool_result`"));
    assert!(refused(with(json!([user, used]))).contains("without `tool_result`"));
    assert!(refused(with(json!([user, used, result]))).contains("unexpected `tool_use_id`"));
    let tool = json!({"model": "m", "max_tokens": 5, "messages": [user], "tools": [{"name": "a"}]});
    assert!(refused(tool).contains("tools.0.input_schema"));
}

#[test]
fn both_providers_say_when_only_one_call_may_come() {
    let user = json!([{"role": "user", "content": "hi"}]);
    assert!(openai(json!({"model": "m", "messages": user})).unwrap().parallel);
    assert!(!openai(json!({"model": "m", "messages": user, "parallel_tool_calls": false})).unwrap().parallel);
    let body =
        |choice: Value| json!({"model": "m", "max_tokens": 1, "messages": user, "tool_choice": choice});
    assert!(anthropic(body(json!({"type": "auto"}))).unwrap().parallel);
    assert!(!anthropic(body(json!({"type": "auto", "disable_parallel_tool_use": true}))).unwrap().parallel);
}
