//! Built-in tools through the registry, and tools of the embedding program.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trireme_tool::{CallContext, Class, Config, Effect, Error, Tool, ToolOutput, ToolSpec, Tools};

struct Echo(ToolSpec);

#[async_trait]
impl Tool for Echo {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    async fn call(&self, ctx: &CallContext, args: Value) -> Result<ToolOutput, Error> {
        Ok(json!({"args": args, "attempt": ctx.attempt}).into())
    }
}

async fn tools(config: Value) -> Tools {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let echo = Echo(ToolSpec {
        name: "echo".into(),
        description: String::new(),
        args: json!({"type": "object"}),
        effect: Effect::Pure,
        resource: None,
        timeout: Duration::from_secs(1),
        at_once: None,
    });
    let config: Config = serde_json::from_value(config).unwrap();
    Tools::builder().builtin().config(config).register(Arc::new(echo)).build().await.unwrap()
}

fn ctx() -> CallContext {
    CallContext::new("r", "t", 0, 2, Instant::now() + Duration::from_secs(1000))
}

#[tokio::test]
async fn they_compute() {
    let tools = tools(json!({})).await;
    for (name, args, want) in [
        ("calculator", json!({"expression": "2 * (3 + 4)"}), json!(14)),
        ("calculator", json!({"expression": 2.5}), json!(2.5)),
        ("json_query", json!({"data": {"a": [1, 2]}, "query": "/a/1"}), json!(2)),
        ("value", json!({"value": {"a": [null]}}), json!({"a": [null]})),
        ("noop", json!({"anything": 1}), json!(null)),
        ("echo", json!({"x": 1}), json!({"args": {"x": 1}, "attempt": 2})),
    ] {
        let output = tools.call(name, &ctx(), args).await.unwrap();
        assert_eq!(output.value, want, "{name}");
        assert_eq!(output.received, None);
    }
    let error = tools.call("calculator", &ctx(), json!({"expression": "1 / 0"})).await.unwrap_err();
    assert_eq!((error.code(), error.class()), ("tool_failed", Class::Permanent));
}

#[tokio::test]
async fn the_list_is_sorted_and_complete() {
    let tools = tools(json!({})).await;
    let names: Vec<String> = tools.specs().into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["calculator", "echo", "http_get", "json_query", "noop", "sleep", "value"]);
    assert_eq!(tools.get("sleep").unwrap().spec().effect, Effect::Read);
    assert!(tools.get("nope").is_none());
}

#[tokio::test(start_paused = true)]
async fn sleep_takes_its_time_and_is_cancelled_at_once() {
    let tools = tools(json!({})).await;
    let begun = Instant::now();
    let output = tools.call("sleep", &ctx(), json!({"ms": 50_000})).await.unwrap();
    assert_eq!(output.value, json!({"slept_ms": 50_000}));
    assert_eq!(begun.elapsed().as_secs(), 50);
    assert!(matches!(tools.check("sleep", &json!({"ms": 600_001})), Err(Error::InvalidArgs { .. })));

    let cancel = CancellationToken::new();
    let ctx = ctx().with_cancel(cancel.clone());
    let begun = Instant::now();
    let (result, ()) =
        tokio::join!(tools.call("sleep", &ctx, json!({"ms": 500_000})), async { cancel.cancel() });
    assert!(matches!(result, Err(Error::Cancelled)));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn the_size_of_any_output_is_bounded() {
    let tools = tools(json!({"limits": {"output_bytes": 10}})).await;
    assert!(tools.call("value", &ctx(), json!({"value": "12345678"})).await.is_ok());
    let error = tools.call("value", &ctx(), json!({"value": "123456789"})).await.unwrap_err();
    assert!(matches!(error, Error::OutputTooLarge { limit: 10 }), "{error}");
}
