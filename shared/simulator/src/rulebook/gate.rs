//! What decides, after a rule's conditions hold, whether the rule applies to this very call:
//! `nth`, `times`, `times_each` and `chance`.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{draw::Draw, scenario::Range};

/// Counters and limits of one rule.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The rule's name; also keeps the chances of rules apart.
    pub(crate) name: String,
    pub(crate) nth: Option<Range>,
    pub(crate) times: Option<u64>,
    pub(crate) times_each: Option<u64>,
    pub(crate) chance: Option<f64>,
    /// Calls that met the conditions.
    pub(crate) seen: AtomicU64,
    /// Calls that the rule applied to.
    pub(crate) applied: AtomicU64,
}

// === impl Gate ===

impl Gate {
    /// Counts a call that met the conditions; its number when the rule applies to it.
    pub(crate) fn admit(&self, draw: &Draw) -> Option<u64> {
        let n = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        let lucky = |p: f64| draw.stream(&self.name).unit() < p;
        if self.nth.is_some_and(|nth| !nth.holds(n))
            || self.times_each.is_some_and(|each| draw.occurrence() > each)
            || self.chance.is_some_and(|p| !lucky(p))
        {
            return None;
        }
        let times = self.times.unwrap_or(u64::MAX);
        let taken = self.applied.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |applied| {
            (applied < times).then_some(applied + 1)
        });
        taken.is_ok().then_some(n)
    }

    pub(crate) fn reset(&self) {
        self.seen.store(0, Ordering::Relaxed);
        self.applied.store(0, Ordering::Relaxed);
    }
}
