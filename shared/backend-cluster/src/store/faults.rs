//! Lua has no rollback: an error at any call to Redis must leave a state from which the same operation, repeated,
//! comes to the right end (invariant 3).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use trireme_backend::Error;
use trireme_model::{
    Added, Budget, Caller, Children, Claim, Claimed, Complete, Completed, Effects, Exec, Extend, Fail,
    FailureClass, Graph, JoinPolicy, KeyId, Kind, More, Need, Next, OnMiss, Outcome, Payload, Priority,
    Renew, Run, RunId, Submit, TaskId, TaskSpec, TaskStatus, Token, Usage,
};

use super::{Config, Emitted, Store};

const START: u64 = 1_700_000_000_000;

/// What is done, in order, on the store and on the model.
#[derive(Clone, Debug)]
enum Op {
    /// A graph of a map and joins.
    Submit,
    /// A graph of an agent.
    SubmitAgent,
    Claim(&'static str, &'static str),
    Renew(&'static str, &'static str),
    Extend(&'static str, &'static str, u32),
    /// Two calls, one behind the other, while a step is running.
    Add(&'static str, &'static str),
    /// A call is about to touch a file.
    Touch(&'static str, &'static str),
    /// Of the agent: with its first step.
    Expanded(&'static str, &'static str),
    /// A step's end, with the next step behind a join of the calls, and another call.
    Turn(&'static str, &'static str, Option<&'static str>),
    Answer(&'static str, &'static str),
    Complete(&'static str, &'static str, Option<&'static str>),
    Fail(&'static str, &'static str, FailureClass),
    Cancel,
    /// After so many ms.
    Sweep(u64),
}

struct Stage {
    store: Store,
    now: Arc<AtomicU64>,
    run: RunId,
    epoch: String,
}

fn id(name: &str) -> TaskId {
    TaskId::new(name).unwrap()
}

fn task(name: &str, kind: Kind, inputs: &[&str]) -> TaskSpec {
    let exec = |kind| Exec {
        kind,
        pool: "tool".into(),
        priority: Priority::Normal,
        timeout: Some(100_000),
        max_attempts: 2,
        backoff: 100,
        paid: false,
        fallback: None,
    };
    let merges = matches!(kind, Kind::Join | Kind::Map);
    let policy =
        merges.then_some(JoinPolicy { need: Need::Count(1), within: Some(50_000), on_miss: OnMiss::Partial });
    let children = (kind == Kind::Map).then(|| Children { exec: exec(Kind::Tool), at_once: 2 });
    let inputs = inputs.iter().map(|name| id(name)).collect();
    let (label, body) = (format!("{name}'s \"label\""), Payload::from_json("{}"));
    TaskSpec { id: id(name), label, exec: exec(kind), inputs, policy, children, body }
}

/// A map and a task race in a join, and two more follow it; or an agent and one that follows it.
fn submit(op: &Op, run: RunId) -> Submit {
    let agent = || vec![task("crew", Kind::Agent, &[]), task("end", Kind::Llm, &["crew"])];
    let race = || {
        vec![
            task("each", Kind::Map, &[]),
            task("alone", Kind::Tool, &[]),
            task("race", Kind::Join, &["each", "alone"]),
            task("left", Kind::Tool, &["race"]),
            task("end", Kind::Llm, &["left"]),
        ]
    };
    let tasks = if matches!(op, Op::SubmitAgent) { agent() } else { race() };
    Submit {
        run,
        caller: Caller {
            key: KeyId::new("0123456789abcdef").ok(),
            in_flight: Some(1_000),
            ..Caller::default()
        },
        name: "faults".into(),
        fingerprint: "f".into(),
        graph: Graph::new(tasks).unwrap(),
        input: Payload::from_json("{}"),
        deadline: Some(1_000_000),
        budget: Budget::default(),
        keep: Default::default(),
        trace: None,
    }
}

fn usage() -> Usage {
    Usage { calls: 1, ..Usage::default() }
}

impl Stage {
    async fn new(prefix: &str, number: usize) -> Self {
        let now = Arc::new(AtomicU64::new(START));
        let clock = now.clone();
        let url = trireme_test_servers::redis();
        let config =
            Config { clock: Some(Arc::new(move || clock.load(Relaxed))), ..Config::new(url, prefix) };
        let store = Store::connect(config, Arc::new(|_: Emitted| ())).await.unwrap();
        let key = store.0.shards[0].shard.keys.meta.clone();
        let epoch = store.0.link.query(redis::cmd("HGET").arg(key).arg("epoch")).await.unwrap();
        let epoch = super::read::text(&super::read::bulk("epoch", epoch).unwrap());
        Self { store, now, run: RunId::new(format!("run-{number}")).unwrap(), epoch }
    }

    /// The token of the last claim under this id.
    async fn token(&self, task: &str, claim: &str) -> Token {
        let run = self.store.run(&self.run).await.unwrap().unwrap();
        let held = run.tasks[&id(task)].token.clone();
        held.filter(|token| token.claim() == claim).unwrap_or_else(|| Token::new(&self.epoch, 1, claim))
    }

    async fn on_store(&self, op: &Op) -> Result<String, Error> {
        let (run, store) = (self.run.clone(), &self.store);
        let text = match *op {
            Op::Submit | Op::SubmitAgent => format!("{:?}", store.submit(submit(op, run)).await?),
            Op::Claim(task, claim) => {
                let claim = Claim { run, task: id(task), claim: claim.into(), has_input: true };
                let Claimed::Run(assignment) = store.claim(claim).await? else { return Ok("nothing".into()) };
                assignment.token.to_string()
            }
            Op::Renew(task, claim) => {
                let token = self.token(task, claim).await;
                format!("{:?}", store.renew(vec![Renew { run, task: id(task), token }]).await?)
            }
            Op::Extend(task, claim, ..) | Op::Add(task, claim) | Op::Touch(task, claim) => {
                let token = self.token(task, claim).await;
                format!("{:?}", store.extend(extend(op, run, token)).await?)
            }
            Op::Expanded(task, claim)
            | Op::Complete(task, claim, _)
            | Op::Turn(task, claim, _)
            | Op::Answer(task, claim) => {
                let token = self.token(task, claim).await;
                let Completed::Recorded { next } = store.complete(complete(op, run, token)).await? else {
                    return Ok("lost".into());
                };
                format!("{:?}", next.map(|next| next.token))
            }
            Op::Fail(task, claim, class) => {
                let token = self.token(task, claim).await;
                format!("{:?}", store.fail(fail(run, task, token, class)).await?)
            }
            Op::Cancel => format!("{:?}", store.cancel(&run).await?),
            Op::Sweep(_) => {
                let swept = store.sweep().await?;
                format!("{} purged", swept.purged)
            }
        };
        Ok(text)
    }

    fn on_model(&self, run: &mut Option<Run>, op: &Op, now: u64) {
        let (effects, epoch) = (&mut Effects::default(), self.epoch.as_str());
        let paused = std::collections::BTreeSet::new();
        let site = trireme_model::Site { epoch, paused: &paused };
        let id_of = self.run.clone();
        if let Op::Submit | Op::SubmitAgent = op {
            *run = Some(Run::submit(submit(op, id_of), now, effects));
            return;
        }
        let Some(state) = run.as_mut() else { return };
        let held = |state: &Run, task: &str, claim: &str| {
            let token = state.tasks[&id(task)].token.clone();
            token.filter(|token| token.claim() == claim).unwrap_or_else(|| Token::new(epoch, 1, claim))
        };
        match *op {
            Op::Submit | Op::SubmitAgent => {}
            Op::Claim(task, claim) => {
                let claim = Claim { run: id_of, task: id(task), claim: claim.into(), has_input: true };
                state.claim(&claim, site, now, effects);
            }
            Op::Renew(task, claim) => {
                let token = held(state, task, claim);
                state.renew(&Renew { run: id_of, task: id(task), token }, now, effects);
            }
            Op::Extend(task, claim, ..) | Op::Add(task, claim) | Op::Touch(task, claim) => {
                let token = held(state, task, claim);
                state.extend(&extend(op, id_of, token), now, effects);
            }
            Op::Expanded(task, claim)
            | Op::Complete(task, claim, _)
            | Op::Turn(task, claim, _)
            | Op::Answer(task, claim) => {
                let token = held(state, task, claim);
                state.complete(&complete(op, id_of, token), site, now, effects);
            }
            Op::Fail(task, claim, class) => {
                let token = held(state, task, claim);
                state.fail(&fail(id_of, task, token, class), now, effects);
            }
            Op::Cancel => {
                state.cancel(now, effects);
            }
            Op::Sweep(_) => {
                let mut due: Vec<(u64, Option<TaskId>)> =
                    state.tasks.iter().map(|(id, task)| (task.due, Some(id.clone()))).collect();
                due.push((state.due, None));
                due.sort();
                for (_, task) in due.into_iter().filter(|(at, _)| *at != 0 && *at <= now) {
                    match task {
                        Some(task) => state.look_at_task(&task, &paused, now, effects),
                        None => state.look_at_run(now, effects),
                    }
                }
                if effects.purge {
                    *run = None;
                }
            }
        }
    }
}

fn extend(op: &Op, run: RunId, token: Token) -> Extend {
    let (task, more) = match *op {
        Op::Extend(task, _, count) => {
            let args = (0..count).map(|at| Payload::from_json(at.to_string())).collect();
            (task, More::Children { start: 0, args })
        }
        Op::Touch(task, _) => (task, More::Resource("file".into())),
        Op::Add(task, _) => (task, More::Tasks(vec![call("crew/x", &[]), call("crew/y", &["crew/x"])])),
        _ => unreachable!("it extends nothing"),
    };
    Extend { run, task: id(task), token, more }
}

fn complete(op: &Op, run: RunId, token: Token) -> Complete {
    let result = Payload::from_json("1");
    let next =
        |claim: Option<&str>| claim.map(|claim| Next { claim: claim.into(), pools: vec!["tool".into()] });
    let (task, outcome, tasks, next) = match *op {
        Op::Expanded("crew", _) => ("crew", Outcome::Expanded, vec![vital("crew/0", &[])], None),
        Op::Expanded(task, _) => (task, Outcome::Expanded, Vec::new(), None),
        Op::Complete(task, _, claim) => (task, Outcome::Result(result), Vec::new(), next(claim)),
        Op::Turn(task, _, claim) => {
            let join = Added {
                spec: self::task("crew/join", Kind::Join, &["crew/x", "crew/y"]),
                vital: false,
                resource: None,
            };
            let tasks = vec![join, vital("crew/1", &["crew/join"]), call("crew/z", &[])];
            (task, Outcome::Result(result), tasks, next(claim))
        }
        Op::Answer(task, _) => (task, Outcome::Answer { value: result, degraded: true }, Vec::new(), None),
        _ => unreachable!("it completes nothing"),
    };
    Complete { run, task: id(task), token, outcome, tasks, first_token: Some(9), usage: usage(), next }
}

fn call(name: &str, inputs: &[&str]) -> Added {
    Added { spec: task(name, Kind::Tool, inputs), vital: false, resource: None }
}

fn vital(name: &str, inputs: &[&str]) -> Added {
    Added { vital: true, ..call(name, inputs) }
}

fn fail(run: RunId, task: &str, token: Token, class: FailureClass) -> Fail {
    let error = Payload::from_json(r#"{"class":"x","message":"y"}"#);
    Fail { run, task: id(task), token, class, error, retry_after: None, jitter: 500, usage: usage() }
}

/// An entry of the due index that outlives its task is taken out when its time comes: that is no difference.
fn settled(mut run: Run) -> Run {
    let over = run.status.terminal();
    for task in run.tasks.values_mut().filter(|task| over || task.status.terminal()) {
        task.due = 0;
    }
    run
}

/// Invariant 2: whatever is ready, running or waiting for a retry is in the due index.
fn forgets_nothing(run: Option<&Run>) {
    for (id, task) in run.iter().filter(|run| !run.status.terminal()).flat_map(|run| &run.tasks) {
        let open = matches!(task.status, TaskStatus::Ready | TaskStatus::Running | TaskStatus::Retrying);
        assert!(!open || task.due != 0, "{id} is forgotten: {task:?}");
    }
}

/// Repeats `before` and then `op` with its n-th call to Redis failing, for every n. Returns how many there are.
async fn visit(prefix: &str, script: &'static str, before: &[Op], op: Op) -> usize {
    for at in 1..100 {
        let stage = Stage::new(prefix, at).await;
        let (mut model, mut now) = (None, START);
        for step in before {
            if let Op::Sweep(after) = step {
                now += after;
                stage.now.store(now, Relaxed);
            }
            stage.on_model(&mut model, step, now);
            stage.on_store(step).await.unwrap();
        }
        if let Op::Sweep(after) = op {
            now += after;
            stage.now.store(now, Relaxed);
        }
        *stage.store.0.link.fault.lock().unwrap() = Some((script, at));
        let first = stage.on_store(&op).await;
        *stage.store.0.link.fault.lock().unwrap() = None;
        // a sweep tells of nobody's error, so that it is repeated in any case
        let hit = match &first {
            Err(Error::Unusable(text)) => text.contains("INJECTED"),
            // what can't be read costs nobody else his lease
            Ok(text) => script == "renew" && text.contains("Lost"),
            Err(_) => false,
        };
        assert!(hit || first.is_ok(), "{first:?}");
        let answer =
            if hit || script == "sweep" { stage.on_store(&op).await.unwrap() } else { first.unwrap() };
        assert!(!["lost", "nothing", "Refused", "Stale"].contains(&answer.as_str()), "{op:?} does nothing");
        stage.on_model(&mut model, &op, now);
        let mut theirs = stage.store.run(&stage.run).await.unwrap();
        let what = format!("{op:?} with call {at} of {script} failing, then {answer}");
        if script == "sweep" {
            // the error may come between an entry's new time and its new state: it is looked at then
            forgets_nothing(theirs.as_ref());
            for _ in 0..40 {
                now += 10_000;
                stage.now.store(now, Relaxed);
                stage.on_model(&mut model, &Op::Sweep(0), now);
                stage.on_store(&Op::Sweep(0)).await.unwrap();
                theirs = stage.store.run(&stage.run).await.unwrap();
                forgets_nothing(theirs.as_ref());
            }
            // which of several times was acted on first may differ; that the run ends, and how, may not
            let end = |run: &Option<Run>| run.as_ref().map(|run| run.status);
            assert_eq!(end(&model), end(&theirs), "{what} (left: model, right: redis)");
            (model, theirs) = (None, None);
        }
        assert_eq!(model.clone().map(settled), theirs.map(settled), "{what} (left: model, right: redis)");
        let calls =
            crate::store::script::all().iter().find(|(it, _)| it.name == script).unwrap().0.failing_at(at);
        assert!(calls.contains("INJECTED"));
        stage.store.cancel(&stage.run).await.unwrap();
        stage.store.close().await;
        if !hit && (script != "sweep" || at > 20) {
            return at - 1;
        }
    }
    panic!("{op:?} never went through");
}

#[tokio::test]
async fn any_call_to_redis_may_fail() {
    let prefix = trireme_test_servers::unique("faults");
    let running = [Op::Submit, Op::Claim("each", "c1"), Op::Extend("each", "c1", 3)];
    let racing =
        [&running[..], &[Op::Expanded("each", "c1"), Op::Claim("each/0", "c2"), Op::Claim("alone", "c3")]]
            .concat();
    let hopped = [&racing[..], &[Op::Complete("alone", "c3", Some("c4"))]].concat();
    let ended =
        [&hopped[..], &[Op::Complete("left", "c4", Some("c5")), Op::Complete("end", "c5", None)]].concat();
    let begun = [
        Op::SubmitAgent,
        Op::Claim("crew", "c1"),
        Op::Expanded("crew", "c1"),
        Op::Claim("crew/0", "c2"),
        Op::Add("crew/0", "c2"),
        Op::Claim("crew/x", "c3"),
    ];
    let turned =
        [&begun[..], &[Op::Turn("crew/0", "c2", Some("c4")), Op::Complete("crew/x", "c3", Some("c5"))]]
            .concat();
    let both = [Op::Touch("each/0", "c2"), Op::Touch("alone", "c3")];
    let queued = [&running[..], &[Op::Claim("each/0", "c2"), Op::Claim("alone", "c3")], &both].concat();
    let visits: [(&'static str, &[Op], Op); 25] = [
        ("submit", &[], Op::Submit),
        ("claim", &[Op::Submit], Op::Claim("each", "c1")),
        ("claim", &racing, Op::Claim("each/1", "c9")),
        ("extend", &running[..2], Op::Extend("each", "c1", 3)),
        ("renew", &running, Op::Renew("each", "c1")),
        ("complete", &running, Op::Expanded("each", "c1")),
        ("complete", &racing, Op::Complete("each/0", "c2", Some("c8"))),
        ("complete", &racing, Op::Complete("alone", "c3", Some("c4"))),
        ("complete", &hopped, Op::Complete("left", "c4", Some("c5"))),
        ("complete", &begun[..2], Op::Expanded("crew", "c1")),
        ("extend", &begun[..4], Op::Add("crew/0", "c2")),
        ("complete", &begun, Op::Turn("crew/0", "c2", Some("c4"))),
        ("complete", &begun, Op::Answer("crew/0", "c2")),
        ("fail", &begun, Op::Fail("crew/0", "c2", FailureClass::Permanent)),
        ("fail", &begun, Op::Fail("crew/x", "c3", FailureClass::Permanent)),
        ("complete", &turned, Op::Answer("crew/1", "c5")),
        ("sweep", &turned, Op::Sweep(60_000)),
        ("fail", &racing, Op::Fail("alone", "c3", FailureClass::Retryable)),
        ("fail", &hopped, Op::Fail("left", "c4", FailureClass::Permanent)),
        ("extend", &queued[..5], Op::Touch("each/0", "c2")),
        ("complete", &queued, Op::Complete("each/0", "c2", None)),
        ("cancel", &racing, Op::Cancel),
        ("sweep", &racing, Op::Sweep(20_000)),
        ("sweep", &racing, Op::Sweep(60_000)),
        ("sweep", &ended, Op::Sweep(trireme_model::limits::RETENTION_MS + 1)),
    ];
    for (number, (script, before, op)) in visits.into_iter().enumerate() {
        let calls = visit(&format!("{prefix}-{number}"), script, before, op.clone()).await;
        assert!(script == "sweep" || calls >= 2, "{op:?} makes {calls} calls only");
    }
    let url = trireme_test_servers::redis();
    let mut link = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> =
        redis::cmd("KEYS").arg(format!("{{{prefix}*")).query_async(&mut link).await.unwrap();
    let _: () = redis::cmd("UNLINK").arg(keys).query_async(&mut link).await.unwrap();
}
