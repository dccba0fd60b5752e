//! Lua has no rollback: an error at any call to Redis must leave a state from which the same operation, repeated,
//! comes to the right end (invariant 3).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use trireme_backend::Error;
use trireme_model::{
    Budget, Children, Claim, Claimed, Complete, Completed, Effects, Exec, Extend, Fail, FailureClass, Graph,
    JoinPolicy, Kind, Need, Next, OnMiss, Outcome, Payload, Priority, Renew, Run, RunId, Submit, TaskId,
    TaskSpec, TaskStatus, Token, Usage,
};

use super::{Config, Emitted, Store};

const START: u64 = 1_700_000_000_000;

/// What is done, in order, on the store and on the model.
#[derive(Clone, Debug)]
enum Op {
    Submit,
    Claim(&'static str, &'static str),
    Renew(&'static str, &'static str),
    Extend(&'static str, &'static str, u32),
    Expanded(&'static str, &'static str),
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
    TaskSpec { id: id(name), exec: exec(kind), inputs, policy, children, body: Payload::from_json("{}") }
}

/// A map and a task race in a join; two more follow it.
fn submit(run: RunId) -> Submit {
    let tasks = vec![
        task("each", Kind::Map, &[]),
        task("alone", Kind::Tool, &[]),
        task("race", Kind::Join, &["each", "alone"]),
        task("left", Kind::Tool, &["race"]),
        task("end", Kind::Llm, &["left"]),
    ];
    Submit {
        run,
        name: "faults".into(),
        fingerprint: "f".into(),
        graph: Graph::new(tasks).unwrap(),
        input: Payload::from_json("{}"),
        deadline: Some(1_000_000),
        budget: Budget::default(),
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
            Op::Submit => format!("{:?}", store.submit(submit(run)).await?),
            Op::Claim(task, claim) => {
                let claim = Claim { run, task: id(task), claim: claim.into(), has_input: true };
                let Claimed::Run(assignment) = store.claim(claim).await? else { return Ok("nothing".into()) };
                assignment.token.to_string()
            }
            Op::Renew(task, claim) => {
                let token = self.token(task, claim).await;
                format!("{:?}", store.renew(vec![Renew { run, task: id(task), token }]).await?)
            }
            Op::Extend(task, claim, count) => {
                let token = self.token(task, claim).await;
                let args = (0..count).map(|at| Payload::from_json(at.to_string())).collect();
                format!("{:?}", store.extend(Extend { run, task: id(task), token, start: 0, args }).await?)
            }
            Op::Expanded(..) | Op::Complete(..) => {
                let (task, claim, outcome, next) = outcome(op);
                let token = self.token(task, claim).await;
                let complete = Complete { run, task: id(task), token, outcome, usage: usage(), next };
                let Completed::Recorded { next } = store.complete(complete).await? else {
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
        let id_of = self.run.clone();
        if let Op::Submit = op {
            *run = Some(Run::submit(submit(id_of), now, effects));
            return;
        }
        let Some(state) = run.as_mut() else { return };
        let held = |state: &Run, task: &str, claim: &str| {
            let token = state.tasks[&id(task)].token.clone();
            token.filter(|token| token.claim() == claim).unwrap_or_else(|| Token::new(epoch, 1, claim))
        };
        match *op {
            Op::Submit => {}
            Op::Claim(task, claim) => {
                let claim = Claim { run: id_of, task: id(task), claim: claim.into(), has_input: true };
                state.claim(&claim, epoch, now, effects);
            }
            Op::Renew(task, claim) => {
                let token = held(state, task, claim);
                state.renew(&Renew { run: id_of, task: id(task), token }, now, effects);
            }
            Op::Extend(task, claim, count) => {
                let token = held(state, task, claim);
                let args = (0..count).map(|at| Payload::from_json(at.to_string())).collect();
                state.extend(&Extend { run: id_of, task: id(task), token, start: 0, args }, now, effects);
            }
            Op::Expanded(..) | Op::Complete(..) => {
                let (task, claim, outcome, next) = outcome(op);
                let token = held(state, task, claim);
                let complete = Complete { run: id_of, task: id(task), token, outcome, usage: usage(), next };
                state.complete(&complete, epoch, now, effects);
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
                        Some(task) => state.look_at_task(&task, now, effects),
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

fn outcome(op: &Op) -> (&'static str, &'static str, Outcome, Option<Next>) {
    match *op {
        Op::Complete(task, claim, next) => {
            let next = next.map(|claim| Next { claim: claim.into(), pools: vec!["tool".into()] });
            (task, claim, Outcome::Result(Payload::from_json("1")), next)
        }
        Op::Expanded(task, claim) => (task, claim, Outcome::Expanded, None),
        _ => unreachable!("no outcome"),
    }
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
    let visits: [(&'static str, &[Op], Op); 15] = [
        ("submit", &[], Op::Submit),
        ("claim", &[Op::Submit], Op::Claim("each", "c1")),
        ("claim", &racing, Op::Claim("each/1", "c9")),
        ("extend", &running[..2], Op::Extend("each", "c1", 3)),
        ("renew", &running, Op::Renew("each", "c1")),
        ("complete", &running, Op::Expanded("each", "c1")),
        ("complete", &racing, Op::Complete("each/0", "c2", Some("c8"))),
        ("complete", &racing, Op::Complete("alone", "c3", Some("c4"))),
        ("complete", &hopped, Op::Complete("left", "c4", Some("c5"))),
        ("fail", &racing, Op::Fail("alone", "c3", FailureClass::Retryable)),
        ("fail", &hopped, Op::Fail("left", "c4", FailureClass::Permanent)),
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
