//! The same operations on the pure state machine and on Redis; whatever differs is a bug in one of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use trireme_backend::{Abort, DeadQuery, Delta};
use trireme_backend_cluster::store::{Config, Emitted, Store};
use trireme_model::{
    Caller, Cancelled, Claim, Claimed, Complete, Completed, Deleted, Effects, Event, Extend, Extended, Fail,
    Failed, Hint, Kind, Ms, Renew, Renewed, Replayed, Run, RunId, RunStatus, Site, Submit, Submitted, Task,
    TaskId, TaskStatus, Token, What, view::DeadLetter,
};

/// A token that some claim handed out, good or stale by now.
#[derive(Clone, Debug)]
pub struct Held {
    pub run: RunId,
    pub task: TaskId,
    pub token: Token,
    pub kind: Kind,
}

pub struct World {
    pub store: Store,
    pub now: Arc<AtomicU64>,
    pub epoch: String,
    pub runs: BTreeMap<RunId, (Run, Vec<Event>)>,
    pub held: Vec<Held>,
    pub claims: u64,
    pub paused: BTreeSet<String>,
    /// Tasks that were met while their pool was paused.
    waiting: BTreeSet<(RunId, TaskId)>,
    pub shards: u16,
    /// Kinds of answers and events that occurred, and how often: a test that sees too little proves nothing.
    pub seen: BTreeMap<String, u64>,
    emitted: Arc<Mutex<Emitted>>,
    hints: Vec<Hint>,
    woken: Vec<Hint>,
    aborts: Vec<Abort>,
    ended: Vec<RunId>,
}

/// Any operation on one run.
#[derive(Clone, Debug)]
pub enum Op {
    Submit(Submit),
    Claim(Claim),
    Renew(Renew),
    Extend(Extend),
    Complete(Complete),
    Fail(Fail),
    Cancel(RunId),
    Replay(RunId, Caller),
    Delete(RunId),
}

#[derive(Debug, PartialEq)]
pub enum Answer {
    Submit(Submitted),
    Claim(Claimed),
    Renew(Renewed),
    Extend(Extended),
    Complete(Completed),
    Fail(Failed),
    Cancel(Cancelled),
    Replay(Replayed),
    Delete(Deleted),
}

impl Op {
    pub fn run(&self) -> &RunId {
        match self {
            Self::Submit(op) => &op.run,
            Self::Claim(op) => &op.run,
            Self::Renew(op) => &op.run,
            Self::Extend(op) => &op.run,
            Self::Complete(op) => &op.run,
            Self::Fail(op) => &op.run,
            Self::Cancel(run) | Self::Replay(run, _) | Self::Delete(run) => run,
        }
    }
}

impl World {
    pub async fn new(url: &str, prefix: &str, shards: u16) -> Self {
        let now = Arc::new(AtomicU64::new(1_700_000_000_000));
        let emitted: Arc<Mutex<Emitted>> = Arc::default();
        let (clock, sink) = (now.clone(), emitted.clone());
        let mut config = Config::new(url, prefix);
        config.shards = shards;
        config.clock = Some(Arc::new(move || clock.load(Relaxed)));
        let sink = Arc::new(move |new: Emitted| {
            let mut all = sink.lock().unwrap();
            all.hints.extend(new.hints);
            all.aborts.extend(new.aborts);
        });
        let store = Store::connect(config, sink).await.unwrap();
        Self {
            store,
            now,
            epoch: String::new(),
            runs: BTreeMap::new(),
            held: Vec::new(),
            claims: 0,
            paused: BTreeSet::new(),
            waiting: BTreeSet::new(),
            shards,
            seen: BTreeMap::new(),
            emitted,
            hints: Vec::new(),
            woken: Vec::new(),
            aborts: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Runs that have not ended.
    pub fn live(&self) -> Vec<&RunId> {
        self.runs.iter().filter(|(_, (run, _))| !run.status.terminal()).map(|(id, _)| id).collect()
    }

    /// Whether `held` holds its task as far as the model knows.
    pub fn good(&self, held: &Held) -> bool {
        self.runs.get(&held.run).is_some_and(|(run, _)| {
            let task = run.tasks.get(&held.task);
            let holds = |task: &trireme_model::Task| {
                task.status == TaskStatus::Running && task.token.as_ref() == Some(&held.token)
            };
            !run.status.terminal() && task.is_some_and(holds)
        })
    }

    /// The task of `held` as the model has it.
    pub fn task(&self, held: &Held) -> Option<&Task> {
        self.runs.get(&held.run)?.0.tasks.get(&held.task)
    }

    pub fn time(&self) -> Ms {
        self.now.load(Relaxed)
    }

    /// Applies operations of one kind at once, as one batch where the store makes one, and compares the answers.
    pub async fn apply(&mut self, ops: Vec<Op>) {
        let theirs = futures::future::join_all(ops.iter().map(|op| ask(&self.store, op.clone()))).await;
        for (op, theirs) in ops.iter().zip(theirs) {
            self.learn_epoch(&theirs);
            let mine = self.model(op);
            self.remember(op, &mine);
            // `Complete(Recorded { next: Some` and the like, without what follows
            let kind: String = format!("{mine:?}").chars().take_while(|c| !c.is_ascii_digit()).collect();
            let kind = kind.split("(Assignment").next().unwrap_or("");
            *self.seen.entry(kind.trim_end_matches(')').to_owned()).or_default() += 1;
            assert_eq!(mine, theirs, "answers to {op:?} differ (left: model, right: redis)");
        }
        self.compare_emitted(ops.len() == 1);
    }

    /// The epoch stands in the first token that the store hands out; from then on it must not change.
    fn learn_epoch(&mut self, answer: &Answer) {
        let assignment = match answer {
            Answer::Claim(Claimed::Run(assignment)) => assignment,
            Answer::Complete(Completed::Recorded { next: Some(assignment) }) => assignment,
            _ => return,
        };
        if self.epoch.is_empty() {
            self.epoch = assignment.token.as_str().split('.').next().unwrap().to_owned();
        }
    }

    fn remember(&mut self, op: &Op, answer: &Answer) {
        let assignment = match answer {
            Answer::Claim(Claimed::Run(assignment)) => assignment,
            Answer::Complete(Completed::Recorded { next: Some(assignment) }) => assignment,
            _ => return,
        };
        let (task, token, kind) = (assignment.task.clone(), assignment.token.clone(), assignment.kind);
        self.held.push(Held { run: op.run().clone(), task, token, kind });
        if self.held.len() > 200 {
            self.held.remove(0);
        }
    }

    fn model(&mut self, op: &Op) -> Answer {
        let (now, epoch, paused) = (self.time(), self.epoch.clone(), self.paused.clone());
        let site = Site { epoch: &epoch, paused: &paused };
        let mut effects = Effects::default();
        if let Op::Submit(submit) = op {
            if let Some((run, _)) = self.runs.get(&submit.run) {
                let same = run.fingerprint == submit.fingerprint;
                return Answer::Submit(if same { Submitted::Exists } else { Submitted::Conflict });
            }
            if self.limits(&submit.caller) {
                return Answer::Submit(Submitted::Limited);
            }
            let run = Run::submit(submit.clone(), now, &mut effects);
            self.runs.insert(run.id.clone(), (run, Vec::new()));
            self.follow(op.run(), effects);
            return Answer::Submit(Submitted::Created);
        }
        if let Op::Replay(id, caller) = op {
            return Answer::Replay(self.replay(id, caller));
        }
        if let Op::Delete(id) = op {
            return Answer::Delete(self.delete(id));
        }
        let Some((run, _)) = self.runs.get_mut(op.run()) else { return gone(op) };
        let answer = match op {
            Op::Submit(_) | Op::Replay(..) | Op::Delete(_) => unreachable!(),
            Op::Claim(op) => Answer::Claim(run.claim(op, site, now, &mut effects)),
            Op::Renew(op) => Answer::Renew(run.renew(op, now, &mut effects)),
            Op::Extend(op) => Answer::Extend(run.extend(op, now, &mut effects)),
            Op::Complete(op) => Answer::Complete(run.complete(op, site, now, &mut effects)),
            Op::Fail(op) => Answer::Fail(run.fail(op, now, &mut effects)),
            Op::Cancel(_) => Answer::Cancel(run.cancel(now, &mut effects)),
        };
        self.follow(op.run(), effects);
        answer
    }

    fn delete(&mut self, id: &RunId) -> Deleted {
        let (now, mut effects) = (self.time(), Effects::default());
        let Some((run, _)) = self.runs.get_mut(id) else { return Deleted::Gone };
        if !run.expire(now, &mut effects) {
            return Deleted::Running;
        }
        run.look_at_run(now, &mut effects);
        assert!(effects.purge, "an expired run is kept");
        self.runs.remove(id);
        Deleted::Deleted
    }

    /// Whether the caller's key has as many runs under way as may be.
    fn limits(&self, caller: &Caller) -> bool {
        let Some((key, most)) = caller.limit() else { return false };
        let flying = |run: &Run| run.key.as_ref() == Some(key) && !run.status.terminal();
        self.runs.values().filter(|(run, _)| flying(run)).count() >= most as usize
    }

    fn replay(&mut self, id: &RunId, caller: &Caller) -> Replayed {
        let (now, limited) = (self.time(), self.limits(caller));
        let Some((run, _)) = self.runs.get_mut(id) else { return Replayed::Gone };
        if run.status != RunStatus::Failed {
            return Replayed::Refused(run.status);
        }
        let again = id.next_replay().unwrap();
        if run.replayed {
            return Replayed::Exists(again);
        }
        if limited {
            return Replayed::Limited;
        }
        let mut effects = Effects::default();
        let new = run.replay(caller.key.clone(), now, &mut effects).unwrap();
        run.replayed = true;
        self.runs.insert(again.clone(), (new, Vec::new()));
        self.follow(&again, effects);
        Replayed::Created(again)
    }

    fn follow(&mut self, id: &RunId, effects: Effects) {
        self.hints.extend(effects.hints);
        self.waiting.extend(effects.held.into_iter().map(|task| (id.clone(), task)));
        self.aborts.extend(effects.abort.into_iter().map(|task| Abort { run: id.clone(), task: Some(task) }));
        if effects.ended {
            self.ended.push(id.clone());
        }
        for event in &effects.log {
            *self.seen.entry(event.what.name().to_owned()).or_default() += 1;
            if let What::TaskFailed { error, .. } | What::RunFailed { error, .. } = &event.what {
                let class = error.parse::<serde_json::Value>().unwrap()["class"].to_string();
                *self.seen.entry(format!("because {class}")).or_default() += 1;
            }
        }
        if let Some((_, log)) = self.runs.get_mut(id) {
            log.extend(effects.log);
        }
    }

    fn compare_emitted(&mut self, ordered: bool) {
        let mut theirs = std::mem::take(&mut *self.emitted.lock().unwrap());
        let mut mine = std::mem::take(&mut self.hints);
        let ready = |hint: &Hint| {
            let Some((run, _)) = self.runs.get(&hint.run) else { return false };
            !run.status.terminal() && run.tasks.get(&hint.task).is_some_and(|t| t.status == TaskStatus::Ready)
        };
        // what became ready and ended again before the batch was over is not published
        mine.retain(ready);
        mine.append(&mut self.woken);
        if !ordered {
            let key = |hint: &Hint| format!("{hint:?}");
            mine.sort_by_key(key);
            theirs.hints.sort_by_key(key);
        }
        assert_eq!(mine, theirs.hints, "hints differ (left: model, right: redis)");
        let mut aborts = std::mem::take(&mut self.aborts);
        for run in std::mem::take(&mut self.ended) {
            let told = theirs.aborts.iter().any(|abort| abort.run == run && abort.task.is_none());
            let state = self.runs.get(&run);
            assert!(
                told || !self.in_flight(&run),
                "run {run} ended with attempts in flight and nobody was told: {state:#?}"
            );
        }
        theirs.aborts.retain(|abort| abort.task.is_some());
        let key = |abort: &Abort| format!("{abort:?}");
        aborts.sort_by_key(key);
        theirs.aborts.sort_by_key(key);
        assert_eq!(aborts, theirs.aborts, "aborts differ (left: model, right: redis)");
    }

    /// Whether an attempt of the run is under way that nothing has told to stop.
    fn in_flight(&self, id: &RunId) -> bool {
        let Some((run, _)) = self.runs.get(id) else { return false };
        run.tasks.iter().any(|(id, task)| {
            let above = |id: &TaskId| run.parent(id).or_else(|| run.tasks[id].owner.clone());
            let mut chain = std::iter::successors(above(id), above);
            task.status == TaskStatus::Running && !chain.any(|id| run.tasks[&id].status.terminal())
        })
    }

    /// Pauses a pool, or resumes it.
    pub async fn pause(&mut self, pool: &str, paused: bool) {
        let changed = self.store.pause(pool, paused).await.unwrap();
        let mine = if paused { self.paused.insert(pool.to_owned()) } else { self.paused.remove(pool) };
        assert_eq!(changed, mine, "pausing {pool}: {paused}");
        let theirs: Vec<String> = self.store.paused().await.unwrap().into_iter().map(|of| of.pool).collect();
        assert_eq!(theirs, self.paused.iter().cloned().collect::<Vec<_>>());
    }

    /// Sweeps once and returns whether there was anything.
    pub async fn sweep(&mut self) -> bool {
        let now = self.time();
        let mut due: Vec<(Ms, String, RunId, Option<TaskId>)> = Vec::new();
        for (id, (run, _)) in &self.runs {
            let mut add = |at: Ms, task: Option<&TaskId>| {
                if at != 0 && at <= now {
                    let member = task.map_or_else(|| id.to_string(), |task| format!("{id}:{task}"));
                    due.push((at, member, id.clone(), task.cloned()));
                }
            };
            add(run.due, None);
            run.tasks.iter().for_each(|(task, state)| add(state.due, Some(task)));
        }
        due.sort();
        // a sweep takes this many of each shard
        let mut left = vec![200; usize::from(self.shards)];
        due.retain(|(_, _, run, _)| {
            let left = &mut left[usize::from(run.shard(self.shards))];
            *left -= i32::from(*left > -1);
            *left >= 0
        });
        let swept = self.store.sweep().await.unwrap();
        assert!(swept.looked >= due.len(), "redis looked at {} of {} entries", swept.looked, due.len());
        // up to 200 of each pool and shard are woken first: these runs have far fewer
        let (paused, held) = (self.paused.clone(), std::mem::take(&mut self.waiting));
        for (id, task) in held {
            let mut effects = Effects::default();
            let Some((run, _)) = self.runs.get_mut(&id) else { continue };
            if run.exec(&task).is_some_and(|exec| paused.contains(&exec.pool)) {
                self.waiting.insert((id, task));
                continue;
            }
            run.wake(&task, &paused, now, &mut effects);
            // these are out before anything else of this sweep may end their tasks
            self.woken.append(&mut effects.hints);
            self.follow(&id, effects);
        }
        for (_, _, id, task) in &due {
            let mut effects = Effects::default();
            let Some((run, _)) = self.runs.get_mut(id) else { continue };
            match task {
                None => run.look_at_run(now, &mut effects),
                Some(task) => run.look_at_task(task, &self.paused, now, &mut effects),
            }
            if effects.purge {
                self.runs.remove(id);
            }
            self.follow(id, effects);
        }
        self.compare_emitted(false);
        !due.is_empty()
    }

    pub async fn append(&mut self, deltas: Vec<Delta>) {
        let now = self.time();
        for Delta { run, task, attempt, text } in deltas.clone() {
            if let Some((run, log)) = self.runs.get_mut(&run)
                && run.status == RunStatus::Running
            {
                log.push(Event { at: now, what: What::TaskDelta { task, attempt, text } });
            }
        }
        self.store.append(deltas).await.unwrap();
    }

    /// Compares all of a run: every field, the due index, the log.
    pub async fn compare(&self, id: &RunId) {
        let theirs = self.store.run(id).await.unwrap();
        let Some((mine, log)) = self.runs.get(id) else {
            assert_eq!(theirs, None, "run {id} should be gone");
            assert_eq!(self.store.events(id, 0, 10).await.unwrap(), None, "the log of {id} should be gone");
            return;
        };
        let theirs = theirs.unwrap_or_else(|| panic!("run {id} is missing in redis"));
        for (task, state) in &mine.tasks {
            assert_eq!(
                Some(state),
                theirs.tasks.get(task),
                "task {task} of {id} (left: model, right: redis)"
            );
        }
        assert_eq!(*mine, theirs, "run {id} (left: model, right: redis)");
        let events = self.store.events(id, 0, 1_000_000).await.unwrap().expect("a log");
        assert_eq!(events.length as usize, log.len(), "length of the log of {id}");
        for ((number, theirs), (at, mine)) in events.events.iter().zip(log.iter().enumerate()) {
            assert_eq!((*number as usize, theirs), (at, mine), "log of {id} (left: redis, right: model)");
        }
    }

    /// Compares the tasks in quarantine, of runs that were not replayed.
    async fn compare_dead(&self) {
        let mut mine: Vec<DeadLetter> = Vec::new();
        for (run, _) in self.runs.values().filter(|(run, _)| !run.replayed) {
            mine.extend(run.dead_letters());
        }
        let place = |letter: &DeadLetter| {
            std::cmp::Reverse((letter.quarantined_ms, letter.run_id.clone(), letter.task.clone()))
        };
        mine.sort_by_key(place);
        let (mut theirs, mut query) = (Vec::new(), DeadQuery { limit: 7, ..DeadQuery::default() });
        loop {
            let page = self.store.dead_letters(query.clone()).await.unwrap();
            theirs.extend(page.letters);
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        assert_eq!(mine, theirs, "dead letters differ (left: model, right: redis)");
    }

    pub async fn compare_all(&self) {
        self.compare_dead().await;
        for id in self.runs.keys() {
            self.compare(id).await;
        }
    }
}

async fn ask(store: &Store, op: Op) -> Answer {
    match op {
        Op::Submit(op) => Answer::Submit(store.submit(op).await.unwrap()),
        Op::Claim(op) => Answer::Claim(store.claim(op).await.unwrap()),
        Op::Renew(op) => Answer::Renew(store.renew(vec![op]).await.unwrap()[0]),
        Op::Extend(op) => Answer::Extend(store.extend(op).await.unwrap()),
        Op::Complete(op) => Answer::Complete(store.complete(op).await.unwrap()),
        Op::Fail(op) => Answer::Fail(store.fail(op).await.unwrap()),
        Op::Cancel(run) => Answer::Cancel(store.cancel(&run).await.unwrap()),
        Op::Replay(run, caller) => Answer::Replay(store.replay(&run, &caller).await.unwrap()),
        Op::Delete(run) => Answer::Delete(store.delete(&run).await.unwrap()),
    }
}

fn gone(op: &Op) -> Answer {
    match op {
        Op::Submit(_) => unreachable!("a submit makes its run"),
        Op::Claim(_) => Answer::Claim(Claimed::Gone),
        Op::Renew(_) => Answer::Renew(Renewed::Lost),
        Op::Extend(_) => Answer::Extend(Extended::Gone),
        Op::Complete(_) => Answer::Complete(Completed::Gone),
        Op::Fail(_) => Answer::Fail(Failed::Gone),
        Op::Cancel(_) => Answer::Cancel(Cancelled::Gone),
        Op::Replay(..) => Answer::Replay(Replayed::Gone),
        Op::Delete(_) => Answer::Delete(Deleted::Gone),
    }
}
