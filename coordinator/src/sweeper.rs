//! Looks at what is due: retries, expired leases, deadlines, hints that were lost, runs to forget.
//!
//! Any number of coordinators may sweep at once: each entry is one atomic step in the store. A sweeper has
//! no state, so it never needs a leader, and a crash at any point loses nothing.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use rand::Rng;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use trireme_backend::{Backend, Swept};

use crate::metrics::Metrics;

/// One step that takes longer counts as failed. The store may still carry it out, which does no harm.
const STEP_LIMIT: Duration = Duration::from_secs(10);
/// Shortest pause after a sweep that has left nothing due: the timer's grain.
const LEAST: Duration = Duration::from_millis(1);
/// Upper bound of the pause after errors, before jitter.
const PAUSE_CAP: Duration = Duration::from_secs(5);

/// Sweeps a backend until it is told to stop.
pub struct Sweeper {
    backend: Arc<dyn Backend>,
    interval: Duration,
    metrics: Metrics,
}

impl Sweeper {
    /// Sweeps `backend` at the latest every `interval`, as soon as the next entry is due, and again at once while more
    /// is. What becomes due sooner than `interval` after a sweep, and was not known then, waits for the next one.
    pub fn new(backend: Arc<dyn Backend>, interval: Duration, metrics: Metrics) -> Self {
        Self { backend, interval, metrics }
    }

    /// Runs until `shutdown`. Errors and even panics of the backend only make it pause.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut failures = 0_u32;
        loop {
            let pause = match self.step().await {
                Ok(swept) => {
                    if failures > 0 {
                        tracing::info!(failures, "sweeping works again");
                    }
                    failures = 0;
                    self.pause(&swept)
                }
                Err(reason) => {
                    if failures == 0 {
                        tracing::warn!(reason, "sweeping failed; trying again until it works");
                    }
                    failures = failures.saturating_add(1);
                    self.back_off(failures)
                }
            };
            // a backlog must not keep the other tasks of this thread waiting
            tokio::task::yield_now().await;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    async fn step(&self) -> Result<Swept, String> {
        let begun = Instant::now();
        let step = AssertUnwindSafe(self.backend.sweep()).catch_unwind();
        let outcome = match timeout(STEP_LIMIT, step).await {
            Ok(Ok(Ok(swept))) => Ok(swept),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(_)) => Err("the backend panicked".into()),
            Err(_) => Err(format!("no answer within {} s", STEP_LIMIT.as_secs())),
        };
        self.metrics.swept(outcome.as_ref().ok(), begun.elapsed());
        outcome
    }

    /// Until the next sweep. Whatever comes later than the interval is seen in time by another one.
    fn pause(&self, swept: &Swept) -> Duration {
        if swept.more {
            return Duration::ZERO;
        }
        swept.next.map_or(self.interval, |next| Duration::from_millis(next).max(LEAST).min(self.interval))
    }

    /// The interval doubled with every failure, and of that a random part: coordinators that lost the same
    /// store must not come back in step.
    fn back_off(&self, failures: u32) -> Duration {
        let whole = self.interval.saturating_mul(1 << failures.min(10)).min(PAUSE_CAP);
        whole.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use trireme_backend_embedded::Embedded;

    use super::*;

    #[test]
    fn it_comes_back_when_the_next_entry_is_due() {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let sweeper = Sweeper::new(Arc::new(Embedded::default()), Duration::from_millis(100), metrics);
        let pause = |next, more| sweeper.pause(&Swept { next, more, ..Swept::default() }).as_millis();
        let pauses =
            [pause(None, false), pause(Some(7), false), pause(Some(0), false), pause(Some(500), false)];
        assert_eq!(pauses, [100, 7, 1, 100]);
        assert_eq!(pause(Some(7), true), 0);
    }
}
