//! The publisher's counters as metrics: read when somebody scrapes, so that publishing costs what it did.

use std::sync::{Mutex, PoisonError};

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::broker::{Broker, Snapshot};

/// Collects the counters of a [`Broker`].
pub(crate) struct Publishes {
    broker: Broker,
    results: IntCounterVec,
    reconnects: IntCounter,
    backlog: IntGauge,
    /// What was collected last; the lock keeps scrapes apart.
    before: Mutex<Snapshot>,
}

impl Publishes {
    pub(crate) fn new(broker: Broker) -> Result<Self, prometheus::Error> {
        let results = IntCounterVec::new(
            Opts::new(
                "trireme_publishes_total",
                "Hints by what became of them: confirmed; nacked, returned and unconfirmed ones are sent again; \
                 dropped ones the sweep publishes later",
            ),
            &["result"],
        )?;
        let reconnects =
            IntCounter::new("trireme_broker_reconnects_total", "Connections to RabbitMQ lost or not made")?;
        let backlog =
            IntGauge::new("trireme_publish_backlog", "Hints that wait in memory or for their confirm")?;
        Ok(Self { broker, results, reconnects, backlog, before: Mutex::default() })
    }
}

impl Collector for Publishes {
    fn desc(&self) -> Vec<&Desc> {
        [self.results.desc(), self.reconnects.desc(), self.backlog.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.broker.counters();
        for (result, new, old) in [
            ("confirmed", now.confirmed, before.confirmed),
            ("nacked", now.nacked, before.nacked),
            ("returned", now.returned, before.returned),
            ("unconfirmed", now.unconfirmed, before.unconfirmed),
            ("dropped", now.dropped, before.dropped),
        ] {
            self.results.with_label_values(&[result]).inc_by(new.saturating_sub(old));
        }
        self.reconnects.inc_by(now.reconnects.saturating_sub(before.reconnects));
        self.backlog.set(i64::try_from(now.backlog).unwrap_or(i64::MAX));
        *before = now;
        [self.results.collect(), self.reconnects.collect(), self.backlog.collect()].concat()
    }
}
