//! Pools that are paused, and the tasks that wait for them.
//!
//! A pool is paused on every shard by itself; where that breaks off half way, the caller repeats it. Tasks that are
//! claimed or swept meanwhile are noted as held; sweeps wake those of pools that are not paused, so that it does not
//! matter who resumed them, or whether that process lives.

use std::collections::BTreeSet;

use redis::{Value, cmd};
use trireme_backend::{Error, PausedPool};

use super::{
    SWEEP, Store,
    read::{bulk, list, maybe, strange, text},
    script,
    transition::Shard,
    transitions::{OnWake, Wake},
};
use crate::keys::split_member;

/// Pools that may be paused at once: every claim looks at their names.
const MOST: &str = "64";

impl Store {
    /// Pauses a pool or resumes it; says whether that is a change on any shard.
    pub async fn pause(&self, pool: &str, paused: bool) -> Result<bool, Error> {
        let mut changed = false;
        for shard in self.shards() {
            let args = [pool.as_bytes(), if paused { b"1" } else { b"0" }, MOST.as_bytes()];
            match shard.link.eval(&script::PAUSE, &[&shard.keys.meta], &args).await? {
                Value::Int(-1) => {
                    return Err(Error::TooLarge { what: "number of paused pools", got: 65, limit: 64 });
                }
                Value::Int(change) => changed |= change == 1,
                other => return Err(strange("the answer of pause", &other)),
            }
        }
        Ok(changed)
    }

    /// Paused pools, and how many tasks are known to wait for them.
    pub async fn paused(&self) -> Result<Vec<PausedPool>, Error> {
        let mut pools = BTreeSet::new();
        for shard in self.shards() {
            pools.extend(shard.paused().await?);
        }
        let mut found = Vec::with_capacity(pools.len());
        for pool in pools {
            let mut held = 0;
            for shard in self.shards() {
                let (from, to) = range(&pool);
                let mut counting = cmd("ZLEXCOUNT");
                counting.arg(&shard.keys.held).arg(from).arg(to);
                match shard.link.query(&counting).await? {
                    Value::Int(count) => held += u64::try_from(count).unwrap_or(0),
                    other => return Err(strange("the number of held tasks", &other)),
                }
            }
            found.push(PausedPool { pool, held });
        }
        Ok(found)
    }
}

/// The entries of a pool: `;` comes right after `:`.
fn range(pool: &str) -> (String, String) {
    (format!("[{pool}:"), format!("({pool};"))
}

impl Shard {
    async fn paused(&self) -> Result<Vec<String>, Error> {
        let reply = self.link.query(cmd("HGET").arg(&self.keys.meta).arg("paused")).await?;
        let names = maybe("the paused pools", reply)?.map_or_else(String::new, |names| text(&names));
        Ok(names.split_whitespace().map(str::to_owned).collect())
    }

    async fn held(&self, from: &str, to: &str, limit: usize) -> Result<Vec<String>, Error> {
        let mut read = cmd("ZRANGE");
        read.arg(&self.keys.held).arg(from).arg(to).arg("BYLEX").arg("LIMIT").arg(0).arg(limit);
        let members = list("the held tasks", self.link.query(&read).await?)?;
        members.into_iter().map(|member| bulk("a held task", member).map(|bytes| text(&bytes))).collect()
    }

    /// Wakes held tasks of pools that are not paused; says how many hints followed, and whether there may be more.
    pub(crate) async fn wake(&self) -> Result<(usize, bool), Error> {
        let (mut from, mut paused, mut hints) = ("-".to_owned(), None, 0);
        loop {
            let Some(first) = self.held(&from, "+", 1).await?.pop() else { return Ok((hints, false)) };
            let pool = first.split(':').next().unwrap_or("").to_owned();
            let (start, end) = range(&pool);
            // nothing is held most of the time: the names are read only then
            let paused = match &mut paused {
                Some(paused) => paused,
                none => none.insert(self.paused().await?),
            };
            if paused.contains(&pool) {
                from = end;
                continue;
            }
            let members = self.held(&start, &end, SWEEP).await?;
            let more = members.len() >= SWEEP;
            let items = members.into_iter().filter_map(|member| {
                let (_, task) = member.split_once(':')?;
                let (run, Some(task)) = split_member(task)? else { return None };
                Some(Wake { run, task, member })
            });
            let (answers, published) = self.steps::<OnWake>(items.collect()).await;
            hints += published;
            for answer in answers {
                answer?;
            }
            if more {
                return Ok((hints, true));
            }
            from = end;
        }
    }
}
