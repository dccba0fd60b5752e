//! Every interleaving of two workers that claim, complete, fail and crash, on graphs of up to four tasks.
//!
//! Time is abstract: it jumps to whatever is due next. States that differ only in clock readings are one.

use std::{
    collections::{HashSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use crate::{
    Added, Claimed, Complete, Completed, FailureClass, Kind, Need, Next, OnMiss, Outcome, Run, TaskId,
    TaskSpec, TaskStatus, Token,
};

use super::world::*;

/// How often attempts may crash, and how often fail, on one path: what keeps the search finite.
const CRASHES: u8 = 1;
const FAILURES: u8 = 1;

#[derive(Clone)]
struct State {
    world: World,
    /// What each worker holds.
    held: [Option<(TaskId, Token, Kind)>; 2],
    /// Attempts whose worker was taken for dead, and that write all the same.
    zombies: Vec<(TaskId, Token)>,
    crashes: u8,
    failures: u8,
}

/// The state without clock readings.
fn fingerprint(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    let Run { status, failure, degraded, tasks, order, .. } = &state.world.run;
    let mut ids: Vec<&TaskId> = tasks.keys().collect();
    ids.sort();
    (status, degraded, order.len(), failure.is_some()).hash(&mut hasher);
    for id in ids {
        let task = &tasks[id];
        let open = [task.due != 0, task.deadline != 0, task.degraded];
        let counts = [task.attempt, task.failures, task.lost, task.pending, task.done, task.missed];
        let group = task.group.as_ref().map(|group| (group.args.len(), group.next, group.active));
        (id, task.status, open, counts, &task.token, &task.frozen, group, &task.resource).hash(&mut hasher);
        (task.result.as_ref().map(|result| result.as_bytes()), &task.next, &task.added).hash(&mut hasher);
        for told in &task.told {
            (&told.token, std::mem::discriminant(&told.answer)).hash(&mut hasher);
        }
    }
    state.world.run.lines.hash(&mut hasher);
    for held in &state.held {
        held.as_ref().map(|(task, token, _)| (task, token)).hash(&mut hasher);
    }
    let mut zombies = state.zombies.clone();
    zombies.sort_by(|a, b| (&a.0, a.1.as_str()).cmp(&(&b.0, b.1.as_str())));
    (zombies, state.crashes, state.failures).hash(&mut hasher);
    hasher.finish()
}

/// Every state that can follow.
fn successors(state: &State) -> Vec<State> {
    let mut all = Vec::new();
    for worker in 0..2 {
        match state.held[worker].clone() {
            None => {
                for task in state.world.ready() {
                    let mut then = state.clone();
                    if let Claimed::Run(got) = then.world.claim_as(&task, &format!("w{worker}")) {
                        then.held[worker] = Some((got.task, got.token, got.kind));
                        all.push(then);
                    }
                }
            }
            Some(held) => all.extend(endings(state, worker, &held)),
        }
    }
    for at in 0..state.zombies.len() {
        let mut then = state.clone();
        let (task, token) = then.zombies.remove(at);
        let (outcome, tasks) = told(&task).unwrap_or_else(|| (Outcome::Result(text("zombie")), Vec::new()));
        let complete = Complete { tasks, ..then.world.completion(&task, &token, outcome) };
        then.world.complete(&complete);
        all.push(then);
    }
    all.extend(time_passes(state));
    all
}

/// How the agent `crew` hands over to its first step, that to the second, which answers.
fn told(task: &TaskId) -> Option<(Outcome, Vec<Added>)> {
    let turn = || {
        let then = step("crew/1", &["crew/0/join"]);
        vec![call("crew/0/x", &[]), gather("crew/0/join", &["crew/0/x"]), then]
    };
    match task.as_str() {
        "crew" => Some((Outcome::Expanded, vec![step("crew/0", &[])])),
        "crew/0" => Some((Outcome::Result(text("turn")), turn())),
        "pair" => Some((Outcome::Expanded, vec![step("pair/0", &[])])),
        "pair/0" => {
            let calls = [touching("pair/0/x", &[], "thing"), touching("pair/0/y", &[], "thing")];
            let rest = [gather("pair/0/join", &["pair/0/x", "pair/0/y"]), step("pair/1", &["pair/0/join"])];
            Some((Outcome::Result(text("turn")), calls.into_iter().chain(rest).collect()))
        }
        "pair/1" => Some((Outcome::Answer { value: text("answer"), degraded: false }, Vec::new())),
        "crew/1" => Some((Outcome::Answer { value: text("answer"), degraded: false }, Vec::new())),
        _ => None,
    }
}

/// The ways in which `worker`'s attempt can end.
fn endings(state: &State, worker: usize, held: &(TaskId, Token, Kind)) -> Vec<State> {
    let (task, token, kind) = held;
    let mut all = Vec::new();
    let mut done = state.clone();
    done.held[worker] = None;
    let mut outcome = Outcome::Result(text(task.as_str()));
    if *kind == Kind::Map {
        let args = vec![text("x"), text("y")];
        let (run, task, token) = (done.world.run.id.clone(), task.clone(), token.clone());
        let more = crate::More::Children { start: 0, args };
        let extend = crate::Extend { run, task, token, more };
        done.world.step(|run, now, effects| run.extend(&extend, now, effects));
        outcome = Outcome::Expanded;
    }
    if task.as_str() == "crew/0" {
        // a call of this step may start before the step ends
        done.world.add(task, token, vec![call("crew/0/x", &[])]);
        let mut then = done.clone();
        then.held[worker] = Some(held.clone());
        all.push(then);
    }
    if task.as_str().starts_with("touch") && done.world.touch(task, token, "thing") == crate::Extended::Queued
    {
        all.push(done);
        return all;
    }
    let mut tasks = Vec::new();
    if let Some(told) = told(task) {
        (outcome, tasks) = told;
    }
    for goes_on in [false, true] {
        let mut then = done.clone();
        let next = goes_on.then(|| Next { claim: format!("w{worker}"), pools: vec!["tool".into()] });
        let outcome = then.world.completion(task, token, outcome.clone());
        let complete = Complete { next, tasks: tasks.clone(), ..outcome };
        if let Completed::Recorded { next: Some(next) } = then.world.complete(&complete) {
            then.held[worker] = Some((next.task, next.token, next.kind));
        }
        all.push(then);
    }
    if state.failures < FAILURES {
        for class in [FailureClass::Retryable, FailureClass::Permanent, FailureClass::Released] {
            let mut then = state.clone();
            then.failures += 1;
            then.held[worker] = None;
            let fail = then.world.failure(task, token, class);
            then.world.fail(&fail);
            all.push(then);
        }
    }
    if state.crashes < CRASHES {
        let mut then = state.clone();
        then.crashes += 1;
        then.held[worker] = None;
        then.zombies.push((task.clone(), token.clone()));
        all.push(then);
    }
    all
}

/// The next time that comes. A lease that its worker renews does not run out; hints that are published
/// again change nothing here.
fn time_passes(state: &State) -> Vec<State> {
    let mut all = Vec::new();
    for (key, due) in &state.world.due {
        let Some(task) = key else { continue };
        let status = state.world.run.tasks[task].status;
        let alive = state.held.iter().flatten().any(|(held, ..)| held == task);
        let limit = state.world.run.tasks[task].deadline;
        if (status == TaskStatus::Ready || (status == TaskStatus::Running && alive)) && *due != limit {
            continue;
        }
        let mut then = state.clone();
        then.world.now = then.world.now.max(*due);
        then.world.look(key);
        all.push(then);
    }
    all
}

/// Searches every state; returns how many there are. A state that nothing can follow must be the end.
fn search(tasks: Vec<TaskSpec>) -> usize {
    search_after(tasks, 0)
}

/// The same, with so many crashes left out.
fn search_after(tasks: Vec<TaskSpec>, crashes: u8) -> usize {
    let first =
        State { world: World::new(tasks), held: [None, None], zombies: Vec::new(), crashes, failures: 0 };
    let mut seen = HashSet::from([fingerprint(&first)]);
    let mut open = vec![first];
    while let Some(state) = open.pop() {
        if state.world.run.status.terminal() {
            continue;
        }
        let (here, mut stuck) = (fingerprint(&state), true);
        for then in successors(&state) {
            let print = fingerprint(&then);
            stuck &= print == here;
            if seen.insert(print) {
                open.push(then);
            }
        }
        assert!(!stuck, "nothing can follow: {:#?}", state.world.run);
    }
    println!("{} states", seen.len());
    seen.len()
}

#[test]
fn joins_of_every_policy() {
    let policies = [
        policy(Need::All, OnMiss::Fail, None),
        policy(Need::All, OnMiss::Partial, None),
        policy(Need::Count(1), OnMiss::Fail, None),
        policy(Need::All, OnMiss::Partial, Some(1_000)),
    ];
    for policy in policies {
        let tasks = vec![tool("a", &[]), tool("b", &[]), join("j", &["a", "b"], policy), tool("end", &["j"])];
        let states = search(tasks);
        assert!(states > 1_000, "{policy:?}: only {states} states");
    }
}

#[test]
fn a_race_with_a_shared_loser() {
    let any = policy(Need::Count(1), OnMiss::Fail, None);
    let tasks = vec![tool("a", &[]), tool("x", &["a"]), join("j", &["a", "x"], any), tool("end", &["j"])];
    assert!(search(tasks) > 300);
}

#[test]
fn a_map_of_two() {
    for need in [Need::All, Need::Count(1)] {
        let states = search(vec![map("m", &[], 1, policy(need, OnMiss::Partial, None)), tool("end", &["m"])]);
        assert!(states > 500, "{need:?}: only {states} states");
    }
}

/// Calls of an agent's turn, of which is known what they touch before they begin; without crashes, which the tasks below
/// have, so that it stays small.
#[test]
fn calls_that_touch_the_same_thing() {
    let states = search_after(vec![agent("pair"), tool("end", &["pair"])], CRASHES);
    assert!(states > 200, "only {states} states");
}

/// Tasks that say what they touch when they run.
#[test]
fn tasks_that_touch_the_same_thing() {
    let states =
        search(vec![tool("touch-a", &[]), tool("touch-b", &[]), tool("end", &["touch-a", "touch-b"])]);
    assert!(states > 500, "only {states} states");
}

#[test]
fn an_agent_of_two_steps_and_a_call() {
    let states = search(vec![agent("crew"), tool("end", &["crew"])]);
    assert!(states > 500, "only {states} states");
}
