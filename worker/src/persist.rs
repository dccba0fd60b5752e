//! Calls that are repeated until the store answers. A call may have taken effect without an answer; the same
//! call then gets the same answer, so repeating is all there is to do.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use trireme_backend::Error;

use crate::attempt::Shared;

/// First and longest wait between repeats of a call that the store did not answer.
const REPEAT_AFTER: Duration = Duration::from_millis(50);
const REPEAT_CAP: Duration = Duration::from_secs(2);
/// A call without an answer by then is repeated. Longer than any backend's own limit.
const CALL_LIMIT: Duration = Duration::from_secs(15);

/// When a call was sent for the first and the last time: it took effect somewhere in between.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) first: Instant,
    pub(crate) last: Instant,
}

/// Pauses between repeats: doubling, with full jitter, so that workers do not come back all at once.
pub(crate) struct Pauses(Duration);

impl Sent {
    /// Whether it took more than one call.
    pub(crate) fn repeated(&self) -> bool {
        self.first != self.last
    }
}

impl Pauses {
    pub(crate) fn new() -> Self {
        Self(REPEAT_AFTER)
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = rand::random_range(Duration::ZERO..=self.0);
        self.0 = (self.0 * 2).min(REPEAT_CAP);
        pause
    }
}

impl Shared {
    /// Repeats a call until there is an answer. `None` when the worker gives up because it must end: a claim
    /// as soon as it drains, anything else when it may wait no longer.
    pub(crate) async fn persist<T, F>(
        &self,
        what: &'static str,
        mut call: impl FnMut() -> F,
    ) -> Result<Option<(T, Sent)>, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let give_up = if what == "claim" { &self.draining } else { &self.abandon };
        let mut pauses = Pauses::new();
        let first = Instant::now();
        let mut last = first;
        loop {
            let answer = tokio::select! {
                biased;
                answer = timeout(CALL_LIMIT, call()) => answer,
                () = self.abandon.cancelled() => return Ok(None),
            };
            match answer {
                Ok(Ok(answer)) => return Ok(Some((answer, Sent { first, last }))),
                Ok(Err(error)) if !error.is_retryable() => return Err(error),
                Ok(Err(error)) => tracing::warn!(what, %error, "repeating"),
                Err(_) => tracing::warn!(what, "no answer, repeating"),
            }
            tokio::select! {
                () = sleep(pauses.next()) => {}
                () = give_up.cancelled() => return Ok(None),
            }
            last = Instant::now();
        }
    }

    /// Repeats a read until there is an answer; for use inside an attempt, whose lease ends the repeating.
    pub(crate) async fn read<T, F>(&self, call: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        match self.persist("read", call).await? {
            Some((answer, _)) => Ok(answer),
            // the worker ends, and this attempt with it
            None => std::future::pending().await,
        }
    }
}
