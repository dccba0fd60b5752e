//! The tasks that agents add.

use serde_json::json;
use trireme_agent::Work;
use trireme_model::{
    Added, Exec, JoinPolicy, Kind, Ms, Need, OnMiss, Payload, TaskId, TaskSpec, limits::MAX_LABEL,
};
use trireme_spec::{AGENT_TIMEOUT_MS, ATTEMPTS, BACKOFF_MS, LLM_TIMEOUT_MS, TOOL_TIMEOUT_MS};

use crate::executors::Job;

/// Where tool calls run.
const TOOL_POOL: &str = "tool";

/// A task to be added.
pub(super) struct New(Added);

impl New {
    /// The agent fails with it.
    pub(super) fn vital(mut self) -> Self {
        self.0.vital = true;
        self
    }

    /// It needs some of the run's budget to be left.
    pub(super) fn paid(mut self) -> Self {
        self.0.spec.exec.paid = true;
        self
    }

    /// It touches this, alone.
    pub(super) fn touching(mut self, resource: Option<String>) -> Self {
        self.0.resource = resource;
        self
    }

    pub(super) fn added(self) -> Added {
        self.0
    }
}

fn new(
    job: &Job<'_>,
    id: TaskId,
    label: &str,
    (kind, pool, timeout): (Kind, &str, Option<Ms>),
    body: Payload,
    inputs: Vec<TaskId>,
) -> New {
    let mut end = label.len().min(MAX_LABEL);
    while !label.is_char_boundary(end) {
        end -= 1;
    }
    let exec = Exec {
        kind,
        pool: pool.to_owned(),
        // an agent is as urgent as the run's author said, and all that it does is for it
        priority: job.assignment.priority,
        timeout,
        max_attempts: ATTEMPTS,
        backoff: BACKOFF_MS,
        paid: false,
        fallback: None,
    };
    let label = label[..end].to_owned();
    let spec = TaskSpec { id, label, exec, inputs, policy: None, children: None, body };
    New(Added { spec, vital: false, resource: None })
}

/// A call of a model, in the pool of the agent.
pub(super) fn model(job: &Job<'_>, id: TaskId, label: &str, work: Work, inputs: Vec<TaskId>) -> New {
    new(job, id, label, (Kind::Llm, &job.assignment.pool, Some(LLM_TIMEOUT_MS)), work.body(), inputs)
}

/// A call of a tool.
pub(super) fn tool(job: &Job<'_>, id: TaskId, label: &str, work: Work, inputs: Vec<TaskId>) -> New {
    new(job, id, label, (Kind::Tool, TOOL_POOL, Some(TOOL_TIMEOUT_MS)), work.body(), inputs)
}

/// An agent inside an agent.
pub(super) fn agent(job: &Job<'_>, id: TaskId, label: &str, work: Work, inputs: Vec<TaskId>) -> New {
    new(job, id, label, (Kind::Agent, &job.assignment.pool, Some(AGENT_TIMEOUT_MS)), work.body(), inputs)
}

/// A join; its value is never read, only which inputs it froze.
pub(super) fn join(
    job: &Job<'_>,
    id: TaskId,
    inputs: Vec<TaskId>,
    (need, on_miss, within): (Need, OnMiss, Option<Ms>),
) -> New {
    let body = Payload::of(&json!({"merge": {"form": "list"}}));
    let mut new = new(job, id, "", (Kind::Join, "", None), body, inputs);
    new.0.spec.policy = Some(JoinPolicy { need, within, on_miss });
    new
}
