//! How many workers there should be: what KEDA makes of our metric, and what the HorizontalPodAutoscaler makes of that.
//!
//! KEDA hands a `QueueLength` of mode `AverageValue` to an HPA, whose formula is `ceil(metric / target)`, left alone
//! within a tolerance of 10 % (kubernetes.io, "Horizontal Pod Autoscaling", algorithm details), then bounded by the
//! policies of `behavior`: of what was there at the beginning of each policy's period, so much may be added or taken.
//! While scaling down, the highest count wanted within the stabilization window counts.

use std::collections::VecDeque;

/// Share of slots to be in use, as the chart's target has it.
const BUSY: (usize, usize) = (8, 10);
/// `--horizontal-pod-autoscaler-tolerance`.
const TOLERANCE: f64 = 0.1;

/// One policy: so many per cent and so many pods may come or go in a period; the larger of both counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    percent: f64,
    pods: usize,
    period: f64,
}

/// How fast, times in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behavior {
    up: Policy,
    down: Policy,
    stabilization: f64,
}

/// Decides, and remembers what it must.
pub(super) struct Scaler {
    behavior: Behavior,
    target: f64,
    most: usize,
    /// When, and how many there were from then on.
    counts: VecDeque<(f64, usize)>,
    /// When, and how many were wanted.
    wanted: VecDeque<(f64, usize)>,
}

impl Behavior {
    /// `scaling.behavior` of the chart's values, its times divided by `speed`, those of scaling down by `down` as well.
    pub(super) fn chart(speed: f64, down: f64) -> Self {
        Self {
            up: Policy { percent: 400.0, pods: 5, period: 15.0 / speed },
            down: Policy { percent: 20.0, pods: 1, period: 60.0 / speed / down },
            stabilization: 300.0 / speed / down,
        }
    }
}

impl Scaler {
    pub(super) fn new(behavior: Behavior, slots: usize, most: usize) -> Self {
        let target = (slots * BUSY.0 / BUSY.1).max(1) as f64;
        Self { behavior, target, most, counts: VecDeque::new(), wanted: VecDeque::new() }
    }

    /// How many there should be at `now`, of `current`, with `metric` tasks in all; at least 1.
    pub(super) fn replicas(&mut self, now: f64, metric: f64, current: usize) -> usize {
        let ratio = metric / (self.target * current.max(1) as f64);
        let near = (ratio - 1.0).abs() <= TOLERANCE;
        let wanted = if near { current } else { (metric / self.target).ceil() as usize };
        let wanted = wanted.clamp(1, self.most);
        self.wanted.push_back((now, wanted));
        while self.wanted.front().is_some_and(|(at, _)| *at < now - self.behavior.stabilization) {
            self.wanted.pop_front();
        }
        if self.counts.back().is_none_or(|(_, count)| *count != current) {
            self.counts.push_back((now, current));
        }
        let next = if wanted > current {
            wanted.min(self.bound(self.behavior.up, now, 1.0))
        } else {
            let highest = self.wanted.iter().map(|(_, wanted)| *wanted).max().unwrap_or(wanted);
            highest.min(current).max(self.bound(self.behavior.down, now, -1.0).min(current))
        };
        if next != current {
            self.counts.push_back((now, next));
        }
        next
    }

    /// How many there may be at most (`sign` 1) or must be at least (-1): of what was there when the period began.
    fn bound(&self, policy: Policy, now: f64, sign: f64) -> usize {
        let since = now - policy.period;
        let before = self.counts.iter().rev().find(|(at, _)| *at <= since).or(self.counts.front());
        let before = before.map_or(1, |(_, count)| *count) as f64;
        let by_percent = before * (1.0 + sign * policy.percent / 100.0);
        let by_pods = before + sign * policy.pods as f64;
        // of two policies the one that changes most is taken
        let bound = if sign > 0.0 { by_percent.max(by_pods).ceil() } else { by_percent.min(by_pods).ceil() };
        bound.max(1.0) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaler() -> Scaler {
        Scaler::new(Behavior::chart(1.0, 1.0), 10, 20)
    }

    #[test]
    fn the_formula_is_the_quotient_rounded_up_and_near_is_left_alone() {
        // 80 % of 10 slots are 8
        assert_eq!(scaler().replicas(0.0, 17.0, 1), 3);
        assert_eq!(scaler().replicas(0.0, 8.7, 1), 1, "within 10 %");
        assert_eq!(scaler().replicas(0.0, 8.9, 1), 2);
        assert_eq!(scaler().replicas(0.0, 0.0, 1), 1);
    }

    #[test]
    fn up_at_most_fivefold_or_by_five_in_15_s() {
        let mut scaler = scaler();
        assert_eq!(scaler.replicas(0.0, 1e6, 1), 6, "by five, which is more than fivefold here");
        assert_eq!(scaler.replicas(5.0, 1e6, 6), 6, "the period goes on");
        assert_eq!(scaler.replicas(15.0, 1e6, 6), 20, "the most there may be");
    }

    #[test]
    fn down_by_a_fifth_each_minute_after_5_minutes_of_less_work() {
        let mut scaler = scaler();
        assert_eq!(scaler.replicas(0.0, 160.0, 20), 20);
        assert_eq!(scaler.replicas(200.0, 8.0, 20), 20, "more was wanted within 5 minutes");
        assert_eq!(scaler.replicas(301.0, 8.0, 20), 16);
        assert_eq!(scaler.replicas(316.0, 8.0, 16), 16, "the minute is not over");
        assert_eq!(scaler.replicas(361.0, 8.0, 16), 13);
        // the last ones one by one; how many there are may have been changed by somebody else
        assert_eq!(scaler.replicas(600.0, 8.0, 2), 2);
        assert_eq!(scaler.replicas(661.0, 8.0, 2), 1);
    }
}
