//! The client against the project's simulator, whose ledger says what really arrived.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::json;
use trireme_llm::{
    Api, ChatEvent, ChatRequest, ChatResponse, Class, Config, Error, FinishReason, Kind, Limits, Message,
    ProviderConfig, Providers, Secret, Tool,
};
use trireme_simulator::{Outcome, Scenario, Simulator};

const SCENARIO: &str = r#"
rules:
  - when: {last_user: limited}
    times_each: 1
    fault: {error: {status: 429, retry_after: 1500ms}}
  - when: {last_user: overloaded}
    fault: {error: {status: 529}}
  - when: {last_user: stream error}
    respond: {text: "{{ prose(1, 9) }}"}
    fault: {stream_error: {after_tokens: 2}}
  - when: {last_user: cut}
    respond: {text: "{{ prose(1, 9) }}"}
    fault: {cut: {after_tokens: 2}}
  - when: {last_user: truncated}
    respond: {text: "{{ prose(1, 9) }}"}
    fault: {truncate: {after_tokens: 2}}
  - when: {last_user: garbage}
    respond: {text: "{{ prose(1, 9) }}"}
    fault: {garbage: {after_tokens: 2}}
  - when: {last_user: page}
    fault: {wrong_content_type: {}}
  - when: {last_user: empty}
    fault: empty
  - when: {last_user: silent}
    fault: {hang: {before_headers: true}}
  - when: {last_user: stuck}
    respond: {text: "{{ prose(1, 9) }}"}
    fault: {hang: {after_tokens: 2}}
  - when: {last_user: tools, has_tool_results: false}
    respond:
      text: Let me look.
      tool_calls:
        - {name: search, arguments: {q: "Zürich }", n: 3}}
        - {name: now, arguments: {}}
  - when: {last_user: tools}
    respond: {text: "Found: {{ tool_results[0].text }}"}
  - when: {last_user: cached}
    respond: {text: ok, usage: {prompt_tokens: 100, completion_tokens: 5, cached_tokens: 60}}
"#;

/// Two names, because a model's name is part of the content whose repeats the simulator counts.
const MODELS: [&str; 2] = ["o/m-1", "a/m-2"];
/// Short, yet long enough for the request to arrive on a busy machine.
const SOON: Duration = Duration::from_secs(1);

struct Setup {
    simulator: Simulator,
    providers: Providers,
}

async fn setup() -> Setup {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let scenario = Scenario::parse(SCENARIO).unwrap();
    let simulator = Simulator::start(scenario, "127.0.0.1:0".parse().unwrap());
    let simulator = simulator.await.unwrap();
    let mut config = Config::default();
    for (name, api, url) in [
        ("o", Api::OpenAi, simulator.openai_base_url()),
        ("a", Api::Anthropic, simulator.anthropic_base_url()),
    ] {
        let provider = ProviderConfig {
            api: Some(api),
            base_url: Some(url),
            api_key: Some(Secret::literal("any")),
            ..ProviderConfig::default()
        };
        config.providers.insert(name.into(), provider);
    }
    let providers = Providers::new(config).unwrap();
    Setup { simulator, providers }
}

impl Setup {
    async fn ask(&self, model: &str, prompt: &str, limits: Limits) -> Result<ChatResponse, Error> {
        let request = ChatRequest::new(model, prompt);
        self.providers.chat(&request, limits, |_| {}).await
    }

    async fn fails(&self, model: &str, prompt: &str) -> Error {
        let result = self.ask(model, prompt, Limits::default()).await;
        result.unwrap_err()
    }
}

#[tokio::test]
async fn usage_agrees_with_the_ledger() {
    let setup = setup().await;
    for model in MODELS {
        let mut request = ChatRequest::new(model, "Say something about Zürich 😀");
        request.metadata.run = Some("run-1".into());
        request.metadata.task = Some("brief".into());
        request.idempotency_key = Some("run-1/brief/0".into());
        let mut text = String::new();
        let on = |event: ChatEvent<'_>| {
            if let ChatEvent::TextDelta(delta) = event {
                text.push_str(delta);
            }
        };
        let chat = setup.providers.chat(&request, Limits::default(), on);
        let response = chat.await.unwrap();
        assert_eq!(response.text, text);
        let ledger = setup.simulator.ledger();
        ledger.wait_for(|stats| stats.in_flight == 0).await;
        let call = ledger.calls().pop().unwrap();
        assert!(call.stream);
        assert_eq!(call.outcome, Outcome::Completed);
        let tokens = (response.usage.input, response.usage.output);
        assert_eq!(tokens, (call.prompt_tokens, call.completion_tokens), "{model}");
        assert_eq!(call.run.as_deref(), Some("run-1"));
        assert_eq!(call.task.as_deref(), Some("brief"));
        assert_eq!(call.idempotency_key.as_deref(), Some("run-1/brief/0"));

        let cached = setup.ask(model, "cached", Limits::default()).await.unwrap().usage;
        assert_eq!((cached.input, cached.cached_input, cached.output), (100, 60, 5), "{model}");
    }
}

#[tokio::test]
async fn a_tool_loop() {
    let setup = setup().await;
    for model in MODELS {
        let mut request = ChatRequest::new(model, "tools");
        request.tools = ["search", "now"]
            .map(|name| Tool {
                name: name.into(),
                description: String::new(),
                parameters: json!({"type": "object"}),
            })
            .into();
        let chat = setup.providers.chat(&request, Limits::default(), |_| {});
        let response = chat.await.unwrap();
        assert_eq!(response.finish_reason, FinishReason::ToolCalls, "{model}");
        assert_eq!(response.tool_calls[0].arguments, json!({"q": "Zürich }", "n": 3}));
        assert_eq!(response.tool_calls[1].arguments, json!({}));
        let calls = response.tool_calls;
        let ids: Vec<_> = calls.iter().map(|call| call.id.clone()).collect();
        request.messages.push(Message::assistant(response.text, calls));
        request.messages.push(Message::tool(&ids[0], "a lake"));
        request.messages.push(Message::tool(&ids[1], "noon"));
        let chat = setup.providers.chat(&request, Limits::default(), |_| {});
        assert_eq!(chat.await.unwrap().text, "Found: a lake", "{model}");
    }
}

#[tokio::test]
async fn each_fault_has_its_class() {
    let setup = setup().await;
    let retryable = Class::Retryable { retry_after: None };
    for model in MODELS {
        let limited = setup.fails(model, "limited").await;
        let retry_after = Some(Duration::from_millis(1_500));
        assert_eq!(limited.class(), Class::RateLimited { retry_after });
        assert_eq!(limited.status(), Some(429));
        setup.ask(model, "limited", Limits::default()).await.unwrap();

        let overloaded = setup.fails(model, "overloaded").await;
        assert_eq!(overloaded.class(), retryable, "{model}");
        for prompt in ["stream error", "cut", "truncated", "empty"] {
            let error = setup.fails(model, prompt).await;
            assert_eq!(error.class(), retryable, "{model} {prompt}: {error:?}");
        }
        for prompt in ["garbage", "page"] {
            let error = setup.fails(model, prompt).await;
            assert!(matches!(error.kind(), Kind::Garbage(_)), "{model} {prompt}: {error:?}");
        }
        let first_token = Limits { first_token: SOON, ..Limits::default() };
        let error = setup.ask(model, "silent", first_token).await.unwrap_err();
        assert_eq!(error.class(), Class::FirstTokenTimeout, "{model}");
        let stall = Limits { stall: SOON, ..Limits::default() };
        let error = setup.ask(model, "stuck", stall).await.unwrap_err();
        assert_eq!(error.class(), Class::StallTimeout, "{model}");
    }
    // The calls that were given up are closed on the other side too.
    let stats = setup.simulator.ledger();
    let stats = stats.wait_for(|stats| stats.in_flight == 0).await;
    assert_eq!(stats.client_disconnected, 4);
}

#[tokio::test]
async fn a_schema_is_answered_and_checked() {
    let setup = setup().await;
    let mut request = ChatRequest::new("", "Name a city.");
    request.output_schema = Some(json!({"type": "object", "properties": {"city": {"type": "string"}},
        "required": ["city"], "additionalProperties": false}));
    for model in MODELS {
        request.model = model.into();
        let chat = setup.providers.chat(&request, Limits::default(), |_| {});
        let json = chat.await.unwrap().json.unwrap();
        assert!(json["city"].is_string(), "{model}: {json}");
    }
}
