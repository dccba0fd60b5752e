//! Whether the claim loop moves and consumes: what liveness and readiness probes ask.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

/// A claim loop that has not moved for so long stands still. It moves every second; what it waits for in between,
/// the backend's answer to `consume`, has a deadline of its own well below this.
const STILL: Duration = Duration::from_secs(30);

/// A worker's health; clones share it.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    /// Milliseconds from the start to the last beat.
    last: AtomicU64,
    consuming: AtomicBool,
    draining: AtomicBool,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            start: Instant::now(),
            last: AtomicU64::new(0),
            consuming: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }))
    }

    pub(crate) fn beat(&self) {
        let since = self.0.start.elapsed().as_millis();
        self.0.last.store(u64::try_from(since).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn consumes(&self, consuming: bool) {
        self.0.consuming.store(consuming, Relaxed);
    }

    pub(crate) fn drains(&self) {
        self.0.draining.store(true, Relaxed);
        self.consumes(false);
    }

    /// Whether the claim loop moved within the last 30 s. A drain has its own end. Nothing outside of this process
    /// counts: without broker or store the loop moves as well.
    pub fn alive(&self) -> Result<(), String> {
        let still = self.0.start.elapsed().saturating_sub(Duration::from_millis(self.0.last.load(Relaxed)));
        if still > STILL && !self.0.draining.load(Relaxed) {
            return Err(format!("the claim loop has not moved for {} s", still.as_secs()));
        }
        Ok(())
    }

    /// Whether it consumes hints: not before the backend said so, and not while it drains.
    pub fn consuming(&self) -> Result<(), String> {
        if self.0.draining.load(Relaxed) {
            return Err("it drains".into());
        }
        if self.0.consuming.load(Relaxed) { Ok(()) } else { Err("it does not consume hints yet".into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stands_still_is_not_alive_until_it_moves_or_drains() {
        let pulse = Pulse::new();
        assert!(pulse.consuming().unwrap_err().contains("not consume"));
        pulse.consumes(true);
        tokio::time::advance(STILL).await;
        assert_eq!((pulse.alive(), pulse.consuming()), (Ok(()), Ok(())));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(pulse.alive().unwrap_err().contains("30 s"));
        pulse.beat();
        assert_eq!(pulse.alive(), Ok(()));
        pulse.drains();
        tokio::time::advance(STILL * 2).await;
        assert_eq!(pulse.alive(), Ok(()));
        assert!(pulse.consuming().unwrap_err().contains("drains"));
    }
}
