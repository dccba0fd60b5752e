//! How an attempt ended, before it is recorded.

use std::{
    any::Any,
    sync::{Mutex, PoisonError},
};

use serde_json::json;
use trireme_backend::Error;
use trireme_model::{FailureClass, Ms, Payload, Usage};

/// Longest text of a panic that is recorded, in characters.
const MAX_PANIC: usize = 500;

/// What an executor made of a task.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Its result.
    Result(Payload),
    /// A map handed over all its children.
    Expanded,
    /// It failed.
    Failed(Failure),
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
#[derive(Debug, Default)]
pub(crate) struct Spent(Mutex<Usage>);

impl Failure {
    /// No attempt will succeed.
    pub(crate) fn permanent(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(FailureClass::Permanent, code, message)
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
    pub(crate) fn set(&self, usage: Usage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = usage;
    }

    pub(crate) fn get(&self) -> Usage {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
