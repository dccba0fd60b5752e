//! What a worker counts: name, unit, meaning.

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, histogram_opts};

/// The worker's metrics; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    /// Attempts that ended, by pool, kind of task and outcome.
    pub attempts: IntCounterVec,
    /// Seconds from a hint's publication to its claim, by pool.
    pub queue_latency: HistogramVec,
    /// Seconds an attempt took, by pool and kind.
    pub attempt_duration: HistogramVec,
    /// Slots in use, by pool.
    pub slots_used: IntGaugeVec,
    /// Slots in all, by pool.
    pub slots: IntGaugeVec,
    /// Hints that needed no work, by the store's answer.
    pub idle_hints: IntCounterVec,
    /// Hints that the broker had delivered before.
    pub redelivered: IntCounter,
    /// Successors executed without a hint, by pool.
    pub continued: IntCounterVec,
    /// Leases that ran out, or may have.
    pub leases_lost: IntCounter,
    /// Outcomes that came too late to be recorded.
    pub stale: IntCounter,
}

/// 1 ms to 30 min.
fn buckets() -> Vec<f64> {
    vec![
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0,
        600.0, 1800.0,
    ]
}

impl Metrics {
    /// Registers everything in `registry`; fails if a name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone())).map(|()| counters)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let gauges = |name: &str, help: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["pool"])?;
            registry.register(Box::new(gauges.clone())).map(|()| gauges)
        };
        let histograms = |name: &str, help: &str, labels: &[&str]| {
            let histograms = HistogramVec::new(histogram_opts!(name, help, buckets()), labels)?;
            registry.register(Box::new(histograms.clone())).map(|()| histograms)
        };
        Ok(Self {
            attempts: counters(
                "trireme_attempts_total",
                "Attempts that ended, by outcome",
                &["pool", "kind", "outcome"],
            )?,
            queue_latency: histograms(
                "trireme_queue_latency_seconds",
                "From the publication of a hint to the claim of its task",
                &["pool"],
            )?,
            attempt_duration: histograms(
                "trireme_attempt_duration_seconds",
                "From the claim of a task to the end of the attempt",
                &["pool", "kind"],
            )?,
            slots_used: gauges("trireme_slots_used", "Slots in which an attempt runs")?,
            slots: gauges("trireme_slots", "Slots of this worker")?,
            idle_hints: counters(
                "trireme_idle_hints_total",
                "Hints that needed no work, by the store's answer",
                &["answer"],
            )?,
            redelivered: counter("trireme_redelivered_hints_total", "Hints that were delivered before")?,
            continued: counters(
                "trireme_continued_tasks_total",
                "Successors executed without a hint",
                &["pool"],
            )?,
            leases_lost: counter("trireme_leases_lost_total", "Leases that ran out, or may have")?,
            stale: counter("trireme_stale_outcomes_total", "Outcomes that came too late to be recorded")?,
        })
    }
}
