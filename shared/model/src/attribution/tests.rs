//! Exact figures of small runs made by hand, and what must hold of any run that the engine can make.

mod agents;
mod figures;
mod random;
mod speed;

use super::*;
use crate::{
    id::RunId,
    run::{RunStatus, TaskStatus, Usage},
    view::TaskView,
};

/// When the runs below were accepted.
const START: Ms = 1_000_000;

fn id(task: &str) -> TaskId {
    TaskId::new(task).unwrap()
}

/// A task that was first ready, last ready, claimed and at its end at these times of the run.
fn task(name: &str, kind: Kind, label: &str, times: [Ms; 4], inputs: &[&str]) -> TaskView {
    let [first, ready, started, ended] = times.map(|time| START + time);
    TaskView {
        id: id(name),
        kind,
        label: label.into(),
        owner: None,
        resource: None,
        pool: "p".into(),
        status: TaskStatus::Succeeded,
        attempt: 1,
        degraded: false,
        queued_ms: Some(started - ready),
        run_ms: Some(ended - started),
        first_token_ms: None,
        first_ready_ms: Some(first),
        ready_ms: Some(ready),
        started_ms: Some(started),
        ended_ms: Some(ended),
        inputs: inputs.iter().map(|input| id(input)).collect(),
        error: None,
    }
}

/// A tool that was claimed as soon as it was ready.
fn tool(name: &str, from: Ms, to: Ms, inputs: &[&str]) -> TaskView {
    task(name, Kind::Tool, name, [from, from, from, to], inputs)
}

/// A model's call with its first token this long after its claim.
fn llm(name: &str, from: Ms, token: Ms, to: Ms, inputs: &[&str]) -> TaskView {
    TaskView { first_token_ms: Some(token), ..task(name, Kind::Llm, "model", [from, from, from, to], inputs) }
}

fn join(name: &str, at: Ms, inputs: &[&str]) -> TaskView {
    TaskView {
        first_ready_ms: None,
        ready_ms: None,
        started_ms: None,
        ..task(name, Kind::Join, "", [0, 0, 0, at], inputs)
    }
}

fn owned(owner: &str, task: TaskView) -> TaskView {
    TaskView { owner: Some(id(owner)), ..task }
}

/// Never came to its end.
fn cut(task: TaskView) -> TaskView {
    TaskView { status: TaskStatus::Cancelled, ended_ms: None, run_ms: None, ..task }
}

fn run(wall: Ms, tasks: Vec<TaskView>) -> RunView {
    RunView {
        run_id: RunId::new("r").unwrap(),
        replay_of: None,
        replayed_as: None,
        name: String::new(),
        status: RunStatus::Succeeded,
        degraded: false,
        output: None,
        error: None,
        created_ms: START,
        ended_ms: Some(START + wall),
        wall_ms: Some(wall),
        deadline_ms: None,
        usage: Usage::default(),
        wasted: Usage::default(),
        tasks,
    }
}

/// The path as text: `task category from+ms`.
fn path(attribution: &Attribution) -> Vec<String> {
    let text = |s: &Segment| format!("{} {} {}+{}", s.task, s.category.name(), s.from_ms, s.ms);
    attribution.path.iter().map(text).collect()
}

/// The slack of each task, in order of ids.
fn slack(attribution: &Attribution) -> Vec<(&str, Ms)> {
    attribution.slack_ms.iter().map(|(id, slack)| (id.as_str(), *slack)).collect()
}

/// What must hold of any attribution of `run`.
fn check(run: &RunView) -> Attribution {
    let found = attribution(run);
    assert_eq!(found.categories.total(), found.wall_ms, "the categories do not add up: {found:?}");
    if let Some(wall) = run.wall_ms {
        assert_eq!(found.wall_ms, wall);
    }
    let mut split = Split::default();
    let mut at = 0;
    for segment in &found.path {
        assert_eq!(segment.from_ms, at, "a gap or an overlap in the path: {:?}", path(&found));
        at += segment.ms;
        *split.of_mut(segment.category) += segment.ms;
    }
    assert_eq!((at, split), (found.wall_ms, found.categories), "{:?}", path(&found));
    for (task, slack) in &found.slack_ms {
        let view = run.tasks.iter().find(|view| view.id == *task).unwrap();
        let ended = view.ended_ms.unwrap() - run.created_ms;
        // a task that ended after its owner is counted as ended with it
        assert!(
            *slack <= found.wall_ms.saturating_sub(ended).max(found.wall_ms - at.min(ended)),
            "{task}: {slack}"
        );
    }
    for what_if in &found.what_if {
        assert!((0.0..=100.0).contains(&what_if.half_time_gain_percent), "{what_if:?}");
        assert!(what_if.share_of_wall > 0.0 && what_if.share_of_wall <= 1.0, "{what_if:?}");
    }
    assert!(found.what_if.is_sorted_by(|a, b| a.half_time_gain_percent >= b.half_time_gain_percent));
    check_schedule(run);
    found
}

/// The rules give back the times that they were read from.
fn check_schedule(run: &RunView) {
    let timeline = Timeline::of(run);
    let causes = Causes::of(&timeline);
    let schedule = Schedule::of(&timeline, &causes);
    let times = schedule.follow(|_, ran| ran);
    for (at, node) in timeline.nodes.iter().enumerate().filter(|(_, node)| !node.cut) {
        assert_eq!(times.end[at], node.end, "the end of {}", node.view.id);
        if let Some(ready) = node.first_ready {
            assert_eq!(times.there[at], ready, "{} ready", node.view.id);
        }
    }
    let end = |times: &schedule::Times| {
        timeline.output().filter(|at| !timeline.nodes[*at].cut).map(|at| times.end[at])
    };
    for (at, slack) in schedule.slack().into_iter().enumerate() {
        let longer = schedule.follow(|other, ran| if other == at { ran + slack } else { ran });
        assert_eq!(end(&longer), end(&times), "{} by {slack} ms longer", timeline.nodes[at].view.id);
    }
}
