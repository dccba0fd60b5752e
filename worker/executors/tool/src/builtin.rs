//! The tools that are always there.

mod calculator;
mod http_get;
mod json_query;
mod plain;

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use crate::{Effect, Limits, Tool, ToolSpec, egress::Egress};

/// Every built-in tool.
pub(crate) fn all(egress: &Egress, limits: &Limits) -> Vec<Arc<dyn Tool>> {
    vec![
        Arc::new(http_get::HttpGet::new(egress.clone(), limits)),
        Arc::new(calculator::Calculator::new()),
        Arc::new(json_query::JsonQuery::new()),
        Arc::new(plain::ValueTool::new()),
        Arc::new(plain::Noop::new()),
        Arc::new(plain::Sleep::new()),
    ]
}

/// A spec of a tool that computes in memory.
fn spec(name: &str, description: &str, args: Value) -> ToolSpec {
    ToolSpec {
        name: name.to_owned(),
        description: description.to_owned(),
        args,
        effect: Effect::Pure,
        resource: None,
        timeout: Duration::from_secs(10),
        at_once: None,
    }
}
