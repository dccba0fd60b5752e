//! The state of a run: everything a backend stores, and nothing a clock or a socket would know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    graph::{Exec, Graph, Kind, TaskSpec},
    id::{KeyId, Ms, RunId, TaskId, Tenant, Token},
    limits::{MAX_TOLD, RETENTION_MS},
    payload::Payload,
    trace::Trace,
};

/// The tasks of a run by their ids.
pub type Tasks = ahash::HashMap<TaskId, Task>;

/// Where a run stands. It leaves `Running` once and never again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// Accepted and not ended.
    Running,
    /// Its output task succeeded.
    Succeeded,
    /// Its output can't be had, or its deadline passed.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskStatus {
    /// Inputs are missing.
    Waiting,
    /// A worker may claim it.
    Ready,
    /// An attempt holds it.
    Running,
    /// An attempt failed; the next one starts at its `due` time.
    Retrying,
    /// A map whose children, or an agent whose tasks are at work.
    Expanded,
    /// It has its one recorded result.
    Succeeded,
    /// It has an error instead of a result.
    Failed,
    /// Nobody needs it any more.
    Cancelled,
    /// An input it needs failed, so it never ran.
    Skipped,
}

/// What calls cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Calls of a model.
    pub calls: u64,
    /// Prompt tokens, cached ones included.
    pub input_tokens: u64,
    /// Generated tokens.
    pub output_tokens: u64,
    /// Prompt tokens that the provider had cached.
    pub cached_tokens: u64,
    /// Millionths of a US dollar, where prices are configured.
    pub usd_micros: u64,
}

/// What a run may spend. Checked before a paid task starts; calls in flight may exceed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// Prompt and generated tokens together.
    pub tokens: Option<u64>,
    /// Millionths of a US dollar.
    pub usd_micros: Option<u64>,
}

/// How long a run is kept after its end, in ms; at least [`LINGER_MS`](crate::limits::LINGER_MS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// One that succeeded or was cancelled.
    pub ended: Ms,
    /// One that failed.
    pub failed: Ms,
}

impl Default for Keep {
    fn default() -> Self {
        Self { ended: RETENTION_MS, failed: RETENTION_MS }
    }
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The task at the root of it; `None` when the run itself ran out of time.
    pub task: Option<TaskId>,
    /// Its error: `{"class": …, "message": …}`.
    pub error: Payload,
}

/// The children of a map.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Group {
    /// One argument per child known so far.
    pub args: Vec<Payload>,
    /// Children below this index exist as tasks.
    pub next: u32,
    /// Children that are neither unreleased nor at their end.
    pub active: u32,
}

/// What an attempt was told that reported its outcome and does not hold its task any more. Its cost is booked; a
/// repeat is told the same and changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The attempt.
    pub token: Token,
    /// The answer.
    pub answer: Answer,
}

/// See [`Told`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It failed; the next attempt was to start at this time.
    Retrying(Ms),
    /// It handed the task back.
    Released,
    /// It was too late: somebody else held the task or had ended it.
    Stale,
    /// Nobody needed its outcome any more.
    Cancelled,
}

/// One task and its state. Fields that do not apply are zero or `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// What was submitted or added; `None` for a map's child, which takes everything from its map.
    pub spec: Option<Box<TaskSpec>>,
    /// The agent that it belongs to, if an attempt added it.
    pub owner: Option<TaskId>,
    /// Its owner fails with it.
    pub vital: bool,
    /// What it must not touch at the same time as another task, once that is known.
    pub resource: Option<String>,
    /// Tasks that its attempts added before its end.
    pub added: Vec<TaskId>,
    /// Who waits for it, in the order of the graph.
    pub successors: Vec<TaskId>,
    /// Joins with a time limit that starts when this task becomes ready.
    pub opens: Vec<TaskId>,
    /// Where it stands.
    pub status: TaskStatus,
    /// Claims so far.
    pub attempt: u32,
    /// Attempts that failed in a retryable way.
    pub failures: u32,
    /// Answers "rate limited" so far.
    pub limited: u32,
    /// Starts whose lease ran out.
    pub lost: u32,
    /// Hints published since it became ready, beyond the first.
    pub republished: u32,
    /// The token of the attempt that holds it, or that ended it.
    pub token: Option<Token>,
    /// The last [`MAX_TOLD`](crate::limits::MAX_TOLD) attempts that reported and do not hold it, in that order.
    pub told: Vec<Told>,
    /// When it, or its window as a join, ends; 0 for never.
    pub deadline: Ms,
    /// When it last became ready.
    pub ready_at: Ms,
    /// When it became ready for the first time, if that was another time; else 0.
    pub first_ready_at: Ms,
    /// When its last attempt was claimed.
    pub started_at: Ms,
    /// From its last claim to the first token that a model generated; 0 for none.
    pub first_token: Ms,
    /// When it ended.
    pub ended_at: Ms,
    /// Inputs still missing (of a task that is executed).
    pub pending: u32,
    /// Inputs, or children, that succeeded (join, map).
    pub done: u32,
    /// Inputs, or children, that will never come (join, map).
    pub missed: u32,
    /// Its result is a fallback or an incomplete merge.
    pub degraded: bool,
    /// Next time somebody must look at it: lease, retry, republish or deadline; 0 when nobody must.
    pub due: Ms,
    /// What it produced (of a join: see `frozen`).
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::payload::given")]
    pub result: Option<Payload>,
    /// Its error.
    pub error: Option<Payload>,
    /// Which inputs or children a fired join or map merged: `*` for all, or one `0`/`1` per input.
    pub frozen: Option<String>,
    /// Of a map: its children.
    pub group: Option<Group>,
    /// The successor that was claimed in the step that ended this task.
    pub next: Option<TaskId>,
}

/// One accepted run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Whose it is.
    pub tenant: Tenant,
    /// The API key that submitted it, against whose runs under way it counts.
    pub key: Option<KeyId>,
    /// A label for people; may be empty.
    pub name: String,
    /// Hash of the request, to tell a repeated submit from a conflicting one.
    pub fingerprint: String,
    /// Where it stands.
    pub status: RunStatus,
    /// When it was accepted.
    pub created: Ms,
    /// When it ended; 0 before.
    pub ended: Ms,
    /// When it must have ended; 0 for never.
    pub deadline: Ms,
    /// How long it is kept after its end.
    pub keep: Keep,
    /// Next time somebody must look at the run itself: its deadline, then its purge.
    pub due: Ms,
    /// The `input` of the request.
    pub input: Payload,
    /// What it may spend.
    pub budget: Budget,
    /// The trace it belongs to.
    pub trace: Option<Trace>,
    /// What recorded attempts cost.
    pub usage: Usage,
    /// What attempts cost whose outcome was not recorded.
    pub wasted: Usage,
    /// Some result in it is degraded.
    pub degraded: bool,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Another run goes on from what this one recorded: see [`Run::replay`].
    pub replayed: bool,
    /// The graph's tasks in order; the last is the output. Children of maps are not listed.
    pub order: Vec<TaskId>,
    /// Tasks that attempts added, in that order.
    pub added: Vec<TaskId>,
    /// Who waits for each resource, in order; the first has it. None is empty.
    pub lines: BTreeMap<String, Vec<TaskId>>,
    /// All tasks that exist, children of maps included once they are released.
    pub tasks: Tasks,
}

impl Run {
    /// When it may be forgotten, as of its end.
    pub(crate) fn kept_until(&self) -> Ms {
        let keep = if self.status == RunStatus::Failed { self.keep.failed } else { self.keep.ended };
        self.ended.saturating_add(keep)
    }
}

impl RunStatus {
    /// Whether the run has ended.
    pub fn terminal(self) -> bool {
        self != Self::Running
    }
}

impl TaskStatus {
    /// Whether the task has ended.
    pub fn terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Skipped)
    }
}

impl Usage {
    /// Adds `other`, stopping at the largest number rather than wrapping.
    pub fn add(&mut self, other: &Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.cached_tokens = self.cached_tokens.saturating_add(other.cached_tokens);
        self.usd_micros = self.usd_micros.saturating_add(other.usd_micros);
    }
}

impl Budget {
    /// What is left of it after `usage`.
    pub fn left(&self, usage: &Usage) -> Self {
        let tokens = usage.input_tokens.saturating_add(usage.output_tokens);
        Self {
            tokens: self.tokens.map(|limit| limit.saturating_sub(tokens)),
            usd_micros: self.usd_micros.map(|limit| limit.saturating_sub(usage.usd_micros)),
        }
    }

    /// Whether `usage` has used it up.
    pub fn spent(&self, usage: &Usage) -> bool {
        let tokens = usage.input_tokens.saturating_add(usage.output_tokens);
        self.tokens.is_some_and(|limit| tokens >= limit)
            || self.usd_micros.is_some_and(|limit| usage.usd_micros >= limit)
    }
}

impl Task {
    /// Remembers what the attempt with `token` was told; the oldest is forgotten.
    pub(crate) fn tell(&mut self, token: Token, answer: Answer) {
        if self.told.len() == MAX_TOLD {
            self.told.remove(0);
        }
        self.told.push(Told { token, answer });
    }

    /// A task in its first state: waiting for its inputs.
    pub fn waiting(spec: Option<Box<TaskSpec>>) -> Self {
        let pending = spec.as_ref().map_or(0, |spec| u32::try_from(spec.inputs.len()).unwrap_or(u32::MAX));
        Self {
            spec,
            owner: None,
            vital: false,
            resource: None,
            added: Vec::new(),
            successors: Vec::new(),
            opens: Vec::new(),
            status: TaskStatus::Waiting,
            attempt: 0,
            failures: 0,
            limited: 0,
            lost: 0,
            republished: 0,
            token: None,
            told: Vec::new(),
            deadline: 0,
            ready_at: 0,
            first_ready_at: 0,
            started_at: 0,
            first_token: 0,
            ended_at: 0,
            pending,
            done: 0,
            missed: 0,
            degraded: false,
            due: 0,
            result: None,
            error: None,
            frozen: None,
            group: None,
            next: None,
        }
    }

    /// Inputs of a join, children known of a map.
    pub fn width(&self) -> u32 {
        match (&self.spec, &self.group) {
            (Some(spec), _) if spec.exec.kind == Kind::Join => spec.inputs.len() as u32,
            (_, Some(group)) => group.args.len() as u32,
            _ => 0,
        }
    }
}

impl Run {
    /// The output task's id.
    pub fn output(&self) -> &TaskId {
        // a graph is never empty
        &self.order[self.order.len() - 1]
    }

    /// The map that `id` is a child of.
    pub fn parent(&self, id: &TaskId) -> Option<TaskId> {
        let (parent, _) = id.split_child()?;
        let (parent, task) = self.tasks.get_key_value(parent)?;
        (task.spec.as_ref()?.exec.kind == Kind::Map).then(|| parent.clone())
    }

    /// How `id` is executed, its own part or the one its map gives all children.
    pub fn exec(&self, id: &TaskId) -> Option<&Exec> {
        if let Some(spec) = self.tasks.get(id).and_then(|task| task.spec.as_ref()) {
            return Some(&spec.exec);
        }
        let spec = self.tasks.get(&self.parent(id)?)?.spec.as_ref()?;
        spec.children.as_ref().map(|children| &children.exec)
    }

    /// Lays `graph` out as tasks, all waiting.
    pub(crate) fn lay_out(graph: Graph) -> (Vec<TaskId>, Tasks) {
        let specs: Vec<TaskSpec> = graph.into();
        let order: Vec<TaskId> = specs.iter().map(|spec| spec.id.clone()).collect();
        let mut edges: Vec<(TaskId, TaskId, bool)> = Vec::new();
        for spec in &specs {
            let timed = spec.exec.kind == Kind::Join && spec.policy.is_some_and(|p| p.within.is_some());
            edges.extend(spec.inputs.iter().map(|input| (input.clone(), spec.id.clone(), timed)));
        }
        let mut tasks: Tasks =
            specs.into_iter().map(|spec| (spec.id.clone(), Task::waiting(Some(Box::new(spec))))).collect();
        for (from, to, timed) in edges {
            if let Some(task) = tasks.get_mut(&from) {
                if timed {
                    task.opens.push(to.clone());
                }
                task.successors.push(to);
            }
        }
        (order, tasks)
    }
}
