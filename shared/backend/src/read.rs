//! What readers of a backend get.

use tokio::sync::watch;
use trireme_model::{Event, Ms, Payload, RunId, RunStatus, TaskId, view::RunSummary};

/// What a task has recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// A result.
    Result(Payload),
    /// A join or map that fired: its value is a merge of other tasks' results.
    Merged {
        /// Its body; the way to merge stands under `merge`.
        body: Payload,
        /// Which inputs count: `*`, or one `0`/`1` per input.
        frozen: String,
        /// Its inputs or children.
        inputs: Vec<TaskId>,
    },
}

/// Part of a task's text for the run's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The run.
    pub run: RunId,
    /// The task.
    pub task: TaskId,
    /// The attempt that streams it.
    pub attempt: u32,
    /// The text.
    pub text: String,
}

/// Part of a run's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// The store's epoch: sequence numbers of another epoch mean nothing.
    pub epoch: String,
    /// Sequence number and event, without gaps.
    pub events: Vec<(u64, Event)>,
    /// How long the log is.
    pub length: u64,
}

/// What one sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Entries looked at.
    pub looked: usize,
    /// Hints published.
    pub hints: usize,
    /// Runs purged.
    pub purged: usize,
    /// More entries are due.
    pub more: bool,
}

/// Which runs to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Only these.
    pub status: Option<RunStatus>,
    /// Only runs with this name.
    pub name: Option<String>,
    /// Continue after this run: creation time and id of the last one seen.
    pub after: Option<(Ms, RunId)>,
    /// At most this many.
    pub limit: usize,
}

/// Part of the list of runs, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The runs.
    pub runs: Vec<RunSummary>,
    /// Where to continue; `None` at the end.
    pub next: Option<(Ms, RunId)>,
}

/// Wakes when a run's log has grown. A wake-up may be spurious.
#[derive(Debug, Clone)]
pub struct Watch(watch::Receiver<u64>);

/// Whether the services behind a backend answer; the texts are for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The store.
    pub store: Result<(), String>,
    /// The broker.
    pub broker: Result<(), String>,
}

impl Watch {
    /// Wraps a counter that the backend moves with every growth.
    pub fn new(receiver: watch::Receiver<u64>) -> Self {
        Self(receiver)
    }

    /// Waits for the next growth. Also returns when the backend has closed.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // the backend dropped its end (the run was purged): callers poll with a limit of their own
            std::future::pending::<()>().await;
        }
    }
}

impl Health {
    /// Whether everything answers.
    pub fn is_ready(&self) -> bool {
        self.store.is_ok() && self.broker.is_ok()
    }
}
