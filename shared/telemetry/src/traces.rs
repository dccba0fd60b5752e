//! Spans, sent to an OTLP collector. Off unless an endpoint is set.
//!
//! Spans are made by hand instead of from `tracing`'s: which span is whose parent follows from the run and the task
//! ids ([`run_span`], [`task_span`]), not from what a process happens to be doing, so that parts of a run that
//! happen in different processes, or after one was killed, still fit together. And where a run is not traced, no
//! span is even thought of.
//!
//! - A [`Group`] is what one piece of work leaves behind: a first span, and others below it. Nothing of it is handed
//!   over before its first span has ended, and that one goes out before the others. So a process that is killed
//!   takes spans with it, but never the parent of one that was sent.
//! - The queue between work and collector is bounded, takes what it is given at once or drops it, and counts drops:
//!   a collector that is slow or away costs spans and nothing else.

mod config;
mod export;
mod queue;
mod sampler;
mod span;
mod wire;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use prometheus::{IntCounter, Registry};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trireme_model::{RunId, TaskId, Trace};

pub use config::{Config, Invalid, Otlp};
pub use span::{Span, SpanKind};
pub use wire::Value;

use queue::Queue;
use sampler::{Limit, Sampler};

/// Spans of one group; further ones are dropped and counted.
const MAX_GROUP: usize = 1024;
/// Longest text of a prompt, an output, or a tool's arguments or result on a span, in bytes.
const MAX_CONTENT: usize = 16 * 1024;

/// Where spans go. Clones share everything; the default goes nowhere.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Inner>>);

pub(crate) struct Inner {
    queue: Arc<Queue>,
    sampler: Sampler,
    limit: Option<Limit>,
    /// Runs that the limit left untraced.
    limited: IntCounter,
    content: bool,
    stop: CancellationToken,
}

/// The spans of one piece of work in one trace.
pub struct Group {
    inner: Arc<Inner>,
    trace: Trace,
    /// Those that have ended.
    spans: Mutex<Vec<Span>>,
}

/// The span of a run as a whole: whoever goes on with a run knows it without being told.
pub fn run_span(run: &RunId) -> u64 {
    digest(&[run.as_str()])
}

/// The span of a map, an agent or a join.
pub fn task_span(run: &RunId, task: &TaskId) -> u64 {
    digest(&[run.as_str(), "/", task.as_str()])
}

fn digest(parts: &[&str]) -> u64 {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part.as_bytes()));
    let mut id = [0; 8];
    id.copy_from_slice(&hash.finalize()[..8]);
    // 0 is no span
    u64::from_be_bytes(id).max(1)
}

impl Traces {
    /// Starts exporting as `config` and the standard `OTEL_…` variables say, with `service` as the default of
    /// `service.name`; must be called inside a Tokio runtime. Without an endpoint nothing is started and everything
    /// else here does nothing; so it is where a variable can't be used, with a warning. `registry` counts what becomes
    /// of the spans.
    ///
    /// # Errors
    /// [`Config::check`]'s, and where `registry` has such a counter already.
    pub fn start(config: &Config, service: &'static str, registry: &Registry) -> Result<Self, Invalid> {
        config.check()?;
        let queue = Arc::new(Queue::default());
        let unregistered = |error| Invalid(format!("metrics: {error}"));
        let counters = export::Counters::register(registry, queue.clone()).map_err(unregistered)?;
        let about = "Runs that are not traced because more began in a second than telemetry.otlp.per_second.";
        let limited = IntCounter::new("trireme_trace_limited_runs_total", about).map_err(unregistered)?;
        registry.register(Box::new(limited.clone())).map_err(unregistered)?;
        let plan = match config.plan(service, |name| std::env::var(name).ok()) {
            Ok(Some(plan)) => plan,
            Ok(None) => return Ok(Self::default()),
            // these are shared with other programs, which may know what we don't
            Err(error) => {
                tracing::warn!(%error, "the environment asks for something unknown: traces are off");
                return Ok(Self::default());
            }
        };
        queue.open(plan.queue);
        let stop = CancellationToken::new();
        let (endpoint, sampler) = (plan.endpoint.clone(), plan.sampler);
        let limit = plan.per_second.map(Limit::new);
        export::start(plan, queue.clone(), counters, stop.clone())?;
        tracing::info!(endpoint = config::shown(&endpoint), "sending traces");
        Ok(Self(Some(Arc::new(Inner { queue, sampler, limit, limited, content: config.content, stop }))))
    }

    /// Whether spans go anywhere.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether prompts, outputs, and arguments and results of tools stand on spans.
    pub fn content(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.content)
    }

    /// The trace of a new run: the one of its request's `traceparent`, which is kept even where this process exports
    /// nothing; else a new one, if the sampler says so and there are not too many. A header that is none is ignored.
    pub fn begin(&self, traceparent: Option<&str>) -> Option<Trace> {
        let given = traceparent.and_then(Trace::of_header);
        match &self.0 {
            None => given,
            Some(inner) => {
                let trace = inner.sampler.decide(given)?;
                let over =
                    given.is_none() && inner.limit.as_ref().is_some_and(|limit| !limit.take(Instant::now()));
                if over {
                    inner.limited.inc();
                }
                (!over).then_some(trace)
            }
        }
    }

    /// Starts a group of spans in `trace`; `None` where they would go nowhere.
    #[inline]
    pub fn group(&self, trace: Option<&Trace>) -> Option<Group> {
        let (inner, trace) = (self.0.as_ref()?, trace.filter(|trace| trace.sampled)?);
        Some(Group { inner: inner.clone(), trace: *trace, spans: Mutex::default() })
    }

    /// Sends what there is, within `limit`. Whether all of it went out, or was given up.
    pub async fn flush(&self, limit: Duration) -> bool {
        match &self.0 {
            None => true,
            Some(inner) => tokio::time::timeout(limit, inner.queue.flushed()).await.is_ok(),
        }
    }

    /// [`flush`](Self::flush), and the end of exporting: what comes later is dropped.
    pub async fn close(&self, limit: Duration) {
        self.flush(limit).await;
        if let Some(inner) = &self.0 {
            inner.stop.cancel();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl std::fmt::Debug for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_on() { "Traces(on)" } else { "Traces(off)" })
    }
}

impl Group {
    /// The trace that its spans belong to.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// A text for a span, if it may stand there at all; cut at 16 KiB.
    pub fn content(&self, text: impl FnOnce() -> String) -> Option<String> {
        self.inner.content.then(|| {
            let mut text = text();
            text.truncate(text.floor_char_boundary(MAX_CONTENT));
            text
        })
    }

    /// Begins a span below `parent` now.
    pub fn open(&self, kind: SpanKind, name: impl Into<std::borrow::Cow<'static, str>>, parent: u64) -> Span {
        // 0 is no span
        Span::new(rand::random::<u64>().max(1), parent, kind, name.into(), SystemTime::now())
    }

    /// Ends a span now. It is sent with the group.
    pub fn end(&self, span: Span) {
        self.end_at(span, SystemTime::now());
    }

    /// Ends a span at a time that is known.
    pub fn end_at(&self, mut span: Span, end: SystemTime) {
        span.end = end;
        // nothing can panic while the lock is held
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        if spans.len() < MAX_GROUP {
            spans.push(span);
        } else {
            drop(spans);
            self.inner.queue.dropped(1);
        }
    }

    /// Ends the first span of the group now, and hands all over. Dropped without it, nothing of the group is sent.
    pub fn finish(self, first: Span) {
        self.finish_at(first, SystemTime::now());
    }

    /// As [`finish`](Self::finish), with a time that is known.
    pub fn finish_at(self, mut first: Span, end: SystemTime) {
        first.end = end;
        let others = self.spans.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.inner.queue.push(self.trace.id, first, others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_spans_follow_from_ids_of_runs_and_tasks() {
        let (run, other) = (RunId::new("r").unwrap(), RunId::new("s").unwrap());
        let task = TaskId::new("a/0").unwrap();
        assert_eq!(run_span(&run), run_span(&run.clone()));
        let ids = [run_span(&run), run_span(&other), task_span(&run, &task), task_span(&other, &task)];
        let different: std::collections::HashSet<u64> = ids.into_iter().collect();
        assert_eq!(different.len(), 4);
    }

    #[test]
    fn without_an_endpoint_a_given_trace_is_only_handed_on() {
        let traces = Traces::default();
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = traces.begin(Some(header));
        assert_eq!(trace.map(|trace| trace.header(trace.parent)).as_deref(), Some(header));
        assert_eq!(traces.begin(Some("garbage")), None);
        assert_eq!(traces.begin(None), None);
        assert!(traces.group(trace.as_ref()).is_none());
    }
}
