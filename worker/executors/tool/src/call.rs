//! What every kind of tool has in common: its description, the context of one call, and its result.
//!
//! Kept apart from the registry so that a tool written elsewhere needs only this module.

use std::{io, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Error;

/// What a call may do to the world; decides whether a call with an unknown outcome may be repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// The result depends on the arguments alone.
    Pure,
    /// Reads the world, changes nothing.
    Read,
    /// Changes the world, and doing it twice is the same as doing it once.
    Idempotent,
    /// Changes the world each time. The default, because it is the safe guess.
    #[default]
    Write,
}

/// Describes a tool to whoever plans, validates or prompts with it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ToolSpec {
    /// Unique in a registry; an MCP tool is `server.tool` unless its server has plain names.
    pub name: String,
    /// For people and models.
    pub description: String,
    /// JSON schema of the arguments.
    pub args: Value,
    /// What a call may do.
    pub effect: Effect,
    /// Template over `args` that names what a call touches, such as `account/{{ args.id }}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Longest time one call may take, waiting for a free slot included.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Most calls of this tool at once in one process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_once: Option<usize>,
}

/// Who calls, until when, and how to stop it.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// Run id, sent as `X-Trireme-Run`.
    pub run: Arc<str>,
    /// Task id, sent as `X-Trireme-Task`.
    pub task: Arc<str>,
    /// Which execution of the task this is, from 1. Never part of the idempotency key.
    pub attempt: u32,
    /// `run/task/call`: the same for every attempt, so that a callee can drop repeats.
    pub idempotency_key: Arc<str>,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// Fired when the result is no longer wanted.
    pub cancel: CancellationToken,
}

/// The result of one call.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolOutput {
    /// The value. Text becomes a JSON string.
    pub value: Value,
    /// Bytes that a remote tool sent for it; of other values the JSON text counts.
    pub received: Option<usize>,
}

/// A tool. Implement this for tools that live in the worker's own process.
#[async_trait]
pub trait Tool: Send + Sync {
    /// Describes the tool. Must not change between calls.
    fn spec(&self) -> &ToolSpec;

    /// Runs the tool. Arguments have passed the schema; time limit, cancellation, concurrency and
    /// the size of the output are the registry's business.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::Failed`] is the one for "the tool itself says no".
    async fn call(&self, ctx: &CallContext, args: Value) -> Result<ToolOutput, Error>;
}

// === impl Effect ===

impl Effect {
    /// True when a call whose outcome is unknown may simply be made again.
    #[must_use]
    pub fn repeatable(self) -> bool {
        self != Self::Write
    }
}

// === impl CallContext ===

impl CallContext {
    /// A context for call number `call` of `task`.
    #[must_use]
    pub fn new(run: &str, task: &str, call: u32, attempt: u32, deadline: Instant) -> Self {
        Self {
            run: run.into(),
            task: task.into(),
            attempt,
            idempotency_key: format!("{run}/{task}/{call}").into(),
            deadline,
            cancel: CancellationToken::new(),
        }
    }

    /// The same context for a run that goes on from another's results: callees know its effects under `origin`.
    #[must_use]
    pub fn known_under(mut self, origin: &str, call: u32) -> Self {
        self.idempotency_key = format!("{origin}/{}/{call}", self.task).into();
        self
    }

    /// The same context, stopped by `cancel`.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancellationToken) -> Self {
        self.cancel = cancel;
        self
    }
}

// === impl ToolOutput ===

impl From<Value> for ToolOutput {
    fn from(value: Value) -> Self {
        Self { value, received: None }
    }
}

/// Whether `value` has at most `limit` bytes as JSON text; if not, how many it has. Counted only where it may be over:
/// most values are far below.
pub(crate) fn fits(value: &Value, limit: usize) -> Result<(), usize> {
    if most(value) <= limit {
        return Ok(());
    }
    let bytes = json_size(value);
    if bytes <= limit { Ok(()) } else { Err(bytes) }
}

/// What `value` may have at most as JSON text, in bytes.
fn most(value: &Value) -> usize {
    // a byte of a string is escaped by six (`\u001f`)
    let text = |text: &str| text.len().saturating_mul(6).saturating_add(2);
    let sum = |sum: usize, part: usize| sum.saturating_add(part).saturating_add(2);
    match value {
        Value::Null | Value::Bool(_) => 5,
        // the longest are floats, such as -2.2250738585072014e-308; serde_json's `arbitrary_precision`, which would
        // keep longer ones, is off
        Value::Number(_) => 25,
        Value::String(string) => text(string),
        Value::Array(items) => items.iter().map(most).fold(2, sum),
        Value::Object(fields) => {
            fields.iter().map(|(name, field)| text(name).saturating_add(most(field))).fold(2, sum)
        }
    }
}

/// Bytes of `value` as JSON text, counted without building the text.
pub(crate) fn json_size(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0 += data.len();
            Ok(data.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        // A `Value` always serialises and the counter never fails.
        Err(_) => usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn size_is_that_of_the_text() {
        let long =
            [json!(f64::MIN_POSITIVE), json!(-f64::MAX), json!(i64::MIN), json!(u64::MAX), json!(false)];
        for value in
            [json!(null), json!({"a": [1, 2.5, "é\n"]}), json!(""), json!("\u{1f}\u{7f}"), json!(long)]
        {
            let bytes = serde_json::to_vec(&value).unwrap().len();
            assert_eq!(json_size(&value), bytes);
            assert_eq!((fits(&value, bytes), fits(&value, bytes - 1)), (Ok(()), Err(bytes)));
            for part in value.as_array().into_iter().flatten().chain([&value]) {
                assert!(most(part) >= json_size(part), "{part}");
            }
        }
    }

    #[test]
    fn the_key_does_not_depend_on_the_attempt() {
        let key = |attempt| CallContext::new("r1", "a/b", 2, attempt, Instant::now()).idempotency_key;
        assert_eq!(&*key(1), "r1/a/b/2");
        assert_eq!(key(1), key(7));
    }
}
