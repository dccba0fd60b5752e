//! How many requests an API key may make: a token bucket. It holds `burst` requests, fills at `per_minute`, and each
//! request takes one. Pure; the store keeps one bucket for each key, so that the rate holds for a whole fleet.

use serde::{Deserialize, Serialize};

use crate::id::Ms;

/// One minute in ms.
const MINUTE: f64 = 60_000.0;

/// How fast requests may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Requests a minute in the long run, at least 1.
    pub per_minute: u32,
    /// Requests at once after a pause, at least 1.
    pub burst: u32,
}

/// Whether a request may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// It may.
    pub allowed: bool,
    /// Further requests that could be made at once.
    pub left: u32,
    /// Time until one more could be made, in ms; 0 while some are left.
    pub wait: Ms,
}

/// What is left of a rate, at a time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Requests, and the part of one that has filled up.
    left: f64,
    /// When that was, on the store's clock.
    at: Ms,
}

impl Bucket {
    /// A full one.
    pub fn full(rate: Rate, now: Ms) -> Self {
        Self { left: rate.burst.max(1).into(), at: now }
    }

    /// Takes one request out, if there is one. A clock that went back fills nothing.
    pub fn take(&mut self, rate: Rate, now: Ms) -> Admitted {
        let (per_minute, burst) = (f64::from(rate.per_minute.max(1)), f64::from(rate.burst.max(1)));
        let passed = now.saturating_sub(self.at) as f64;
        self.left = burst.min(self.left + passed * per_minute / MINUTE);
        self.at = now;
        let allowed = self.left >= 1.0;
        if allowed {
            self.left -= 1.0;
        }
        let missing = (1.0 - self.left).max(0.0);
        Admitted { allowed, left: self.left as u32, wait: (missing * MINUTE / per_minute).ceil() as Ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let rate = Rate { per_minute: 60, burst: 3 };
        let mut bucket = Bucket::full(rate, 1_000);
        let mut take = |now| {
            let Admitted { allowed, left, wait } = bucket.take(rate, now);
            (allowed, left, wait)
        };
        assert_eq!(take(1_000), (true, 2, 0));
        assert_eq!(take(1_000), (true, 1, 0));
        assert_eq!(take(1_000), (true, 0, 1_000));
        assert_eq!(take(1_250), (false, 0, 750));
        assert_eq!(take(2_000), (true, 0, 1_000));
        // a clock that went back, and a long pause
        assert_eq!(take(500), (false, 0, 1_000));
        assert_eq!(take(1_000_000), (true, 2, 0));
    }
}
