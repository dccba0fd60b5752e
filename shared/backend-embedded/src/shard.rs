//! The runs of one shard, their logs, and the due index over them. One lock guards all three, so that an
//! operation and what follows from it are one atomic step.

use std::collections::BTreeSet;

use ahash::HashMap;
use tokio::sync::watch;
use trireme_model::{
    Effects, Event, KeyId, Kind, Ms, Payload, Run, RunId, Submit, Submitted, Task, TaskId, TaskStatus,
    Tenant, limits::MAX_DELTAS, view::DeadLetter,
};

use trireme_backend::Recorded;

use crate::due::{Due, Place};

/// Watches are pruned of those nobody holds once there are this many.
const PRUNE_WATCHES: usize = 1024;

#[derive(Debug, Default)]
pub(crate) struct Shard {
    runs: HashMap<RunId, Entry>,
    index: Index,
}

/// What a shard knows of all its runs together.
#[derive(Debug, Default)]
struct Index {
    due: Due,
    /// Log lengths of watched runs. A run may be watched before it is submitted.
    watches: HashMap<RunId, watch::Sender<u64>>,
    /// Tasks in quarantine of runs that were not replayed, by the time they were put there.
    dead: BTreeSet<(Ms, RunId, TaskId)>,
    /// Ready tasks that wait for their pool to be resumed.
    held: BTreeSet<(String, RunId, TaskId)>,
}

/// What became of a run in one step.
pub(crate) struct Stepped<T> {
    pub(crate) answer: T,
    /// Payload bytes that it added.
    pub(crate) bytes: u64,
    /// Whose run under way it no longer is.
    pub(crate) landed: Option<KeyId>,
}

/// A run and what belongs to it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) run: Run,
    pub(crate) log: Vec<Event>,
    /// What stands in the due index, to find the entry that a change replaces.
    indexed: HashMap<Option<TaskId>, Place>,
    deltas: u64,
    /// Payload bytes kept for this run.
    pub(crate) bytes: u64,
}

impl Shard {
    pub(crate) fn get(&self, run: &RunId) -> Option<&Entry> {
        self.runs.get(run)
    }

    /// What a submit of this id and fingerprint finds; `None` for a new run.
    pub(crate) fn known(&self, submit: &Submit) -> Option<Submitted> {
        let entry = self.runs.get(&submit.run)?;
        let same = entry.run.fingerprint == submit.fingerprint;
        Some(if same { Submitted::Exists } else { Submitted::Conflict })
    }

    /// Accepts a run whose id is not taken; says how many bytes it holds.
    pub(crate) fn submit(&mut self, submit: Submit, now: Ms, effects: &mut Effects) -> u64 {
        let bodies: usize = submit.graph.tasks().iter().map(|task| task.body.len()).sum();
        let bytes = (submit.input.len() + bodies) as u64;
        self.insert(Run::submit(submit, now, effects), bytes, effects);
        bytes
    }

    /// Takes in the replay of a failed run unless it is there.
    pub(crate) fn replay(&mut self, run: Run, effects: &mut Effects) -> Option<u64> {
        if self.runs.contains_key(&run.id) {
            return None;
        }
        let of = |task: &Task| {
            let body = task.spec.as_ref().map_or(0, |spec| spec.body.len());
            let args = task.group.as_ref().map_or(0, |group| total(&group.args));
            (body + task.result.as_ref().map_or(0, Payload::len)) as u64 + args
        };
        let bytes = run.input.len() as u64 + run.tasks.values().map(of).sum::<u64>();
        self.insert(run, bytes, effects);
        Some(bytes)
    }

    fn insert(&mut self, run: Run, bytes: u64, effects: &mut Effects) {
        let id = run.id.clone();
        let mut entry = Entry { run, log: Vec::new(), indexed: HashMap::default(), deltas: 0, bytes };
        self.index.follow(&mut entry, effects);
        self.runs.insert(id, entry);
    }

    /// Marks a failed run as replayed.
    pub(crate) fn replayed(&mut self, run: &RunId) {
        if let Some(entry) = self.runs.get_mut(run) {
            entry.run.replayed = true;
            self.index.dead.retain(|(_, other, _)| other != run);
        }
    }

    /// Takes out at most `most` held tasks of pools that are not paused.
    pub(crate) fn take_woken(&mut self, paused: &BTreeSet<String>, most: usize) -> Vec<(RunId, TaskId)> {
        let held = &mut self.index.held;
        if held.is_empty() {
            return Vec::new();
        }
        let woken: Vec<_> =
            held.iter().filter(|(pool, ..)| !paused.contains(pool)).take(most).cloned().collect();
        for woken in &woken {
            held.remove(woken);
        }
        woken.into_iter().map(|(_, run, task)| (run, task)).collect()
    }

    /// How many tasks wait for `pool` to be resumed.
    pub(crate) fn held(&self, pool: &str) -> u64 {
        self.index.held.iter().filter(|(held, ..)| held == pool).count() as u64
    }

    /// Tasks in quarantine, newest first.
    pub(crate) fn dead(&self) -> impl Iterator<Item = DeadLetter> {
        self.index.dead.iter().rev().filter_map(|(_, run, task)| {
            let run = &self.runs.get(run)?.run;
            Some(run.dead_letter(task, run.tasks.get(task)?))
        })
    }

    /// Runs `operation` on a run and writes what follows from it; `None` if there is no such run. The operation says
    /// how many payload bytes it added. Also says whose run under way it no longer is, where it has ended by it.
    pub(crate) fn step<T>(
        &mut self,
        run: &RunId,
        effects: &mut Effects,
        operation: impl FnOnce(&mut Run, &mut Effects) -> (T, u64),
    ) -> Option<Stepped<T>> {
        let entry = self.runs.get_mut(run)?;
        let before = entry.run.status.terminal();
        let (answer, bytes) = operation(&mut entry.run, effects);
        entry.bytes += bytes;
        let landed = if !before && entry.run.status.terminal() { entry.run.key.clone() } else { None };
        self.index.follow(entry, effects);
        Some(Stepped { answer, bytes, landed })
    }

    /// Appends a delta; says whether it was kept.
    pub(crate) fn append(&mut self, run: &RunId, delta: Event, bytes: u64) -> bool {
        let Some(entry) = self.runs.get_mut(run) else { return false };
        if entry.run.status.terminal() || entry.deltas >= MAX_DELTAS {
            return false;
        }
        entry.deltas += 1;
        entry.bytes += bytes;
        entry.log.push(delta);
        let length = entry.log.len() as u64;
        self.index.announce(run, length);
        true
    }

    /// The first entry of the due index whose time has come.
    pub(crate) fn next_due(&self, now: Ms) -> Option<(RunId, Option<TaskId>)> {
        let (due, entry) = self.index.due.first()?;
        (due <= now).then(|| entry.clone())
    }

    /// When the first entry of the due index comes.
    pub(crate) fn first_due(&self) -> Option<Ms> {
        self.index.due.first().map(|(due, _)| due)
    }

    /// Takes an entry out of the due index that turned out to ask for nothing.
    pub(crate) fn forget_due(&mut self, run: &RunId, task: &Option<TaskId>) {
        if let Some(place) = self.runs.get_mut(run).and_then(|entry| entry.indexed.remove(task)) {
            self.index.due.remove(place);
        }
    }

    /// Forgets a run; returns its place in the list and how many bytes it held.
    pub(crate) fn purge(&mut self, run: &RunId) -> Option<((Tenant, Ms, RunId), u64)> {
        let entry = self.runs.remove(run)?;
        for place in entry.indexed.into_values() {
            self.index.due.remove(place);
        }
        self.index.watches.remove(run);
        self.index.dead.retain(|(_, other, _)| other != run);
        Some(((entry.run.tenant, entry.run.created, entry.run.id), entry.bytes))
    }

    pub(crate) fn watch(&mut self, run: &RunId) -> watch::Receiver<u64> {
        let watches = &mut self.index.watches;
        if watches.len() >= PRUNE_WATCHES {
            watches.retain(|_, watch| watch.receiver_count() > 0);
        }
        let length = self.runs.get(run).map_or(0, |entry| entry.log.len() as u64);
        watches.entry(run.clone()).or_insert_with(|| watch::channel(length).0).subscribe()
    }

    /// How many entries the due index has.
    pub(crate) fn due_len(&self) -> usize {
        self.index.due.len()
    }
}

impl Index {
    /// Writes the part of `effects` that lives in this shard.
    fn follow(&mut self, entry: &mut Entry, effects: &mut Effects) {
        let id = &entry.run.id;
        for key in effects.due.drain(..) {
            let due = match &key {
                None => entry.run.due,
                Some(task) => entry.run.tasks.get(task).map_or(0, |task| task.due),
            };
            let before = entry.indexed.get(&key).copied();
            if before.map_or(0, |(at, _)| at) == due {
                continue;
            }
            if let Some(place) = before {
                self.due.remove(place);
            }
            if due == 0 {
                entry.indexed.remove(&key);
            } else {
                let place = self.due.insert(due, id, &key);
                entry.indexed.insert(key, place);
            }
        }
        for task in effects.held.drain(..) {
            if let Some(exec) = entry.run.exec(&task) {
                self.held.insert((exec.pool.clone(), id.clone(), task));
            }
        }
        for task in effects.quarantined.drain(..) {
            let at = entry.run.tasks.get(&task).map_or(0, |task| task.ended_at);
            self.dead.insert((at, id.clone(), task));
        }
        if !effects.log.is_empty() {
            entry.log.append(&mut effects.log);
            let length = entry.log.len() as u64;
            self.announce(id, length);
        }
    }

    fn announce(&mut self, run: &RunId, length: u64) {
        if self.watches.is_empty() {
            return;
        }
        let Some(watch) = self.watches.get(run) else { return };
        if watch.receiver_count() == 0 {
            self.watches.remove(run);
        } else {
            watch.send_replace(length);
        }
    }
}

impl Entry {
    /// What `id` has recorded.
    pub(crate) fn recorded(&self, id: &TaskId) -> Option<Recorded> {
        let task = self.run.tasks.get(id).filter(|task| task.status.terminal())?;
        if task.status != TaskStatus::Succeeded {
            return Some(Recorded::Failed(task.error.clone()));
        }
        match (&task.frozen, &task.spec) {
            (Some(frozen), Some(spec)) => Some(Recorded::Merged {
                body: spec.body.clone(),
                frozen: frozen.clone(),
                inputs: merged_inputs(id, task),
            }),
            _ => task.result.clone().map(Recorded::Result),
        }
    }
}

fn merged_inputs(id: &TaskId, task: &Task) -> Vec<TaskId> {
    match &task.spec {
        Some(spec) if spec.exec.kind == Kind::Join => spec.inputs.clone(),
        // a map merges its children, of which it may have none; never its own inputs
        _ => (0..task.width()).map(|index| id.child(index)).collect(),
    }
}

/// The bytes of a list of payloads.
pub(crate) fn total(payloads: &[Payload]) -> u64 {
    payloads.iter().map(|payload| payload.len() as u64).sum()
}
