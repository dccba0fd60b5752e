//! [`Backend`] over the shards.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError, RwLockReadGuard, atomic::Ordering::Relaxed},
};

use async_trait::async_trait;
use tokio::sync::broadcast;
use trireme_backend::{
    Abort, Access, Backend, Backlog, DeadPage, DeadQuery, Deliveries, Delta, Ending, Endings, Error, Events,
    Health, ListQuery, Mark, Page, PausedPool, Recorded, Swept, Watch, check_complete, check_extend,
};
use trireme_model::{
    Caller, Cancelled, Claim, Claimed, Complete, Completed, Deleted, Effects, Event, Extend, Extended, Fail,
    Failed, KeyId, More, Ms, Outcome, Renew, Renewed, Replayed, Run, RunId, RunStatus, Site, Submit,
    Submitted, Task, TaskId, Tenant, What,
    view::{DeadLetter, RunSummary},
};

use crate::{
    Embedded, Inner,
    shard::{Shard, Stepped, total},
};

/// Entries of the due index that one sweep looks at: bounds how long it holds a worker's thread.
const SWEEP: usize = 1024;
/// Entries looked at before a shard's lock is let go.
const SWEEP_CHUNK: usize = 64;
/// Ended runs kept until they are told of, and told of at once.
const ENDED: usize = 16_384;
const ENDED_AT_ONCE: usize = 256;
/// Pools that may be paused at once.
const MAX_PAUSED: usize = 64;
/// Runs that one `list` looks at, for want of an index over names and states.
const LIST_SCAN: usize = 10_000;

/// A panic inside the state machine is a bug that tests must find; the other runs of the shard go on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn paused(&self) -> RwLockReadGuard<'_, BTreeSet<String>> {
        self.paused.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Ms {
        self.config.clock.now()
    }

    fn shard(&self, run: &RunId) -> MutexGuard<'_, Shard> {
        lock(&self.shards[usize::from(run.shard(self.config.shards.max(1)))])
    }

    /// One atomic step on a run, then its hints and aborts. The operation says how many payload bytes it
    /// added. The time is read under the lock, so that the
    /// times in a run's log never run backwards.
    fn step<T>(
        &self,
        run: &RunId,
        gone: T,
        operation: impl FnOnce(&mut Run, Ms, &mut Effects) -> (T, u64),
    ) -> T {
        let mut effects = Effects::default();
        let mut shard = self.shard(run);
        let now = self.now();
        let step = shard.step(run, &mut effects, |run, effects| operation(run, now, effects));
        let Some(Stepped { answer, bytes, landed }) = step else { return gone };
        self.land(landed);
        if bytes > 0 {
            self.bytes.fetch_add(bytes, Relaxed);
        }
        self.list(run, &effects);
        drop(shard);
        self.emit(run, effects, now);
        answer
    }

    /// Counts a run of `caller`'s key as under way, unless that would be too many.
    fn take_off(&self, caller: &Caller) -> bool {
        let Some(key) = &caller.key else { return true };
        let mut flying = lock(&self.flying);
        let now = flying.get(key).copied().unwrap_or(0);
        if caller.in_flight.is_some_and(|most| now >= most) {
            return false;
        }
        flying.insert(key.clone(), now + 1);
        true
    }

    /// A run of this key has ended.
    fn land(&self, key: Option<KeyId>) {
        let Some(key) = key else { return };
        let mut flying = lock(&self.flying);
        if let Some(runs) = flying.get_mut(&key) {
            *runs -= 1;
            if *runs == 0 {
                flying.remove(&key);
            }
        }
    }

    /// Lists a run that has ended for [`Backend::ended`], while its shard is locked: whoever has seen its end finds it.
    fn list(&self, run: &RunId, effects: &Effects) {
        if !effects.ended {
            return;
        }
        let mut ended = lock(&self.ended);
        if ended.len() >= ENDED {
            ended.pop_front();
        }
        ended.push_back(run.clone());
    }

    /// What leaves the store: a crash before this line loses hints only, and the sweep repeats those.
    fn emit(&self, run: &RunId, effects: Effects, now: Ms) {
        if !effects.hints.is_empty() {
            self.queues.publish(effects.hints, now);
        }
        if effects.ended {
            // without receivers there is nobody to tell
            let _ = self.aborts.send(Abort { run: run.clone(), task: None });
        }
        for task in effects.abort {
            let _ = self.aborts.send(Abort { run: run.clone(), task: Some(task) });
        }
    }

    fn check_room(&self, runs: bool) -> Result<(), Error> {
        let bytes = self.bytes.load(Relaxed);
        if bytes >= self.config.max_bytes {
            return Err(Error::Full(format!("{bytes} bytes of {} are used", self.config.max_bytes)));
        }
        if runs && lock(&self.by_age).len() >= self.config.max_runs {
            return Err(Error::Full(format!("{} runs are kept, the most allowed", self.config.max_runs)));
        }
        Ok(())
    }

    /// Looks at due entries of one shard until `budget` is used up or none is left.
    fn sweep_shard(&self, at: usize, budget: usize, swept: &mut Swept) {
        let mut looked = 0;
        while looked < budget {
            let mut emits = Vec::new();
            let paused = self.paused();
            let mut shard = lock(&self.shards[at]);
            let now = self.now();
            for (run, task) in shard.take_woken(&paused, SWEEP_CHUNK) {
                let mut effects = Effects::default();
                shard.step(&run, &mut effects, |run, effects| (run.wake(&task, &paused, now, effects), 0));
                self.list(&run, &effects);
                swept.hints += effects.hints.len();
                looked += 1;
                emits.push((run, effects));
            }
            for _ in 0..SWEEP_CHUNK.min(budget.saturating_sub(looked)) {
                let Some((run, task)) = shard.next_due(now) else { break };
                let mut effects = Effects::default();
                let step = shard.step(&run, &mut effects, |run, effects| match &task {
                    None => (run.look_at_run(now, effects), 0),
                    Some(task) => (run.look_at_task(task, &paused, now, effects), 0),
                });
                self.land(step.and_then(|step| step.landed));
                self.list(&run, &effects);
                looked += 1;
                if shard.next_due(now).is_some_and(|next| next == (run.clone(), task.clone())) {
                    // nothing moved it: it must not hold up what is behind it
                    shard.forget_due(&run, &task);
                }
                if effects.purge
                    && let Some((place, bytes)) = shard.purge(&run)
                {
                    lock(&self.by_age).remove(&place);
                    self.bytes.fetch_sub(bytes, Relaxed);
                    swept.purged += 1;
                }
                swept.hints += effects.hints.len();
                emits.push((run, effects));
            }
            let more = shard.next_due(now).is_some();
            let first = shard.first_due().map(|due| due.saturating_sub(now));
            drop(shard);
            drop(paused);
            let idle = emits.is_empty() || !more;
            for (run, effects) in emits {
                self.emit(&run, effects, now);
            }
            if idle {
                swept.looked += looked;
                swept.more |= more;
                swept.next = [swept.next, first].into_iter().flatten().min();
                return;
            }
        }
        swept.looked += looked;
        swept.more = true;
    }
}

/// Behind every run of a tenant that this century sees.
fn past(tenant: &Tenant) -> (Tenant, Ms, RunId) {
    let id = RunId::new("z").unwrap_or_else(|_| unreachable!("a letter is a run id"));
    (tenant.clone(), Ms::MAX, id)
}

/// Payload bytes of the tasks that were added to `run` after the first so many.
fn added(run: &Run, before: usize) -> u64 {
    let bodies = run.added[before..].iter().filter_map(|id| run.tasks[id].spec.as_ref());
    bodies.map(|spec| spec.body.len() as u64).sum()
}

#[async_trait]
impl Backend for Embedded {
    async fn submit(&self, submit: Submit) -> Result<Submitted, Error> {
        let store = &self.0;
        let room = store.check_room(true);
        let id = submit.run.clone();
        let mut effects = Effects::default();
        let mut shard = store.shard(&id);
        let now = store.now();
        // a repeat of an accepted submit gets its answer even from a full store
        if let Some(known) = shard.known(&submit) {
            return Ok(known);
        }
        room?;
        if !store.take_off(&submit.caller) {
            return Ok(Submitted::Limited);
        }
        let place = (submit.caller.tenant.clone(), now, id.clone());
        let bytes = shard.submit(submit, now, &mut effects);
        lock(&store.by_age).insert(place);
        store.bytes.fetch_add(bytes, Relaxed);
        store.list(&id, &effects);
        drop(shard);
        store.emit(&id, effects, now);
        Ok(Submitted::Created)
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        let (paused, epoch) = (self.0.paused(), &self.0.epoch);
        let site = Site { epoch, paused: &paused };
        Ok(self
            .0
            .step(&claim.run, Claimed::Gone, |run, now, effects| (run.claim(&claim, site, now, effects), 0)))
    }

    async fn renew(&self, renewals: Vec<Renew>) -> Result<Vec<Renewed>, Error> {
        let renew = |renew: &Renew| {
            self.0.step(&renew.run, Renewed::Lost, |run, now, effects| (run.renew(renew, now, effects), 0))
        };
        Ok(renewals.iter().map(renew).collect())
    }

    async fn extend(&self, extend: Extend) -> Result<Extended, Error> {
        check_extend(&extend)?;
        self.0.check_room(false)?;
        Ok(self.0.step(&extend.run, Extended::Gone, |run, now, effects| {
            let before = (run.tasks.get(&extend.task).map_or(0, Task::width), run.added.len());
            let answer = run.extend(&extend, now, effects);
            // what a repeat hands over again is not kept again
            let kept = match (&answer, &extend.more) {
                (Extended::Width(_), More::Children { start, args }) => {
                    total(args.get(before.0.saturating_sub(*start) as usize..).unwrap_or(&[]))
                }
                _ => added(run, before.1),
            };
            (answer, kept)
        }))
    }

    async fn complete(&self, complete: Complete) -> Result<Completed, Error> {
        check_complete(&complete)?;
        let bytes = match &complete.outcome {
            Outcome::Result(value) | Outcome::Answer { value, .. } => value.len(),
            Outcome::Expanded => 0,
        };
        let (paused, epoch) = (self.0.paused(), &self.0.epoch);
        let site = Site { epoch, paused: &paused };
        Ok(self.0.step(&complete.run, Completed::Gone, |run, now, effects| {
            let before = run.added.len();
            let answer = run.complete(&complete, site, now, effects);
            // a repeat, and a result that comes too late, log nothing
            let kept = if effects.log.is_empty() { 0 } else { bytes as u64 };
            (answer, kept + added(run, before))
        }))
    }

    async fn fail(&self, fail: Fail) -> Result<Failed, Error> {
        Ok(self.0.step(&fail.run, Failed::Gone, |run, now, effects| (run.fail(&fail, now, effects), 0)))
    }

    async fn cancel(&self, run: &RunId) -> Result<Cancelled, Error> {
        Ok(self.0.step(run, Cancelled::Gone, |run, now, effects| (run.cancel(now, effects), 0)))
    }

    async fn delete(&self, id: &RunId) -> Result<Deleted, Error> {
        let ended = self.0.step(id, None, |run, now, effects| (Some(run.expire(now, effects)), 0));
        match ended {
            None => return Ok(Deleted::Gone),
            Some(false) => return Ok(Deleted::Running),
            Some(true) => {}
        }
        let mut shard = self.0.shard(id);
        if let Some((place, bytes)) = shard.purge(id) {
            lock(&self.0.by_age).remove(&place);
            self.0.bytes.fetch_sub(bytes, Relaxed);
        }
        Ok(Deleted::Deleted)
    }

    async fn replay(&self, id: &RunId, caller: &Caller) -> Result<Replayed, Error> {
        let store = &self.0;
        let old = match store.shard(id).get(id) {
            None => return Ok(Replayed::Gone),
            Some(entry) if entry.run.status != RunStatus::Failed => {
                return Ok(Replayed::Refused(entry.run.status));
            }
            Some(entry) => entry.run.clone(),
        };
        let again = id.next_replay().map_err(|error| Error::Unusable(error.to_string()))?;
        if old.replayed {
            return Ok(Replayed::Exists(again));
        }
        store.check_room(true)?;
        let mut effects = Effects::default();
        let mut shard = store.shard(&again);
        if shard.get(&again).is_none() && !store.take_off(caller) {
            return Ok(Replayed::Limited);
        }
        let now = store.now();
        let run = old
            .replay(caller.key.clone(), now, &mut effects)
            .map_err(|error| Error::Unusable(error.to_string()))?;
        let ended = run.status.terminal();
        let kept = shard.replay(run, &mut effects);
        if let Some(bytes) = kept {
            // what was recorded may be all that it needs
            store.land(caller.key.clone().filter(|_| ended));
            lock(&store.by_age).insert((old.tenant, now, again.clone()));
            store.bytes.fetch_add(bytes, Relaxed);
            store.list(&again, &effects);
        }
        drop(shard);
        store.shard(id).replayed(id);
        if kept.is_none() {
            return Ok(Replayed::Exists(again));
        }
        store.emit(&again, effects, now);
        Ok(Replayed::Created(again))
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        let shards = self.0.shards.len();
        let first = self.0.turn.fetch_add(1, Relaxed) as usize;
        let mut swept = Swept::default();
        for step in 0..shards {
            // every shard gets its share, and what earlier ones left over
            let budget = (SWEEP * (step + 1) / shards).saturating_sub(swept.looked);
            if budget > 0 {
                self.0.sweep_shard((first + step) % shards, budget, &mut swept);
            }
        }
        Ok(swept)
    }

    async fn append(&self, deltas: Vec<Delta>) -> Result<(), Error> {
        for Delta { run, task, attempt, text } in deltas {
            let bytes = text.len() as u64;
            if self.0.bytes.load(Relaxed) >= self.0.config.max_bytes {
                continue;
            }
            let mut shard = self.0.shard(&run);
            let event = Event { at: self.0.now(), what: What::TaskDelta { task, attempt, text } };
            if shard.append(&run, event, bytes) {
                self.0.bytes.fetch_add(bytes, Relaxed);
            }
        }
        Ok(())
    }

    async fn run(&self, run: &RunId) -> Result<Option<Run>, Error> {
        Ok(self.0.shard(run).get(run).map(|entry| entry.run.clone()))
    }

    async fn summary(&self, run: &RunId) -> Result<Option<RunSummary>, Error> {
        Ok(self.0.shard(run).get(run).map(|entry| entry.run.summary()))
    }

    async fn recorded(&self, run: &RunId, tasks: &[TaskId]) -> Result<Vec<Option<Recorded>>, Error> {
        let shard = self.0.shard(run);
        let entry = shard.get(run);
        Ok(tasks.iter().map(|task| entry.and_then(|entry| entry.recorded(task))).collect())
    }

    async fn events(&self, run: &RunId, from: u64, limit: usize) -> Result<Option<Events>, Error> {
        let shard = self.0.shard(run);
        let Some(entry) = shard.get(run) else { return Ok(None) };
        let skip = usize::try_from(from).unwrap_or(usize::MAX);
        let events = (from..).zip(entry.log.iter().skip(skip).take(limit).cloned()).collect();
        Ok(Some(Events { epoch: self.0.epoch.clone(), events, length: entry.log.len() as u64 }))
    }

    async fn list(&self, query: ListQuery) -> Result<Page, Error> {
        let mut page = Page::default();
        let limit = query.limit.max(1);
        let ids: Vec<(Ms, RunId)> = {
            let (tenant, by_age) = (&query.tenant, lock(&self.0.by_age));
            let mine = |entry: &&(Tenant, Ms, RunId)| entry.0 == *tenant;
            let place = |(_, at, id): &(Tenant, Ms, RunId)| (*at, id.clone());
            let bound = query.after.clone().map(|(at, id)| (tenant.clone(), at, id));
            match bound {
                Some(after) => {
                    by_age.range(..after).rev().take_while(mine).take(LIST_SCAN).map(place).collect()
                }
                None => {
                    by_age.range(..past(tenant)).rev().take_while(mine).take(LIST_SCAN).map(place).collect()
                }
            }
        };
        let whole = ids.len() < LIST_SCAN;
        let mut left = ids.len();
        for (created, id) in ids {
            left -= 1;
            let fits = |run: &Run| {
                query.status.is_none_or(|status| run.status == status)
                    && query.name.as_ref().is_none_or(|name| run.name == *name)
            };
            if let Some(entry) = self.0.shard(&id).get(&id).filter(|entry| fits(&entry.run)) {
                page.runs.push(entry.run.summary());
            }
            let last = left == 0 && !whole;
            if last || (page.runs.len() >= limit && left > 0) {
                page.next = Some((created, id));
                break;
            }
        }
        Ok(page)
    }

    async fn ended(&self) -> Result<Endings, Error> {
        let store = &self.0;
        let (runs, more): (Vec<RunId>, bool) = {
            let mut ended = lock(&store.ended);
            let count = ended.len().min(ENDED_AT_ONCE);
            (ended.drain(..count).collect(), !ended.is_empty())
        };
        let ending = |run: &RunId| Ending::of(&store.shard(run).get(run)?.run);
        // what is taken here and not told of is lost with the process, as is everything
        Ok(Endings { runs: runs.iter().filter_map(ending).collect(), mark: Mark::default(), more })
    }

    async fn dead_letters(&self, query: DeadQuery) -> Result<DeadPage, Error> {
        let mut letters = Vec::new();
        for shard in &self.0.shards {
            let fits = |letter: &DeadLetter| {
                let place = (letter.quarantined_ms, &letter.run_id, &letter.task);
                query.after.as_ref().is_none_or(|(at, run, task)| place < (*at, run, task))
                    && query.pool.as_ref().is_none_or(|pool| *pool == letter.pool)
                    && query.run.as_ref().is_none_or(|run| *run == letter.run_id)
            };
            letters.extend(lock(shard).dead().filter(fits).take(query.limit.max(1) + 1));
        }
        Ok(DeadPage::of(letters, None, query.limit))
    }

    async fn pause(&self, pool: &str, paused: bool) -> Result<bool, Error> {
        let mut pools = self.0.paused.write().unwrap_or_else(PoisonError::into_inner);
        if !paused {
            return Ok(pools.remove(pool));
        }
        if pools.len() >= MAX_PAUSED && !pools.contains(pool) {
            return Err(Error::TooLarge {
                what: "number of paused pools",
                got: pools.len() + 1,
                limit: MAX_PAUSED,
            });
        }
        Ok(pools.insert(pool.to_owned()))
    }

    async fn paused(&self) -> Result<Vec<PausedPool>, Error> {
        let pools = self.0.paused().clone();
        let held = |pool: &str| self.0.shards.iter().map(|shard| lock(shard).held(pool)).sum();
        Ok(pools.into_iter().map(|pool| PausedPool { held: held(&pool), pool }).collect())
    }

    async fn watch(&self, run: &RunId) -> Result<Watch, Error> {
        Ok(Watch::new(self.0.shard(run).watch(run)))
    }

    fn access(&self) -> &dyn Access {
        &self.0.access
    }

    async fn consume(&self, pools: Vec<(String, usize)>) -> Result<Deliveries, Error> {
        Ok(self.0.queues.consume(pools))
    }

    fn aborts(&self) -> broadcast::Receiver<Abort> {
        self.0.aborts.subscribe()
    }

    fn backlog(&self) -> Option<Backlog> {
        Some(Backlog {
            ready: self.0.queues.waiting(),
            memory_used: self.0.bytes.load(Relaxed),
            memory_max: self.0.config.max_bytes,
        })
    }

    async fn health(&self) -> Health {
        Health { store: Ok(()), broker: Ok(()) }
    }

    async fn close(&self) {}
}
