//! One run with its log, clock and due index; every step through it is checked against the invariants.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{
    Added, Assignment, Budget, Caller, Cancelled, Children, Claim, Claimed, Complete, Completed, Effects,
    Event, Exec, Extend, Extended, Fail, Failed, FailureClass, Graph, Hint, JoinPolicy, Kind, More, Ms, Need,
    Next, OnMiss, Outcome, Payload, Priority, Renew, Renewed, Run, RunId, RunStatus, Site, Submit, TaskId,
    TaskSpec, TaskStatus, Token, Usage, What,
};

pub(super) const EPOCH: &str = "e";
pub(super) const START: Ms = 1_000_000;

#[derive(Clone)]
pub(super) struct World {
    pub(super) run: Run,
    pub(super) now: Ms,
    pub(super) log: Vec<Event>,
    /// The due index as a backend keeps it from the effects.
    pub(super) due: BTreeMap<Option<TaskId>, Ms>,
    pub(super) hints: Vec<Hint>,
    pub(super) aborts: Vec<TaskId>,
    pub(super) purged: bool,
    pub(super) paused: BTreeSet<String>,
    /// Tasks that wait for their pool to be resumed.
    pub(super) held: BTreeSet<TaskId>,
    claims: u64,
}

pub(super) fn id(task: &str) -> TaskId {
    TaskId::new(task).unwrap()
}

pub(super) fn text(text: &str) -> Payload {
    Payload::of(text)
}

pub(super) fn exec(kind: Kind) -> Exec {
    Exec {
        kind,
        pool: "tool".into(),
        priority: Priority::Normal,
        timeout: None,
        max_attempts: 2,
        backoff: 100,
        paid: false,
        fallback: None,
    }
}

pub(super) fn tool(task: &str, inputs: &[&str]) -> TaskSpec {
    let inputs = inputs.iter().map(|input| id(input)).collect();
    let body = Payload::from_json(Bytes::from_static(b"{}"));
    let label = task.to_owned();
    TaskSpec { id: id(task), label, exec: exec(Kind::Tool), inputs, policy: None, children: None, body }
}

pub(super) fn agent(task: &str) -> TaskSpec {
    TaskSpec { exec: exec(Kind::Agent), ..tool(task, &[]) }
}

pub(super) fn call(task: &str, inputs: &[&str]) -> Added {
    Added { spec: tool(task, inputs), vital: false, resource: None }
}

/// A call that touches `resource`.
pub(super) fn touching(task: &str, inputs: &[&str], resource: &str) -> Added {
    Added { resource: Some(resource.to_owned()), ..call(task, inputs) }
}

pub(super) fn step(task: &str, inputs: &[&str]) -> Added {
    Added { vital: true, ..call(task, inputs) }
}

pub(super) fn gather(task: &str, inputs: &[&str]) -> Added {
    Added { spec: join(task, inputs, policy(Need::All, OnMiss::Partial, None)), vital: false, resource: None }
}

pub(super) fn policy(need: Need, on_miss: OnMiss, within: Option<Ms>) -> JoinPolicy {
    JoinPolicy { need, within, on_miss }
}

pub(super) fn join(task: &str, inputs: &[&str], policy: JoinPolicy) -> TaskSpec {
    TaskSpec { exec: exec(Kind::Join), policy: Some(policy), ..tool(task, inputs) }
}

pub(super) fn map(task: &str, inputs: &[&str], at_once: u32, policy: JoinPolicy) -> TaskSpec {
    let children = Some(Children { exec: exec(Kind::Tool), at_once });
    TaskSpec { exec: exec(Kind::Map), policy: Some(policy), children, ..tool(task, inputs) }
}

pub(super) fn request(tasks: Vec<TaskSpec>) -> Submit {
    Submit {
        run: RunId::new("r").unwrap(),
        caller: Caller::default(),
        name: String::new(),
        fingerprint: "f".into(),
        graph: Graph::new(tasks).unwrap(),
        input: Payload::from_json(Bytes::from_static(b"{}")),
        deadline: None,
        budget: Budget::default(),
        keep: Default::default(),
        trace: None,
    }
}

impl World {
    pub(super) fn new(tasks: Vec<TaskSpec>) -> Self {
        Self::of(request(tasks))
    }

    pub(super) fn of(submit: Submit) -> Self {
        let mut effects = Effects::default();
        let run = Run::submit(submit, START, &mut effects);
        let mut world = Self {
            run,
            now: START,
            log: Vec::new(),
            due: BTreeMap::new(),
            hints: Vec::new(),
            aborts: Vec::new(),
            purged: false,
            paused: BTreeSet::new(),
            held: BTreeSet::new(),
            claims: 0,
        };
        let run = world.run.clone();
        world.absorb(&run, effects);
        world
    }

    /// The run that replays this one, in a world of its own.
    pub(super) fn replayed(&self) -> Self {
        let mut effects = Effects::default();
        let run = self.run.replay(None, self.now, &mut effects).unwrap();
        let mut world = Self {
            run,
            now: self.now,
            log: Vec::new(),
            due: BTreeMap::new(),
            hints: Vec::new(),
            aborts: Vec::new(),
            purged: false,
            paused: BTreeSet::new(),
            held: BTreeSet::new(),
            claims: 0,
        };
        let run = world.run.clone();
        world.absorb(&run, effects);
        world
    }

    /// Does one step and checks everything that must hold after any step.
    pub(super) fn step<T>(&mut self, operation: impl FnOnce(&mut Run, Ms, &mut Effects) -> T) -> T {
        let before = self.run.clone();
        let mut effects = Effects::default();
        let answer = operation(&mut self.run, self.now, &mut effects);
        self.absorb(&before, effects);
        answer
    }

    pub(super) fn claim_as(&mut self, task: &TaskId, claim: &str) -> Claimed {
        let claim =
            Claim { run: self.run.id.clone(), task: task.clone(), claim: claim.into(), has_input: true };
        let paused = self.paused.clone();
        self.step(|run, now, effects| run.claim(&claim, Site { epoch: EPOCH, paused: &paused }, now, effects))
    }

    pub(super) fn claim(&mut self, task: &str) -> Claimed {
        self.claims += 1;
        let claim = format!("c{}", self.claims);
        self.claim_as(&id(task), &claim)
    }

    #[track_caller]
    pub(super) fn take(&mut self, task: &str) -> Assignment {
        match self.claim(task) {
            Claimed::Run(assignment) => *assignment,
            other => panic!("claim of {task} was answered {other:?}"),
        }
    }

    pub(super) fn completion(&self, task: &TaskId, token: &Token, outcome: Outcome) -> Complete {
        Complete {
            run: self.run.id.clone(),
            task: task.clone(),
            token: token.clone(),
            outcome,
            tasks: Vec::new(),
            first_token: None,
            usage: Usage { calls: 1, ..Usage::default() },
            next: None,
        }
    }

    pub(super) fn complete(&mut self, complete: &Complete) -> Completed {
        let paused = self.paused.clone();
        let site = Site { epoch: EPOCH, paused: &paused };
        self.step(|run, now, effects| run.complete(complete, site, now, effects))
    }

    pub(super) fn finish(&mut self, assignment: &Assignment, result: &str) -> Completed {
        let outcome = Outcome::Result(text(result));
        self.complete(&self.completion(&assignment.task, &assignment.token, outcome))
    }

    /// Claims and completes.
    #[track_caller]
    pub(super) fn does(&mut self, task: &str) {
        let assignment = self.take(task);
        assert_eq!(self.finish(&assignment, task), Completed::Recorded { next: None });
    }

    pub(super) fn next(&mut self) -> Option<Next> {
        self.claims += 1;
        Some(Next { claim: format!("c{}", self.claims), pools: vec!["tool".into()] })
    }

    pub(super) fn failure(&self, task: &TaskId, token: &Token, class: FailureClass) -> Fail {
        Fail {
            run: self.run.id.clone(),
            task: task.clone(),
            token: token.clone(),
            class,
            error: text("broken"),
            retry_after: None,
            jitter: 500,
            usage: Usage { calls: 1, ..Usage::default() },
        }
    }

    pub(super) fn fail(&mut self, fail: &Fail) -> Failed {
        self.step(|run, now, effects| run.fail(fail, now, effects))
    }

    pub(super) fn fails(&mut self, assignment: &Assignment, class: FailureClass) -> Failed {
        self.fail(&self.failure(&assignment.task, &assignment.token, class))
    }

    pub(super) fn extend(&mut self, map: &Assignment, start: u32, count: usize) -> Extended {
        let args = (0..count).map(|at| Payload::of(&(start as usize + at))).collect();
        let (task, token) = (map.task.clone(), map.token.clone());
        let more = More::Children { start, args };
        let extend = Extend { run: self.run.id.clone(), task, token, more };
        self.step(|run, now, effects| run.extend(&extend, now, effects))
    }

    /// Adds tasks while the attempt runs.
    pub(super) fn add(&mut self, task: &TaskId, token: &Token, tasks: Vec<Added>) -> Extended {
        let (run, task, token) = (self.run.id.clone(), task.clone(), token.clone());
        let extend = Extend { run, task, token, more: More::Tasks(tasks) };
        self.step(|run, now, effects| run.extend(&extend, now, effects))
    }

    /// The attempt is about to touch `resource`.
    pub(super) fn touch(&mut self, task: &TaskId, token: &Token, resource: &str) -> Extended {
        let (run, task, token) = (self.run.id.clone(), task.clone(), token.clone());
        let extend = Extend { run, task, token, more: More::Resource(resource.to_owned()) };
        self.step(|run, now, effects| run.extend(&extend, now, effects))
    }

    pub(super) fn expanded(&mut self, map: &Assignment) -> Completed {
        self.complete(&self.completion(&map.task, &map.token, Outcome::Expanded))
    }

    pub(super) fn renew(&mut self, task: &TaskId, token: &Token) -> Renewed {
        let renew = Renew { run: self.run.id.clone(), task: task.clone(), token: token.clone() };
        self.step(|run, now, effects| run.renew(&renew, now, effects))
    }

    pub(super) fn cancel(&mut self) -> Cancelled {
        self.step(|run, now, effects| run.cancel(now, effects))
    }

    /// Looks at everything whose time has come.
    pub(super) fn sweep(&mut self) {
        while let Some((key, due)) =
            self.due.iter().min_by_key(|(_, due)| **due).map(|(key, due)| (key.clone(), *due))
        {
            if due > self.now {
                return;
            }
            self.look(&key);
            if self.purged {
                self.due.clear();
                return;
            }
            assert_ne!(self.due.get(&key), Some(&due), "looking at {key:?} moved nothing");
        }
    }

    pub(super) fn look(&mut self, key: &Option<TaskId>) {
        let paused = self.paused.clone();
        self.step(|run, now, effects| match key {
            None => run.look_at_run(now, effects),
            Some(task) => run.look_at_task(task, &paused, now, effects),
        });
    }

    /// Lets the pool's tasks start again.
    pub(super) fn resume(&mut self, pool: &str) {
        self.paused.remove(pool);
        let paused = self.paused.clone();
        for id in std::mem::take(&mut self.held) {
            self.step(|run, now, effects| run.wake(&id, &paused, now, effects));
        }
    }

    /// Lets `by` ms pass and sweeps.
    pub(super) fn pass(&mut self, by: Ms) {
        self.now += by;
        self.sweep();
    }

    pub(super) fn status(&self, task: &str) -> TaskStatus {
        self.run.tasks[task].status
    }

    pub(super) fn names(&self) -> Vec<&'static str> {
        self.log.iter().map(|event| event.what.name()).collect()
    }

    pub(super) fn ready(&self) -> BTreeSet<TaskId> {
        let ready = self.run.tasks.iter().filter(|(_, task)| task.status == TaskStatus::Ready);
        ready.map(|(id, _)| id.clone()).collect()
    }

    fn absorb(&mut self, before: &Run, effects: Effects) {
        for key in effects.due {
            let due = match &key {
                None => self.run.due,
                Some(task) => self.run.tasks[task].due,
            };
            if due == 0 {
                self.due.remove(&key);
            } else {
                self.due.insert(key, due);
            }
        }
        for hint in &effects.hints {
            let task = &self.run.tasks[&hint.task];
            assert_eq!(task.status, TaskStatus::Ready, "a hint for {}", hint.task);
        }
        self.hints.extend(effects.hints);
        self.aborts.extend(effects.abort);
        self.held.extend(effects.held);
        self.purged |= effects.purge;
        assert_eq!(
            effects.ended,
            before.status != self.run.status && self.run.status.terminal(),
            "the backend must be told of the end, once"
        );
        self.log.extend(effects.log);
        self.check_log();
        self.check_due();
        self.check_lines();
        self.check_change(before);
        for (id, task) in &self.run.tasks {
            self.check_task(id, task);
        }
    }

    /// The run ends once, last; attempts count from 1 without gaps; a task ends at most once.
    fn check_log(&self) {
        let mut attempts: BTreeMap<&TaskId, u32> = BTreeMap::new();
        let mut ended: BTreeSet<&TaskId> = BTreeSet::new();
        for (at, event) in self.log.iter().enumerate() {
            let last = at + 1 == self.log.len();
            assert_eq!(event.what.ends_run(), last && self.run.status.terminal(), "{:?}", self.log);
            match &event.what {
                What::TaskStarted { task, attempt } => {
                    assert_eq!(*attempt, attempts.get(task).unwrap_or(&0) + 1, "{:?}", self.log);
                    assert!(!ended.contains(task), "{task} started after its end: {:?}", self.log);
                    attempts.insert(task, *attempt);
                }
                What::TaskSucceeded { task, .. }
                | What::TaskFailed { task, .. }
                | What::TaskSkipped { task }
                | What::TaskCancelled { task } => {
                    assert!(ended.insert(task), "{task} ended twice: {:?}", self.log);
                }
                _ => {}
            }
        }
        assert_eq!(self.log[0].what, What::RunStarted { replay_of: self.run.id.replay_of() });
    }

    /// The due index that a backend keeps is what the tasks say.
    fn check_due(&self) {
        let tasks = self.run.tasks.iter().filter(|(_, task)| task.due != 0);
        let mut said: BTreeMap<Option<TaskId>, Ms> =
            tasks.map(|(id, task)| (Some(id.clone()), task.due)).collect();
        if self.run.due != 0 {
            said.insert(None, self.run.due);
        }
        assert_eq!(self.due, said, "the due index differs from the tasks");
    }

    /// At most one task of a live run is at work on a resource: the first in its line. Whoever waits for one stands in
    /// its line.
    fn check_lines(&self) {
        use TaskStatus::*;
        let live = |id: &&TaskId| !self.run.orphaned(id);
        for (resource, line) in self.run.lines.iter().filter(|_| !self.run.status.terminal()) {
            let statuses: Vec<TaskStatus> =
                line.iter().filter(live).map(|id| self.run.tasks[id].status).collect();
            assert!(!line.is_empty(), "an empty line for {resource}");
            for (at, status) in statuses.iter().enumerate() {
                let fits = matches!(status, Ready | Running | Retrying);
                assert!(fits == (at == 0 && live(&&line[0])), "{resource}: {line:?} are {statuses:?}");
            }
            assert!(BTreeSet::from_iter(line).len() == line.len(), "{resource}: {line:?}");
        }
        for (id, task) in self.run.tasks.iter().filter(|(id, task)| task.queued() && live(id)) {
            let line = task.resource.as_ref().and_then(|resource| self.run.lines.get(resource));
            let stands = line.is_some_and(|line| line.contains(id));
            assert!(stands || self.run.status.terminal(), "{id} waits for a resource in no line");
        }
        for (id, task) in &self.run.tasks {
            let Some(resource) = task.resource.as_ref().filter(|_| live(&id)) else { continue };
            let first = self.run.lines.get(resource).and_then(|line| line.first());
            if matches!(task.status, Ready | Running | Retrying) && !self.run.status.terminal() {
                assert_eq!(first, Some(id), "{id} is at work on {resource} out of line");
            }
        }
    }

    /// What has ended stays as it is.
    fn check_change(&self, before: &Run) {
        for (id, was) in before.tasks.iter().filter(|(_, task)| task.status.terminal()) {
            // but for tasks that are added behind it, and what attempts that come too late are told
            let (successors, opens, told) = (was.successors.clone(), was.opens.clone(), was.told.clone());
            let now = crate::Task { successors, opens, told, ..self.run.tasks[id].clone() };
            assert_eq!(&now, was, "{id} changed after its end");
        }
        if before.status.terminal() {
            let kept = |run: &Run| (run.status, run.ended, run.usage, run.failure.clone(), run.degraded);
            assert_eq!(kept(before), kept(&self.run), "the run changed after its end");
        }
    }

    fn check_task(&self, id: &TaskId, task: &crate::Task) {
        use TaskStatus::*;
        if !self.run.status.terminal() && matches!(task.status, Ready | Running | Retrying) {
            assert_ne!(task.due, 0, "{id} is {:?} and nobody will look at it", task.status);
        }
        assert!(task.status != Running || task.token.is_some(), "{id} runs, but nobody holds it");
        let is_join = task.spec.as_ref().is_some_and(|spec| spec.exec.kind == Kind::Join);
        let inputs = task.spec.as_ref().map_or(&[][..], |spec| &spec.inputs);
        let good = |input: &TaskId| self.run.tasks[input].status == Succeeded;
        if !is_join && matches!(task.status, Ready | Running | Retrying | Expanded) {
            assert!(inputs.iter().all(good), "{id} started before its inputs ended");
        }
        if is_join {
            assert!(
                matches!(task.status, Waiting | Succeeded | Failed | Cancelled),
                "a join is never executed"
            );
        }
        assert!(task.done + task.missed <= task.width(), "{id}: more inputs ended than there are");
        if let (Some(group), Some(children)) =
            (&task.group, task.spec.as_ref().and_then(|spec| spec.children.as_ref()))
        {
            assert!(group.active <= children.at_once, "{id}: {} at once", group.active);
            assert!(group.next as usize <= group.args.len());
            // a replay has children with results ahead of those that are still to be released
            let ahead = (group.next..group.args.len() as u32)
                .filter(|index| self.run.tasks.contains_key(&id.child(*index)));
            assert_eq!(
                task.done + task.missed + group.active,
                group.next + ahead.count() as u32,
                "{id}: a child is not accounted for"
            );
        }
        let has_value = task.result.is_some() || task.frozen.is_some();
        // a join may fire in the very step that ends the run, or that has found it a loser already
        let overtaken = self.run.status.terminal() || task.status == Cancelled;
        assert!(has_value == (task.status == Succeeded) || (has_value && overtaken), "{id}: {task:?}");
        if let Some(frozen) = task.frozen.as_ref().filter(|_| task.status == Succeeded) {
            self.check_frozen(id, task, frozen);
        }
    }

    fn check_frozen(&self, id: &TaskId, task: &crate::Task, frozen: &str) {
        let width = task.width() as usize;
        let included = crate::merge::frozen(frozen, width);
        assert!(frozen == "*" || frozen.len() == width);
        let input = |at: usize| match &task.group {
            None => {
                task.spec.as_ref().unwrap().inputs.get(at).cloned().unwrap_or_else(|| id.child(at as u32))
            }
            Some(_) => id.child(at as u32),
        };
        let succeeded = |at: usize| {
            self.run.tasks.get(&input(at)).is_some_and(|task| task.status == TaskStatus::Succeeded)
        };
        assert!((0..width).all(|at| !included[at] || succeeded(at)), "{id} merges what did not succeed");
        let policy = task.spec.as_ref().and_then(|spec| spec.policy).unwrap();
        let count = included.iter().filter(|included| **included).count();
        let enough = count >= policy.needed(task.width()) as usize;
        assert!(enough || task.degraded, "{id} fired with {count} of {width}");
        assert!(enough || policy.on_miss != OnMiss::Fail, "{id} fired although it must fail");
    }

    /// Ends the run as a fair fleet would: everything ready is claimed, every attempt ends by `luck`, time
    /// goes on.
    pub(super) fn finish_fairly(&mut self, mut luck: impl FnMut() -> u8) {
        for _ in 0..10_000 {
            if self.run.status.terminal() {
                return;
            }
            // what nobody may claim any more (children of an ended map) stays ready until it is looked at
            let mut idle = true;
            for task in self.ready() {
                let Claimed::Run(attempt) = self.claim(task.as_str()) else { continue };
                idle = false;
                match luck() % 8 {
                    // lost: its lease runs out
                    0 => {}
                    1 => {
                        self.fails(&attempt, FailureClass::Permanent);
                    }
                    2 => {
                        self.fails(&attempt, FailureClass::Retryable);
                    }
                    _ if attempt.kind == Kind::Map => {
                        let width = self.run.tasks[&task].width();
                        self.extend(&attempt, width, 3);
                        self.expanded(&attempt);
                    }
                    _ if attempt.kind == Kind::Agent => {
                        let tasks = vec![step(&format!("{task}/last"), &[])];
                        let complete = self.completion(&task, &attempt.token, Outcome::Expanded);
                        self.complete(&Complete { tasks, ..complete });
                    }
                    _ if attempt.left.is_some() => {
                        let outcome = Outcome::Answer { value: text("answer"), degraded: false };
                        self.complete(&self.completion(&task, &attempt.token, outcome));
                    }
                    _ => {
                        self.finish(&attempt, "done");
                    }
                }
            }
            if !self.run.status.terminal() && idle {
                let Some(next) = self.due.values().min().copied() else {
                    // an agent of which nobody answers any more
                    let waits = |task: &crate::Task| {
                        let agent = task.spec.as_ref().is_some_and(|spec| spec.exec.kind == Kind::Agent);
                        task.status == TaskStatus::Expanded && agent
                    };
                    assert!(self.run.tasks.values().any(waits), "nothing is due and nothing is ready");
                    self.cancel();
                    return;
                };
                self.now = self.now.max(next);
                self.sweep();
            }
        }
        panic!("the run never ends: {:?}", self.run);
    }

    /// After its end a run leaves nothing behind.
    pub(super) fn retire(&mut self) {
        assert_ne!(self.run.status, RunStatus::Running);
        self.pass(crate::limits::RETENTION_MS + crate::limits::REPUBLISH_CAP_MS);
        assert!(self.purged && self.due.is_empty(), "the run is never purged");
    }
}
