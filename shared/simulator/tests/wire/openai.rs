use serde_json::{Value, json};

use crate::client::{events, openai, start};

const TOOLS: &str = "
rules:
  - when: {offers_tool: weather}
    respond:
      text: Let me look.
      tool_calls:
        - {name: weather, arguments: {city: Paris, unit: C}}
        - {name: weather, arguments: {city: Oslo}}
  - respond: {text: 'You said: {{ last_user }}', usage: {cached_tokens: 2}}
";

fn ask(stream: bool) -> Value {
    json!({"model": "sim/fast", "stream": stream, "messages": [{"role": "user", "content": "Grüße \"x\"\n"}]})
}

fn with_tools(stream: bool) -> Value {
    let mut body = ask(stream);
    body["tools"] = json!([{"type": "function", "function": {"name": "weather", "parameters": {}}}]);
    body
}

#[tokio::test]
async fn a_whole_answer() {
    let simulator = start(TOOLS).await;
    let response = openai(&simulator, &ask(false)).send().await.unwrap();
    assert_eq!("application/json", response.headers()["content-type"]);
    let body: Value = response.json().await.unwrap();
    assert_eq!(
        ("chat.completion", "sim/fast"),
        (body["object"].as_str().unwrap(), body["model"].as_str().unwrap())
    );
    let choice = &body["choices"][0];
    assert_eq!("You said: Grüße \"x\"\n", choice["message"]["content"]);
    assert_eq!("stop", choice["finish_reason"]);
    // 12 bytes asked, 22 answered.
    let usage = &body["usage"];
    assert_eq!(
        json!([3, 6, 9, 2]),
        json!([
            usage["prompt_tokens"],
            usage["completion_tokens"],
            usage["total_tokens"],
            usage["prompt_tokens_details"]["cached_tokens"]
        ])
    );
}

#[tokio::test]
async fn a_stream_says_the_same_and_ends_with_usage_and_done() {
    let simulator = start(TOOLS).await;
    let mut body = ask(true);
    body["stream_options"] = json!({"include_usage": true});
    let response = openai(&simulator, &body).send().await.unwrap();
    assert_eq!("text/event-stream; charset=utf-8", response.headers()["content-type"]);
    let chunks = events(&response.text().await.unwrap());
    let (done, chunks) = chunks.split_last().unwrap();
    assert_eq!("[DONE]", done.1);
    let (usage, chunks) = chunks.split_last().unwrap();
    assert_eq!(
        (json!([]), json!(6)),
        (usage.1["choices"].clone(), usage.1["usage"]["completion_tokens"].clone())
    );
    assert_eq!("assistant", chunks[0].1["choices"][0]["delta"]["role"]);
    assert_eq!("stop", chunks.last().unwrap().1["choices"][0]["finish_reason"]);
    assert!(chunks.iter().all(|(_, chunk)| chunk["usage"].is_null() && chunk["id"] == chunks[0].1["id"]));
    let deltas = chunks.iter().filter_map(|(_, chunk)| chunk["choices"][0]["delta"]["content"].as_str());
    assert_eq!("You said: Grüße \"x\"\n", deltas.collect::<String>());
}

#[tokio::test]
async fn tool_calls_stream_under_their_index_with_split_arguments() {
    let simulator = start(TOOLS).await;
    let whole: Value = openai(&simulator, &with_tools(false)).send().await.unwrap().json().await.unwrap();
    let message = &whole["choices"][0]["message"];
    assert_eq!("Let me look.", message["content"]);
    assert_eq!("{\"city\":\"Paris\",\"unit\":\"C\"}", message["tool_calls"][0]["function"]["arguments"]);

    let stream = openai(&simulator, &with_tools(true)).send().await.unwrap().text().await.unwrap();
    let mut calls: Vec<(Value, String, usize)> = Vec::new();
    let mut finish = Value::Null;
    for (_, chunk) in events(&stream).iter().filter(|(_, chunk)| chunk.is_object()) {
        let choice = &chunk["choices"][0];
        for delta in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = delta["index"].as_u64().unwrap() as usize;
            if delta["id"].is_string() {
                assert_eq!(calls.len(), index);
                assert_eq!("weather", delta["function"]["name"]);
                calls.push((delta["id"].clone(), String::new(), 0));
            }
            assert_eq!(calls.len() - 1, index, "a call goes on after the next began");
            calls[index].1.push_str(delta["function"]["arguments"].as_str().unwrap());
            calls[index].2 += 1;
        }
        if !choice["finish_reason"].is_null() {
            finish = choice["finish_reason"].clone();
        }
    }
    assert_eq!("tool_calls", finish);
    assert_eq!(
        ["{\"city\":\"Paris\",\"unit\":\"C\"}", "{\"city\":\"Oslo\"}"],
        [calls[0].1.as_str(), &calls[1].1]
    );
    assert!(calls.iter().all(|call| call.2 >= 3), "arguments came in one piece");
    assert_ne!(calls[0].0, calls[1].0);
}

#[tokio::test]
async fn refusals_have_the_providers_shape() {
    let simulator = start("models: [sim/fast]").await;
    let refused = |body: Value| {
        let request = openai(&simulator, &body);
        async move {
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            (status, response.json::<Value>().await.unwrap()["error"].clone())
        }
    };
    let (status, error) = refused(json!({"messages": []})).await;
    assert_eq!(
        (400, json!("invalid_request_error"), json!("model")),
        (status, error["type"].clone(), error["param"].clone())
    );
    let (status, error) =
        refused(json!({"model": "gpt-9", "messages": [{"role": "user", "content": "x"}]})).await;
    assert_eq!((404, json!("model_not_found")), (status, error["code"].clone()));
    let (status, error) = refused(json!([1])).await;
    assert_eq!((400, true), (status, error["message"].as_str().unwrap().contains("object")));
}

#[tokio::test]
async fn structured_output_fits_the_schema_without_a_rule() {
    let simulator = start("").await;
    let mut body = ask(false);
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "city", "schema": {
        "type": "object", "properties": {"city": {"type": "string"}, "size": {"type": "integer"}}}}});
    let body: Value = openai(&simulator, &body).send().await.unwrap().json().await.unwrap();
    let answer: Value =
        serde_json::from_str(body["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
    assert!(answer["city"].is_string() && answer["size"].is_i64());
}

#[tokio::test]
async fn models_are_listed() {
    let simulator = start("models: [sim/fast, sim/best]").await;
    let url = format!("{}/models", simulator.openai_base_url());
    let body: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    assert_eq!(
        ("list", "sim/best"),
        (body["object"].as_str().unwrap(), body["data"][1]["id"].as_str().unwrap())
    );
}
