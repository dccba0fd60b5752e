//! Tasks that touch the same thing: one after the other, in order, whoever added them.

use super::world::*;
use crate::{
    Added, Assignment, Claimed, Complete, Completed, Extended, FailureClass, Outcome, RunStatus, TaskStatus,
    limits::MAX_RESOURCE,
};

use TaskStatus::{Ready, Running, Succeeded, Waiting};

/// A run of two agents side by side, each with its first step running.
fn two() -> (World, Assignment, Assignment) {
    let mut world = World::new(vec![agent("a"), agent("b"), tool("t", &[]), tool("end", &["a", "b", "t"])]);
    let mut begin = |name: &str| {
        let own = world.take(name);
        let expanded = world.completion(&own.task, &own.token, Outcome::Expanded);
        let first = format!("{name}/0");
        world.complete(&Complete { tasks: vec![step(&first, &[])], ..expanded });
        world.take(&first)
    };
    let (a, b) = (begin("a"), begin("b"));
    (world, a, b)
}

fn adds(world: &mut World, by: &Assignment, tasks: Vec<Added>) {
    let count = tasks.len() as u32;
    assert_eq!(world.add(&by.task, &by.token, tasks), Extended::Added(count));
}

#[test]
fn calls_of_two_agents_wait_for_each_other_in_order() {
    let (mut world, a, b) = two();
    adds(&mut world, &a, vec![touching("a/0/x", &[], "file"), touching("a/0/y", &[], "file")]);
    adds(&mut world, &b, vec![touching("b/0/x", &[], "file"), touching("b/0/y", &[], "other")]);
    let statuses = |world: &World| ["a/0/x", "a/0/y", "b/0/x", "b/0/y"].map(|task| world.status(task));
    assert_eq!(statuses(&world), [Ready, Waiting, Waiting, Ready]);
    assert_eq!(world.claim("b/0/x"), Claimed::NotReady);
    let x = world.take("a/0/x");
    world.fails(&x, FailureClass::Released);
    assert_eq!(statuses(&world), [Ready, Waiting, Waiting, Ready], "handed back, it keeps its place");
    world.does("a/0/x");
    assert_eq!(statuses(&world), [Succeeded, Ready, Waiting, Ready]);
    let y = world.take("a/0/y");
    world.fails(&y, FailureClass::Permanent);
    assert_eq!(statuses(&world), [Succeeded, TaskStatus::Failed, Ready, Ready]);
    world.does("b/0/x");
    assert!(world.run.lines.keys().eq(["other"]));
}

#[test]
fn what_a_task_touches_may_be_known_late() {
    let (mut world, a, _) = two();
    let t = world.take("t");
    assert_eq!(world.touch(&t.task, &t.token, "file"), Extended::Held);
    assert_eq!(world.touch(&t.task, &t.token, "file"), Extended::Held);
    adds(&mut world, &a, vec![touching("a/0/x", &[], "file"), call("a/0/y", &[])]);
    let y = world.take("a/0/y");
    assert_eq!(world.touch(&y.task, &y.token, "file"), Extended::Queued);
    assert_eq!(world.touch(&y.task, &y.token, "file"), Extended::Stale);
    assert_eq!(world.finish(&y, "too early"), Completed::Stale);
    assert_eq!(["a/0/x", "a/0/y"].map(|task| world.status(task)), [Waiting, Waiting]);
    world.finish(&t, "done");
    world.does("a/0/x");
    let again = world.take("a/0/y");
    assert_eq!(world.touch(&again.task, &again.token, "file"), Extended::Held);
    assert_eq!(world.status("a/0/y"), Running);
    // another one than it said: it gives the first one free
    assert_eq!(world.touch(&again.task, &again.token, "other"), Extended::Held);
    assert!(world.run.lines.keys().eq(["other"]));
}

#[test]
fn a_lost_lease_keeps_the_place_and_the_end_of_an_agent_gives_it_free() {
    let (mut world, a, b) = two();
    adds(&mut world, &a, vec![touching("a/0/x", &[], "file"), touching("a/0/y", &[], "file")]);
    adds(&mut world, &b, vec![touching("b/0/x", &[], "file")]);
    let x = world.take("a/0/x");
    let outcome = Outcome::Answer { value: text("answer"), degraded: false };
    world.complete(&world.completion(&a.task, &a.token, outcome));
    // what an answer leaves behind is cancelled, and the line moves on past all of it
    assert_eq!(world.finish(&x, "late"), Completed::Cancelled);
    let x = world.take("b/0/x");
    world.pass(crate::limits::LEASE_MS);
    assert_eq!(world.status("b/0/x"), Ready);
    assert_eq!(world.finish(&x, "lost"), Completed::Stale);
    world.does("b/0/x");
    assert!(world.run.lines.is_empty());
    assert_eq!(world.run.status, RunStatus::Running);
}

#[test]
fn names_are_bounded_and_only_calls_of_tools_have_them() {
    let (mut world, a, _) = two();
    let long = "x".repeat(MAX_RESOURCE + 1);
    let odd = Added { resource: Some("file".into()), ..gather("a/0/join", &["a/0"]) };
    for bad in [touching("a/0/x", &[], ""), touching("a/0/x", &[], &long), odd] {
        assert_eq!(world.add(&a.task, &a.token, vec![bad]), Extended::Refused);
    }
    let t = world.take("t");
    for name in ["", &*long] {
        assert_eq!(world.touch(&t.task, &t.token, name), Extended::Refused);
    }
    assert_eq!(world.touch(&t.task, &t.token, &long[1..]), Extended::Held);
}
