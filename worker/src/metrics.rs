//! What a worker counts: name, unit, meaning. Seconds are counted from 1 ms to 30 min.
//!
//! What is counted for every task or call has its children kept (see [`children`]), so that counting is an atomic
//! addition. Label values are few: pools are configured, and of models the first [`MAX_MODELS`] have their own.

mod children;

use std::sync::Arc;

use prometheus::{
    CounterVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, core::Collector,
};
use trireme_telemetry::{BUCKETS, Bounded};

pub(crate) use children::{Call, ModelMetrics, PoolMetrics, Retry, Token};

/// Pools with series of their own; a worker has those of its configuration.
const MAX_POOLS: usize = 64;
/// Models with series of their own: a spec may name any model of a configured provider.
const MAX_MODELS: usize = 100;
/// Tokens per second: from a model that crawls to one on special hardware.
const RATES: &[f64] = &[1., 2., 5., 10., 20., 35., 50., 75., 100., 150., 200., 350., 500., 750., 1000.];

/// The worker's metrics; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    /// Attempts that ended, by pool, kind of task and outcome.
    pub attempts: IntCounterVec,
    /// Seconds from a hint's publication to its claim, by pool and priority.
    pub queue_latency: HistogramVec,
    /// Seconds from a task's being ready to its claim, on the store's clock, by pool and priority.
    pub start_latency: HistogramVec,
    /// Seconds an attempt took, by pool and kind.
    pub attempt_duration: HistogramVec,
    /// Attempts after which the task is tried again, by pool, kind and class.
    pub retries: IntCounterVec,
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
    /// Calls that agents' models asked for and that were not made, by class.
    pub calls_refused: IntCounterVec,
    /// Calls to providers that ended, by provider, model and outcome.
    pub provider_requests: IntCounterVec,
    /// Tokens by provider, model and type.
    pub provider_tokens: IntCounterVec,
    /// US dollars by provider and model, by the configured prices.
    pub provider_cost: CounterVec,
    /// When the drain began, as seconds of Unix time; 0 before.
    pub drain_started: IntGauge,
    /// Seconds that the drain may take.
    pub drain_grace: IntGauge,
    pools: Arc<Bounded<PoolMetrics>>,
    models: Arc<Bounded<ModelMetrics>>,
}

impl Metrics {
    /// Registers everything in `registry`; fails if a name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let new = Names(registry);
        let attempts = new.counters(
            "trireme_attempts_total",
            "Attempts that ended, by outcome",
            &["pool", "kind", "outcome"],
        )?;
        let queue_latency = new.seconds(
            "trireme_queue_latency_seconds",
            "From the publication of a hint to the claim of its task",
            &["pool", "priority"],
        )?;
        let start_latency = new.seconds(
            "trireme_start_latency_seconds",
            "From the moment a task is ready to its claim, on the store's clock",
            &["pool", "priority"],
        )?;
        let attempt_duration = new.seconds(
            "trireme_attempt_duration_seconds",
            "From the claim of a task to the end of the attempt",
            &["pool", "kind"],
        )?;
        let retries = new.counters(
            "trireme_retries_total",
            "Attempts after which the task is tried again, by class: retryable, rate_limited, released",
            &["pool", "kind", "class"],
        )?;
        let continued =
            new.counters("trireme_continued_tasks_total", "Successors executed without a hint", &["pool"])?;
        let provider_requests = new.counters(
            "trireme_provider_requests_total",
            "Calls to providers that ended, by outcome",
            &["provider", "model", "outcome"],
        )?;
        let provider_tokens = new.counters(
            "trireme_provider_tokens_total",
            "Tokens by type: input, cached_input and cache_write of it, output, reasoning of it",
            &["provider", "model", "type"],
        )?;
        let provider_cost = CounterVec::new(
            Opts::new("trireme_provider_cost_usd_total", "US dollars by the configured prices"),
            &["provider", "model"],
        )?;
        let provider_cost = new.add(provider_cost)?;
        let first_token = new.seconds(
            "trireme_provider_first_token_seconds",
            "From sending a call to its first token",
            &["provider", "model"],
        )?;
        let token_gap = new.seconds(
            "trireme_provider_token_gap_seconds",
            "Longest pause between two tokens of a call",
            &["provider", "model"],
        )?;
        let token_rate = HistogramOpts::new(
            "trireme_provider_tokens_per_second",
            "Output tokens of a call by the time from the first to the last",
        );
        let token_rate = HistogramVec::new(token_rate.buckets(RATES.to_vec()), &["provider", "model"])?;
        let token_rate = new.add(token_rate)?;
        let limit_wait = new.seconds(
            "trireme_rate_limit_wait_seconds",
            "From a rate-limited call to the next attempt of its task",
            &["provider"],
        )?;
        let pools = PoolMetrics::of(
            &attempts,
            &queue_latency,
            &start_latency,
            &attempt_duration,
            &retries,
            &continued,
        );
        let models = ModelMetrics::of(
            &provider_requests,
            &provider_tokens,
            &provider_cost,
            &first_token,
            &token_gap,
            &token_rate,
            &limit_wait,
        );
        Ok(Self {
            pools: Arc::new(Bounded::new(MAX_POOLS, pools)),
            models: Arc::new(Bounded::new(MAX_MODELS, models)),
            attempts,
            queue_latency,
            start_latency,
            attempt_duration,
            retries,
            slots_used: new.gauges("trireme_slots_used", "Slots in which an attempt runs", &["pool"])?,
            slots: new.gauges("trireme_slots", "Slots of this worker", &["pool"])?,
            idle_hints: new.counters(
                "trireme_idle_hints_total",
                "Hints that needed no work, by the store's answer",
                &["answer"],
            )?,
            redelivered: new
                .counter("trireme_redelivered_hints_total", "Hints that were delivered before")?,
            continued,
            leases_lost: new.counter("trireme_leases_lost_total", "Leases that ran out, or may have")?,
            stale: new
                .counter("trireme_stale_outcomes_total", "Outcomes that came too late to be recorded")?,
            calls_refused: new.counters(
                "trireme_agent_calls_refused_total",
                "Calls that agents' models asked for and that were not made, by class",
                &["class"],
            )?,
            provider_requests,
            provider_tokens,
            provider_cost,
            drain_started: new.gauge(
                "trireme_drain_started_timestamp_seconds",
                "When the drain began, as seconds of Unix time; 0 before",
            )?,
            drain_grace: new.gauge(
                "trireme_drain_grace_seconds",
                "Seconds that the drain may take, handing back included",
            )?,
        })
    }

    /// What is counted for a pool.
    pub(crate) fn pool(&self, pool: &str) -> Arc<PoolMetrics> {
        self.pools.get(pool)
    }

    /// What is counted for a model.
    pub(crate) fn model(&self, provider: &str, model: &str) -> Arc<ModelMetrics> {
        self.models.get(&format!("{provider}/{model}"))
    }

    /// Exports the series of `pools` as 0, so that the first increase can be seen.
    pub(crate) fn begin<'a>(&self, pools: impl Iterator<Item = &'a str>) {
        for pool in pools {
            self.pool(pool);
        }
        for answer in ["busy", "done", "not_ready", "cancelled", "gone"] {
            self.idle_hints.with_label_values(&[answer]);
        }
    }
}

/// Makes metrics and registers them.
struct Names<'a>(&'a Registry);

impl Names<'_> {
    fn add<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::new(name, help)?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::new(name, help)?)
    }

    fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()), labels)?)
    }
}
