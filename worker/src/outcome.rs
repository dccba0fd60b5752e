//! How an attempt ended, before it is recorded.

use std::{
    any::Any,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use serde_json::json;
use tokio::time::Instant;
use trireme_backend::Error;
use trireme_model::{Added, FailureClass, Ms, Outcome, Payload, Usage};

use crate::metrics::ModelMetrics;

/// Longest text of a panic that is recorded, in characters.
const MAX_PANIC: usize = 500;

/// What an executor made of a task.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It achieved something.
    Done {
        /// What.
        outcome: Outcome,
        /// Of an agent, or of a task of one: the tasks that come next.
        tasks: Vec<Added>,
    },
    /// It failed.
    Failed(Failure),
    /// It waits in the store for what it would touch, or is not this attempt's any more: nothing is to be recorded.
    Queued,
}

/// A failed attempt.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// What the engine does about it.
    pub(crate) class: FailureClass,
    /// A word for metrics and for people, such as `rate_limited` or `invalid_args`.
    pub(crate) code: &'static str,
    /// What happened.
    pub(crate) message: String,
    /// How long the provider asked to wait, in ms.
    pub(crate) retry_after: Option<Ms>,
}

/// What an attempt has cost so far. Kept outside of the executor, so that it is known however that ends.
pub(crate) struct Spent {
    /// When the claim was sent.
    since: Instant,
    usage: Mutex<Usage>,
    first_token: OnceLock<Ms>,
    limited: OnceLock<Arc<ModelMetrics>>,
}

impl Ended {
    /// The task has its result.
    pub(crate) fn result(value: Payload) -> Self {
        Self::Done { outcome: Outcome::Result(value), tasks: Vec::new() }
    }
}

impl Failure {
    /// No attempt will succeed.
    pub(crate) fn permanent(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(FailureClass::Permanent, code, message)
    }

    /// Whether another attempt may succeed.
    pub(crate) fn again(&self) -> bool {
        matches!(self.class, FailureClass::Retryable | FailureClass::RateLimited)
    }

    /// A model said nothing; another draw may do better.
    pub(crate) fn empty() -> Self {
        Self::new(FailureClass::Retryable, "invalid_output", "the answer is empty")
    }

    /// The task's time is up.
    pub(crate) fn timeout() -> Self {
        Self::permanent("timeout", "the task's time limit passed")
    }

    /// Handed back unfinished.
    pub(crate) fn released() -> Self {
        Self::new(FailureClass::Released, "released", "handed back by a worker that shuts down")
    }

    /// A tool, or the worker itself, has a bug. Another worker, or another draw, may do better.
    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        let text: String = text.chars().take(MAX_PANIC).collect();
        Self::new(FailureClass::Retryable, "panicked", format!("the attempt panicked: {text}"))
    }

    /// The store does not take the result.
    pub(crate) fn refused(error: &Error) -> Self {
        let code =
            if matches!(error, Error::TooLarge { .. }) { "output_too_large" } else { "result_refused" };
        Self::permanent(code, error.to_string())
    }

    fn new(class: FailureClass, code: &'static str, message: impl Into<String>) -> Self {
        Self { class, code, message: message.into(), retry_after: None }
    }

    /// The error as it is recorded.
    pub(crate) fn payload(&self) -> Payload {
        Payload::of(&json!({"class": self.code, "message": self.message}))
    }
}

impl Spent {
    /// Of an attempt whose claim was sent at `since`.
    pub(crate) fn new(since: Instant) -> Self {
        Self { since, usage: Mutex::default(), first_token: OnceLock::new(), limited: OnceLock::new() }
    }

    /// When the claim was sent.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    pub(crate) fn set(&self, usage: Usage) {
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner) = usage;
    }

    /// A model generated its first token this long after the attempt began; later calls of it don't count.
    pub(crate) fn first_token(&self, after: Duration) {
        let _ = self.first_token.set(Ms::try_from(after.as_millis()).unwrap_or(Ms::MAX));
    }

    /// A provider's rate limit turned a call away: what the task then waits is measured there.
    pub(crate) fn limited(&self, by: Arc<ModelMetrics>) {
        let _ = self.limited.set(by);
    }

    pub(crate) fn limited_by(&self) -> Option<&ModelMetrics> {
        self.limited.get().map(|by| &**by)
    }

    pub(crate) fn first_token_ms(&self) -> Option<Ms> {
        self.first_token.get().copied()
    }

    pub(crate) fn get(&self) -> Usage {
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
