//! What has happened, as plain numbers that others turn into metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) published: Counter,
    pub(super) confirmed: Counter,
    pub(super) nacked: Counter,
    pub(super) returned: Counter,
    pub(super) unconfirmed: Counter,
    pub(super) dropped: Counter,
    pub(super) delivered: Counter,
    pub(super) redelivered: Counter,
    pub(super) acked: Counter,
    pub(super) stale_acks: Counter,
    pub(super) decode_errors: Counter,
    pub(super) reconnects: Counter,
}

/// The counters at one moment. All but `backlog` only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Messages sent, repeats included.
    pub published: u64,
    /// Messages that the broker took.
    pub confirmed: u64,
    /// Messages that the broker refused; they are sent again.
    pub nacked: u64,
    /// Messages that no queue took; the queue is declared and they are sent again.
    pub returned: u64,
    /// Messages without an answer when their connection was lost; they are sent again.
    pub unconfirmed: u64,
    /// Hints given up: the backlog was full, or they fit no message. The sweep publishes them later.
    pub dropped: u64,
    /// Messages received.
    pub delivered: u64,
    /// Messages received that the broker had handed to somebody before.
    pub redelivered: u64,
    /// Messages acked (sent, on the connection they came by).
    pub acked: u64,
    /// Acks dropped because the channel of their message is gone; the broker delivers it again.
    pub stale_acks: u64,
    /// Messages that were no hints; they are acked.
    pub decode_errors: u64,
    /// Connections lost or not made.
    pub reconnects: u64,
    /// Hints that wait in memory or for a confirm, at this moment.
    pub backlog: u64,
}

impl Counters {
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            published: self.published.get(),
            confirmed: self.confirmed.get(),
            nacked: self.nacked.get(),
            returned: self.returned.get(),
            unconfirmed: self.unconfirmed.get(),
            dropped: self.dropped.get(),
            delivered: self.delivered.get(),
            redelivered: self.redelivered.get(),
            acked: self.acked.get(),
            stale_acks: self.stale_acks.get(),
            decode_errors: self.decode_errors.get(),
            reconnects: self.reconnects.get(),
            backlog: 0,
        }
    }
}
