//! Deliveries waiting for a slot: per pool, high priority first. What waits here is bounded by the
//! backend, which delivers no more unacked hints than a pool has slots.

use std::{collections::VecDeque, sync::Arc};

use trireme_backend::Delivery;
use trireme_model::Priority;

use crate::slots::{Slot, Slots};

/// The deliveries of one pool that wait for a slot.
struct Lane {
    pool: String,
    high: VecDeque<Delivery>,
    normal: VecDeque<Delivery>,
}

/// All pools of a worker.
pub(crate) struct Queue {
    lanes: Vec<Lane>,
    slots: Arc<Slots>,
    /// The pool to look at first: under a bound over all pools none of them starves.
    turn: usize,
}

impl Queue {
    pub(crate) fn new(slots: Arc<Slots>) -> Self {
        let lane = |pool: &str| Lane { pool: pool.into(), high: VecDeque::new(), normal: VecDeque::new() };
        Self { lanes: slots.pools().map(lane).collect(), slots, turn: 0 }
    }

    pub(crate) fn push(&mut self, delivery: Delivery) {
        // a delivery of a pool that was not asked for is dropped unacked: the broker keeps it
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.pool == delivery.pool) else { return };
        match delivery.priority {
            Priority::High => lane.high.push_back(delivery),
            Priority::Normal => lane.normal.push_back(delivery),
        }
    }

    /// Whether no delivery waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.high.is_empty() && lane.normal.is_empty())
    }

    /// The next delivery that has a slot: of all pools those of high priority first.
    pub(crate) fn pop(&mut self) -> Option<(Delivery, Slot)> {
        self.pop_of(Priority::High).or_else(|| self.pop_of(Priority::Normal))
    }

    fn pop_of(&mut self, priority: Priority) -> Option<(Delivery, Slot)> {
        let count = self.lanes.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            let lane = &mut self.lanes[at];
            let waiting = match priority {
                Priority::High => &mut lane.high,
                Priority::Normal => &mut lane.normal,
            };
            if waiting.is_empty() {
                continue;
            }
            let Some(slot) = self.slots.take(&lane.pool) else { continue };
            self.turn = (at + 1) % count;
            return waiting.pop_front().map(|delivery| (delivery, slot));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use trireme_backend::Ack;
    use trireme_model::{RunId, TaskId};

    use super::*;
    use crate::{
        Metrics,
        config::{Config, Pool},
    };

    fn queue(slots: Option<usize>) -> Queue {
        let pool = |name: &str| Pool { name: name.into(), slots: 4 };
        let config = Config { pools: vec![pool("llm"), pool("tool")], slots, ..Config::default() };
        Queue::new(Arc::new(Slots::new(&config, &Metrics::new(&Registry::new()).unwrap())))
    }

    fn delivery(task: &str, pool: &str, priority: Priority) -> Delivery {
        Delivery {
            run: RunId::new("r").unwrap(),
            task: TaskId::new(task).unwrap(),
            pool: pool.into(),
            priority,
            published: 0,
            redelivered: false,
            via: None,
            ack: Ack::none(),
        }
    }

    #[test]
    fn high_priority_goes_before_normal_of_any_pool_and_pools_take_turns() {
        let mut queue = queue(Some(1));
        for (task, pool, priority) in [
            ("a", "llm", Priority::Normal),
            ("b", "llm", Priority::Normal),
            ("c", "tool", Priority::Normal),
            ("d", "tool", Priority::High),
        ] {
            queue.push(delivery(task, pool, priority));
        }
        let mut order = Vec::new();
        while let Some((delivery, slot)) = queue.pop() {
            assert!(queue.pop().is_none(), "one slot, two attempts");
            order.push(delivery.task.to_string());
            drop(slot);
        }
        assert_eq!(order, ["d", "a", "c", "b"]);
    }
}
