//! What a misbehaving MCP server over streamable HTTP can do to a call: nothing but fail it.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc, time::Instant};
use trireme_tool::{CallContext, Class, Config, Error, Tools};

type Tokens = mpsc::UnboundedSender<Option<String>>;

/// Answers as the called tool's name says.
async fn rpc(State(tokens): State<Tokens>, headers: HeaderMap, Json(request): Json<Value>) -> Response {
    let _ = tokens.send(headers.get("x-token").map(|v| v.to_str().unwrap().to_owned()));
    let id = request["id"].clone();
    let reply = |result: Value| json!({"jsonrpc": "2.0", "id": id, "result": result});
    let text = |bytes: usize| reply(json!({"content": [{"type": "text", "text": "x".repeat(bytes)}]}));
    match request["method"].as_str().unwrap() {
        "initialize" => Json(reply(json!({
            "protocolVersion": request["params"]["protocolVersion"], "capabilities": {"tools": {}},
            "serverInfo": {"name": "fake", "version": "1"},
        })))
        .into_response(),
        "tools/list" => {
            let names = ["json", "sse", "busy", "broken", "down", "small", "bad", "badschema"];
            let tool = |name| match name {
                "badschema" => {
                    json!({"name": name, "inputSchema": {"type": "object", "properties": {"a": {"type": 7}}}})
                }
                _ => json!({"name": name, "inputSchema": {"type": "object"}}),
            };
            Json(reply(json!({"tools": names.map(tool)}))).into_response()
        }
        "tools/call" => match request["params"]["name"].as_str().unwrap() {
            "json" => Json(text(50_000_000)).into_response(),
            "sse" => sse(&text(50_000_000)),
            "small" => sse(&text(3)),
            "busy" => (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "9")]).into_response(),
            "down" => StatusCode::BAD_GATEWAY.into_response(),
            "bad" => (StatusCode::BAD_REQUEST, "no such thing").into_response(),
            "broken" => ([(header::CONTENT_TYPE, "application/json")], "<html>").into_response(),
            other => panic!("{other}"),
        },
        _ => StatusCode::ACCEPTED.into_response(),
    }
}

fn sse(message: &Value) -> Response {
    ([(header::CONTENT_TYPE, "text/event-stream")], format!("data: {message}\n\n")).into_response()
}

#[tokio::test]
async fn each_failure_has_its_type_and_the_next_call_works() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (sender, mut tokens) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let app = Router::new().route("/mcp", post(rpc)).with_state(sender);
    tokio::spawn(async move { axum::serve(listener, app).await });

    let config: Config = serde_json::from_value(json!({
        "mcp": {"f": {"http": {"url": url, "headers": {"x-token": "t0k3n"}}}},
    }))
    .unwrap();
    let tools = Tools::builder().config(config).build().await.unwrap();
    let ctx = CallContext::new("r", "t", 0, 1, Instant::now() + Duration::from_secs(60));
    let call = async |name: &str| tools.call(name, &ctx, json!({})).await;

    assert!(
        matches!(call("f.badschema").await, Err(Error::UnknownTool { .. })),
        "a tool that cannot be checked"
    );
    for name in ["f.json", "f.sse"] {
        let error = call(name).await.unwrap_err();
        assert!(matches!(error, Error::OutputTooLarge { .. }), "{name}: {error}");
        assert_eq!(call("f.small").await.unwrap().value, json!("xxx"));
    }
    let class = async |name| call(name).await.unwrap_err().class();
    assert_eq!(class("f.busy").await, Class::RateLimited { retry_after: Some(Duration::from_secs(9)) });
    assert_eq!(class("f.down").await, Class::Retryable);
    let error = call("f.bad").await.unwrap_err();
    assert_eq!(
        (error.class(), error.to_string()),
        (Class::Permanent, "HTTP status 400: no such thing".to_owned())
    );
    let error = call("f.broken").await.unwrap_err();
    assert!(matches!(error, Error::BadOutput { .. }), "{error:?}");
    assert_eq!(call("f.small").await.unwrap().value, json!("xxx"));

    tools.shutdown().await;
    while let Ok(token) = tokens.try_recv() {
        assert_eq!(token.as_deref(), Some("t0k3n"));
    }
}
