//! The backend for one process: no services, nothing to install, everything in memory.
//!
//! The state machine of `trireme-model` runs directly, under one lock per shard of runs. Hints go through
//! queues in the process, and the clock is the process's own. What the process held is gone when it ends.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod clock;
mod due;
mod queues;
mod shard;
mod store;

pub use clock::{Clock, Hand};

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, atomic::AtomicU64},
};

use tokio::sync::broadcast;
use trireme_backend::Abort;
use trireme_model::{KeyId, Ms, RunId, Tenant};

use queues::Queues;
use shard::Shard;

/// Aborts kept for a slow receiver; one that misses some is told by its next renewal.
const ABORTS: usize = 4096;

/// The bounds of the store.
#[derive(Debug, Clone)]
pub struct Config {
    /// Locks over which runs are spread, at least 1.
    pub shards: u16,
    /// Runs kept, ended ones included until their retention has passed. Over it, `submit` is refused.
    pub max_runs: usize,
    /// Payload bytes kept: inputs, bodies, map items, results and token deltas. Over it, `submit` and
    /// `extend` are refused and deltas dropped; results of accepted tasks are still taken.
    pub max_bytes: u64,
    /// Hints kept per pool and priority. Over it, hints are dropped, and published again by the sweep.
    pub max_hints: usize,
    /// Where the time comes from.
    pub clock: Clock,
}

/// A store and its hints in memory. Clones share both.
#[derive(Debug, Clone)]
pub struct Embedded(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    epoch: String,
    shards: Vec<Mutex<Shard>>,
    /// Every run by tenant and age. Locked after a shard, never before.
    by_age: Mutex<BTreeSet<(Tenant, Ms, RunId)>>,
    /// How many runs of each API key are under way. Locked after a shard, never before.
    flying: Mutex<HashMap<KeyId, u32>>,
    access: access::Keys,
    bytes: AtomicU64,
    /// The shard at which the next sweep starts: none starves.
    turn: AtomicU64,
    queues: Queues,
    /// Pools of which nothing starts. Locked before a shard, never after.
    paused: std::sync::RwLock<std::collections::BTreeSet<String>>,
    aborts: broadcast::Sender<Abort>,
    /// Runs that have ended and were not told of; the oldest make room.
    ended: Mutex<VecDeque<trireme_model::RunId>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shards: 8,
            max_runs: 100_000,
            max_bytes: 4 << 30,
            max_hints: 1_000_000,
            clock: Clock::system(),
        }
    }
}

impl Embedded {
    /// An empty store.
    pub fn new(config: Config) -> Self {
        let shards = (0..config.shards.max(1)).map(|_| Mutex::default()).collect();
        Self(Arc::new(Inner {
            epoch: uuid::Uuid::now_v7().simple().to_string(),
            shards,
            by_age: Mutex::default(),
            flying: Mutex::default(),
            access: access::Keys::new(config.clock.clone()),
            bytes: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            queues: Queues::new(config.max_hints),
            paused: Default::default(),
            aborts: broadcast::channel(ABORTS).0,
            ended: Mutex::default(),
            config,
        }))
    }

    /// Entries in the due index: 0 once every run has been purged.
    pub fn due_len(&self) -> usize {
        self.0.shards.iter().map(|shard| store::lock(shard).due_len()).sum()
    }
}

impl Default for Embedded {
    fn default() -> Self {
        Self::new(Config::default())
    }
}
