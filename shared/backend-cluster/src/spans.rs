//! Spans of publishing, and the traces of runs as far as this process knows them.
//!
//! A hint says nothing of a trace, so that whoever publishes one looks here; where nothing is found (a sweep that
//! repeats a lost hint, say), the message has no trace context, which costs one link between two spans: the run's trace
//! itself comes from the store, with the claim.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use trireme_model::{RunId, Trace};
use trireme_telemetry::traces::{Group, Span, SpanKind, Traces, run_span};

/// Runs remembered: this many that were heard of last, at least.
const REMEMBERED: usize = 4096;

/// Traces of runs that were submitted or claimed here.
#[derive(Default)]
pub(crate) struct Known(Mutex<[HashMap<RunId, Trace>; 2]>);

/// Messages of one run to one queue.
struct Publish {
    run: RunId,
    queue: String,
    count: i64,
    group: Group,
    span: Span,
}

/// The spans of what is published together.
#[derive(Default)]
pub(crate) struct Publishes(Vec<Publish>);

impl Known {
    /// Takes note of a run's trace, if spans of it are kept.
    pub(crate) fn note(&self, run: &RunId, trace: Option<Trace>) {
        let Some(trace) = trace.filter(|trace| trace.sampled) else { return };
        // nothing can panic while the lock is held
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // nearly all that is claimed belongs to a run that was heard of just now
        if known[0].contains_key(run) {
            return;
        }
        if known[0].len() >= REMEMBERED {
            known[1] = std::mem::take(&mut known[0]);
        }
        known[0].insert(run.clone(), trace);
    }

    fn get(&self, run: &RunId) -> Option<Trace> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find_map(|known| known.get(run)).copied()
    }
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Known")
    }
}

impl Publishes {
    /// The trace context of a message of `run` to `queue`.
    pub(crate) fn context(
        &mut self,
        traces: &Traces,
        known: &Known,
        run: &RunId,
        queue: &str,
    ) -> Option<Trace> {
        // nearly all of what is published together is of one run and for one queue
        let same = |publish: &&mut Publish| publish.run == *run && publish.queue == queue;
        if let Some(publish) = self.0.iter_mut().rev().find(same) {
            publish.count += 1;
            return Some(Trace { parent: publish.span.id(), ..*publish.group.trace() });
        }
        let group = traces.group(known.get(run).as_ref())?;
        let name = format!("publish {queue}");
        let span = group.open(SpanKind::Producer, name, run_span(run));
        let context = Trace { parent: span.id(), ..*group.trace() };
        self.0.push(Publish { run: run.clone(), queue: queue.to_owned(), count: 1, group, span });
        Some(context)
    }

    /// Sends the spans.
    pub(crate) fn end(self) {
        for Publish { run, queue, count, group, mut span } in self.0 {
            span.set("messaging.system", "rabbitmq")
                .set("messaging.operation.name", "publish")
                .set("messaging.operation.type", "send")
                .set("messaging.destination.name", &*queue)
                .set("trireme.run.id", run.as_str());
            if count > 1 {
                span.set("messaging.batch.message_count", count);
            }
            group.finish(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runs_heard_of_last_are_remembered() {
        let known = Known::default();
        let run = |at: usize| RunId::new(format!("r{at}")).unwrap();
        let trace = |at: usize| Trace { id: 1 + at as u128, parent: 0, sampled: true };
        known.note(&run(0), Some(Trace { sampled: false, ..trace(0) }));
        assert_eq!(known.get(&run(0)), None);
        for at in 0..3 * REMEMBERED {
            known.note(&run(at), Some(trace(at)));
        }
        assert_eq!(known.get(&run(2 * REMEMBERED)), Some(trace(2 * REMEMBERED)));
        assert_eq!(known.get(&run(0)), None);
    }
}
