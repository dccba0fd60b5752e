//! The bounded list between those who publish and the one task that sends.

use bytes::Bytes;
use lapin::types::ShortString;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use trireme_model::Trace;

/// One message that waits to be sent.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) queue: ShortString,
    pub(super) body: Bytes,
    // Its trace context, for traces only.
    pub(super) trace: Option<Trace>,
}

#[derive(Debug)]
pub(super) struct Backlog {
    bound: usize,
    waiting: Mutex<VecDeque<Outgoing>>,
    // Waiting here, or sent and without an answer.
    unsettled: AtomicUsize,
    more: Notify,
    settled: Notify,
}

impl Backlog {
    pub(super) fn new(bound: usize) -> Self {
        Self {
            bound,
            waiting: Mutex::default(),
            unsettled: AtomicUsize::new(0),
            more: Notify::new(),
            settled: Notify::new(),
        }
    }

    /// Appends what fits below the bound; gives how many did not. The newest are dropped: the older ones have
    /// waited longer, and the sweep repeats either.
    pub(super) fn push(&self, mut messages: Vec<Outgoing>) -> usize {
        let mut waiting = self.lock();
        let room = self.bound.saturating_sub(waiting.len());
        let dropped = messages.len().saturating_sub(room);
        messages.truncate(room);
        if !messages.is_empty() {
            self.unsettled.fetch_add(messages.len(), Ordering::AcqRel);
            waiting.extend(messages);
            self.more.notify_one();
        }
        dropped
    }

    /// Puts messages back that were sent and not taken, in their order, before all others. Never drops: they
    /// were counted against the bound when they first came, and there are at most a window of them.
    pub(super) fn put_back(&self, messages: impl DoubleEndedIterator<Item = Outgoing>) {
        let mut waiting = self.lock();
        for message in messages.rev() {
            waiting.push_front(message);
        }
        self.more.notify_one();
    }

    pub(super) fn take(&self) -> Option<Outgoing> {
        self.lock().pop_front()
    }

    /// Notes that `count` messages got their final answer.
    pub(super) fn settle(&self, count: usize) {
        if count > 0 && self.unsettled.fetch_sub(count, Ordering::AcqRel) == count {
            self.settled.notify_waiters();
        }
    }

    /// Notes that `count` messages whose answer said "taken", or will, were not.
    pub(super) fn unsettle(&self, count: usize) {
        self.unsettled.fetch_add(count, Ordering::AcqRel);
    }

    pub(super) fn unsettled(&self) -> usize {
        self.unsettled.load(Ordering::Acquire)
    }

    /// Waits for more to send. May wake without there being any.
    pub(super) async fn more(&self) {
        self.more.notified().await;
    }

    pub(super) async fn settled(&self) {
        loop {
            let notified = self.settled.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.unsettled() == 0 {
                return;
            }
            notified.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Outgoing>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(bodies: &[&'static str]) -> Vec<Outgoing> {
        let queue = ShortString::from("q");
        bodies
            .iter()
            .map(|body| Outgoing {
                queue: queue.clone(),
                body: Bytes::from_static(body.as_bytes()),
                trace: None,
            })
            .collect()
    }

    #[test]
    fn drops_the_newest_above_its_bound() {
        let backlog = Backlog::new(3);
        assert_eq!(backlog.push(messages(&["a", "b"])), 0);
        assert_eq!(backlog.push(messages(&["c", "d", "e"])), 2);
        assert_eq!(backlog.unsettled(), 3);
        let first = backlog.take().unwrap();
        backlog.put_back([first].into_iter());
        let order: Vec<_> = std::iter::from_fn(|| backlog.take()).map(|message| message.body).collect();
        assert_eq!(order, ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn is_settled_when_all_have_an_answer() {
        let backlog = Backlog::new(10);
        backlog.push(messages(&["a", "b"]));
        backlog.settle(1);
        let mut wait = std::pin::pin!(backlog.settled());
        assert!(futures::poll!(wait.as_mut()).is_pending());
        backlog.settle(1);
        wait.await;
    }
}
