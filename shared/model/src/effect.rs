//! What an operation asks its backend to do, and the events it appends to the run's log.

use serde::{Deserialize, Serialize};

use crate::{
    graph::Kind,
    id::{Ms, RunId, TaskId},
    op::Hint,
    payload::Payload,
};

/// What must follow an operation. The state itself is changed in place.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Tasks that became ready: publish these hints.
    pub hints: Vec<Hint>,
    /// Tasks whose place in the due index changed: read it from the task; `None` is the run itself.
    pub due: Vec<Option<TaskId>>,
    /// Events to append, in order.
    pub log: Vec<Event>,
    /// Attempts of this task, and of anything below it, need not go on.
    pub abort: Vec<TaskId>,
    /// Ready tasks that wait for their pool to be resumed.
    pub held: Vec<TaskId>,
    /// Tasks that were put into quarantine.
    pub quarantined: Vec<TaskId>,
    /// The run has ended in this step: none of its attempts need go on.
    pub ended: bool,
    /// The run's retention has passed: forget it.
    pub purge: bool,
}

/// One entry of a run's log. Its position in the log is its sequence number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, on the store's clock.
    pub at: Ms,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum What {
    /// The run was accepted.
    #[serde(rename = "run.started")]
    RunStarted {
        /// The failed run whose results it has from the start.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replay_of: Option<RunId>,
    },
    /// An attempt was claimed.
    #[serde(rename = "task.started")]
    TaskStarted {
        /// The task.
        task: TaskId,
        /// From 1.
        attempt: u32,
    },
    /// Part of an attempt's text; a later attempt starts over.
    #[serde(rename = "task.delta")]
    TaskDelta {
        /// The task.
        task: TaskId,
        /// The attempt that streams it.
        attempt: u32,
        /// The text.
        text: String,
    },
    /// An attempt failed and the next is scheduled.
    #[serde(rename = "task.retrying")]
    TaskRetrying {
        /// The task.
        task: TaskId,
        /// When.
        retry_at: Ms,
        /// Why.
        #[serde(deserialize_with = "crate::payload::buffered")]
        error: Payload,
    },
    /// An attempt's lease ran out; the task is ready again.
    #[serde(rename = "task.lost")]
    TaskLost {
        /// The task.
        task: TaskId,
    },
    /// An agent's attempt added a task.
    #[serde(rename = "task.added")]
    TaskAdded {
        /// The task.
        task: TaskId,
        /// What kind of work it is.
        kind: Kind,
        /// What it calls.
        label: String,
    },
    /// A map's children are all known, or an agent's first tasks.
    #[serde(rename = "task.expanded")]
    TaskExpanded {
        /// The map or agent.
        task: TaskId,
        /// How many children; 0 of an agent.
        width: u32,
    },
    /// The task has its result; of a join: it fired.
    #[serde(rename = "task.succeeded")]
    TaskSucceeded {
        /// The task.
        task: TaskId,
        /// A fallback or an incomplete merge.
        degraded: bool,
    },
    /// The task failed for good.
    #[serde(rename = "task.failed")]
    TaskFailed {
        /// The task.
        task: TaskId,
        /// Why.
        #[serde(deserialize_with = "crate::payload::buffered")]
        error: Payload,
    },
    /// An input failed, so the task never ran.
    #[serde(rename = "task.skipped")]
    TaskSkipped {
        /// The task.
        task: TaskId,
    },
    /// The task is not needed any more.
    #[serde(rename = "task.cancelled")]
    TaskCancelled {
        /// The task.
        task: TaskId,
    },
    /// The run has its output.
    #[serde(rename = "run.succeeded")]
    RunSucceeded {},
    /// The run ended without one.
    #[serde(rename = "run.failed")]
    RunFailed {
        /// The task at the root of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<TaskId>,
        /// Why.
        #[serde(deserialize_with = "crate::payload::buffered")]
        error: Payload,
    },
    /// The run was cancelled.
    #[serde(rename = "run.cancelled")]
    RunCancelled {},
}

impl What {
    /// The event's type as it stands in JSON and in SSE's `event:` field.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RunStarted { .. } => "run.started",
            Self::TaskStarted { .. } => "task.started",
            Self::TaskDelta { .. } => "task.delta",
            Self::TaskRetrying { .. } => "task.retrying",
            Self::TaskLost { .. } => "task.lost",
            Self::TaskAdded { .. } => "task.added",
            Self::TaskExpanded { .. } => "task.expanded",
            Self::TaskSucceeded { .. } => "task.succeeded",
            Self::TaskFailed { .. } => "task.failed",
            Self::TaskSkipped { .. } => "task.skipped",
            Self::TaskCancelled { .. } => "task.cancelled",
            Self::RunSucceeded {} => "run.succeeded",
            Self::RunFailed { .. } => "run.failed",
            Self::RunCancelled {} => "run.cancelled",
        }
    }

    /// Whether nothing follows it.
    pub fn ends_run(&self) -> bool {
        matches!(self, Self::RunSucceeded {} | Self::RunFailed { .. } | Self::RunCancelled {})
    }
}

/// The errors that the engine itself records. Both ports of the state machine use these exact texts.
pub mod reason {
    /// A task's timeout passed.
    pub const TIMEOUT: &str = r#"{"class":"timeout","message":"the task's time limit passed"}"#;
    /// A run's deadline passed.
    pub const DEADLINE: &str = r#"{"class":"deadline","message":"the run's deadline passed"}"#;
    /// Three starts never finished.
    pub const POISON: &str =
        r#"{"class":"poison","message":"quarantined: 3 starts of this task never finished"}"#;
    /// The budget is used up.
    pub const BUDGET: &str = r#"{"class":"budget","message":"the run's budget is used up"}"#;
    /// A join can't have what it needs.
    pub const UNMET: &str = r#"{"class":"join_unmet","message":"too many inputs failed"}"#;
    /// A join's window closed.
    pub const WINDOW: &str = r#"{"class":"join_timeout","message":"too few inputs came in time"}"#;
    /// A task was added behind one that had been cancelled.
    pub const INPUT_CANCELLED: &str =
        r#"{"class":"input_cancelled","message":"an input was cancelled before it had a result"}"#;
    /// As [`TIMEOUT`], of a task whose provider had said "come back later".
    pub const LIMITED_TIMEOUT: &str =
        r#"{"class":"timeout","message":"the task's time limit passed; the provider had limited the rate"}"#;
    /// More rate-limited answers than are allowed.
    pub const LIMITED: &str =
        r#"{"class":"rate_limited","message":"the provider limited the rate 50 times in a row"}"#;
}
