//! The client against mock servers that other people wrote, in both wire formats.
//!
//! npm `@copilotkit/aimock` 1.43.0 and PyPI `llmock` 0.2.2 (MIT, both accepted by the official
//! Python SDKs). They are installed under `.tools` when absent; without node, python3 or a package
//! registry the tests fail and say so.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::{Value, json};
use trireme_llm::{
    Api, ChatEvent, ChatRequest, Class, Config, Error, FinishReason, Kind, Limits, Message, ModelConfig,
    ProviderConfig, Providers, Secret, StructuredOutput, Tool,
};

mod install;

/// Short, yet long enough for the request to arrive on a busy machine.
const SOON: Duration = Duration::from_secs(1);

/// Model `o/m` speaks OpenAI, `a/m` Anthropic, `a-tool` the same with a forced tool for schemas.
fn providers(openai: String, anthropic: String) -> Providers {
    let mut config = Config::default();
    for (name, api, base_url) in [("o", Api::OpenAi, openai), ("a", Api::Anthropic, anthropic)] {
        let provider = ProviderConfig {
            api: Some(api),
            base_url: Some(base_url),
            api_key: Some(Secret::literal("test-key")),
            ..ProviderConfig::default()
        };
        config.providers.insert(name.into(), provider);
    }
    let tool = ModelConfig { structured_output: Some(StructuredOutput::Tool), ..ModelConfig::from("a/m") };
    config.models.insert("a-tool".into(), tool);
    Providers::new(config).unwrap()
}

fn crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn city_schema() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string"}, "n": {"type": "integer"}},
        "required": ["city", "n"], "additionalProperties": false})
}

fn tool(name: &str, argument: &str) -> Tool {
    Tool {
        name: name.into(),
        description: format!("Looks up by {argument}"),
        parameters: json!({"type": "object", "properties": {argument: {"type": "string"}},
            "required": [argument]}),
    }
}

#[tokio::test]
async fn aimock_accepts_and_is_understood() {
    crypto();
    let peer = install::aimock().await;
    let providers = providers(format!("{}/v1", peer.url), peer.url.clone());
    let ask = async |model: &str, prompt: &str| {
        let mut request = ChatRequest::new(model, prompt);
        request.tools = vec![tool("get_weather", "city"), tool("get_time", "zone")];
        let mut events = Vec::new();
        let on = |event: ChatEvent<'_>| {
            events.push(match event {
                ChatEvent::FirstToken => "first".to_owned(),
                ChatEvent::TextDelta(_) => "text".to_owned(),
                ChatEvent::ToolCall(call) => call.name.clone(),
                ChatEvent::Usage(_) => "usage".to_owned(),
            });
        };
        let result = providers.chat(&request, Limits::default(), on).await;
        events.retain(|event| event != "usage");
        events.dedup();
        (result, events)
    };
    for model in ["o/m", "a/m"] {
        let (response, events) = ask(model, "hello").await;
        let response = response.unwrap();
        assert!(response.text.starts_with("Grüezi 😀, how are you"), "{model}: {}", response.text);
        assert_eq!(response.finish_reason, FinishReason::Stop, "{model}");
        assert!(response.usage_reported && response.id.is_some(), "{model}");
        assert_eq!(events, ["first", "text"], "{model}");

        let (response, events) = ask(model, "two tools").await;
        let response = response.unwrap();
        let arguments: Vec<_> = response.tool_calls.iter().map(|c| &c.arguments).collect();
        let expected = [json!({"city": "Zürich }\""}), json!({"zone": "CET"})];
        assert_eq!(arguments, expected.iter().collect::<Vec<_>>(), "{model}");
        assert_eq!(response.finish_reason, FinishReason::ToolCalls, "{model}");
        assert_eq!(events, ["first", "get_weather", "get_time"], "{model}");

        let class = async |prompt| ask(model, prompt).await.0.unwrap_err().class();
        let limited = class("rate limit").await;
        assert!(matches!(limited, Class::RateLimited { retry_after: Some(_) }), "{model}: {limited:?}");
        assert!(matches!(class("broken").await, Class::Retryable { .. }), "{model}");
        assert_eq!(class("bad request").await, Class::Permanent, "{model}");
        assert!(class("nothing matches this").await != Class::InvalidOutput, "{model}");
    }
    let mut request = ChatRequest::new("o/m", "json please");
    request.output_schema = Some(city_schema());
    let response = providers.chat(&request, Limits::default(), |_| {}).await.unwrap();
    assert_eq!(response.json, Some(json!({"city": "Zürich", "n": 3})));
}

/// llmock's control interface.
struct Judge {
    url: String,
    http: reqwest::Client,
}

impl Judge {
    async fn queue(&self, behavior: Value) {
        let url = format!("{}/_llmock/scenario", self.url);
        let body = json!({"behaviors": [behavior]}).to_string();
        let response = self.http.post(url).body(body).send().await.unwrap();
        assert_eq!(response.status(), 201, "{}", response.text().await.unwrap());
    }

    /// What the server thinks of the client since the last verdict: the codes of its findings.
    async fn verdict(&self) -> (bool, Vec<String>) {
        let get = self.http.get(format!("{}/_llmock/verdict", self.url));
        let verdict = get.send().await.unwrap().text().await.unwrap();
        let verdict: Value = serde_json::from_str(&verdict).unwrap();
        let reset = self.http.post(format!("{}/_llmock/reset", self.url));
        assert!(reset.send().await.unwrap().status().is_success());
        let findings = verdict["findings"].as_array().unwrap().iter();
        let codes = findings.map(|f| f["code"].as_str().unwrap().to_owned());
        (verdict["passed"] == json!(true), codes.collect())
    }
}

/// What the engine does, in small: repeat a failed call once, after the wait that it asks for. The
/// repeat is patient, so that only the fault is measured.
async fn engine(providers: &Providers, request: &ChatRequest, limits: Limits) -> Error {
    let error = providers.chat(request, limits, |_| {}).await.unwrap_err();
    let wait = match error.class() {
        Class::RateLimited { retry_after } | Class::Retryable { retry_after } => retry_after,
        _ => None,
    };
    tokio::time::sleep(wait.unwrap_or(Duration::from_millis(100))).await;
    let again = providers.chat(request, Limits::default(), |_| {}).await;
    assert!(!again.unwrap().text.is_empty());
    error
}

#[tokio::test]
async fn llmock_grades_the_client() {
    crypto();
    let peer = install::llmock().await;
    let providers = providers(format!("{}/v1", peer.url), format!("{}/anthropic", peer.url));
    let judge = Judge { url: peer.url.clone(), http: reqwest::Client::new() };
    let wait = Some(Duration::from_millis(500));
    type Expected = fn(&Kind) -> bool;
    let fault =
        |kind: &str| json!({"type": "stream_fault", "kind": kind, "after_chunks": 5, "stall_seconds": 20});
    let faults: [(Value, Expected); 8] = [
        (json!({"type": "fail", "status": 429, "retry_after": 0.5}), |kind| {
            matches!(kind, Kind::RateLimited { retry_after: Some(_) })
        }),
        (json!({"type": "fail", "status": 500}), |kind| matches!(kind, Kind::ProviderFailed { .. })),
        (json!({"type": "fail", "status": 529}), |kind| matches!(kind, Kind::Overloaded { .. })),
        (fault("truncate"), |kind| *kind == Kind::CutStream),
        (fault("disconnect"), |kind| matches!(kind, Kind::ConnectionLost(_))),
        (fault("malformed"), |kind| matches!(kind, Kind::Garbage(_))),
        (fault("stall"), |kind| matches!(kind, Kind::StallTimeout(_))),
        (json!({"type": "slow_first_token", "seconds": 20}), |kind| {
            matches!(kind, Kind::FirstTokenTimeout(_))
        }),
    ];
    for model in ["o/m", "a/m"] {
        for (behavior, expected) in &faults {
            // Short limits only where a limit must fire: a busy machine is no fault.
            let mut limits = Limits::default();
            match behavior["kind"].as_str().or(behavior["type"].as_str()) {
                Some("stall") => limits.stall = SOON,
                Some("slow_first_token") => limits.first_token = SOON,
                _ => {}
            }
            judge.queue(behavior.clone()).await;
            let request = ChatRequest::new(model, format!("Tell me about {behavior}"));
            let error = engine(&providers, &request, limits).await;
            assert!(expected(error.kind()), "{model} {behavior}: {error:?}");
            if let Class::RateLimited { retry_after } = error.class() {
                assert_eq!(retry_after, wait, "{model}");
            }
            let (passed, mut codes) = judge.verdict().await;
            // the judge thinks so if it wrote on before we hung up; that we noticed is asserted above
            codes.retain(|code| behavior["kind"] != "malformed" || code != "malformed_chunk_ignored");
            assert_eq!((passed, codes), (true, vec![]), "{model} {behavior}");
        }
        // What must not be repeated.
        for status in [400, 401, 404] {
            judge.queue(json!({"type": "fail", "status": status})).await;
            let request = ChatRequest::new(model, format!("status {status}"));
            let result = providers.chat(&request, Limits::default(), |_| {}).await;
            let error = result.unwrap_err();
            assert_eq!(error.class(), Class::Permanent, "{model} {error:?}");
            assert!(!error.excerpt().is_empty());
            assert_eq!(judge.verdict().await, (true, vec![]), "{model} {status}");
        }
    }
}

#[tokio::test]
async fn llmock_drives_tools_and_schemas() {
    crypto();
    let peer = install::llmock().await;
    let providers = providers(format!("{}/v1", peer.url), format!("{}/anthropic", peer.url));
    let judge = Judge { url: peer.url.clone(), http: reqwest::Client::new() };
    let limits = Limits::default();
    for model in ["o/m", "a/m"] {
        // A whole loop: the model calls the tool, gets its result, answers.
        let mut request = ChatRequest::new(model, "What is the weather in Paris?");
        request.tools = vec![tool("get_weather", "city")];
        let response = providers.chat(&request, limits, |_| {}).await.unwrap();
        assert_eq!(response.finish_reason, FinishReason::ToolCalls, "{model}");
        let call = response.tool_calls[0].clone();
        assert_eq!(call.name, "get_weather", "{model}");
        assert!(call.arguments["city"].is_string(), "{model} {call:?}");
        let id = call.id.clone();
        request.messages.push(Message::assistant(response.text, vec![call]));
        request.messages.push(Message::tool(id, "18 degrees, sun"));
        let response = providers.chat(&request, limits, |_| {}).await.unwrap();
        assert_eq!(response.finish_reason, FinishReason::Stop, "{model}");
        assert!(!response.text.is_empty() && response.tool_calls.is_empty(), "{model}");
        assert!(response.usage_reported, "{model}");

        // Several scripted calls in one turn.
        let calls = json!([{"name": "a", "arguments": {"x": "é}"}}, {"name": "b", "arguments": {}}]);
        judge.queue(json!({"type": "reply", "tool_calls": calls})).await;
        let response = providers.chat(&request, limits, |_| {}).await.unwrap();
        let got: Vec<_> = response.tool_calls.iter().map(|c| (c.index, &*c.name, &c.arguments)).collect();
        let (first, second) = (json!({"x": "é}"}), json!({}));
        assert_eq!(got, [(0, "a", &first), (1, "b", &second)], "{model}");

        judge.queue(json!({"type": "tool_fault", "kind": "malformed_arguments"})).await;
        let mut fresh = ChatRequest::new(model, "Weather in Rome?");
        fresh.tools = request.tools.clone();
        let error = providers.chat(&fresh, limits, |_| {}).await.unwrap_err();
        assert_eq!(error.class(), Class::InvalidOutput, "{model} {error:?}");
    }
    for model in ["o/m", "a-tool"] {
        let mut request = ChatRequest::new(model, "Name a city and a number.");
        request.output_schema = Some(city_schema());
        let response = providers.chat(&request, limits, |_| {}).await.unwrap();
        let json = response.json.unwrap();
        assert!(json["city"].is_string() && json["n"].is_i64(), "{model} {json}");
        assert!(response.tool_calls.is_empty(), "{model}");
    }
}
