//! The client over real sockets, against servers that do exactly what each test says.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::json;
use trireme_llm::{
    Api, ChatEvent, ChatRequest, ChatResponse, Class, Config, Error, FinishReason, Kind, Limits, ModelConfig,
    Prices, ProviderConfig, Providers, Secret, StructuredOutput,
};

mod scripted;
mod timing;

use scripted::*;

const KEY: &str = "sk-very-secret-key";
const PROMPT: &str = "The confidential plan: merge Acme with Globex before the end of March.";

/// Far away, so that only the limit under test can fire.
const FAR: Duration = Duration::from_secs(60);
/// Short, for a limit that must fire; the servers never beat it, since they hang.
const SOON: Duration = Duration::from_millis(60);

fn limits() -> Limits {
    Limits { first_token: FAR, stall: FAR, total: FAR }
}

fn config(server: &Server, api: Api) -> Config {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let provider = ProviderConfig {
        api: Some(api),
        base_url: Some(format!("http://{}/base", server.addr)),
        api_key: Some(Secret::literal(KEY)),
        headers: [("x-team".to_owned(), Secret::literal("team-7"))].into(),
        ..ProviderConfig::default()
    };
    let mut config = Config::default();
    config.providers.insert("p".into(), provider);
    let model = ModelConfig {
        prices: Some(Prices { input: 2.0, output: 8.0, cached_input: None, cache_write_input: None }),
        ..ModelConfig::from("p/m")
    };
    config.models.insert("fast".into(), model);
    config
}

fn providers(server: &Server) -> Providers {
    Providers::new(config(server, Api::OpenAi)).unwrap()
}

async fn chat(script: Vec<Step>) -> Result<ChatResponse, Error> {
    let server = Server::start(vec![script]).await;
    let request = ChatRequest::new("fast", PROMPT);
    providers(&server).chat(&request, limits(), |_| {}).await
}

async fn fails(script: Vec<Step>) -> Error {
    let error = chat(script).await.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains(KEY), "{shown}");
    assert!(!shown.contains("merge Acme"), "{shown}");
    assert_eq!((error.provider(), error.model()), ("p", "m"));
    error
}

#[tokio::test]
async fn a_streamed_answer_with_headers_usage_and_cost() {
    let mut server = Server::start(vec![hello()]).await;
    let mut request = ChatRequest::new("fast", PROMPT);
    request.metadata.run = Some("run-1".into());
    request.metadata.task = Some("research/step-2".into());
    request.idempotency_key = Some("run-1/research/0".into());
    let mut seen = Vec::new();
    let on = |event: ChatEvent<'_>| seen.push(format!("{event:?}"));
    let response = providers(&server).chat(&request, limits(), on).await.unwrap();

    assert_eq!(response.text, "hello");
    assert_eq!(response.finish_reason, FinishReason::Stop);
    assert_eq!((response.usage.input, response.usage.output), (1_000, 100));
    assert_eq!(response.cost_usd_micros, Some(2_800));
    assert_eq!(response.model, "p/m");
    assert_eq!(response.served_model.as_deref(), Some("m-1"));
    assert_eq!(response.id.as_deref(), Some("c-1"));
    assert!(response.ttft <= response.duration);
    assert_eq!(seen[..2], ["FirstToken", "TextDelta(\"hello\")"]);
    assert!(seen[2].starts_with("Usage("), "{seen:?}");

    let (head, body) = server.request().await;
    for line in [
        "post /base/chat/completions http/1.1",
        &format!("authorization: bearer {KEY}"),
        "x-team: team-7",
        "x-trireme-run: run-1",
        "x-trireme-task: research/step-2",
        "idempotency-key: run-1/research/0",
        "accept: text/event-stream",
        "content-type: application/json",
    ] {
        assert!(head.lines().any(|l| l == line), "{line} in {head}");
    }
    assert!(!head.contains("accept-encoding"), "{head}");
    assert_eq!(body["stream"], json!(true));
    assert_eq!(body["messages"][0]["content"], PROMPT);
}

#[tokio::test]
async fn anthropic_headers_and_stream() {
    let script = vec![
        stream_head(),
        events(&[
            r#"{"type":"message_start","message":{"id":"msg_1","model":"c","usage":{"input_tokens":5,"output_tokens":1}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hi"}}"#,
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}"#,
            r#"{"type":"message_stop"}"#,
        ]),
    ];
    let mut server = Server::start(vec![script]).await;
    let providers = Providers::new(config(&server, Api::Anthropic)).unwrap();
    let request = ChatRequest::new("p/claude", PROMPT);
    let response = providers.chat(&request, limits(), |_| {}).await.unwrap();
    assert_eq!((response.text.as_str(), response.usage.output), ("hi", 2));
    assert_eq!(response.cost_usd_micros, None);
    let (head, _) = server.request().await;
    for line in
        ["post /base/v1/messages http/1.1", &format!("x-api-key: {KEY}"), "anthropic-version: 2023-06-01"]
    {
        assert!(head.lines().any(|l| l == line), "{line} in {head}");
    }
    assert!(!head.contains("authorization"), "{head}");
}

#[tokio::test]
async fn refusals_by_class() {
    let body = format!(r#"{{"error":{{"message":"no: {PROMPT} {KEY}","type":"t"}}}}"#);
    let json = "content-type: application/json\r\n";
    let wait = |secs| Some(Duration::from_secs(secs));
    for (status, headers, class) in [
        ("429 X", "retry-after: 7\r\n", Class::RateLimited { retry_after: wait(7) }),
        ("429 X", "", Class::RateLimited { retry_after: None }),
        ("503 X", "retry-after: 2\r\n", Class::Retryable { retry_after: wait(2) }),
        ("529 X", "", Class::Retryable { retry_after: None }),
        ("500 X", "", Class::Retryable { retry_after: None }),
        ("400 X", "", Class::Permanent),
        ("401 X", "", Class::Permanent),
        ("404 X", "", Class::Permanent),
        ("307 X", "location: http://127.0.0.1:1/\r\n", Class::Permanent),
    ] {
        let error = fails(refusal(status, &format!("{json}{headers}"), &body)).await;
        assert_eq!(error.class(), class, "{status}");
        assert_eq!(error.status(), status[..3].parse().ok());
        assert_eq!(error.excerpt(), "no: [redacted] [redacted] (t)");
    }
    let huge = "x".repeat(200_000);
    let error = fails(refusal("502 Bad Gateway", "content-type: text/html\r\n", &huge)).await;
    assert_eq!(error.excerpt().len(), 2_048);
    let long = r#"{"error":{"message":"prompt is too long: 200001 tokens","type":"invalid_request_error"}}"#;
    let error = fails(refusal("400 X", json, long)).await;
    assert_eq!(error.kind(), &Kind::ContextLength);
}

#[tokio::test]
async fn lost_and_cut_connections_are_retryable() {
    let retryable = Class::Retryable { retry_after: None };
    let cut = fails(vec![stream_head(), events(&[HELLO])]).await;
    assert_eq!((cut.kind(), cut.class()), (&Kind::CutStream, retryable));
    assert_eq!(cut.request_id(), Some("req-7"));
    // [DONE] alone, half an event, nothing at all.
    for tail in ["data: [DONE]\n\n", "data: {\"choi", ""] {
        let script = vec![stream_head(), events(&[HELLO]), Step::Send(tail.into())];
        assert_eq!(fails(script).await.kind(), &Kind::CutStream, "{tail}");
    }
    assert_eq!(fails(vec![stream_head()]).await.kind(), &Kind::CutStream);
    for script in [vec![stream_head(), events(&[HELLO]), Step::Reset], vec![Step::Reset], vec![]] {
        let error = fails(script).await;
        assert!(matches!(error.kind(), Kind::ConnectionLost(_)), "{error:?}");
        assert_eq!(error.class(), retryable);
    }
    // Fewer bytes than announced.
    let short = "content-type: text/event-stream\r\ncontent-length: 5000\r\n";
    let error = fails(vec![head("200 OK", short), events(&[HELLO])]).await;
    assert_eq!(error.class(), retryable, "{error:?}");

    // Nobody listens.
    let server = Server::start(vec![hello()]).await;
    let mut config = config(&server, Api::OpenAi);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    config.providers.get_mut("p").unwrap().base_url = Some(format!("http://{addr}"));
    let request = ChatRequest::new("p/m", PROMPT);
    let providers = Providers::new(config).unwrap();
    let error = providers.chat(&request, limits(), |_| {}).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Connect(_)), "{error:?}");
    assert_eq!(error.class(), retryable);
    assert_eq!(error.status(), None);
}

#[tokio::test]
async fn a_complete_answer_survives_a_lost_tail() {
    for script in [
        vec![stream_head(), events(&[HELLO, STOP])],
        vec![stream_head(), events(&[HELLO, STOP]), Step::Reset],
    ] {
        let response = chat(script).await.unwrap();
        assert_eq!(response.text, "hello");
        assert!(!response.usage_reported);
        assert_eq!(response.cost_usd_micros, None);
    }
}

#[tokio::test]
async fn garbage_is_typed() {
    let stream = "content-type: text/event-stream\r\n";
    let json = "content-type: application/json\r\n";
    let html = "content-type: text/html\r\n";
    for (headers, body) in [
        (stream, "data: {not json}\n\n"),
        (stream, "hello, I am not a stream\n"),
        ("", "\u{0}\u{1}binary\n\n"),
        (html, "<html>welcome</html>"),
        (json, r#"{"choices":[{"message":{"content":"not streamed"}}]}"#),
        (json, "{"),
    ] {
        let error = fails(refusal("200 OK", headers, body)).await;
        assert!(matches!(error.kind(), Kind::Garbage(_)), "{body}: {error:?}");
        assert_eq!(error.class(), Class::InvalidOutput);
        assert!(!error.excerpt().is_empty(), "{body}");
    }
    // An error object under status 200 is an error all the same.
    let body = r#"{"error":{"message":"later","type":"rate_limit_error"}}"#;
    let error = fails(refusal("200 OK", &format!("{json}retry-after: 3\r\n"), body)).await;
    let retry_after = Some(Duration::from_secs(3));
    assert_eq!(error.class(), Class::RateLimited { retry_after });
    // And inside the stream.
    let error = fails(vec![stream_head(), events(&[HELLO, body])]).await;
    assert_eq!(error.class(), Class::RateLimited { retry_after: None });
    assert_eq!(error.excerpt(), "later (rate_limit_error)");
    // An endless line is not collected.
    let error = fails(refusal("200 OK", stream, &"x".repeat(2 << 20))).await;
    assert!(matches!(error.kind(), Kind::TooLarge { bound: 1_048_576, .. }), "{error:?}");
}

#[tokio::test]
async fn structured_output() {
    let answer = |content: &str, reason: &str| {
        let text = json!({"choices": [{"index": 0, "delta": {"content": content}}]}).to_string();
        let stop = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]});
        vec![stream_head(), events(&[&text, &stop.to_string(), DONE])]
    };
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}},
        "required": ["n"], "additionalProperties": false});
    let ask = |script| {
        let mut request = ChatRequest::new("fast", PROMPT);
        request.output_schema = Some(schema.clone());
        async move {
            let server = Server::start(vec![script]).await;
            providers(&server).chat(&request, limits(), |_| {}).await
        }
    };
    for (content, repaired) in [("{\"n\":1}", false), ("```json\n{\"n\":1}\n```", true), ("{\"n\":1", true)] {
        let response = ask(answer(content, "stop")).await.unwrap();
        assert_eq!((response.json, response.json_repaired), (Some(json!({"n": 1})), repaired));
    }
    for (content, reason, says) in [
        ("{\"n\":\"one\"}", "stop", "schema at `/n`"),
        ("I'd rather not", "stop", "not JSON"),
        ("{\"n\":1", "length", "token limit"),
        ("no", "content_filter", "refused"),
    ] {
        let error = ask(answer(content, reason)).await.unwrap_err();
        assert_eq!(error.class(), Class::InvalidOutput);
        assert!(error.to_string().contains(says), "{error}");
    }
    // A turn that asks for tools has no answer yet.
    let call = r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#;
    let response = ask(vec![stream_head(), events(&[call, DONE])]).await.unwrap();
    assert_eq!((response.json, response.tool_calls.len()), (None, 1));

    // The tool form: the forced call is the answer and no call.
    let call = call.replace("\"f\"", "\"trireme_answer\"").replace("\"{}\"", r#""{\"n\":2}""#);
    let server = Server::start(vec![vec![stream_head(), events(&[&call, DONE])]]).await;
    let mut config = config(&server, Api::OpenAi);
    config.models.get_mut("fast").unwrap().structured_output = Some(StructuredOutput::Tool);
    let mut request = ChatRequest::new("fast", PROMPT);
    request.output_schema = Some(schema);
    let response = Providers::new(config).unwrap().chat(&request, limits(), |_| {}).await.unwrap();
    assert_eq!(response.json, Some(json!({"n": 2})));
    assert!(response.tool_calls.is_empty());
    assert_eq!(response.finish_reason, FinishReason::Stop);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_before_it_is() {
    let mut server = Server::start(vec![hello()]).await;
    let providers = providers(&server);
    let good = ChatRequest::new("fast", PROMPT);
    let change = |f: &dyn Fn(&mut ChatRequest)| {
        let mut request = good.clone();
        f(&mut request);
        request
    };
    for (request, says) in [
        (change(&|r| r.messages.clear()), "no message"),
        (change(&|r| r.max_tokens = Some(0)), "max_tokens"),
        (change(&|r| r.output_schema = Some(json!({"type": 7}))), "output_schema"),
        (change(&|r| r.idempotency_key = Some("a\nb".into())), "idempotency-key"),
        (change(&|r| r.model = "slow".into()), "unknown model `slow`"),
    ] {
        let error = providers.chat(&request, limits(), |_| {}).await.unwrap_err();
        assert_eq!(error.class(), Class::Permanent);
        assert!(error.to_string().contains(says), "{error}");
    }
    let unset = Providers::with_env(Config::default(), &|_| None).unwrap();
    let request = change(&|r| r.model = "openai/gpt".into());
    let error = unset.chat(&request, limits(), |_| {}).await.unwrap_err();
    let variable = "OPENAI_API_KEY".to_owned();
    assert_eq!(error.kind(), &Kind::MissingKey { variable });
    assert!(server.nothing_more());
}
