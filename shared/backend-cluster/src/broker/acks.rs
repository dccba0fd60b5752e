//! Collects finished deliveries and says which acks to send for them.
//!
//! RabbitMQ numbers the deliveries of a channel from 1. One ack with `multiple` covers all numbers up to its own,
//! so that whatever is finished without a gap costs one frame. What is finished above a gap is acked one by one:
//! it frees its place for another delivery at once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What was finished on the present channel and not yet acked, and how many deliveries are in somebody's hands.
#[derive(Debug, Default)]
pub(super) struct Acks {
    finished: Mutex<Finished>,
    more: Notify,
    held: AtomicUsize,
    none_held: Notify,
}

#[derive(Debug, Default)]
struct Finished {
    generation: u64,
    tags: Vec<u64>,
}

impl Acks {
    /// Begins with a new channel: acks for any other are refused from now on.
    pub(super) fn begin(&self, generation: u64) {
        *self.lock() = Finished { generation, tags: Vec::new() };
    }

    /// Notes a finished delivery; `false` when its channel is gone, which makes it the broker's again. An ack on
    /// another channel would hit another delivery, or close that channel.
    pub(super) fn finish(&self, generation: u64, tag: u64) -> bool {
        let mut finished = self.lock();
        if finished.generation != generation {
            return false;
        }
        finished.tags.push(tag);
        if finished.tags.len() == 1 {
            self.more.notify_one();
        }
        true
    }

    /// Waits for something finished. May wake without there being any.
    pub(super) async fn more(&self) {
        self.more.notified().await;
    }

    pub(super) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut self.lock().tags)
    }

    pub(super) fn hold(&self) {
        self.held.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn release(&self) {
        if self.held.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.none_held.notify_waiters();
        }
    }

    /// Waits until no delivery is in anybody's hands.
    pub(super) async fn none_held(&self) {
        loop {
            let notified = self.none_held.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.held.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Finished> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which numbers of one channel are acked. Holds at most as many numbers as the broker may have unacked.
#[derive(Debug)]
pub(super) struct Window {
    // The lowest number that is not finished.
    next: u64,
    // Finished numbers above it.
    above: BTreeSet<u64>,
}

/// Acks to send: first the one for all up to a number, then those for one each.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Frames {
    pub(super) up_to: Option<u64>,
    pub(super) single: Vec<u64>,
}

impl Window {
    pub(super) fn new() -> Self {
        Self { next: 1, above: BTreeSet::new() }
    }

    /// Takes numbers that were finished since the last call, each at most once, in any order.
    pub(super) fn acknowledge(&mut self, finished: Vec<u64>) -> Frames {
        self.above.extend(&finished);
        while self.above.remove(&self.next) {
            self.next += 1;
        }
        // The number of the frame must itself be unacked, so it is the highest *new* one below the gap.
        let up_to = finished.iter().copied().filter(|tag| *tag < self.next).max();
        let mut single = finished;
        single.retain(|tag| *tag >= self.next);
        Frames { up_to, single }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_frame_for_all_without_a_gap() {
        let mut window = Window::new();
        assert_eq!(window.acknowledge(vec![2, 1, 3]), Frames { up_to: Some(3), single: vec![] });
        assert_eq!(window.acknowledge(vec![5, 7]), Frames { up_to: None, single: vec![5, 7] });
        // 5 was acked before: the frame names 6 only where 6 is new, and must never name 5 or 7 again.
        assert_eq!(window.acknowledge(vec![4]), Frames { up_to: Some(4), single: vec![] });
        assert_eq!(window.acknowledge(vec![8, 6]), Frames { up_to: Some(8), single: vec![] });
        assert_eq!(window.acknowledge(vec![]), Frames::default());
    }

    #[test]
    fn refuses_what_belongs_to_another_channel() {
        let acks = Acks::default();
        acks.begin(1);
        assert!(acks.finish(1, 4));
        acks.begin(2);
        assert!(!acks.finish(1, 5));
        assert!(acks.finish(2, 1));
        assert_eq!(acks.take(), [1]);
    }

    proptest! {
        /// A broker's view: no frame names a number that is acked, and in the end all are.
        #[test]
        fn acks_every_number_once(order in Just((1..=60u64).collect::<Vec<_>>()).prop_shuffle(), sizes in prop::collection::vec(1usize..9, 60)) {
            let mut unacked: BTreeSet<u64> = order.iter().copied().collect();
            let mut window = Window::new();
            let mut rest = order.as_slice();
            for size in sizes {
                let (batch, tail) = rest.split_at(size.min(rest.len()));
                rest = tail;
                let frames = window.acknowledge(batch.to_vec());
                let mut acked = BTreeSet::new();
                if let Some(tag) = frames.up_to {
                    prop_assert!(unacked.contains(&tag));
                    acked.extend(unacked.iter().copied().filter(|other| *other <= tag));
                }
                for tag in frames.single {
                    prop_assert!(unacked.contains(&tag));
                    acked.insert(tag);
                }
                prop_assert_eq!(&acked, &batch.iter().copied().collect::<BTreeSet<_>>());
                unacked.retain(|tag| !acked.contains(tag));
            }
            prop_assert!(unacked.is_empty());
        }
    }
}
