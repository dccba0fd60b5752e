//! What is told of the store as a whole, without a cost to the transitions: everything is derived from the due
//! index, in which every task that is ready, running or waiting for a retry stands, and every run that has ended.
//!
//! - **Ready tasks** stand in it within 320 s from now (`REPUBLISH_CAP_MS`), most within 10 s. Up to [`SAMPLE`] entries
//!   of either range are looked at: all of them, or one of each of as many equal parts, by rank; the numbers are then
//!   estimates.
//! - **The oldest** of them is surely looked at: a task that is not claimed comes by a sweep 10 s, 30 s, 70 s after
//!   it became ready, and what a sweep of this process has looked at is looked at here again, as is what was oldest
//!   the last time. All bounded by [`SAMPLE`].
//! - **Runs that have ended** stand in it at the time of their purge, so that those of the last few seconds are one
//!   range. A cursor in the store divides the time among coordinators: every run is counted by one of them, once.
//! - **Open joins** are those of the [`RUNS`] oldest running runs among the entries that were looked at.

mod live;
mod tally;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use redis::{Pipeline, Value, cmd, pipe};
use trireme_backend::Error;
use trireme_model::{RunId, TaskId};

use super::{
    Store,
    layout::{Head, Spec, State, unpack},
    link::field,
    read::{bulk, fields, strange, text},
    transition::Shard,
};
use crate::metrics::Gauges;

/// Entries of the due index looked at per shard, range and look; over it they are a sample.
const SAMPLE: usize = 1024;
/// Running runs whose joins are looked at per shard and look.
const RUNS: usize = 64;
/// Fields of a run, and entries of the due index, read at once: bounds how long Redis is busy with it.
const CHUNK: usize = 512;

/// Entries that sweeps of this process have looked at since the last look.
#[derive(Default)]
pub(crate) struct Looked(Mutex<VecDeque<(RunId, TaskId)>>);

/// Looks at the store; one per process.
pub(crate) struct Sampler {
    store: Store,
    /// The tasks that were oldest the last time.
    oldest: Vec<(RunId, TaskId)>,
}

/// A run's tasks as far as they are needed here.
pub(super) struct Tasks {
    pub(super) found: HashMap<TaskId, (State, Spec)>,
}

impl Looked {
    /// Takes note of a task; the first ones stay where there are too many, because they have waited longest.
    pub(crate) fn note(&self, run: &RunId, task: &TaskId) {
        let mut looked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.len() < SAMPLE {
            looked.push_back((run.clone(), task.clone()));
        }
    }

    fn take(&self) -> VecDeque<(RunId, TaskId)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sampler {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, oldest: Vec::new() }
    }

    /// Looks once, and tells `gauges`.
    pub(crate) async fn look(&mut self, gauges: &Gauges) -> Result<(), Error> {
        let ready = self.live(gauges).await?;
        let paused = self.store.paused().await?;
        gauges.paused(&paused.into_iter().map(|paused| paused.pool).collect::<Vec<_>>());
        for shard in self.store.shards() {
            tally::tally(shard, gauges).await?;
        }
        let mut dead = 0;
        for shard in self.store.shards() {
            dead += tally::dead_letters(shard).await?;
        }
        gauges.dead_letters.set(dead);
        let (used, max) = self.server(gauges).await?;
        gauges.waits(&ready, used, max);
        Ok(())
    }

    async fn server(&self, gauges: &Gauges) -> Result<(u64, u64), Error> {
        let info = self.store.0.link.query(cmd("INFO").arg("memory")).await?;
        let info = match info {
            Value::VerbatimString { text, .. } => text,
            other => text(&bulk("the server's information", other)?),
        };
        let bytes = |name| field(&info, name).and_then(|bytes| bytes.parse::<u64>().ok()).unwrap_or(0);
        let (used, max) = (bytes("used_memory"), bytes("maxmemory"));
        gauges.memory_used.set(i64::try_from(used).unwrap_or(i64::MAX));
        gauges.memory_max.set(i64::try_from(max).unwrap_or(i64::MAX));
        gauges.policy(field(&info, "maxmemory_policy").unwrap_or("unknown"));
        Ok((used, max))
    }
}

fn count(what: &str, value: Value) -> Result<u64, Error> {
    match value {
        Value::Int(count) => Ok(u64::try_from(count).unwrap_or(0)),
        other => Err(strange(what, &other)),
    }
}

impl Shard {
    /// Fields of a run, in chunks.
    pub(super) async fn of_run(&self, run: &RunId, names: &[String]) -> Result<Vec<Option<Bytes>>, Error> {
        let mut found = Vec::with_capacity(names.len());
        for chunk in names.chunks(CHUNK) {
            let mut read = cmd("HMGET");
            read.arg(self.keys.run(run.as_str())).arg(chunk);
            found.extend(fields(self.link.query(&read).await?)?);
        }
        Ok(found)
    }

    /// The tasks of a run that have a state and are of a kind that is `wanted` and, by kind and status, to be `told`
    /// of, but for the children of maps.
    pub(super) async fn tasks(
        &self,
        run: &RunId,
        order: Option<&Bytes>,
        added: Option<&Bytes>,
        wanted: impl Fn(u8) -> bool,
        told: impl Fn(u8, u8) -> bool,
    ) -> Result<Tasks, Error> {
        let mut ids: Vec<TaskId> =
            order.map_or_else(|| Ok(Vec::new()), |packed| unpack("the order of tasks", packed))?;
        let added = added.and_then(|count| text(count).parse::<u32>().ok()).unwrap_or(0);
        let names: Vec<String> = (0..added).map(|at| format!("z:{at}")).collect();
        let names = self.of_run(run, &names).await?;
        ids.extend(names.iter().flatten().filter_map(|id| TaskId::new(text(id)).ok()));
        let names: Vec<String> = ids.iter().map(|id| format!("g:{id}")).collect();
        let specs = self.of_run(run, &names).await?;
        let mut picked = Vec::new();
        for (id, spec) in ids.into_iter().zip(specs) {
            let Some(spec) = spec else { continue };
            if wanted(first_in("a task's spec", &spec)?) {
                picked.push((id, spec));
            }
        }
        let names: Vec<String> = picked.iter().map(|(id, _)| format!("s:{id}")).collect();
        let states = self.of_run(run, &names).await?;
        let mut found = HashMap::with_capacity(picked.len());
        for ((id, spec), state) in picked.into_iter().zip(states) {
            let Some(state) = state else { continue };
            if told(first_in("a task's spec", &spec)?, first_in("a task's state", &state)?) {
                found.insert(id, (unpack("a task's state", &state)?, unpack("a task's spec", &spec)?));
            }
        }
        Ok(Tasks { found })
    }

    /// Runs reads, a chunk at a time.
    async fn reads<T>(&self, items: &[T], read: impl Fn(&mut Pipeline, &T)) -> Result<Vec<Value>, Error> {
        let mut replies = Vec::with_capacity(items.len());
        for chunk in items.chunks(CHUNK) {
            let mut pipeline = pipe();
            chunk.iter().for_each(|item| read(&mut pipeline, item));
            replies.extend(self.link.pipeline(&pipeline).await?);
        }
        Ok(replies)
    }
}

/// The first element of a packed [`Spec`], its kind, or of a [`State`], its status, without reading the rest: nobody
/// asks for most tasks.
fn first_in(what: &str, packed: &[u8]) -> Result<u8, Error> {
    match packed {
        // msgpack's arrays of up to 15, and of up to 65,535
        [0x90..=0x9f, first @ 0..=0x7f, ..] | [0xdc, _, _, first @ 0..=0x7f, ..] => Ok(*first),
        _ => Err(Error::Unusable(format!("the store holds {what} that is no list of numbers"))),
    }
}

/// The head of a run that was read by HMGET.
fn head(packed: Option<&Bytes>) -> Result<Option<Head>, Error> {
    packed.map(|packed| unpack("the head of a run", packed)).transpose()
}

#[cfg(test)]
mod tests;
