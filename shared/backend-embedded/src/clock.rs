//! The store's clock. Leases, retries and deadlines are decided by it alone, so it never runs backwards.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use trireme_model::Ms;

/// Where the store's time comes from.
#[derive(Debug, Clone)]
pub struct Clock(Source);

/// Moves a manual clock.
#[derive(Debug, Clone)]
pub struct Hand(Arc<AtomicU64>);

#[derive(Debug, Clone)]
enum Source {
    /// Wall time at the start, moved on by the monotonic clock: a step of the wall clock (NTP, an operator)
    /// must not end leases.
    System {
        started: Instant,
        at: Ms,
    },
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The system's time, from now on monotonic.
    pub fn system() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(wall.as_millis()).unwrap_or(Ms::MAX);
        Self(Source::System { started: Instant::now(), at })
    }

    /// A clock that stands at `at` until its hand is moved.
    pub fn manual(at: Ms) -> (Self, Hand) {
        let time = Arc::new(AtomicU64::new(at));
        (Self(Source::Manual(time.clone())), Hand(time))
    }

    /// Milliseconds since the Unix epoch.
    pub fn now(&self) -> Ms {
        match &self.0 {
            Source::System { started, at } => {
                at.saturating_add(u64::try_from(started.elapsed().as_millis()).unwrap_or(Ms::MAX))
            }
            Source::Manual(time) => time.load(Ordering::SeqCst),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl Hand {
    /// Moves the clock on by `by` milliseconds.
    pub fn advance(&self, by: Ms) {
        self.0.fetch_add(by, Ordering::SeqCst);
    }
}
