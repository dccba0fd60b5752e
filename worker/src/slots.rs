//! Slots: the right to execute one attempt of a pool, and where it is bounded, of the worker.

use std::sync::Arc;

use prometheus::IntGauge;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::{config::Config, metrics::Metrics};

/// All slots of a worker.
pub(crate) struct Slots {
    pools: Vec<Pool>,
    worker: Option<Arc<Semaphore>>,
    /// Whoever waits for a slot looks again. A slot may come free while its attempt goes on in another
    /// pool, so the end of an attempt is not enough of a signal.
    freed: Arc<Notify>,
}

struct Pool {
    name: Arc<str>,
    slots: Arc<Semaphore>,
    used: IntGauge,
}

/// The right to execute one attempt.
pub(crate) struct Slot {
    place: Place,
    _worker: Option<Place>,
}

/// A place in one pool (or in the worker), given back when dropped.
pub(crate) struct Place {
    /// Empty for the worker as a whole.
    pool: Arc<str>,
    permit: Option<OwnedSemaphorePermit>,
    freed: Arc<Notify>,
    used: Option<IntGauge>,
}

impl Slots {
    pub(crate) fn new(config: &Config, metrics: &Metrics) -> Self {
        let pool = |pool: &crate::Pool| {
            metrics.slots.with_label_values(&[&pool.name]).set(i64::try_from(pool.slots).unwrap_or(i64::MAX));
            Pool {
                name: pool.name.as_str().into(),
                slots: Arc::new(Semaphore::new(pool.slots)),
                used: metrics.slots_used.with_label_values(&[&pool.name]),
            }
        };
        Self {
            pools: config.pools.iter().map(pool).collect(),
            worker: config.slots.map(|slots| Arc::new(Semaphore::new(slots))),
            freed: Arc::default(),
        }
    }

    /// The pools' names.
    pub(crate) fn pools(&self) -> impl Iterator<Item = &str> {
        self.pools.iter().map(|pool| &*pool.name)
    }

    /// Resolves when a slot has come free since the last call. For one waiter.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// A free slot of `pool`.
    pub(crate) fn take(&self, pool: &str) -> Option<Slot> {
        let pool = self.pools.iter().find(|known| *known.name == *pool)?;
        // bare permits until both are there: giving one back must not wake the waiter that failed
        let permit = pool.slots.clone().try_acquire_owned().ok()?;
        let worker = match &self.worker {
            None => None,
            Some(worker) => Some(worker.clone().try_acquire_owned().ok()?),
        };
        let worker = worker.map(|permit| Place {
            pool: Arc::default(),
            permit: Some(permit),
            freed: self.freed.clone(),
            used: None,
        });
        let mut place = self.place(pool, permit);
        place.begin(pool);
        Some(Slot { place, _worker: worker })
    }

    /// A free place in each other pool than `slot`'s, for a successor to take.
    pub(crate) fn others(&self, slot: &Slot) -> Vec<Place> {
        let others = self.pools.iter().filter(|pool| *pool.name != *slot.pool());
        others
            .filter_map(|pool| Some(self.place(pool, pool.slots.clone().try_acquire_owned().ok()?)))
            .collect()
    }

    /// `slot` for a successor in `pool`: as it is, or moved to the one of `others` that fits.
    pub(crate) fn moved(&self, slot: Slot, pool: &str, others: Vec<Place>) -> Option<Slot> {
        if slot.pool() == pool {
            return Some(slot);
        }
        let mut place = others.into_iter().find(|place| *place.pool == *pool)?;
        place.begin(self.pools.iter().find(|known| *known.name == *pool)?);
        Some(Slot { place, ..slot })
    }

    fn place(&self, pool: &Pool, permit: OwnedSemaphorePermit) -> Place {
        Place { pool: pool.name.clone(), permit: Some(permit), freed: self.freed.clone(), used: None }
    }
}

impl Slot {
    pub(crate) fn pool(&self) -> &str {
        &self.place.pool
    }
}

impl Place {
    pub(crate) fn pool(&self) -> &str {
        &self.pool
    }

    /// From now on an attempt runs here.
    fn begin(&mut self, pool: &Pool) {
        pool.used.inc();
        self.used = Some(pool.used.clone());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(used) = &self.used {
            used.dec();
        }
        // first free, then tell
        drop(self.permit.take());
        self.freed.notify_one();
    }
}
