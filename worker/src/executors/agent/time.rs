//! How much time and budget an agent has: of its time it keeps some back for its last answer.

use std::time::Duration;

use tokio::time::Instant;
use trireme_model::{Budget, Ms};

use crate::executors::Job;

/// Least and most that is kept back for the last answer.
const LEAST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_secs(60);

/// Most that is kept back for recording the last answer.
const RECORD: Duration = Duration::from_millis(500);

/// An agent's time, as one of its tasks sees it.
pub(super) struct Time {
    end: Option<Instant>,
    reserve: Duration,
}

impl Time {
    /// `total` is what the agent had when it began, `longest` its longest model call so far. The last answer gets
    /// half as much again as that call took, but at least a fifth of the whole and at most half of it.
    pub(super) fn new(job: &Job<'_>, total: Option<Ms>, longest: Ms) -> Self {
        let total = Duration::from_millis(total.unwrap_or(0));
        let reserve = Duration::from_millis(longest) * 3 / 2;
        let reserve = reserve.max(total / 5).min(total / 2).clamp(LEAST, MOST);
        Self { end: job.deadline.filter(|_| !total.is_zero()), reserve }
    }

    /// How much time there is for the agent's first task.
    pub(super) fn total(job: &Job<'_>) -> Option<Ms> {
        let deadline = job.assignment.deadline;
        (deadline != 0).then(|| deadline.saturating_sub(job.assignment.now))
    }

    /// When work that is not the last answer has to end. A model call ends at its task's deadline in any case.
    pub(super) fn soft(&self) -> Option<Instant> {
        self.end.map(|end| end - self.reserve)
    }

    /// When the last answer has to end: what came of it has to be recorded in time, too.
    pub(super) fn last(&self) -> Option<Instant> {
        self.end.map(|end| end - (self.reserve / 4).min(RECORD))
    }

    /// Whether only the last answer is left to do.
    pub(super) fn short(&self) -> bool {
        self.soft().is_some_and(|soft| soft <= Instant::now())
    }

    /// The shorter of `within` and the time until the last answer is due.
    pub(super) fn within(&self, within: Option<Ms>) -> Option<Ms> {
        let left = self.soft().map(|soft| soft.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Ms::try_from(left.as_millis()).unwrap_or(Ms::MAX).max(1));
        match (within, left) {
            (Some(within), Some(left)) => Some(within.min(left)),
            (within, left) => within.or(left),
        }
    }
}

/// Whether nothing of the run's budget was left when the attempt began.
pub(super) fn broke(job: &Job<'_>) -> bool {
    let nothing = |left: &Budget| left.tokens == Some(0) || left.usd_micros == Some(0);
    job.assignment.left.as_ref().is_some_and(nothing)
}

/// How long an attempt has taken.
pub(super) fn took(job: &Job<'_>) -> Ms {
    Ms::try_from(job.started.elapsed().as_millis()).unwrap_or(Ms::MAX)
}
