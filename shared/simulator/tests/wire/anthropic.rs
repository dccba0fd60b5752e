use serde_json::{Value, json};

use crate::client::{anthropic, events, start};

const TOOLS: &str = "
rules:
  - when: {api: anthropic, offers_tool: weather}
    respond:
      text: Let me look.
      tool_calls:
        - {name: weather, arguments: {city: Paris, unit: C}}
        - {name: weather, arguments: {city: Oslo}}
  - respond: {text: 'You said: {{ last_user }}', usage: {cached_tokens: 1}}
";

fn ask(stream: bool) -> Value {
    json!({"model": "sim/fast", "max_tokens": 100, "stream": stream, "messages": [{"role": "user", "content": "hello there"}]})
}

fn with_tools(stream: bool) -> Value {
    let mut body = ask(stream);
    body["tools"] = json!([{"name": "weather", "input_schema": {"type": "object"}}]);
    body
}

#[tokio::test]
async fn a_whole_answer() {
    let simulator = start(TOOLS).await;
    let body: Value = anthropic(&simulator, &ask(false)).send().await.unwrap().json().await.unwrap();
    assert_eq!(json!([{"type": "text", "text": "You said: hello there"}]), body["content"]);
    assert_eq!(
        ("message", "end_turn"),
        (body["type"].as_str().unwrap(), body["stop_reason"].as_str().unwrap())
    );
    let usage = &body["usage"];
    assert_eq!(
        json!([2, 1, 6]),
        json!([usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]])
    );
}

#[tokio::test]
async fn a_stream_has_its_events_in_order() {
    let simulator = start(TOOLS).await;
    let stream = anthropic(&simulator, &with_tools(true)).send().await.unwrap().text().await.unwrap();
    let events = events(&stream);
    assert!(events.iter().all(|(name, data)| data["type"] == name.as_str()));
    let mut names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    let block = ["content_block_start", "content_block_delta", "content_block_stop"];
    let expected =
        [&["message_start", "ping"][..], &block, &block, &block, &["message_delta", "message_stop"]].concat();
    assert_eq!(expected, names);
    assert_eq!("sim/fast", events[0].1["message"]["model"]);

    let mut blocks = [const { String::new() }; 3];
    let mut pieces = [0; 3];
    for (_, data) in events.iter().filter(|(name, _)| name == "content_block_delta") {
        let index = data["index"].as_u64().unwrap() as usize;
        let delta = &data["delta"];
        let piece = if index == 0 { &delta["text"] } else { &delta["partial_json"] };
        blocks[index].push_str(piece.as_str().unwrap());
        pieces[index] += 1;
    }
    assert_eq!(
        ["Let me look.", "{\"city\":\"Paris\",\"unit\":\"C\"}", "{\"city\":\"Oslo\"}"],
        blocks.each_ref().map(String::as_str)
    );
    assert!(pieces[1] >= 2 && pieces[2] >= 2, "arguments came in one piece");
    let last = &events[events.len() - 2].1;
    assert_eq!("tool_use", last["delta"]["stop_reason"]);
    // 3 tokens of text, 34 and 22 bytes of names and arguments.
    assert_eq!(3 + 9 + 6, last["usage"]["output_tokens"]);
}

#[tokio::test]
async fn tool_use_in_a_whole_answer_has_an_object_as_input() {
    let simulator = start(TOOLS).await;
    let body: Value = anthropic(&simulator, &with_tools(false)).send().await.unwrap().json().await.unwrap();
    assert_eq!(json!({"city": "Oslo"}), body["content"][2]["input"]);
    assert_eq!("tool_use", body["stop_reason"]);
}

#[tokio::test]
async fn the_token_limit_ends_the_answer() {
    let simulator = start(TOOLS).await;
    let mut body = ask(false);
    body["max_tokens"] = json!(2);
    let body: Value = anthropic(&simulator, &body).send().await.unwrap().json().await.unwrap();
    assert_eq!(
        ("You said", "max_tokens"),
        (body["content"][0]["text"].as_str().unwrap(), body["stop_reason"].as_str().unwrap())
    );
}

#[tokio::test]
async fn refusals_have_the_providers_shape() {
    let simulator = start("").await;
    let mut body = ask(false);
    body.as_object_mut().unwrap().remove("max_tokens");
    let response = anthropic(&simulator, &body).send().await.unwrap();
    assert_eq!(400, response.status());
    assert!(response.headers().contains_key("request-id"));
    let body: Value = response.json().await.unwrap();
    assert_eq!(
        ("error", "invalid_request_error"),
        (body["type"].as_str().unwrap(), body["error"]["type"].as_str().unwrap())
    );
    assert_eq!("max_tokens: Field required", body["error"]["message"]);

    let url = format!("{}/v1/messages", simulator.base_url());
    let unversioned = reqwest::Client::new().post(url).json(&ask(false)).send().await.unwrap();
    assert_eq!(400, unversioned.status());
    assert!(unversioned.text().await.unwrap().contains("anthropic-version"));
}
