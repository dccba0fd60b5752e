//! A failed run once more: nothing that is recorded is done again, and everything that is missing is.

use super::world::*;
use crate::{
    Budget, Claimed, Complete, Extended, FailureClass, Need, OnMiss, Outcome, RunStatus, Submit, TaskStatus,
    Usage, limits::*,
};

/// Starts `task` until it is in quarantine.
fn forsake(world: &mut World, task: &str) {
    for _ in 0..MAX_LOST {
        world.take(task);
        world.pass(LEASE_MS);
    }
}

fn status(world: &World, task: &str) -> TaskStatus {
    world.run.tasks[&id(task)].status
}

#[test]
fn only_what_is_missing_is_done_again() {
    let mut world = World::new(vec![
        tool("good", &[]),
        tool("bad", &["good"]),
        tool("side", &[]),
        tool("behind", &["bad"]),
        tool("end", &["behind", "side"]),
    ]);
    world.does("good");
    forsake(&mut world, "bad");
    assert_eq!(world.run.status, RunStatus::Failed);
    assert_eq!(world.run.dead_letters().len(), 1);
    let mut again = world.replayed();
    assert_eq!(again.run.id.as_str(), "r-r1");
    assert_eq!(again.run.dead_letters(), []);
    assert_eq!(status(&again, "good"), TaskStatus::Succeeded);
    assert_eq!(again.claim("good"), Claimed::Done);
    let ready: Vec<String> = again.ready().iter().map(ToString::to_string).collect();
    assert_eq!(ready, ["bad", "side"]);
    let hints: Vec<&str> = again.hints.iter().map(|hint| hint.task.as_str()).collect();
    assert_eq!(hints, ["bad", "side"]);
    for task in ["bad", "side", "behind", "end"] {
        assert_eq!(again.take(task).attempt, 1);
        again.pass(LEASE_MS);
        again.does(task);
    }
    assert_eq!(again.run.status, RunStatus::Succeeded);
    assert_eq!(world.run.replay(None, world.now, &mut crate::Effects::default()).unwrap().id, again.run.id);
    again.retire();
}

#[test]
fn a_replay_that_fails_is_replayed_in_turn() {
    let mut world = World::new(vec![tool("a", &[]), tool("b", &["a"])]);
    forsake(&mut world, "a");
    let mut second = world.replayed();
    second.does("a");
    forsake(&mut second, "b");
    let mut third = second.replayed();
    assert_eq!((third.run.id.as_str(), third.run.id.replay_of()), ("r-r2", Some(second.run.id.clone())));
    assert_eq!(third.claim("a"), Claimed::Done);
    third.does("b");
    assert_eq!(third.run.status, RunStatus::Succeeded);
}

#[test]
fn what_the_output_does_not_need_stays_as_it_ended() {
    let first = policy(Need::Count(1), OnMiss::Fail, None);
    let mut world = World::new(vec![
        tool("slow", &[]),
        tool("fast", &[]),
        join("race", &["slow", "fast"], first),
        tool("end", &["race"]),
    ]);
    world.does("fast");
    forsake(&mut world, "end");
    let mut again = world.replayed();
    assert_eq!(status(&again, "slow"), TaskStatus::Cancelled);
    assert_eq!(status(&again, "race"), TaskStatus::Succeeded);
    assert_eq!(again.run.tasks[&id("race")].frozen.as_deref(), Some("01"));
    again.does("end");
    assert_eq!(again.run.status, RunStatus::Succeeded);
}

#[test]
fn a_join_counts_what_has_come_and_its_window_opens_anew() {
    let both = policy(Need::All, OnMiss::Fail, Some(5_000));
    let mut world =
        World::new(vec![tool("a", &[]), tool("b", &[]), join("j", &["a", "b"], both), tool("end", &["j"])]);
    world.does("a");
    world.pass(5_000);
    assert_eq!(world.run.status, RunStatus::Failed);
    let mut again = world.replayed();
    assert_eq!(again.run.tasks[&id("j")].done, 1);
    assert_eq!(again.run.tasks[&id("j")].due, again.now + 5_000);
    again.does("b");
    again.does("end");
    assert_eq!(again.run.status, RunStatus::Succeeded);
}

#[test]
fn of_a_map_only_children_without_a_result_run_again_and_no_more_than_at_once() {
    let mut world = World::new(vec![map("m", &[], 2, policy(Need::All, OnMiss::Fail, None))]);
    let m = world.take("m");
    assert_eq!(world.extend(&m, 0, 7), Extended::Width(7));
    world.expanded(&m);
    for child in ["m/1", "m/0"] {
        world.does(child);
    }
    for child in ["m/3", "m/4"] {
        world.does(child);
    }
    forsake(&mut world, "m/2");
    assert_eq!(world.run.status, RunStatus::Failed);
    let mut again = world.replayed();
    // the map hands over its children once more: it knows them
    let m = again.take("m");
    assert_eq!(again.extend(&m, 0, 7), Extended::Width(7));
    again.expanded(&m);
    let ready: Vec<String> = again.ready().iter().map(ToString::to_string).collect();
    assert_eq!(ready, ["m/2", "m/5"]);
    for child in ["m/5", "m/6", "m/2"] {
        again.does(child);
    }
    assert_eq!(again.run.status, RunStatus::Succeeded);
    assert_eq!(again.run.tasks[&id("m")].frozen.as_deref(), Some("*"));
}

#[test]
fn an_agent_goes_on_at_the_step_that_is_missing() {
    let mut world = World::new(vec![agent("a")]);
    let a = world.take("a");
    let expanded = world.completion(&a.task, &a.token, Outcome::Expanded);
    world.complete(&Complete { tasks: vec![step("a/0", &[])], ..expanded });
    let first = world.take("a/0");
    world.add(&first.task, &first.token, vec![call("a/0/x", &[])]);
    world.does("a/0/x");
    let turn = vec![gather("a/0/join", &["a/0/x"]), step("a/1", &["a/0/join"])];
    let outcome = world.completion(&first.task, &first.token, Outcome::Result(text("turn")));
    world.complete(&Complete { tasks: turn, ..outcome });
    let second = world.take("a/1");
    world.add(&second.task, &second.token, vec![call("a/1/y", &[])]);
    world.pass(LEASE_MS);
    forsake_rest(&mut world, "a/1");
    assert_eq!((world.run.status, status(&world, "a")), (RunStatus::Failed, TaskStatus::Failed));
    let mut again = world.replayed();
    assert_eq!(status(&again, "a"), TaskStatus::Expanded);
    assert_eq!(again.claim("a/0"), Claimed::Done);
    let ready: Vec<String> = again.ready().iter().map(ToString::to_string).collect();
    assert_eq!(ready, ["a/1", "a/1/y"], "a call that the repeated step will ask for comes with it");
    let step = again.take("a/1");
    let answer = Outcome::Answer { value: text("answer"), degraded: false };
    again.complete(&again.completion(&step.task, &step.token, answer));
    assert_eq!(again.run.status, RunStatus::Succeeded);
}

fn forsake_rest(world: &mut World, task: &str) {
    for _ in 1..MAX_LOST {
        world.take(task);
        world.pass(LEASE_MS);
    }
}

#[test]
fn time_starts_anew_and_money_does_not() {
    let budget = Budget { tokens: Some(100), usd_micros: None };
    let mut world = World::of(Submit {
        deadline: Some(90_000),
        budget,
        ..request(vec![tool("a", &[]), tool("b", &["a"])])
    });
    let a = world.take("a");
    let complete = world.completion(&a.task, &a.token, Outcome::Result(text("a")));
    let usage = Usage { input_tokens: 30, ..Usage::default() };
    world.complete(&Complete { usage, ..complete });
    forsake(&mut world, "b");
    let again = world.replayed();
    assert_eq!(again.run.deadline, again.now + 90_000);
    assert_eq!(again.due.get(&None), Some(&(again.now + 90_000)));
    assert_eq!((again.run.budget.tokens, again.run.usage), (Some(70), Usage::default()));
}

#[test]
fn a_permanent_failure_can_be_replayed_as_well() {
    let mut world = World::new(vec![tool("a", &[]), tool("b", &["a"])]);
    let a = world.take("a");
    world.fails(&a, FailureClass::Permanent);
    let mut again = world.replayed();
    again.does("a");
    again.does("b");
    assert_eq!(again.run.status, RunStatus::Succeeded);
}
