//! A tool that counts, waits, panics and fills as it is told.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::watch;
use trireme_tool::{CallContext, Effect, Error, Tool, ToolOutput, ToolSpec};

use super::within;

/// What the probe has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Attempts at work now.
    pub running: usize,
    /// The most at once.
    pub most: usize,
    /// Tasks in the order in which their attempts started.
    pub started: Vec<String>,
    /// Attempts by task.
    pub attempts: HashMap<String, u32>,
    opened: BTreeSet<String>,
}

/// Arguments: `wait` (go on when the gate of this name is open), `panic` (the first so many attempts do), `bytes`
/// (a text of this size), `value` (the result).
pub struct Probe {
    spec: ToolSpec,
    seen: watch::Sender<Seen>,
}

struct Running<'a>(&'a watch::Sender<Seen>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|seen| seen.running -= 1);
    }
}

impl Probe {
    pub fn new() -> Self {
        let args = json!({
            "type": "object", "additionalProperties": false,
            "properties": {
                "wait": {"type": "string"}, "panic": {"type": "integer"}, "bytes": {"type": "integer"},
                "value": {},
            },
        });
        let spec = ToolSpec {
            name: "probe".into(),
            description: String::new(),
            args,
            effect: Effect::Pure,
            resource: None,
            timeout: Duration::from_secs(100_000),
            at_once: None,
        };
        Self { spec, seen: watch::Sender::new(Seen::default()) }
    }

    /// Opens a gate for good.
    pub fn open(&self, gate: &str) {
        self.seen.send_modify(|seen| {
            seen.opened.insert(gate.into());
        });
    }

    /// Waits until what was seen fits.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Seen) -> bool) {
        let mut seen = self.seen.subscribe();
        within(what, seen.wait_for(|seen| wanted(seen))).await.unwrap();
    }

    pub fn started(&self) -> Vec<String> {
        self.seen.borrow().started.clone()
    }

    pub fn most(&self) -> usize {
        self.seen.borrow().most
    }
}

#[async_trait]
impl Tool for Probe {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    async fn call(&self, context: &CallContext, args: Value) -> Result<ToolOutput, Error> {
        self.seen.send_modify(|seen| {
            seen.running += 1;
            seen.most = seen.most.max(seen.running);
            seen.started.push(context.task.to_string());
            *seen.attempts.entry(context.task.to_string()).or_default() += 1;
        });
        let _running = Running(&self.seen);
        // whoever may run at the same time gets to
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        if let Some(gate) = args["wait"].as_str() {
            let mut seen = self.seen.subscribe();
            seen.wait_for(|seen| seen.opened.contains(gate)).await.unwrap();
        }
        assert!(u64::from(context.attempt) > args["panic"].as_u64().unwrap_or(0), "the probe was told to");
        if let Some(bytes) = args["bytes"].as_u64() {
            return Ok(Value::String("x".repeat(bytes as usize)).into());
        }
        Ok(args.get("value").cloned().unwrap_or_default().into())
    }
}
