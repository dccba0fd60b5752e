//! The spans of an attempt, by OpenTelemetry's conventions for messaging and for generative AI.
//!
//! ```text
//! invoke_workflow NAME        the run, told of by a coordinator when it has ended
//!   publish QUEUE             whoever made tasks ready
//!   process QUEUE             an attempt that a message brought, linked to the span above; `attempt KIND` where it
//!                             goes on without one
//!     chat MODEL              a call of a model
//!   execute_tool NAME         an attempt of a tool task, which is one call: one span, linked as well
//!   invoke_agent NAME         an agent, told of with its run; its tasks' attempts are below it, as are a map's
//! ```

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use trireme_backend::Delivery;
use trireme_model::{Assignment, Kind, Priority, Trace};
use trireme_telemetry::traces::{Group, Span, SpanKind, Traces, run_span, task_span};
use trireme_tool::Tools;

use crate::{attempt::kind_name, leases::Stop, outcome::Ended};

/// How an attempt came about.
pub(crate) struct Cause {
    /// The queue and trace context of the message.
    via: Option<trireme_backend::Via>,
    redelivered: bool,
    /// When the message was published, in ms since the Unix epoch; 0 for none.
    published: u64,
}

/// The spans of one attempt.
pub(crate) struct Spans {
    group: Group,
    id: u64,
    attempt: Mutex<Span>,
}

impl Cause {
    pub(crate) fn of(delivery: &mut Delivery) -> Self {
        let via = delivery.via.take();
        Self { via, redelivered: delivery.redelivered, published: delivery.published }
    }

    /// The attempt follows another one in the same worker.
    pub(crate) fn none() -> Self {
        Self { via: None, redelivered: false, published: 0 }
    }
}

impl Spans {
    /// Begins the span of an attempt; `None` where its run is not traced.
    pub(crate) fn begin(
        traces: &Traces,
        trace: Option<&Trace>,
        assignment: &Assignment,
        priority: Priority,
        cause: &Cause,
    ) -> Option<Self> {
        let group = traces.group(trace)?;
        let Assignment { run, task, .. } = assignment;
        // the span of a map or an agent stands for all that happens in it, its own attempts among that
        let parent = match (assignment.kind, &assignment.owner) {
            (Kind::Map | Kind::Agent, _) => task_span(run, task),
            (_, Some(owner)) => task_span(run, owner),
            (_, None) => run_span(run),
        };
        let tool = assignment.kind == Kind::Tool;
        let mut attempt = match &cause.via {
            // it gets its full name with the call
            _ if tool => group.open(SpanKind::Internal, EXECUTE_TOOL, parent),
            Some(via) => {
                let mut span = group.open(SpanKind::Consumer, format!("process {}", via.queue), parent);
                span.set("messaging.system", "rabbitmq")
                    .set("messaging.operation.name", "process")
                    .set("messaging.operation.type", "process");
                span
            }
            None => group.open(SpanKind::Internal, attempt_name(assignment.kind), parent),
        };
        if let Some(via) = &cause.via {
            attempt.set("messaging.destination.name", &*via.queue);
            // a context of another trace is a mistake or a forgery
            if let Some(sent) = via.trace.filter(|sent| sent.id == group.trace().id) {
                attempt.link(&sent);
            }
            if cause.redelivered {
                attempt.set("trireme.redelivered", true);
            }
            let published = UNIX_EPOCH + Duration::from_millis(cause.published);
            let waited = SystemTime::now().duration_since(published).unwrap_or_default();
            attempt.set("trireme.queue.wait", waited.as_secs_f64());
        }
        let ready = assignment.now.saturating_sub(assignment.ready_at) as f64 / 1000.0;
        attempt
            .set("trireme.run.id", run.as_str())
            .set("trireme.task.id", task.as_str())
            .set("trireme.task.kind", kind_name(assignment))
            .set("trireme.attempt", i64::from(assignment.attempt))
            .set("trireme.ready.wait", ready)
            .set("trireme.pool", &*assignment.pool);
        if priority == Priority::High {
            attempt.set("trireme.priority", "high");
        }
        Some(Self { group, id: attempt.id(), attempt: Mutex::new(attempt) })
    }

    /// The trace, and the span of the attempt.
    pub(crate) fn ids(&self) -> (u128, u64) {
        (self.group.trace().id, self.id)
    }

    fn attempt(&self) -> MutexGuard<'_, Span> {
        // nothing can panic while the lock is held
        self.attempt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The attempt is a call of this tool.
    pub(crate) fn tool(&self, tools: &Tools, assignment: &Assignment, name: &str, args: &Value) {
        let mut span = self.attempt();
        span.rename(format!("{EXECUTE_TOOL} {name}"))
            .set("gen_ai.operation.name", EXECUTE_TOOL)
            .set("gen_ai.tool.name", name)
            .set("gen_ai.tool.call.id", format!("{}/{}/0", assignment.run, assignment.task));
        match tools.mcp_server(name) {
            Some(server) => span
                .set("gen_ai.tool.type", "extension")
                .set("mcp.method.name", "tools/call")
                .set("trireme.mcp.server", server),
            None => span.set("gen_ai.tool.type", "function"),
        };
        if let Some(text) = self.content(|| args.to_string()) {
            span.set("gen_ai.tool.call.arguments", text);
        }
    }

    /// What the tool gave.
    pub(crate) fn tool_gave(&self, value: &Value) {
        if let Some(text) = self.content(|| value.to_string()) {
            self.attempt().set("gen_ai.tool.call.result", text);
        }
    }

    /// Begins a span inside the attempt.
    pub(crate) fn open(&self, kind: SpanKind, name: String) -> Span {
        self.group.open(kind, name, self.id)
    }

    /// A text for a span, if it may stand there.
    pub(crate) fn content(&self, text: impl FnOnce() -> String) -> Option<String> {
        self.group.content(text)
    }

    /// Ends a span inside the attempt.
    pub(crate) fn close(&self, span: Span) {
        self.group.end(span);
    }

    /// The attempt has ended.
    pub(crate) fn end(self, ended: &Result<Ended, Stop>) {
        let mut attempt = self.attempt.into_inner().unwrap_or_else(PoisonError::into_inner);
        match ended {
            Ok(Ended::Done { .. } | Ended::Queued) => {}
            Ok(Ended::Failed(failure)) => attempt.fail(failure.code),
            Err(Stop::Lost) => attempt.fail("lost"),
            // nobody's fault
            Err(Stop::Cancelled) => drop(attempt.set("trireme.outcome", "cancelled")),
            Err(Stop::Released) => drop(attempt.set("trireme.outcome", "released")),
        }
        self.group.finish(attempt);
    }
}

/// The span of a call of a tool, by the conventions for generative AI.
const EXECUTE_TOOL: &str = "execute_tool";

fn attempt_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Llm => "attempt llm",
        Kind::Tool => EXECUTE_TOOL,
        Kind::Join => "attempt join",
        Kind::Map => "attempt map",
        Kind::Agent => "attempt agent",
    }
}
