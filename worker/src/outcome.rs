//! How an attempt ended, before it is recorded.

use serde_json::json;
use trireme_model::{FailureClass, Ms, Payload, Usage};

/// What an executor made of a task.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Its result.
    Result { value: Payload, usage: Usage },
    /// A map handed over all its children.
    Expanded,
    /// It failed.
    Failed(Failure),
}

/// A failed attempt.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What the engine does about it.
    pub class: FailureClass,
    /// A word for metrics and for people, such as `rate_limited` or `invalid_arguments`.
    pub code: &'static str,
    /// What happened.
    pub message: String,
    /// How long the provider asked to wait, in ms.
    pub retry_after: Option<Ms>,
    /// What the attempt cost all the same.
    pub usage: Usage,
}

impl Failure {
    /// No attempt will succeed.
    pub fn permanent(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(FailureClass::Permanent, code, message)
    }

    /// Another attempt may succeed.
    pub fn retryable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(FailureClass::Retryable, code, message)
    }

    /// Handed back unfinished.
    pub(crate) fn released() -> Self {
        Self::new(FailureClass::Released, "released", "handed back by a worker that shuts down")
    }

    fn new(class: FailureClass, code: &'static str, message: impl Into<String>) -> Self {
        Self { class, code, message: message.into(), retry_after: None, usage: Usage::default() }
    }

    /// The error as it is recorded.
    pub(crate) fn payload(&self) -> Payload {
        Payload::of(&json!({"class": self.code, "message": self.message}))
    }
}
