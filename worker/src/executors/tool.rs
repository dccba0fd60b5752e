//! `tool` tasks: one call of a tool.

mod line;

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use trireme_model::{FailureClass, Ms, Payload};
use trireme_tool::{CallContext, Class, Tools};

use super::Job;
use crate::outcome::{Ended, Failure};

pub(super) use line::resource;
use line::touch;

/// How long a tool may take when the task says nothing; the tool's own limit usually comes first.
const DEFAULT_LIMIT: Duration = Duration::from_secs(600);

pub(super) async fn call(tools: &Tools, job: &Job<'_>, name: &str, args: Value) -> Result<Ended, Failure> {
    let assignment = job.assignment;
    if let Some(resource) = resource(tools, name, &args)
        && !touch(job, resource).await?
    {
        return Ok(Ended::Queued);
    }
    let deadline = job.deadline.unwrap_or_else(|| Instant::now() + DEFAULT_LIMIT);
    let context =
        CallContext::new(assignment.run.as_str(), assignment.task.as_str(), 0, assignment.attempt, deadline)
            .known_under(assignment.run.origin(), 0)
            .with_cancel(job.stop.clone());
    if let Some(spans) = job.spans {
        spans.tool(tools, assignment, name, &args);
    }
    let called = tools.call(name, &context, args).await;
    if let (Some(spans), Ok(output)) = (job.spans, &called) {
        spans.tool_gave(&output.value);
    }
    match called {
        Ok(output) => Ok(Ended::result(Payload::of(&output.value))),
        Err(error) => Err(failure(&error)),
    }
}

fn failure(error: &trireme_tool::Error) -> Failure {
    let (class, retry_after) = match error.class() {
        Class::Retryable => (FailureClass::Retryable, None),
        Class::RateLimited { retry_after } => (FailureClass::RateLimited, retry_after),
        Class::Permanent | Class::Timeout | Class::Cancelled => (FailureClass::Permanent, None),
    };
    let retry_after = retry_after.map(|after| Ms::try_from(after.as_millis()).unwrap_or(Ms::MAX));
    Failure { class, code: error.code(), message: error.to_string(), retry_after }
}
