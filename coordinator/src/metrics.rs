//! Every metric of a coordinator: name, unit and meaning.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    core::Collector,
};
use trireme_backend::Swept;
use trireme_telemetry::BUCKETS;

/// The counters of one coordinator; clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    submit_seconds: Histogram,
    submits: IntCounterVec,
    /// Event streams open now.
    pub streams: IntGauge,
    /// Long polls open now.
    pub polls: IntGauge,
    /// Events sent to followers.
    pub events: IntCounter,
    /// Seconds from an event to its being sent to a follower that waited for it.
    pub event_lag: Histogram,
    sweep_seconds: Histogram,
    sweep_looked: IntCounter,
    sweep_hints: IntCounter,
    sweep_purged: IntCounter,
    sweep_errors: IntCounter,
}

/// Counts one open stream or poll for as long as it lives.
#[derive(Debug)]
pub struct Open(IntGauge);

impl Metrics {
    /// Registers everything with `registry`; fails when it holds another coordinator's metrics.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let seconds = |name: &str, help: &str| HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
        Ok(Self {
            requests: add(
                registry,
                IntCounterVec::new(
                    Opts::new("trireme_http_requests_total", "HTTP requests answered."),
                    &["route", "method", "status"],
                )?,
            )?,
            request_seconds: add(
                registry,
                HistogramVec::new(
                    seconds(
                        "trireme_http_request_seconds",
                        "Time until the head of the answer was ready, in seconds; long polls wait on purpose.",
                    ),
                    &["route"],
                )?,
            )?,
            submit_seconds: add(
                registry,
                Histogram::with_opts(seconds(
                    "trireme_submit_seconds",
                    "Time the store took to accept a compiled run, in seconds.",
                ))?,
            )?,
            submits: add(registry, submits()?)?,
            streams: add(registry, IntGauge::new("trireme_event_streams", "Event streams open now.")?)?,
            polls: add(registry, IntGauge::new("trireme_long_polls", "Long polls open now.")?)?,
            events: add(
                registry,
                IntCounter::new("trireme_events_sent_total", "Events sent on event streams.")?,
            )?,
            event_lag: add(
                registry,
                Histogram::with_opts(seconds(
                    "trireme_event_lag_seconds",
                    "From an event to its being sent to a follower that waited for it, in seconds.",
                ))?,
            )?,
            sweep_seconds: add(
                registry,
                Histogram::with_opts(seconds("trireme_sweep_seconds", "Duration of one sweep, in seconds."))?,
            )?,
            sweep_looked: add(
                registry,
                IntCounter::new("trireme_sweep_looked_total", "Due entries looked at by sweeps.")?,
            )?,
            sweep_hints: add(
                registry,
                IntCounter::new("trireme_sweep_hints_total", "Hints published by sweeps.")?,
            )?,
            sweep_purged: add(
                registry,
                IntCounter::new("trireme_sweep_purged_total", "Ended runs forgotten after their retention.")?,
            )?,
            sweep_errors: add(
                registry,
                IntCounter::new("trireme_sweep_errors_total", "Sweeps that failed or took too long.")?,
            )?,
        })
    }

    /// Counts one answered request. `route` is the pattern, never the path, so that ids make no new series.
    pub fn answered(&self, route: &str, method: &str, status: u16, took: Duration) {
        let mut digits = [0; 3];
        self.requests.with_label_values(&[route, method, status_text(status, &mut digits)]).inc();
        self.request_seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    /// Counts one submitted run.
    pub fn submitted(&self, outcome: &str) {
        self.submits.with_label_values(&[outcome]).inc();
    }

    /// Times one submit in the store.
    pub fn submit_took(&self, took: Duration) {
        self.submit_seconds.observe(took.as_secs_f64());
    }

    /// Counts one sweep; `None` when it failed.
    pub fn swept(&self, swept: Option<&Swept>, took: Duration) {
        self.sweep_seconds.observe(took.as_secs_f64());
        let Some(swept) = swept else { return self.sweep_errors.inc() };
        self.sweep_looked.inc_by(swept.looked as u64);
        self.sweep_hints.inc_by(swept.hints as u64);
        self.sweep_purged.inc_by(swept.purged as u64);
    }
}

impl Open {
    /// Counts one more until it is dropped.
    pub fn count(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// With every outcome as 0 from the start: nobody sees the first increase of a series that was not there.
fn submits() -> Result<IntCounterVec, prometheus::Error> {
    const OUTCOMES: [&str; 6] = ["created", "replayed", "conflict", "refused", "shed", "error"];
    let help = "Submitted runs by outcome: created, replayed, conflict, refused, shed, error.";
    let submits = IntCounterVec::new(Opts::new("trireme_submits_total", help), &["outcome"])?;
    for outcome in OUTCOMES {
        submits.with_label_values(&[outcome]);
    }
    Ok(submits)
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// The digits of an HTTP status, without an allocation per request.
fn status_text(status: u16, digits: &mut [u8; 3]) -> &str {
    let status = status.clamp(100, 999);
    let digit = |value: u16| b'0' + (value % 10) as u8;
    *digits = [digit(status / 100), digit(status / 10), digit(status)];
    std::str::from_utf8(digits).unwrap_or("000")
}
