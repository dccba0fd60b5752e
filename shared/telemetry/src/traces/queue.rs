//! Spans that wait to be sent: bounded, and never in anybody's way.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::{Notify, watch};

use super::Span;

#[derive(Default)]
pub(super) struct Queue {
    held: Mutex<Held>,
    /// Something may have to be done sooner than the next tick: a batch is full, or somebody waits for a flush.
    pub(super) wake: Notify,
    /// Numbers of spans that were sent or given up.
    settled: watch::Sender<u64>,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Held {
    /// Most weight that waits.
    limit: usize,
    spans: VecDeque<(u128, Span)>,
    weight: usize,
    pushed: u64,
    /// Spans that somebody waits for, by [`Held::pushed`].
    wanted: u64,
}

impl Queue {
    /// Takes spans from now on, up to a weight of `limit` at once (see [`Span::weight`]).
    pub(super) fn open(&self, limit: usize) {
        self.held().limit = limit;
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        // no panic leaves it half changed
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a whole group, its first span first, or drops all of it.
    pub(super) fn push(&self, trace: u128, first: Span, others: Vec<Span>) {
        let count = 1 + others.len();
        let weight = first.weight() + others.iter().map(Span::weight).sum::<usize>();
        let mut held = self.held();
        if held.weight + weight > held.limit {
            drop(held);
            return self.dropped(count);
        }
        held.weight += weight;
        held.pushed += count as u64;
        held.spans.push_back((trace, first));
        held.spans.extend(others.into_iter().map(|span| (trace, span)));
        let full =
            held.spans.len() >= super::export::BATCH && held.spans.len() - count < super::export::BATCH;
        drop(held);
        if full {
            self.wake.notify_one();
        }
    }

    /// Counts spans that nobody will see.
    pub(super) fn dropped(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Relaxed);
    }

    pub(super) fn drops(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// The oldest spans, at most `most` of them.
    pub(super) fn take(&self, most: usize) -> Vec<(u128, Span)> {
        let mut held = self.held();
        let count = held.spans.len().min(most);
        let taken: Vec<_> = held.spans.drain(..count).collect();
        held.weight -= taken.iter().map(|(_, span)| span.weight()).sum::<usize>();
        taken
    }

    /// Spans that wait, and whether somebody waits for them.
    pub(super) fn waiting(&self) -> (usize, bool) {
        let held = self.held();
        (held.spans.len(), held.wanted > *self.settled.borrow())
    }

    /// So many spans more were sent or given up.
    pub(super) fn settle(&self, count: usize) {
        self.settled.send_modify(|settled| *settled += count as u64);
    }

    /// Waits until everything that was pushed before is settled.
    pub(super) async fn flushed(&self) {
        let target = {
            let mut held = self.held();
            held.wanted = held.wanted.max(held.pushed);
            held.pushed
        };
        self.wake.notify_one();
        let mut settled = self.settled.subscribe();
        // the sender lives as long as `self`
        let _ = settled.wait_for(|settled| *settled >= target).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use futures::FutureExt;

    use super::{super::SpanKind, *};

    fn queue(limit: usize) -> Queue {
        let queue = Queue::default();
        queue.open(limit);
        queue
    }

    fn span(id: u64) -> Span {
        Span::new(id, 0, SpanKind::Internal, "s".into(), UNIX_EPOCH)
    }

    #[test]
    fn a_group_goes_in_whole_or_not_at_all_and_its_first_span_first() {
        let queue = queue(4);
        queue.push(1, span(1), vec![span(2), span(3)]);
        queue.push(1, span(4), vec![span(5)]);
        assert_eq!((queue.waiting(), queue.drops()), ((3, false), 2));
        let ids: Vec<u64> = queue.take(2).iter().map(|(_, span)| span.id()).collect();
        assert_eq!(ids, [1, 2]);
        queue.push(1, span(6), vec![span(7), span(8)]);
        assert_eq!((queue.waiting().0, queue.drops()), (4, 2));
    }

    #[test]
    fn long_texts_take_more_room() {
        let queue = queue(10);
        let mut long = span(1);
        long.set("text", "x".repeat(20 * 1024));
        queue.push(1, long, Vec::new());
        assert_eq!((queue.waiting().0, queue.drops()), (0, 1));
    }

    #[test]
    fn a_flush_waits_for_what_was_there() {
        let queue = queue(10);
        queue.push(1, span(1), Vec::new());
        let flush = queue.flushed();
        let mut flush = std::pin::pin!(flush);
        assert_eq!(flush.as_mut().now_or_never(), None);
        assert_eq!(queue.waiting(), (1, true));
        queue.push(1, span(2), Vec::new());
        let taken = queue.take(1);
        queue.settle(taken.len());
        assert_eq!(flush.now_or_never(), Some(()));
        assert_eq!(queue.waiting(), (1, false));
    }
}
