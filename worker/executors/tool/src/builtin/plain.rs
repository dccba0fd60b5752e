//! `value`, `noop` and `sleep`: what the engine, tests and benchmarks are built from.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::spec;
use crate::{CallContext, Effect, Error, Tool, ToolOutput, ToolSpec};

/// Longest sleep in milliseconds: ten minutes.
const MAX_SLEEP_MS: u64 = 600_000;

/// Returns its argument `value` unchanged; this is how a rendered template is recorded as a result.
pub(super) struct ValueTool(ToolSpec);

/// Takes any arguments and returns null.
pub(super) struct Noop(ToolSpec);

/// Waits.
pub(super) struct Sleep(ToolSpec);

// === impl ValueTool ===

impl ValueTool {
    pub fn new() -> Self {
        let args = json!({
            "type": "object", "required": ["value"], "additionalProperties": false,
            "properties": {"value": {"description": "any JSON value"}},
        });
        Self(spec("value", "Returns its argument `value` unchanged.", args))
    }
}

#[async_trait]
impl Tool for ValueTool {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    async fn call(&self, _ctx: &CallContext, mut args: Value) -> Result<ToolOutput, Error> {
        Ok(args.get_mut("value").map(Value::take).unwrap_or_default().into())
    }
}

// === impl Noop ===

impl Noop {
    pub fn new() -> Self {
        Self(spec("noop", "Does nothing and returns null.", json!({"type": "object"})))
    }
}

#[async_trait]
impl Tool for Noop {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    async fn call(&self, _ctx: &CallContext, _args: Value) -> Result<ToolOutput, Error> {
        Ok(Value::Null.into())
    }
}

// === impl Sleep ===

impl Sleep {
    pub fn new() -> Self {
        let args = json!({
            "type": "object", "required": ["ms"], "additionalProperties": false,
            "properties": {
                "ms": {"type": "integer", "minimum": 0, "maximum": MAX_SLEEP_MS, "description": "milliseconds"},
            },
        });
        let mut spec = spec("sleep", "Waits for `ms` milliseconds and returns {\"slept_ms\": ms}.", args);
        spec.effect = Effect::Read;
        // A second over the longest sleep, so that the schema's bound is the one that is met.
        spec.timeout = Duration::from_millis(MAX_SLEEP_MS + 1000);
        Self(spec)
    }
}

#[async_trait]
impl Tool for Sleep {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    async fn call(&self, _ctx: &CallContext, args: Value) -> Result<ToolOutput, Error> {
        // 5.0 is an integer to JSON schema, but not to `as_u64`.
        let ms = args["ms"].as_u64().or_else(|| args["ms"].as_f64().map(|f| f as u64)).unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Ok(json!({"slept_ms": ms}).into())
    }
}
