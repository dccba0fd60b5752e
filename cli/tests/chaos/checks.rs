//! What must hold whoever died.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;
use trireme_simulator::Call;

use crate::{
    Ended,
    nemesis::Kills,
    support::api::{Api, whole_log},
    world::RUNS,
};

/// A call may begin so long after its task's result was recorded elsewhere: a worker that lost its lease learns
/// of it at its next renewal or request.
const MARGIN_MS: u64 = 1_000;
/// From the death of a worker to the return of its tasks.
const RECOVERY_MS: u64 = 12_000;
/// Losses below which the kills did not hit live work.
const LEAST_LOST: usize = 10;

fn of_kind<'a>(ended: &'a Ended, kind: &str) -> impl Iterator<Item = (&'a str, u64)> {
    let found = ended.events.iter().filter(move |event| event.kind == kind);
    found.map(|event| (event.data["task"].as_str().unwrap(), event.data["at"].as_u64().unwrap()))
}

pub fn every_run_ended_right(runs: &[Ended], expected: &[Value]) {
    assert_eq!(runs.len(), RUNS);
    for Ended { n, run, .. } in runs {
        assert_eq!(run["status"], "succeeded", "run {n}: {run}");
        assert_eq!(run["degraded"], false, "run {n}: {run}");
        assert_eq!(run["output"], expected[*n], "run {n}");
    }
}

pub fn logs_are_whole(runs: &[Ended]) {
    for ended in runs {
        whole_log(&ended.events);
        let results: Vec<&str> = of_kind(ended, "task.succeeded").map(|(task, _)| task).collect();
        let once: BTreeSet<&str> = results.iter().copied().collect();
        assert_eq!(results.len(), once.len(), "a task has two results: {results:?}");
        let tasks = ended.run["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap());
        assert_eq!(once, tasks.collect::<BTreeSet<_>>(), "run {}", ended.n);
    }
}

/// Attempts are counted without gap, and nothing starts before what it waits for is there.
pub fn attempts_are_in_order(runs: &[Ended]) {
    for ended in runs {
        let mut attempts: HashMap<&str, u64> = HashMap::new();
        let mut done: BTreeSet<&str> = BTreeSet::new();
        let tasks: HashMap<&str, &Value> = ended.run["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|task| (task["id"].as_str().unwrap(), task))
            .collect();
        for event in &ended.events {
            let Some(task) = event.data["task"].as_str() else { continue };
            if event.kind == "task.succeeded" {
                done.insert(task);
            }
            if event.kind == "task.started" {
                let attempt = attempts.entry(task).or_default();
                *attempt += 1;
                assert_eq!(event.data["attempt"], *attempt, "run {}: {task}: {:?}", ended.n, ended.events);
                for input in tasks[task]["inputs"].as_array().unwrap() {
                    let there = done.contains(input.as_str().unwrap());
                    assert!(there, "run {}: {task} started before {input}", ended.n);
                }
            }
        }
        for (task, attempts) in attempts {
            assert_eq!(tasks[task]["attempt"], attempts, "run {}: {task}", ended.n);
        }
    }
}

/// Most runs were at work at once.
pub fn the_fleet_was_busy(runs: &[Ended]) {
    let of = |ended: &Ended, field: &str| ended.run[field].as_u64().unwrap();
    let last = runs.iter().map(|ended| of(ended, "created_ms")).max().unwrap();
    let open = runs.iter().filter(|ended| of(ended, "ended_ms") > last).count();
    println!("{open} runs in flight when the last was accepted");
    assert!(open >= RUNS / 2, "only {open} runs were in flight when the last was accepted");
}

pub fn no_call_began_after_its_result(runs: &[Ended], calls: &[Call]) {
    let mut recorded: HashMap<(&str, &str), u64> = HashMap::new();
    for ended in runs {
        recorded.extend(of_kind(ended, "task.succeeded").map(|(task, at)| ((ended.id.as_str(), task), at)));
    }
    // tools and models answer eight calls a run, and those that were lost once more
    assert!(calls.len() > RUNS * 8, "{} calls", calls.len());
    for call in calls {
        let (run, task) = (call.run.as_deref().unwrap(), call.task.as_deref().unwrap());
        let at = recorded.get(&(run, task)).unwrap_or_else(|| panic!("a call of no task: {call:?}"));
        assert!(call.at_ms <= at + MARGIN_MS, "recorded at {at}, and then: {call:?}");
    }
}

pub fn lost_tasks_came_back_in_time(runs: &[Ended], kills: &Kills) {
    let lost: Vec<u64> =
        runs.iter().flat_map(|ended| of_kind(ended, "task.lost")).map(|(_, at)| at).collect();
    println!("{} tasks lost and taken up again", lost.len());
    assert!(lost.len() >= LEAST_LOST, "only {} tasks were lost: the kills hit nothing", lost.len());
    for at in lost {
        let in_time = |kill: &u64| *kill <= at && at <= kill + RECOVERY_MS;
        assert!(kills.workers.iter().any(in_time), "lost at {at}, kills at {:?}", kills.workers);
    }
}

pub async fn nothing_else_was_accepted(runs: &[Ended], door: &Api) {
    let (status, body) = door.get("/v1/runs?limit=200").await.unwrap();
    assert_eq!(status, 200, "{body}");
    let listed: Value = serde_json::from_str(&body).unwrap();
    let listed: BTreeSet<&str> =
        listed["runs"].as_array().unwrap().iter().map(|run| run["run_id"].as_str().unwrap()).collect();
    let accepted: BTreeSet<&str> = runs.iter().map(|ended| ended.id.as_str()).collect();
    assert_eq!(listed, accepted);
}
