//! What readers of a backend get.

use std::collections::BTreeMap;

use tokio::sync::watch;
use trireme_model::{
    Event, Ms, Payload, RunId, RunStatus, TaskId, Tenant,
    view::{DeadLetter, RunSummary},
};

/// What a task has recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// A result.
    Result(Payload),
    /// It ended without a result: the error of one that failed, none of one that was skipped or cancelled.
    Failed(Option<Payload>),
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
    /// Ms until the next entry is due, as far as it is known already; `None` for never.
    pub next: Option<Ms>,
}

/// Which runs to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Whose.
    pub tenant: Tenant,
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

/// Which tasks in quarantine to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadQuery {
    /// Only those of this pool.
    pub pool: Option<String>,
    /// Only those of this run.
    pub run: Option<RunId>,
    /// Continue after this one: the time, run and task of the last one seen.
    pub after: Option<(Ms, RunId, TaskId)>,
    /// At most this many.
    pub limit: usize,
}

/// Part of the list of dead letters, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadPage {
    /// The tasks in quarantine.
    pub letters: Vec<DeadLetter>,
    /// Where to continue; `None` at the end.
    pub next: Option<(Ms, RunId, TaskId)>,
}

impl DeadPage {
    /// Puts together what the parts of a store have; `horizon` is the newest place from which on a part may have more.
    pub fn of(mut letters: Vec<DeadLetter>, horizon: Option<(Ms, RunId, TaskId)>, limit: usize) -> Self {
        let place = |letter: &DeadLetter| (letter.quarantined_ms, letter.run_id.clone(), letter.task.clone());
        letters.sort_by_cached_key(|letter| std::cmp::Reverse(place(letter)));
        if let Some(horizon) = &horizon {
            letters.retain(|letter| place(letter) >= *horizon);
        }
        let limit = limit.max(1);
        let mut next = horizon;
        if letters.len() > limit {
            letters.truncate(limit);
            next = letters.last().map(place);
        }
        Self { letters, next }
    }
}

/// What waits for workers and how full the store is, as it was last looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Tasks that are ready and not claimed, by pool; an estimate where there are many.
    pub ready: BTreeMap<String, u64>,
    /// Memory that the store uses, in bytes.
    pub memory_used: u64,
    /// Memory that it may use, in bytes; 0 for no limit.
    pub memory_max: u64,
}

/// A pool of which nothing starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PausedPool {
    /// Its name.
    pub pool: String,
    /// Ready tasks that workers or sweeps have met since it was paused.
    pub held: u64,
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
