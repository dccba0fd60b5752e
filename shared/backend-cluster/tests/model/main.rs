//! The Lua scripts are the port of `trireme_model::machine`: random operations on both, every answer and the whole
//! state compared. `TRIREME_SEED=n` repeats one seed, `TRIREME_OPS=n` sets the number of operations.
#![allow(clippy::unwrap_used)]

mod agents;
mod draw;
mod world;

use std::collections::BTreeMap;

use draw::Draw;
use trireme_backend::Delta;
use trireme_model::{
    Claim, Complete, Extend, Fail, FailureClass, Kind, More, Next, Renew, RunId, Submit, Task, TaskId,
    TaskStatus, Token, Usage,
    limits::{LEASE_MS, MAX_LIMITED, MAX_LOST, RETENTION_MS},
};
use world::{Held, Op, World};

/// Operations of one seed.
const OPS: u64 = 2_500;
const SEEDS: u64 = 30;

/// Answers and events of which each whole run of the test must see some.
const MUST_OCCUR: &[&str] = &[
    "Cancel(Cancelled",
    "Cancel(Ended",
    "Cancel(Gone",
    "Claim(Busy",
    "Claim(Cancelled",
    "Claim(Done",
    "Claim(Gone",
    "Claim(NotReady",
    "Claim(Paused",
    "Claim(Run",
    "Complete(Cancelled",
    "Complete(Gone",
    "Complete(Recorded { next: None }",
    "Complete(Recorded { next: Some",
    "Complete(Refused",
    "Complete(Stale",
    "Delete(Deleted",
    "Delete(Gone",
    "Delete(Running",
    "Extend(Added(",
    "Extend(Cancelled",
    "Extend(Gone",
    "Extend(Held",
    "Extend(Queued",
    "Extend(Refused",
    "Extend(Stale",
    "Extend(Width(",
    "Fail(Cancelled",
    "Fail(Ended",
    "Fail(Gone",
    "Fail(Released",
    "Fail(Retrying(",
    "Fail(Stale",
    "Renew(Cancelled",
    "Renew(Held",
    "Renew(Lost",
    "Replay(Created(\"run-",
    "Replay(Exists(\"run-",
    "Replay(Gone",
    "Replay(Limited",
    "Replay(Refused(Cancelled",
    "Replay(Refused(Running",
    "Replay(Refused(Succeeded",
    "Submit(Conflict",
    "Submit(Created",
    "Submit(Exists",
    "Submit(Limited",
    "because \"budget\"",
    "because \"deadline\"",
    "because \"input_cancelled\"",
    "because \"join_timeout\"",
    "because \"join_unmet\"",
    "because \"poison\"",
    "because \"rate_limited\"",
    "because \"timeout\"",
    "run.cancelled",
    "run.failed",
    "run.succeeded",
    "task.added",
    "task.cancelled",
    "task.expanded",
    "task.failed",
    "task.lost",
    "task.retrying",
    "task.skipped",
    "task.started",
    "task.succeeded",
];

#[test]
fn redis_and_the_model_agree() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds: Vec<u64> = number("TRIREME_SEED").map_or_else(|| (1..=SEEDS).collect(), |seed| vec![seed]);
    let ops = number("TRIREME_OPS").unwrap_or(OPS);
    let (mut done, mut seen) = (0, BTreeMap::<String, u64>::new());
    let whole = seeds.len() as u64 == SEEDS && ops >= OPS;
    for seed in seeds {
        let before = std::time::Instant::now();
        let outcome = std::panic::catch_unwind(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(play(seed, ops))
        });
        match outcome {
            Ok((count, kinds)) => {
                done += count;
                kinds.into_iter().for_each(|(kind, times)| *seen.entry(kind).or_default() += times);
            }
            Err(panic) => {
                eprintln!("repeat with TRIREME_SEED={seed} TRIREME_OPS={ops}");
                std::panic::resume_unwind(panic);
            }
        }
        println!("seed {seed}: {ops} steps in {:?}", before.elapsed());
    }
    println!("{done} operations without a difference: {seen:#?}");
    if whole {
        assert!(done >= 100_000, "{done} operations are too few");
        let missing: Vec<&&str> = MUST_OCCUR.iter().filter(|kind| !seen.contains_key(**kind)).collect();
        assert!(missing.is_empty(), "never occurred: {missing:?}");
    }
}

async fn play(seed: u64, steps: u64) -> (u64, BTreeMap<String, u64>) {
    let url = trireme_test_servers::redis();
    let prefix = format!("model-{}-{seed}", std::process::id());
    let mut world = World::new(&url, &prefix, 1 + (seed % 3) as u16).await;
    let mut draw = Draw::new(seed);
    let (mut runs, mut done) = (0, 0);
    for step in 0..steps {
        done += one(&mut world, &mut draw, &mut runs).await;
        if step % 20 == 0 {
            let ids: Vec<RunId> = world.runs.keys().cloned().collect();
            if let Some(id) = draw.pick(&ids) {
                world.compare(id).await;
            }
        }
    }
    world.compare_all().await;
    drain(&mut world).await;
    cleared(&url, &prefix).await;
    (done, world.seen)
}

/// Lets everything end and be purged: nothing may be left in the store.
async fn drain(world: &mut World) {
    let ids: Vec<RunId> = world.runs.keys().cloned().collect();
    for id in &ids {
        world.apply(vec![Op::Cancel(id.clone())]).await;
    }
    world.compare_all().await;
    for pool in ["llm", "tool"] {
        if world.paused.contains(pool) {
            world.pause(pool, false).await;
        }
    }
    world.now.fetch_add(8 * RETENTION_MS, std::sync::atomic::Ordering::Relaxed);
    // runs are purged, and entries of tasks whose run is gone forgotten
    while world.store.sweep().await.unwrap().looked > 0 {}
    world.runs.clear();
    for id in &ids {
        world.compare(id).await;
    }
}

/// Only the identity of the store may be left (invariant: no orphan keys); takes that away as well.
async fn cleared(url: &str, prefix: &str) {
    let mut connection = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> =
        redis::cmd("KEYS").arg(format!("{{{prefix}:*")).query_async(&mut connection).await.unwrap();
    let (meta, left): (Vec<String>, Vec<String>) = keys.into_iter().partition(|key| key.ends_with(":meta"));
    let _: () = redis::cmd("UNLINK").arg(&meta).arg(&left).query_async(&mut connection).await.unwrap();
    assert!(left.is_empty(), "keys are left after all runs were purged: {left:?}");
}

async fn one(world: &mut World, draw: &mut Draw, runs: &mut u64) -> u64 {
    let live = world.live().len() as u64;
    if live < 3 || (live < 10 && draw.chance(3)) {
        *runs += 1;
        let run = RunId::new(format!("run-{runs}")).unwrap();
        let mut submits = vec![Op::Submit(draw.submit(run.clone()))];
        if draw.chance(20) {
            // again, with the same or another fingerprint, in the same batch
            let again = Submit { fingerprint: format!("fp{}", draw.below(2)), ..draw.submit(run) };
            submits.push(Op::Submit(again));
            if world.shards > 1 {
                // each asks the other shards first, after which their order is open
                for submit in &mut submits {
                    if let Op::Submit(submit) = submit {
                        submit.caller.in_flight = None;
                    }
                }
            }
        }
        let count = submits.len() as u64;
        world.apply(submits).await;
        return count;
    }
    if let Some(run) = agents::stuck(world).filter(|_| draw.chance(10)) {
        world.apply(vec![Op::Cancel(run)]).await;
        return 1;
    }
    if draw.chance(1) || (!world.paused.is_empty() && draw.chance(10)) {
        let pool = if draw.chance(50) { "tool" } else { "llm" };
        let paused = !world.paused.contains(pool);
        world.pause(pool, paused).await;
        return 0;
    }
    if draw.chance(2) {
        let known: Vec<RunId> = world.runs.keys().cloned().collect();
        let failed = |id: &&RunId| world.runs[*id].0.status == trireme_model::RunStatus::Failed;
        let failed: Vec<RunId> = known.iter().filter(failed).cloned().collect();
        let from = if draw.chance(80) && !failed.is_empty() { failed } else { known };
        let run = draw.pick(&from).cloned().filter(|_| draw.chance(90)).or_else(|| RunId::new("nobody").ok());
        // at most a few times in a row: ids have an end
        let run = run.filter(|run| !run.as_str().ends_with("-r9"));
        let delete = draw.chance(20);
        let ops = run.map(|run| if delete { Op::Delete(run) } else { Op::Replay(run, draw.caller()) });
        world.apply(ops.into_iter().collect()).await;
        return 1;
    }
    match draw.below(1_000) {
        0..10 => return forsake(world, draw).await,
        10..12 => return nag(world, draw).await,
        12..40 => return at_the_last_moment(world, draw).await,
        _ => {}
    }
    let count = if draw.chance(25) { 2 + draw.below(8) } else { 1 };
    let ops: Vec<Op> = match draw.below(100) {
        0..36 => many(count, || claim(world, draw)),
        36..70 => many(count, || complete(world, draw)),
        70..77 => many(count, || fail(world, draw)),
        // no more than go into one call, for the order of two calls is open
        77..85 => many(count.min(8), || extend(world, draw)),
        85..89 => many(1, || renew(world, draw)),
        89 => many(1, || any_run(world, draw).filter(|_| draw.chance(25)).map(Op::Cancel)),
        90..92 => {
            let deltas = (0..count).filter_map(|_| delta(world, draw)).collect::<Vec<_>>();
            world.append(deltas).await;
            return count;
        }
        _ => {
            advance(world, draw);
            while world.sweep().await {}
            return 1;
        }
    };
    let count = ops.len() as u64;
    if ops.iter().any(agents::large) {
        // a large result is put away first, so that its complete would fall behind the others of its batch
        for op in ops {
            world.apply(vec![op]).await;
        }
    } else if count > 0 {
        world.apply(ops).await;
    }
    count
}

/// Some ready task of a live run.
fn ready(world: &World, draw: &mut Draw) -> Option<(RunId, TaskId)> {
    let mut ready: Vec<(RunId, TaskId)> = Vec::new();
    for id in world.live() {
        let tasks = world.runs[id].0.tasks.iter();
        let tasks = tasks.filter(|(_, task)| task.status == TaskStatus::Ready);
        ready.extend(tasks.map(|(task, _)| (id.clone(), task.clone())));
    }
    ready.sort();
    draw.pick(&ready).cloned()
}

fn pass(world: &World, time: u64) {
    world.now.fetch_add(time, std::sync::atomic::Ordering::Relaxed);
}

/// Starts a task again and again and never finishes it.
async fn forsake(world: &mut World, draw: &mut Draw) -> u64 {
    let Some((run, task)) = ready(world, draw) else { return 0 };
    for _ in 0..MAX_LOST {
        world.claims += 1;
        let (run, task, claim) = (run.clone(), task.clone(), format!("c{}", world.claims));
        world.apply(vec![Op::Claim(Claim { run, task, claim, has_input: true })]).await;
        pass(world, LEASE_MS);
        while world.sweep().await {}
    }
    6
}

/// A provider that limits the rate, for as long as it takes.
async fn nag(world: &mut World, draw: &mut Draw) -> u64 {
    let Some((run, task)) = ready(world, draw) else { return 0 };
    for _ in 0..MAX_LIMITED {
        world.claims += 1;
        let claim = format!("c{}", world.claims);
        let claim = Claim { run: run.clone(), task: task.clone(), claim, has_input: true };
        world.apply(vec![Op::Claim(claim)]).await;
        let held = world.runs.get(&run).and_then(|(run, _)| run.tasks.get(&task)?.token.clone());
        let Some(token) = held else { break };
        let fail = Fail {
            run: run.clone(),
            task: task.clone(),
            token,
            class: FailureClass::RateLimited,
            error: draw.error(),
            retry_after: Some(1),
            jitter: 0,
            usage: Usage::default(),
        };
        world.apply(vec![Op::Fail(fail)]).await;
        pass(world, 1);
        while world.sweep().await {}
    }
    100
}

/// Claims a task in the very millisecond in which its time is up, before the sweep has seen it.
async fn at_the_last_moment(world: &mut World, draw: &mut Draw) -> u64 {
    let Some((run, task)) = ready(world, draw) else { return 0 };
    let deadline = world.runs[&run].0.tasks[&task].deadline;
    pass(world, deadline.saturating_sub(world.time()));
    world.claims += 1;
    let claim = format!("c{}", world.claims);
    world.apply(vec![Op::Claim(Claim { run, task, claim, has_input: true })]).await;
    1
}

fn many(count: u64, mut make: impl FnMut() -> Option<Op>) -> Vec<Op> {
    (0..count).filter_map(|_| make()).collect()
}

fn advance(world: &World, draw: &mut Draw) {
    let step = match draw.below(1_000) {
        0..850 => draw.below(1_500),
        850..970 => draw.below(12_000),
        970..995 => draw.below(60_000),
        _ => RETENTION_MS + draw.below(10_000),
    };
    world.now.fetch_add(step, std::sync::atomic::Ordering::Relaxed);
}

fn any_run(world: &World, draw: &mut Draw) -> Option<RunId> {
    if draw.chance(2) {
        return RunId::new("nobody").ok();
    }
    let ids: Vec<&RunId> = if draw.chance(95) { world.live() } else { world.runs.keys().collect() };
    draw.pick(&ids).map(|id| (*id).clone())
}

fn any_task(world: &World, draw: &mut Draw, run: &RunId) -> TaskId {
    let strange = ["nothing", "t0/0", "t1/17", "group/1/1", "t2/99999999999", "t1/01"];
    if draw.chance(5) {
        return TaskId::new(draw.pick(&strange).unwrap()).unwrap();
    }
    let Some((run, _)) = world.runs.get(run) else { return TaskId::new("t0").unwrap() };
    let mut ids: Vec<&TaskId> = run.tasks.keys().collect();
    ids.sort();
    let ready = |id: &&TaskId| run.tasks[*id].status == trireme_model::TaskStatus::Ready;
    if draw.chance(80) && ids.iter().any(ready) {
        ids.retain(ready);
    }
    (*draw.pick(&ids).unwrap()).clone()
}

fn claim(world: &mut World, draw: &mut Draw) -> Option<Op> {
    let run = any_run(world, draw)?;
    let task = any_task(world, draw, &run);
    if draw.chance(85) {
        world.claims += 1;
    }
    Some(Op::Claim(Claim { run, task, claim: format!("c{}", world.claims), has_input: draw.chance(50) }))
}

/// Mostly a token that is good still.
fn held(world: &World, draw: &mut Draw) -> Option<Held> {
    let good: Vec<&Held> = world.held.iter().filter(|held| world.good(held)).collect();
    let mut held =
        if draw.chance(85) { (*draw.pick(&good)?).clone() } else { draw.pick(&world.held)?.clone() };
    if draw.chance(4) {
        held.token = Token::from_raw("old.1.c1");
    }
    Some(held)
}

fn next(world: &mut World, draw: &mut Draw) -> Option<Next> {
    let claim = if draw.chance(90) {
        world.claims += 1;
        format!("c{}", world.claims)
    } else {
        format!("c{}", world.claims.saturating_sub(draw.below(4)))
    };
    let pools = [vec!["llm".to_owned()], vec!["tool".to_owned(), "llm".to_owned()], vec![]];
    draw.maybe(50, |draw| Next { claim, pools: draw.pick(&pools).unwrap().clone() })
}

fn complete(world: &mut World, draw: &mut Draw) -> Option<Op> {
    let held = held(world, draw)?;
    let (outcome, tasks) = agents::outcome(world, draw, &held);
    let (next, first_token) = (next(world, draw), draw.maybe(30, |draw| draw.below(5_000)));
    let Held { run, task, token, .. } = held;
    Some(Op::Complete(Complete { run, task, token, outcome, tasks, first_token, usage: draw.usage(), next }))
}

fn fail(world: &mut World, draw: &mut Draw) -> Option<Op> {
    let Held { run, task, token, .. } = held(world, draw)?;
    let (class, error) = (draw.class(), draw.error());
    let retry_after = draw.maybe(50, |draw| draw.below(5_000));
    let jitter = draw.below(1_100) as u16;
    Some(Op::Fail(Fail { run, task, token, class, error, retry_after, jitter, usage: draw.usage() }))
}

fn extend(world: &mut World, draw: &mut Draw) -> Option<Op> {
    if draw.chance(20) {
        let any = held(world, draw);
        return agents::touch(world, draw, any);
    }
    if draw.chance(60) {
        let any = held(world, draw);
        return agents::extend(world, draw, any);
    }
    let maps = |held: &&Held| held.kind == Kind::Map && world.good(held);
    let maps: Vec<Held> = world.held.iter().filter(maps).cloned().collect();
    let held = if draw.chance(95) { draw.pick(&maps)?.clone() } else { held(world, draw)? };
    let width = world.task(&held).map_or(0, Task::width);
    let Held { run, task, token, .. } = held;
    let start = match draw.below(10) {
        0 => width + 1,
        1..3 => u32::try_from(draw.below(u64::from(width) + 1)).unwrap(),
        _ => width,
    };
    let args = (0..draw.below(5)).map(|_| draw.payload()).collect();
    Some(Op::Extend(Extend { run, task, token, more: More::Children { start, args } }))
}

fn renew(world: &mut World, draw: &mut Draw) -> Option<Op> {
    let Held { run, task, token, .. } = held(world, draw)?;
    Some(Op::Renew(Renew { run, task, token }))
}

fn delta(world: &World, draw: &mut Draw) -> Option<Delta> {
    let run = any_run(world, draw)?;
    let task = any_task(world, draw, &run);
    let text = draw.pick(&["plain", "quo\"te \\ and \n line", "grüße 🌍", ""]).unwrap();
    Some(Delta { run, task, attempt: 1 + draw.below(3) as u32, text: (*text).to_owned() })
}
