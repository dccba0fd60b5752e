//! The task that sends spans in batches. It alone waits for the collector.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prometheus::{
    Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
    {IntCounterVec, Opts},
};
use reqwest::{
    header::{CONTENT_TYPE, HeaderValue},
    redirect::Policy,
};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    config::{Invalid, Plan, shown},
    queue::Queue,
    wire,
};

/// Spans sent at once.
pub(super) const BATCH: usize = 512;
/// Longest pause after a failed export; meanwhile the queue fills, and then drops.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// What became of spans.
#[derive(Clone)]
pub(super) struct Counters {
    queue: Arc<Queue>,
    spans: IntCounterVec,
}

impl Counters {
    pub(super) fn register(registry: &Registry, queue: Arc<Queue>) -> Result<Self, prometheus::Error> {
        let opts = Opts::new(
            "trireme_trace_spans_total",
            "Spans by what became of them: sent, failed to be sent, or dropped because too many were waiting.",
        );
        let spans = IntCounterVec::new(opts, &["outcome"])?;
        for outcome in ["sent", "failed", "dropped"] {
            spans.with_label_values(&[outcome]);
        }
        let counters = Self { queue, spans };
        registry.register(Box::new(counters.clone()))?;
        Ok(counters)
    }

    fn count(&self, outcome: &str, count: usize) {
        self.spans.with_label_values(&[outcome]).inc_by(count as u64);
    }
}

impl Collector for Counters {
    fn desc(&self) -> Vec<&Desc> {
        self.spans.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let dropped = self.spans.with_label_values(&["dropped"]);
        dropped.inc_by(self.queue.drops().saturating_sub(dropped.get()));
        self.spans.collect()
    }
}

/// Starts the task. It ends with `stop`, without sending what is left.
pub(super) fn start(
    plan: Plan,
    queue: Arc<Queue>,
    counters: Counters,
    stop: CancellationToken,
) -> Result<(), Invalid> {
    let mut headers = plan.headers;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    let client = reqwest::Client::builder().default_headers(headers).redirect(Policy::none());
    let client = client.build().map_err(|error| Invalid(format!("the OTLP exporter: {error}")))?;
    let mut scope = Vec::new();
    wire::bytes(&mut scope, 1, b"trireme");
    wire::bytes(&mut scope, 2, env!("CARGO_PKG_VERSION").as_bytes());
    let mut resource = Vec::new();
    for (key, value) in &plan.resource {
        wire::attribute(&mut resource, 1, key, &value.as_str().into());
    }
    let task = Task {
        client,
        endpoint: plan.endpoint,
        resource,
        scope,
        queue,
        counters,
        delay: plan.delay,
        timeout: plan.timeout,
    };
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = task.run() => {}
        }
    });
    Ok(())
}

struct Task {
    client: reqwest::Client,
    endpoint: String,
    /// OTLP's `Resource` and `InstrumentationScope`.
    resource: Vec<u8>,
    scope: Vec<u8>,
    queue: Arc<Queue>,
    counters: Counters,
    delay: Duration,
    timeout: Duration,
}

impl Task {
    async fn run(self) {
        let mut failures = 0_u32;
        let mut next = Instant::now() + self.delay;
        loop {
            let (waiting, wanted) = self.queue.waiting();
            // after a failure only time helps, whoever waits
            if failures > 0 || (waiting < BATCH && !wanted) {
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = self.queue.wake.notified(), if failures == 0 => continue,
                }
            }
            next = Instant::now() + self.delay;
            let spans = self.queue.take(BATCH);
            if spans.is_empty() {
                failures = 0;
                continue;
            }
            let count = spans.len();
            let (mut room, mut written) = (Vec::with_capacity(1024), Vec::with_capacity(1024 * count));
            spans.iter().for_each(|(trace, span)| span.write(*trace, &mut room, &mut written));
            drop(spans);
            let error = match timeout(self.timeout, self.send(&written)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error),
                Err(_) => Some(format!("no answer within {:?}", self.timeout)),
            };
            match error {
                None => {
                    if failures > 0 {
                        tracing::info!(failures, "traces can be sent again");
                    }
                    failures = 0;
                    self.counters.count("sent", count);
                }
                Some(error) => {
                    if failures == 0 {
                        // an address may hold a password or a key
                        let error = error.replace(&self.endpoint, &shown(&self.endpoint));
                        tracing::warn!(error, "traces can't be sent; trying again");
                    }
                    failures = failures.saturating_add(1);
                    self.counters.count("failed", count);
                    next = Instant::now() + self.delay.saturating_mul(1 << failures.min(4)).min(MAX_PAUSE);
                }
            }
            self.queue.settle(count);
        }
    }

    /// Sends spans, given as fields of OTLP's `ScopeSpans`.
    async fn send(&self, spans: &[u8]) -> Result<(), String> {
        let body = Bytes::from(wire::request(&self.resource, &self.scope, spans));
        let post = || self.client.post(&self.endpoint).body(body.clone()).send();
        let mut sent = post().await;
        if sent.as_ref().is_err_and(|error| !error.is_connect()) {
            // a collector may close a connection that has served at the moment when it is used again
            sent = post().await;
        }
        let answer = sent.map_err(|error| chain(&error))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("the collector answers {status}")),
        }
    }
}

/// An error and its causes, without the address.
fn chain(error: &reqwest::Error) -> String {
    let mut text =
        if error.is_connect() { "no connection".to_owned() } else { "the request failed".to_owned() };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
