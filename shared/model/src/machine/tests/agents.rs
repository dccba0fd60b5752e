//! Agents: tasks that are added while others run, and how they end together.

use super::world::*;
use crate::{
    Added, Assignment, Complete, Completed, Extended, FailureClass, Need, OnMiss, Outcome, RunStatus, Site,
    TaskStatus,
};

/// A run of one agent whose first step is running.
fn begun() -> (World, Assignment) {
    let mut world = World::new(vec![agent("a")]);
    let a = world.take("a");
    let expanded = world.completion(&a.task, &a.token, Outcome::Expanded);
    world.complete(&Complete { tasks: vec![step("a/0", &[])], ..expanded });
    let step = world.take("a/0");
    (world, step)
}

fn adds(world: &mut World, by: &Assignment, tasks: Vec<Added>) -> Extended {
    world.add(&by.task, &by.token, tasks)
}

fn status(world: &World, task: &str) -> TaskStatus {
    world.run.tasks[&id(task)].status
}

#[test]
fn a_turn_its_calls_their_join_and_the_answer() {
    let (mut world, first) = begun();
    assert_eq!(status(&world, "a"), TaskStatus::Expanded);
    assert_eq!(adds(&mut world, &first, vec![call("a/0/x", &[])]), Extended::Added(1));
    assert_eq!(adds(&mut world, &first, vec![call("a/0/x", &[]), call("a/0/y", &[])]), Extended::Added(1));
    world.does("a/0/x");
    let turn = vec![gather("a/0/join", &["a/0/x", "a/0/y"]), step("a/1", &["a/0/join"])];
    let outcome = world.completion(&first.task, &first.token, Outcome::Result(text("turn")));
    world.complete(&Complete { tasks: turn, ..outcome });
    assert_eq!(status(&world, "a/1"), TaskStatus::Waiting);
    world.does("a/0/y");
    let second = world.take("a/1");
    let outcome = Outcome::Answer { value: text("answer"), degraded: true };
    let complete = world.completion(&second.task, &second.token, outcome);
    assert_eq!(world.complete(&complete), Completed::Recorded { next: None });
    assert_eq!(world.complete(&complete), Completed::Recorded { next: None });
    assert_eq!(world.run.status, RunStatus::Succeeded);
    assert!(world.run.degraded);
    assert_eq!(world.run.tasks[&id("a")].result, Some(text("answer")));
}

#[test]
fn calls_that_a_repeated_turn_does_not_ask_for_are_cancelled() {
    let (mut world, first) = begun();
    adds(&mut world, &first, vec![call("a/0/x", &[]), call("a/0/y", &[])]);
    world.fails(&first, FailureClass::Released);
    let again = world.take("a/0");
    assert_eq!(adds(&mut world, &first, vec![call("a/0/z", &[])]), Extended::Stale);
    assert_eq!(adds(&mut world, &again, vec![call("a/0/y", &[])]), Extended::Added(0));
    let turn = vec![gather("a/0/join", &["a/0/y"]), step("a/1", &["a/0/join"])];
    let outcome = world.completion(&again.task, &again.token, Outcome::Result(text("turn")));
    world.complete(&Complete { tasks: turn, ..outcome });
    assert_eq!(status(&world, "a/0/x"), TaskStatus::Cancelled);
    assert_eq!(status(&world, "a/0/y"), TaskStatus::Ready);
}

#[test]
fn an_agent_fails_with_a_vital_task_and_ends_what_is_below_it() {
    let (mut world, first) = begun();
    adds(&mut world, &first, vec![call("a/0/x", &[])]);
    let x = world.take("a/0/x");
    world.fails(&first, FailureClass::Permanent);
    assert_eq!(world.run.status, RunStatus::Failed);
    assert_eq!(world.run.view().error.unwrap().task, Some(id("a/0")));
    assert_eq!(world.finish(&x, "late"), Completed::Cancelled);
}

#[test]
fn tasks_that_do_not_fit_are_refused_whole() {
    let (mut world, first) = begun();
    let map = map("a/m", &[], 1, policy(Need::All, OnMiss::Fail, None));
    let bad: Vec<Added> = vec![
        call("b/x", &[]),
        call("ab", &[]),
        call("a/x", &["a"]),
        call("a/x", &["a/unknown"]),
        call("a/x", &["a/x"]),
        call("a/x", &["a/0", "a/0"]),
        Added { spec: map, vital: false, resource: None },
    ];
    for bad in bad {
        let before = world.run.clone();
        assert_eq!(
            adds(&mut world, &first, vec![call("a/good", &[]), bad.clone()]),
            Extended::Refused,
            "{bad:?}"
        );
        let outcome = world.completion(&first.task, &first.token, Outcome::Result(text("turn")));
        assert_eq!(world.complete(&Complete { tasks: vec![bad], ..outcome }), Completed::Refused);
        assert_eq!(world.run, before);
    }
    let mut plain = World::new(vec![tool("t", &[])]);
    let t = plain.take("t");
    assert_eq!(adds(&mut plain, &t, vec![call("t/x", &[])]), Extended::Refused);
    let answer = Outcome::Answer { value: text("x"), degraded: false };
    assert_eq!(plain.complete(&plain.completion(&t.task, &t.token, answer)), Completed::Refused);
}

#[test]
fn a_task_behind_inputs_that_have_ended() {
    let (mut world, first) = begun();
    adds(&mut world, &first, vec![call("a/good", &[]), call("a/bad", &[])]);
    world.does("a/good");
    let bad = world.take("a/bad");
    world.fails(&bad, FailureClass::Permanent);
    let late = vec![
        call("a/1", &["a/good"]),
        call("a/2", &["a/bad", "a/good"]),
        gather("a/3", &["a/bad", "a/good"]),
        call("a/4", &["a/3"]),
    ];
    assert_eq!(adds(&mut world, &first, late), Extended::Added(4));
    assert_eq!(status(&world, "a/1"), TaskStatus::Ready);
    assert_eq!(status(&world, "a/2"), TaskStatus::Skipped);
    assert_eq!(status(&world, "a/3"), TaskStatus::Succeeded);
    assert_eq!(world.run.tasks[&id("a/3")].frozen.as_deref(), Some("01"));
    assert_eq!(status(&world, "a/4"), TaskStatus::Ready);
}

#[test]
fn an_agent_inside_an_agent_gives_its_answer_to_the_outer_one() {
    let (mut world, first) = begun();
    let inner = Added { spec: agent("a/0/team"), vital: false, resource: None };
    adds(&mut world, &first, vec![inner]);
    let turn = vec![gather("a/0/join", &["a/0/team"]), step("a/1", &["a/0/join"])];
    let outcome = world.completion(&first.task, &first.token, Outcome::Result(text("turn")));
    world.complete(&Complete { tasks: turn, ..outcome });
    let team = world.take("a/0/team");
    let expanded = world.completion(&team.task, &team.token, Outcome::Expanded);
    world.complete(&Complete { tasks: vec![step("a/0/team/0", &[])], ..expanded });
    let inner = world.take("a/0/team/0");
    adds(&mut world, &inner, vec![call("a/0/team/x", &[])]);
    let outcome = Outcome::Answer { value: text("inner"), degraded: false };
    world.complete(&world.completion(&inner.task, &inner.token, outcome));
    assert_eq!(world.run.tasks[&id("a/0/team")].result, Some(text("inner")));
    assert_eq!(status(&world, "a/1"), TaskStatus::Ready);
    assert_eq!(world.run.status, RunStatus::Running);
}

#[test]
fn the_time_of_an_agents_tasks_ends_with_it() {
    let mut spec = agent("a");
    spec.exec.timeout = Some(5_000);
    let mut world = World::new(vec![spec]);
    let a = world.take("a");
    let expanded = world.completion(&a.task, &a.token, Outcome::Expanded);
    world.complete(&Complete { tasks: vec![step("a/0", &[])], ..expanded });
    let first = world.take("a/0");
    assert_eq!(first.deadline, START + 5_000);
    assert!(first.left.is_some());
}

#[test]
fn a_run_that_takes_no_more_tasks_lets_turns_end() {
    use crate::limits::{ADD_CHUNK, KEPT_FOR_ENDS, MAX_ADDED};
    let (mut world, first) = begun();
    let names: Vec<String> = (1..MAX_ADDED - KEPT_FOR_ENDS).map(|at| format!("a/0/x{at}")).collect();
    for names in names.chunks(ADD_CHUNK) {
        let calls: Vec<Added> = names.iter().map(|name| call(name, &[])).collect();
        let count = calls.len() as u32;
        // without the checks of every step, which look at every task
        let (run, task, token) = (world.run.id.clone(), first.task.clone(), first.token.clone());
        let extend = crate::Extend { run, task, token, more: crate::More::Tasks(calls) };
        let (now, mut effects) = (world.now, crate::Effects::default());
        assert_eq!(world.run.extend(&extend, now, &mut effects), Extended::Added(count));
    }
    let more = crate::More::Tasks(vec![call("a/0/one-too-many", &[])]);
    let (run, task, token) = (world.run.id.clone(), first.task.clone(), first.token.clone());
    let extend = crate::Extend { run, task, token, more };
    let (now, mut effects) = (world.now, crate::Effects::default());
    assert_eq!(world.run.extend(&extend, now, &mut effects), Extended::Refused);
    let turn = vec![gather("a/0/join", &["a/0/x1"]), step("a/1", &["a/0/join"])];
    let outcome = world.completion(&first.task, &first.token, Outcome::Result(text("turn")));
    let complete = Complete { tasks: turn, ..outcome };
    let ended = world.run.complete(
        &complete,
        Site { epoch: "epoch", paused: &Default::default() },
        now,
        &mut effects,
    );
    assert_eq!(ended, Completed::Recorded { next: None });
}
