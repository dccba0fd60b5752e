//! Deliveries waiting for a slot: per pool, high priority first. What waits here is bounded by the
//! backend, which delivers no more unacked hints than a pool has slots.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use trireme_backend::Delivery;
use trireme_model::Priority;

use crate::config::Config;

/// The right to execute one attempt: a slot of a pool, and one of the worker's where these are bounded.
pub(crate) struct Slot {
    pub(crate) pool: String,
    _pool: OwnedSemaphorePermit,
    worker: Option<OwnedSemaphorePermit>,
}

/// A pool's slots and the deliveries that wait for one.
struct Lane {
    name: String,
    slots: Arc<Semaphore>,
    high: VecDeque<Delivery>,
    normal: VecDeque<Delivery>,
}

/// All pools of a worker.
pub(crate) struct Queue {
    lanes: Vec<Lane>,
    slots: Slots,
}

/// The slots alone, for attempts that look for a second one.
#[derive(Clone)]
pub(crate) struct Slots {
    pools: Arc<Vec<(String, Arc<Semaphore>)>>,
    worker: Option<Arc<Semaphore>>,
}

impl Queue {
    pub(crate) fn new(config: &Config) -> Self {
        let pools: Vec<(String, Arc<Semaphore>)> = config
            .pools
            .iter()
            .map(|pool| (pool.name.clone(), Arc::new(Semaphore::new(pool.slots))))
            .collect();
        let lanes = pools.iter().map(|(name, slots)| Lane {
            name: name.clone(),
            slots: slots.clone(),
            high: VecDeque::new(),
            normal: VecDeque::new(),
        });
        Self {
            lanes: lanes.collect(),
            slots: Slots {
                pools: Arc::new(pools.clone()),
                worker: config.slots.map(|slots| Arc::new(Semaphore::new(slots))),
            },
        }
    }

    pub(crate) fn slots(&self) -> Slots {
        self.slots.clone()
    }

    pub(crate) fn push(&mut self, delivery: Delivery) {
        // a delivery of a pool that was not asked for is dropped unacked: the broker keeps it
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.name == delivery.pool) else { return };
        match delivery.priority {
            Priority::High => lane.high.push_back(delivery),
            Priority::Normal => lane.normal.push_back(delivery),
        }
    }

    /// The next delivery that has a slot.
    pub(crate) fn pop(&mut self) -> Option<(Delivery, Slot)> {
        for lane in &mut self.lanes {
            if lane.high.is_empty() && lane.normal.is_empty() {
                continue;
            }
            let Ok(pool) = lane.slots.clone().try_acquire_owned() else { continue };
            let worker = match &self.slots.worker {
                None => None,
                Some(worker) => match worker.clone().try_acquire_owned() {
                    Ok(permit) => Some(permit),
                    Err(_) => return None,
                },
            };
            let delivery = lane.high.pop_front().or_else(|| lane.normal.pop_front())?;
            return Some((delivery, Slot { pool: lane.name.clone(), _pool: pool, worker }));
        }
        None
    }
}

impl Slots {
    /// Free slots of other pools than `slot`'s, each held until dropped, for a successor to take.
    pub(crate) fn others(&self, slot: &Slot) -> Vec<(String, OwnedSemaphorePermit)> {
        let others = self.pools.iter().filter(|(name, _)| *name != slot.pool);
        others
            .filter_map(|(name, slots)| Some((name.clone(), slots.clone().try_acquire_owned().ok()?)))
            .collect()
    }

    /// Slots in use, by pool.
    pub(crate) fn used(&self, config: &Config) -> Vec<(String, usize)> {
        let used = |(name, slots): &(String, Arc<Semaphore>)| {
            let all = config.pools.iter().find(|pool| pool.name == *name).map_or(0, |pool| pool.slots);
            (name.clone(), all.saturating_sub(slots.available_permits()))
        };
        self.pools.iter().map(used).collect()
    }
}

impl Slot {
    /// The slot for a successor in `pool`: this one, or the one of `others` that fits.
    pub(crate) fn moved_to(self, pool: &str, others: Vec<(String, OwnedSemaphorePermit)>) -> Option<Self> {
        if self.pool == pool {
            return Some(self);
        }
        let (name, permit) = others.into_iter().find(|(name, _)| name == pool)?;
        Some(Self { pool: name, _pool: permit, worker: self.worker })
    }
}
