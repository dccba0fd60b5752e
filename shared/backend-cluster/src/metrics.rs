//! What a process measures of RabbitMQ and Redis: name, unit, meaning. [`Metrics`] is of every process, [`Gauges`]
//! of those that look after the whole deployment: see [`observer`].

mod broker;
mod gauges;
pub(crate) mod observer;

use std::{collections::HashMap, sync::Arc, time::Duration};

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, Registry, core::Collector};
use trireme_telemetry::BUCKETS;

pub(crate) use broker::Publishes;
pub(crate) use gauges::{Ended, Fired, Gauges, Ready, Scope};

/// Of one process; clones share everything.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Seconds from sending a message to its confirm.
    confirm: Histogram,
    /// Seconds of a call to Redis, by script.
    roundtrip: HistogramVec,
    scripts: HashMap<&'static str, Histogram>,
    /// Epochs begun because the store had been seen before and may have gone back.
    regressions: IntCounter,
}

impl Metrics {
    /// Metrics of the calls to these scripts, not registered yet.
    pub(crate) fn new(scripts: &[&'static str]) -> Result<Self, prometheus::Error> {
        let confirm = Histogram::with_opts(seconds(
            "trireme_publish_confirm_seconds",
            "From sending a message to RabbitMQ to its confirm",
        ))?;
        let roundtrip = HistogramVec::new(
            seconds("trireme_store_roundtrip_seconds", "Calls to Redis, by script"),
            &["op"],
        )?;
        let scripts = scripts.iter().map(|name| (*name, roundtrip.with_label_values(&[name]))).collect();
        let regressions = IntCounter::new(
            "trireme_store_regressions_total",
            "Epochs begun because a store seen before was restarted, failed over or emptied, and may have gone back",
        )?;
        Ok(Self(Arc::new(Inner { confirm, roundtrip, scripts, regressions })))
    }

    pub(crate) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let all: [Box<dyn Collector>; 3] = [
            Box::new(self.0.confirm.clone()),
            Box::new(self.0.roundtrip.clone()),
            Box::new(self.0.regressions.clone()),
        ];
        all.into_iter().try_for_each(|metric| registry.register(metric))
    }

    /// Where confirms are measured.
    pub(crate) fn confirm(&self) -> Histogram {
        self.0.confirm.clone()
    }

    pub(crate) fn called(&self, script: &str, took: Duration) {
        if let Some(seconds) = self.0.scripts.get(script) {
            seconds.observe(took.as_secs_f64());
        }
    }

    pub(crate) fn went_back(&self) {
        self.0.regressions.inc();
    }
}

fn seconds(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(BUCKETS.to_vec())
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests;
