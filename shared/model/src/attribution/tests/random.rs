//! Runs that the engine itself makes under random schedules, looked at all along the way.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    Added, Budget, Caller, Children, Claim, Claimed, Complete, Effects, Exec, Extend, Fail, FailureClass,
    Graph, JoinPolicy, More, Need, OnMiss, Outcome, Payload, Priority, Run, Site, Submit, TaskSpec, Token,
};

/// Steps of the schedule before everything is brought to its end.
const STEPS: usize = 120;

struct Luck(u64);

impl Luck {
    /// 0 to `below` - 1 (xorshift).
    fn draw(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below.max(1)
    }

    fn one_in(&mut self, odds: u64) -> bool {
        self.draw(odds) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.draw(from.len() as u64) as usize).cloned()
    }
}

fn spec(name: &str, kind: Kind, inputs: Vec<TaskId>, luck: &mut Luck) -> TaskSpec {
    let exec = |kind| Exec {
        kind,
        pool: "p".into(),
        priority: Priority::Normal,
        timeout: None,
        max_attempts: 3,
        backoff: 200,
        paid: false,
        fallback: None,
    };
    let on_miss = luck.pick(&[OnMiss::Fail, OnMiss::Partial, OnMiss::Partial]).unwrap();
    let need = if luck.one_in(2) { Need::All } else { Need::Count(1) };
    let within = luck.one_in(3).then(|| 1 + luck.draw(900));
    let merges = matches!(kind, Kind::Join | Kind::Map);
    let mut spec = TaskSpec {
        id: id(name),
        label: format!("l{}", luck.draw(3)),
        exec: exec(kind),
        inputs,
        policy: merges.then_some(JoinPolicy { need, within, on_miss }),
        children: (kind == Kind::Map)
            .then(|| Children { exec: exec(Kind::Tool), at_once: 1 + luck.draw(3) as u32 }),
        body: Payload::of(""),
    };
    if !merges {
        spec.exec.timeout = luck.one_in(6).then(|| 1 + luck.draw(2_000));
        spec.exec.fallback = luck.one_in(6).then(|| Payload::of("instead"));
    }
    spec
}

/// Up to seven tasks; the last reads everything that nobody reads.
fn graph(luck: &mut Luck) -> Graph {
    let count = 1 + luck.draw(7) as usize;
    let mut specs: Vec<TaskSpec> = Vec::new();
    let mut read = vec![false; count];
    for at in 0..count {
        let last = at + 1 == count;
        let reads: Vec<usize> =
            (0..at).filter(|input| if last { !read[*input] } else { luck.one_in(3) }).collect();
        reads.iter().for_each(|input| read[*input] = true);
        let kind =
            luck.pick(&[Kind::Tool, Kind::Llm, Kind::Join, Kind::Map, Kind::Agent, Kind::Agent]).unwrap();
        let kind = if kind == Kind::Join && reads.is_empty() { Kind::Tool } else { kind };
        let inputs = reads.iter().map(|input| id(&format!("t{input}"))).collect();
        specs.push(spec(&format!("t{at}"), kind, inputs, luck));
    }
    Graph::new(specs).unwrap()
}

/// A run and whoever works on it.
struct Fleet {
    run: Run,
    now: Ms,
    luck: Luck,
    held: Vec<(TaskId, Token)>,
    names: u64,
}

impl Fleet {
    fn new(seed: u64) -> Self {
        let mut luck = Luck(seed | 1);
        let submit = Submit {
            run: RunId::new("r").unwrap(),
            caller: Caller::default(),
            name: String::new(),
            fingerprint: String::new(),
            graph: graph(&mut luck),
            input: Payload::of(""),
            deadline: luck.one_in(4).then(|| 500 + luck.draw(5_000)),
            budget: Budget::default(),
            keep: Default::default(),
            trace: None,
        };
        let run = Run::submit(submit, START, &mut Effects::default());
        Self { run, now: START, luck, held: Vec::new(), names: 0 }
    }

    fn claim(&mut self) {
        let mut ready: Vec<TaskId> = self.run.tasks.keys().cloned().collect();
        ready.retain(|id| self.run.tasks[id].status == TaskStatus::Ready);
        ready.sort();
        let Some(task) = self.luck.pick(&ready) else { return };
        self.names += 1;
        let claim = Claim { run: self.run.id.clone(), task, claim: self.names.to_string(), has_input: true };
        if let Claimed::Run(given) = self.run.claim(
            &claim,
            Site { epoch: "e", paused: &BTreeSet::new() },
            self.now,
            &mut Effects::default(),
        ) {
            self.held.push((given.task, given.token));
        }
    }

    fn extend(&mut self, (task, token): &(TaskId, Token), more: More) {
        let (task, token) = (task.clone(), token.clone());
        let extend = Extend { run: self.run.id.clone(), task, token, more };
        self.run.extend(&extend, self.now, &mut Effects::default());
    }

    fn complete(&mut self, (task, token): &(TaskId, Token), outcome: Outcome, tasks: Vec<Added>) {
        let complete = Complete {
            run: self.run.id.clone(),
            task: task.clone(),
            token: token.clone(),
            outcome,
            tasks,
            first_token: self.luck.one_in(2).then(|| self.luck.draw(300)),
            usage: Usage::default(),
            next: None,
        };
        self.run.complete(
            &complete,
            Site { epoch: "e", paused: &BTreeSet::new() },
            self.now,
            &mut Effects::default(),
        );
    }

    fn fail(&mut self, (task, token): &(TaskId, Token)) {
        use FailureClass::*;
        let class = self.luck.pick(&[Retryable, Retryable, RateLimited, Released, Permanent]).unwrap();
        let fail = Fail {
            run: self.run.id.clone(),
            task: task.clone(),
            token: token.clone(),
            class,
            error: Payload::of("broken"),
            retry_after: None,
            jitter: self.luck.draw(1_000) as u16,
            usage: Usage::default(),
        };
        self.run.fail(&fail, self.now, &mut Effects::default());
    }

    /// Does something with one of the attempts.
    fn work(&mut self, done: bool) {
        let Some(held) = self.luck.pick(&self.held) else { return };
        let kind = self.run.exec(&held.0).map(|exec| exec.kind);
        let owner = self.run.tasks[&held.0].owner.clone();
        let end = done || self.luck.one_in(2);
        if end {
            self.held.retain(|other| *other != held);
        }
        match (kind, owner) {
            _ if end && !done && self.luck.one_in(5) => self.fail(&held),
            (Some(Kind::Map), _) if end => self.complete(&held, Outcome::Expanded, Vec::new()),
            (Some(Kind::Map), _) => {
                let width = self.run.tasks[&held.0].width();
                let args = vec![Payload::of(""); self.luck.draw(4) as usize];
                self.extend(&held, More::Children { start: width, args });
            }
            (Some(Kind::Agent), _) => {
                let first = self.step(&held.0, Vec::new());
                self.complete(&held, Outcome::Expanded, vec![first]);
            }
            (Some(Kind::Llm), Some(owner)) => self.turn(&held, &owner, end, done),
            _ if end => self.complete(&held, Outcome::Result(Payload::of("x")), Vec::new()),
            _ => {}
        }
    }

    fn step(&mut self, owner: &TaskId, inputs: Vec<TaskId>) -> Added {
        self.names += 1;
        let mut spec = spec(&format!("{owner}/step-{}", self.names), Kind::Llm, inputs, &mut self.luck);
        // instead of its result nothing would go on
        spec.exec.fallback = None;
        Added { spec, vital: true, resource: None }
    }

    /// A step adds a call, or ends with its turn or the answer.
    fn turn(&mut self, held: &(TaskId, Token), owner: &TaskId, end: bool, done: bool) {
        let prefix = format!("{}/", held.0);
        let calls: Vec<TaskId> =
            self.run.added.iter().filter(|id| id.as_str().starts_with(&prefix)).cloned().collect();
        let calls: Vec<TaskId> =
            calls.into_iter().filter(|id| self.run.tasks[id].owner.as_ref() == Some(owner)).collect();
        if !end {
            self.names += 1;
            let kind = self.luck.pick(&[Kind::Tool, Kind::Tool, Kind::Llm, Kind::Agent]).unwrap();
            let deep = held.0.as_str().len() > 40;
            let inputs =
                if self.luck.one_in(3) { self.luck.pick(&calls).into_iter().collect() } else { Vec::new() };
            let name = format!("{}/call-{}", held.0, self.names);
            let call = spec(&name, if deep { Kind::Tool } else { kind }, inputs, &mut self.luck);
            return self.extend(held, More::Tasks(vec![Added { spec: call, vital: false, resource: None }]));
        }
        let nested = held.0.as_str().contains("/call-")
            && !held.0.as_str().rsplit('/').next().unwrap().starts_with("step");
        if nested {
            return self.complete(held, Outcome::Result(Payload::of("x")), Vec::new());
        }
        if done || self.luck.one_in(3) {
            let outcome = Outcome::Answer { value: Payload::of("answer"), degraded: false };
            return self.complete(held, outcome, Vec::new());
        }
        let mut turn = Vec::new();
        let mut inputs = Vec::new();
        if !calls.is_empty() {
            let join = spec(&format!("{}/join", held.0), Kind::Join, calls, &mut self.luck);
            inputs.push(join.id.clone());
            turn.push(Added { spec: join, vital: false, resource: None });
        }
        turn.push(self.step(owner, inputs));
        self.complete(held, Outcome::Result(Payload::of("turn")), turn);
    }

    fn pass(&mut self, by: Ms) {
        self.now += by;
        let mut due: Vec<TaskId> = self.run.tasks.keys().cloned().collect();
        due.sort();
        for task in due {
            self.run.look_at_task(&task, &BTreeSet::new(), self.now, &mut Effects::default());
        }
        if self.run.status == RunStatus::Running {
            self.run.look_at_run(self.now, &mut Effects::default());
        }
    }

    /// One step of the schedule; with `done` only such as bring the run to its end.
    fn act(&mut self, done: bool) {
        match self.luck.draw(8) {
            0..3 => self.claim(),
            3..6 => self.work(done),
            // often nothing: many things happen in one millisecond
            6 => self.pass(self.luck.0 % 2 * 7),
            _ => {
                let by = self.luck.draw(if done { 400 } else { 1_500 });
                self.pass(by);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn every_millisecond_of_any_run_belongs_to_one_task(seed in any::<u64>()) {
        let mut fleet = Fleet::new(seed);
        for step in 0..STEPS {
            if fleet.run.status != RunStatus::Running {
                break;
            }
            fleet.act(false);
            if step % 8 == 0 {
                check(&fleet.run.view());
            }
        }
        if fleet.luck.one_in(8) {
            fleet.run.cancel(fleet.now, &mut Effects::default());
        }
        // lost attempts end after three leases of ten seconds each, so this is bounded
        let mut left = 20_000;
        while fleet.run.status == RunStatus::Running {
            left -= 1;
            prop_assert!(left > 0, "the run does not end");
            fleet.act(true);
        }
        check(&fleet.run.view());
    }
}
