//! What stories are told with: graphs in a few words, attempts by hand, and time.

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use trireme_backend::{Values, output};
use trireme_model::{
    Assignment, Budget, Caller, Children, Claim, Claimed, Complete, Completed, Event, Exec, Extend, Extended,
    Fail, Failed, FailureClass, Graph, JoinPolicy, Kind, More, Ms, Need, Next, OnMiss, Outcome, Payload,
    Priority, Run, RunId, RunStatus, Submit, Submitted, TaskId, TaskSpec, TaskStatus, Token, Usage,
};

use crate::Subject;

/// How long a condition may take to come true beyond the time that the store needs for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One story's own corner of a backend.
pub(crate) struct Stage {
    pub(crate) subject: Subject,
    /// Makes ids and pools unique.
    tag: String,
    claims: AtomicU64,
}

/// A graph being drawn.
#[derive(Clone)]
pub(crate) struct Draw {
    pool: String,
    tasks: Vec<TaskSpec>,
}

pub(crate) fn id(task: &str) -> TaskId {
    TaskId::new(task).unwrap()
}

pub(crate) const ALL: JoinPolicy = JoinPolicy { need: Need::All, within: None, on_miss: OnMiss::Fail };

pub(crate) fn need(count: u32, on_miss: OnMiss) -> JoinPolicy {
    JoinPolicy { need: Need::Count(count), within: None, on_miss }
}

impl Draw {
    /// A tool call that waits for `inputs`.
    pub(crate) fn tool(self, task: &str, inputs: &[&str]) -> Self {
        self.add(task, Kind::Tool, inputs, None, json!({"does": task}))
    }

    /// A join; its value is an object by input.
    pub(crate) fn join(self, task: &str, inputs: &[&str], policy: JoinPolicy) -> Self {
        let mut merge = json!({"form": "object", "names": inputs});
        if policy.on_miss == OnMiss::Default {
            merge["default"] = json!("missing");
        }
        self.add(task, Kind::Join, inputs, Some(policy), json!({"merge": merge}))
    }

    /// A map; its value is a list.
    pub(crate) fn map(self, task: &str, inputs: &[&str], at_once: u32, policy: JoinPolicy) -> Self {
        let merge = json!({"merge": {"form": "list"}});
        let mut draw = self.add(task, Kind::Map, inputs, Some(policy), merge);
        let exec = draw.exec(Kind::Tool);
        draw.tasks.last_mut().unwrap().children = Some(Children { exec, at_once });
        draw
    }

    /// An agent, which extends its own graph while it runs.
    pub(crate) fn agent(self, task: &str, inputs: &[&str]) -> Self {
        self.add(task, Kind::Agent, inputs, None, json!({"agent": task}))
    }

    /// The task drawn last.
    pub(crate) fn last(mut self) -> TaskSpec {
        self.tasks.pop().unwrap()
    }

    /// Changes the task drawn last.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut TaskSpec)) -> Self {
        change(self.tasks.last_mut().unwrap());
        self
    }

    pub(crate) fn graph(self) -> Graph {
        Graph::new(self.tasks).unwrap()
    }

    fn exec(&self, kind: Kind) -> Exec {
        Exec {
            kind,
            pool: self.pool.clone(),
            priority: Priority::Normal,
            timeout: None,
            max_attempts: 3,
            backoff: 100,
            paid: false,
            fallback: None,
        }
    }

    fn add(
        mut self,
        task: &str,
        kind: Kind,
        inputs: &[&str],
        policy: Option<JoinPolicy>,
        body: Value,
    ) -> Self {
        let exec = self.exec(kind);
        let inputs = inputs.iter().map(|input| id(input)).collect();
        let body = Payload::of(&body);
        let label = format!("label of {task}");
        self.tasks.push(TaskSpec { id: id(task), label, exec, inputs, policy, children: None, body });
        self
    }
}

impl Stage {
    pub(crate) fn new(subject: Subject) -> Self {
        let tag = uuid::Uuid::new_v4().simple().to_string()[..20].to_owned();
        Self { subject, tag, claims: AtomicU64::new(0) }
    }

    pub(crate) fn backend(&self) -> &dyn trireme_backend::Backend {
        &*self.subject.backend
    }

    /// This story's pool.
    pub(crate) fn pool(&self) -> String {
        format!("p-{}", self.tag)
    }

    pub(crate) fn draw(&self) -> Draw {
        Draw { pool: self.pool(), tasks: Vec::new() }
    }

    pub(crate) fn run_id(&self, name: &str) -> RunId {
        RunId::new(format!("{}-{name}", self.tag)).unwrap()
    }

    pub(crate) fn request(&self, name: &str, draw: Draw) -> Submit {
        Submit {
            run: self.run_id(name),
            caller: Caller::default(),
            name: self.tag.clone(),
            fingerprint: "one".into(),
            graph: draw.graph(),
            input: Payload::of(&json!({"company": "Acme"})),
            deadline: None,
            budget: Budget::default(),
            keep: Default::default(),
            trace: None,
        }
    }

    /// Submits a graph as the run `run`.
    pub(crate) async fn submit(&self, draw: Draw) -> RunId {
        let request = self.request("run", draw);
        let run = request.run.clone();
        assert_eq!(self.backend().submit(request).await.unwrap(), Submitted::Created);
        run
    }

    pub(crate) fn claim_id(&self) -> String {
        format!("c{}", self.claims.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) async fn try_claim(&self, run: &RunId, task: &str) -> Claimed {
        let claim = Claim { run: run.clone(), task: id(task), claim: self.claim_id(), has_input: true };
        self.backend().claim(claim).await.unwrap()
    }

    /// Claims a task that must be ready.
    #[track_caller]
    pub(crate) fn take(&self, run: &RunId, task: &str) -> impl Future<Output = Assignment> {
        let place = std::panic::Location::caller();
        async move {
            match self.try_claim(run, task).await {
                Claimed::Run(assignment) => *assignment,
                other => panic!("{place}: claim of {task} was answered {other:?}"),
            }
        }
    }

    /// Claims a task and records `result`.
    #[track_caller]
    pub(crate) fn does(&self, run: &RunId, task: &str, result: Value) -> impl Future<Output = ()> {
        let take = self.take(run, task);
        async move {
            let assignment = take.await;
            assert_eq!(self.finish(&assignment, result).await, Completed::Recorded { next: None });
        }
    }

    pub(crate) fn completion(&self, assignment: &Assignment, result: Value) -> Complete {
        Complete {
            run: assignment.run.clone(),
            task: assignment.task.clone(),
            token: assignment.token.clone(),
            outcome: Outcome::Result(Payload::of(&result)),
            tasks: Vec::new(),
            first_token: None,
            usage: Usage::default(),
            next: None,
        }
    }

    pub(crate) async fn finish(&self, assignment: &Assignment, result: Value) -> Completed {
        self.backend().complete(self.completion(assignment, result)).await.unwrap()
    }

    /// Says that this caller would go on with a successor.
    pub(crate) fn next(&self) -> Option<Next> {
        Some(Next { claim: self.claim_id(), pools: vec![self.pool()] })
    }

    pub(crate) fn failure(&self, assignment: &Assignment, class: FailureClass) -> Fail {
        Fail {
            run: assignment.run.clone(),
            task: assignment.task.clone(),
            token: assignment.token.clone(),
            class,
            error: Payload::of(&json!({"class": "broken", "message": "it broke"})),
            retry_after: None,
            jitter: 500,
            usage: Usage::default(),
        }
    }

    pub(crate) async fn fails(&self, assignment: &Assignment, class: FailureClass) -> Failed {
        self.backend().fail(self.failure(assignment, class)).await.unwrap()
    }

    /// Claims the map `task`, hands over `items` and says that these are all.
    pub(crate) async fn expand(&self, run: &RunId, task: &str, items: &[Value]) {
        let map = self.take(run, task).await;
        for (at, chunk) in items.chunks(500).enumerate() {
            let extended = self.extend(run, task, &map.token, at * 500, chunk).await;
            assert_eq!(extended, Extended::Width((at * 500 + chunk.len()) as u32));
        }
        let expanded = Complete { outcome: Outcome::Expanded, ..self.completion(&map, json!(null)) };
        assert_eq!(self.backend().complete(expanded).await.unwrap(), Completed::Recorded { next: None });
    }

    pub(crate) async fn extend(
        &self,
        run: &RunId,
        task: &str,
        token: &Token,
        start: usize,
        items: &[Value],
    ) -> Extended {
        let args = items.iter().map(Payload::of).collect();
        let (run, task, token) = (run.clone(), id(task), token.clone());
        let more = More::Children { start: start as u32, args };
        self.backend().extend(Extend { run, task, token, more }).await.unwrap()
    }

    pub(crate) async fn run(&self, run: &RunId) -> Run {
        self.backend().run(run).await.unwrap().unwrap()
    }

    pub(crate) async fn status(&self, run: &RunId) -> RunStatus {
        // another story's sweep may end the run between two reads, but only once
        let before = self.run(run).await.status;
        let summary = self.backend().summary(run).await.unwrap().unwrap();
        if summary.status != before {
            assert_eq!(summary.status, self.run(run).await.status, "the summary tells another story");
        }
        summary.status
    }

    pub(crate) async fn task(&self, run: &RunId, task: &str) -> trireme_model::Task {
        self.run(run).await.tasks.remove(task).unwrap()
    }

    pub(crate) async fn task_status(&self, run: &RunId, task: &str) -> TaskStatus {
        self.task(run, task).await.status
    }

    /// The class of a task's error.
    pub(crate) async fn error_class(&self, run: &RunId, task: &str) -> String {
        class_of(&self.task(run, task).await.error.unwrap())
    }

    /// A task's value as its successors see it.
    pub(crate) async fn value(&self, run: &RunId, task: &str) -> Option<Value> {
        let values = Values::new(self.subject.backend.clone(), 1 << 20);
        let value = values.get(run, &[id(task)]).await.unwrap().remove(0);
        value.map(|value| value.parse().unwrap())
    }

    /// The output of a run that must have succeeded.
    pub(crate) async fn output(&self, run: &RunId) -> Value {
        let state = self.run(run).await;
        assert_eq!(state.status, RunStatus::Succeeded, "{:?}", state.failure);
        let output = output(&self.subject.backend, run, state.output()).await.unwrap();
        output.unwrap().parse().unwrap()
    }

    /// The whole log, checked to be without gaps and to end the run once, at its end.
    pub(crate) async fn log(&self, run: &RunId) -> Vec<Event> {
        let events = self.backend().events(run, 0, 100_000).await.unwrap().unwrap();
        assert!(
            events.events.iter().enumerate().all(|(at, (seq, _))| at as u64 == *seq),
            "a gap: {events:?}"
        );
        assert_eq!(events.length, events.events.len() as u64);
        let log: Vec<Event> = events.events.into_iter().map(|(_, event)| event).collect();
        assert_eq!(log[0].what.name(), "run.started");
        assert!(log.windows(2).all(|pair| pair[0].at <= pair[1].at), "time runs backwards: {log:?}");
        let ends = log.iter().filter(|event| event.what.ends_run()).count();
        let ended = self.status(run).await.terminal();
        assert_eq!(ends, usize::from(ended), "the log ends {ends} times");
        assert_eq!(log.last().unwrap().what.ends_run(), ended, "something follows the end");
        log
    }

    /// The names of the log's events.
    pub(crate) async fn names(&self, run: &RunId) -> Vec<&'static str> {
        self.log(run).await.iter().map(|event| event.what.name()).collect()
    }

    /// Sweeps until nothing more is due.
    pub(crate) async fn sweep(&self) {
        let end = Instant::now() + PATIENCE;
        while self.backend().sweep().await.unwrap().more {
            assert!(Instant::now() < end, "sweeping never ends");
        }
    }

    /// Lets `wait` ms pass on the store's clock, sweeps, and expects `holds` to become true.
    #[track_caller]
    pub(crate) fn after<C>(&self, wait: Ms, holds: impl Fn() -> C) -> impl Future<Output = ()>
    where
        C: Future<Output = bool>,
    {
        let place = std::panic::Location::caller();
        async move {
            if let Some(advance) = &self.subject.advance {
                advance(wait);
                self.sweep().await;
                assert!(holds().await, "{place}: not after {wait} ms");
                return;
            }
            let end = Instant::now() + Duration::from_millis(wait) + PATIENCE;
            loop {
                self.sweep().await;
                if holds().await {
                    return;
                }
                assert!(Instant::now() < end, "{place}: not even long after {wait} ms");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

pub(crate) fn class_of(error: &Payload) -> String {
    error.parse::<Value>().unwrap()["class"].as_str().unwrap().to_owned()
}

/// Waits for `future`, but not for ever.
#[track_caller]
pub(crate) fn soon<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(value) => value,
            Err(_) => panic!("{place}: nothing came in {PATIENCE:?}"),
        }
    }
}
