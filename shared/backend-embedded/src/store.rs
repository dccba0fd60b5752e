//! [`Backend`] over the shards.

use std::sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed};

use async_trait::async_trait;
use tokio::sync::broadcast;
use trireme_backend::{
    Abort, Backend, Deliveries, Delta, Error, Events, Health, ListQuery, Page, Recorded, Swept, Watch,
};
use trireme_model::{
    Cancelled, Claim, Claimed, Complete, Completed, Effects, Event, Extend, Extended, Fail, Failed, Ms,
    Outcome, Renew, Renewed, Run, RunId, Submit, Submitted, Task, TaskId, What, limits::MAX_RESULT_BYTES,
    view::RunSummary,
};

use crate::{
    Embedded, Inner,
    shard::{Shard, total},
};

/// Entries of the due index that one sweep looks at: bounds how long it holds a worker's thread.
const SWEEP: usize = 1024;
/// Entries looked at before a shard's lock is let go.
const SWEEP_CHUNK: usize = 64;
/// Runs that one `list` looks at, for want of an index over names and states.
const LIST_SCAN: usize = 10_000;

/// A panic inside the state machine is a bug that tests must find; the other runs of the shard go on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
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
        let Some((answer, bytes)) =
            shard.step(run, &mut effects, |run, effects| operation(run, now, effects))
        else {
            return gone;
        };
        if bytes > 0 {
            shard.grow(run, bytes);
            self.bytes.fetch_add(bytes, Relaxed);
        }
        drop(shard);
        self.emit(run, effects, now);
        answer
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
            let mut shard = lock(&self.shards[at]);
            let now = self.now();
            for _ in 0..SWEEP_CHUNK.min(budget - looked) {
                let Some((run, task)) = shard.next_due(now) else { break };
                let mut effects = Effects::default();
                shard.step(&run, &mut effects, |run, effects| match &task {
                    None => run.look_at_run(now, effects),
                    Some(task) => run.look_at_task(task, now, effects),
                });
                looked += 1;
                if shard.next_due(now).is_some_and(|next| next == (run.clone(), task.clone())) {
                    // nothing moved it: it must not hold up what is behind it
                    shard.forget_due(&run, &task);
                }
                if effects.purge
                    && let Some((created, bytes)) = shard.purge(&run)
                {
                    lock(&self.by_age).remove(&(created, run.clone()));
                    self.bytes.fetch_sub(bytes, Relaxed);
                    swept.purged += 1;
                }
                swept.hints += effects.hints.len();
                emits.push((run, effects));
            }
            let more = shard.next_due(now).is_some();
            drop(shard);
            let idle = emits.is_empty() || !more;
            for (run, effects) in emits {
                self.emit(&run, effects, now);
            }
            if idle {
                swept.looked += looked;
                swept.more |= more;
                return;
            }
        }
        swept.looked += looked;
        swept.more = true;
    }
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
        if shard.get(&id).is_none() {
            room?;
        }
        let (answer, bytes) = shard.submit(submit, now, &mut effects);
        if answer == Submitted::Created {
            lock(&store.by_age).insert((now, id.clone()));
            store.bytes.fetch_add(bytes, Relaxed);
        }
        drop(shard);
        store.emit(&id, effects, now);
        Ok(answer)
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        let epoch = &self.0.epoch;
        Ok(self
            .0
            .step(&claim.run, Claimed::Gone, |run, now, effects| (run.claim(&claim, epoch, now, effects), 0)))
    }

    async fn renew(&self, renewals: Vec<Renew>) -> Result<Vec<Renewed>, Error> {
        let renew = |renew: &Renew| {
            self.0.step(&renew.run, Renewed::Lost, |run, now, effects| (run.renew(renew, now, effects), 0))
        };
        Ok(renewals.iter().map(renew).collect())
    }

    async fn extend(&self, extend: Extend) -> Result<Extended, Error> {
        self.0.check_room(false)?;
        Ok(self.0.step(&extend.run, Extended::Gone, |run, now, effects| {
            let before = run.tasks.get(&extend.task).map_or(0, Task::width);
            let answer = run.extend(&extend, now, effects);
            // what a repeat hands over again is not kept again
            let known = before.saturating_sub(extend.start) as usize;
            let kept =
                matches!(answer, Extended::Width(_)).then(|| total(extend.args.get(known..).unwrap_or(&[])));
            (answer, kept.unwrap_or(0))
        }))
    }

    async fn complete(&self, complete: Complete) -> Result<Completed, Error> {
        let bytes = match &complete.outcome {
            Outcome::Result(result) => result.len(),
            Outcome::Expanded => 0,
        };
        if bytes > MAX_RESULT_BYTES {
            return Err(Error::TooLarge { what: "result", got: bytes, limit: MAX_RESULT_BYTES });
        }
        let epoch = &self.0.epoch;
        Ok(self.0.step(&complete.run, Completed::Gone, |run, now, effects| {
            let answer = run.complete(&complete, epoch, now, effects);
            // a repeat, and a result that comes too late, log nothing
            (answer, if effects.log.is_empty() { 0 } else { bytes as u64 })
        }))
    }

    async fn fail(&self, fail: Fail) -> Result<Failed, Error> {
        Ok(self.0.step(&fail.run, Failed::Gone, |run, now, effects| (run.fail(&fail, now, effects), 0)))
    }

    async fn cancel(&self, run: &RunId) -> Result<Cancelled, Error> {
        Ok(self.0.step(run, Cancelled::Gone, |run, now, effects| (run.cancel(now, effects), 0)))
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
            let by_age = lock(&self.0.by_age);
            match &query.after {
                Some(after) => by_age.range(..after).rev().take(LIST_SCAN).cloned().collect(),
                None => by_age.iter().rev().take(LIST_SCAN).cloned().collect(),
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

    async fn watch(&self, run: &RunId) -> Result<Watch, Error> {
        Ok(Watch::new(self.0.shard(run).watch(run)))
    }

    async fn consume(&self, pools: Vec<(String, usize)>) -> Result<Deliveries, Error> {
        Ok(self.0.queues.consume(pools))
    }

    fn aborts(&self) -> broadcast::Receiver<Abort> {
        self.0.aborts.subscribe()
    }

    async fn health(&self) -> Health {
        Health { store: Ok(()), broker: Ok(()) }
    }

    async fn close(&self) {}
}
