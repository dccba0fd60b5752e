//! One story per promise of the protocol.

use crate::{
    Budget, Cancelled, Claimed, Complete, Completed, Extended, Fail, Failed, FailureClass::*, Need, OnMiss,
    Outcome, Payload, Renewed, RunStatus, Submit, TaskStatus, Token, Usage, effect::reason, limits::*,
};

use super::world::*;

fn any() -> crate::JoinPolicy {
    policy(Need::Count(1), OnMiss::Fail, None)
}

fn all() -> crate::JoinPolicy {
    policy(Need::All, OnMiss::Fail, None)
}

/// Invariant 1: a forged, early or repeated hint changes nothing.
#[test]
fn a_hint_is_only_a_hint() {
    let mut world = World::new(vec![tool("a", &[]), tool("b", &["a"])]);
    let before = world.run.clone();
    assert_eq!(world.claim("b"), Claimed::NotReady);
    assert_eq!(world.claim("nobody"), Claimed::Gone);
    assert_eq!(world.claim("a/0"), Claimed::Gone);
    assert_eq!(world.run, before);
    let a = world.take("a");
    let before = world.run.clone();
    assert_eq!(world.claim("a"), Claimed::Busy);
    assert_eq!(world.run, before);
    world.finish(&a, "x");
    assert_eq!(world.claim("a"), Claimed::Done);
}

/// Invariant 2: each state says when somebody must look again.
#[test]
fn what_is_open_is_due() {
    let mut first = tool("a", &[]);
    first.exec.timeout = Some(25_000);
    first.exec.max_attempts = 9;
    let mut world = World::new(vec![first, tool("b", &["a"])]);
    let due = |world: &World| world.run.tasks["a"].due - world.now;
    assert_eq!(due(&world), REPUBLISH_MS);
    world.pass(REPUBLISH_MS);
    assert_eq!(world.hints.len(), 2, "published again");
    assert_eq!(due(&world), 15_000, "twice as long, but not past its limit");
    let a = world.take("a");
    assert_eq!(due(&world), LEASE_MS);
    world.fails(&a, Retryable);
    assert_eq!((world.status("a"), due(&world)), (TaskStatus::Retrying, 50));
    world.pass(49);
    assert_eq!(world.claim("a"), Claimed::NotReady);
    world.pass(1);
    assert_eq!((world.status("a"), due(&world)), (TaskStatus::Ready, REPUBLISH_MS));
    world.pass(15_000 - 50);
    assert_eq!(world.run.failure.as_ref().unwrap().error.as_bytes(), reason::TIMEOUT.as_bytes());
}

/// Invariant 2: publishing again slows down, up to a bound.
#[test]
fn republishing_backs_off() {
    let mut world = World::new(vec![tool("a", &[])]);
    for expected in [10, 20, 40, 80, 160, 320, 320, 320] {
        let wait = world.run.tasks["a"].due - world.now;
        assert_eq!(wait, expected * 1_000);
        world.pass(wait);
    }
    assert_eq!(world.hints.len(), 9);
}

/// Nothing of a paused pool starts, nothing is forgotten, and all of it goes on at once when it is resumed.
#[test]
fn a_paused_pool_holds_its_tasks_until_it_is_resumed() {
    let mut world =
        World::new(vec![tool("a", &[]), tool("b", &[]), tool("c", &["a"]), tool("end", &["b", "c"])]);
    let a = world.take("a");
    world.paused.insert("tool".into());
    assert_eq!(world.claim("b"), Claimed::Paused);
    assert_eq!(world.claim("b"), Claimed::Paused);
    assert_eq!(world.run.tasks["b"].due, world.now + REPUBLISH_CAP_MS);
    // what runs goes on, and no successor is taken along
    let complete =
        Complete { next: world.next(), ..world.completion(&a.task, &a.token, Outcome::Result(text("a"))) };
    assert_eq!(world.complete(&complete), Completed::Recorded { next: None });
    let hints = world.hints.len();
    world.pass(REPUBLISH_CAP_MS);
    assert_eq!((world.hints.len(), world.held.len()), (hints, 2), "no hint is published, and both are known");
    world.resume("tool");
    assert_eq!(world.hints.len(), hints + 2);
    for task in ["b", "c", "end"] {
        world.does(task);
    }
    assert_eq!(world.run.status, RunStatus::Succeeded);
}

/// Invariant 3: every operation may be repeated.
#[test]
fn a_repeat_gets_the_same_answer_and_changes_nothing() {
    let mut world = World::new(vec![tool("a", &[]), tool("b", &["a"]), map("m", &["b"], 2, all())]);
    let Claimed::Run(a) = world.claim_as(&id("a"), "mine") else { panic!() };
    let before = world.run.clone();
    assert_eq!(world.claim_as(&id("a"), "mine"), Claimed::Run(a.clone()));
    assert_eq!(world.run, before);
    let retry = world.fails(&a, Retryable);
    let before = world.run.clone();
    assert_eq!(world.fails(&a, Retryable), retry);
    assert_eq!(world.run, before);
    world.pass(50);
    let a = world.take("a");
    let next = world.next();
    let complete = Complete { next, ..world.completion(&a.task, &a.token, Outcome::Result(text("x"))) };
    let answer = world.complete(&complete);
    let before = world.run.clone();
    assert_eq!(world.complete(&complete), answer);
    assert_eq!(world.run, before);
    let Completed::Recorded { next: Some(b) } = answer else { panic!("no successor") };
    world.finish(&b, "y");
    assert_eq!(world.complete(&complete), Completed::Recorded { next: None }, "the successor has ended");
    let m = world.take("m");
    world.extend(&m, 0, 2);
    let before = world.run.clone();
    assert_eq!(world.extend(&m, 0, 2), Extended::Width(2));
    assert_eq!(world.run, before);
    world.expanded(&m);
    let before = world.run.clone();
    assert_eq!(world.expanded(&m), Completed::Recorded { next: None });
    assert_eq!(world.run, before);
}

/// Invariant 4: only the holder writes, and what others spent is wasted, not lost.
#[test]
fn first_write_wins() {
    let mut world = World::new(vec![tool("a", &[]), tool("b", &["a"])]);
    let lost = world.take("a");
    world.pass(LEASE_MS);
    assert_eq!(world.finish(&lost, "late"), Completed::Stale);
    let held = world.take("a");
    assert_eq!(world.finish(&lost, "late"), Completed::Stale);
    assert_eq!(world.finish(&held, "right"), Completed::Recorded { next: None });
    assert_eq!(world.finish(&lost, "late"), Completed::Stale);
    assert_eq!(world.finish(&held, "other"), Completed::Recorded { next: None });
    assert_eq!(world.run.tasks["a"].result, Some(text("right")));
    assert_eq!(
        (world.run.usage.calls, world.run.wasted.calls),
        (1, 1),
        "booked once, however often it is told"
    );
}

/// Invariant 4: an attempt whose task the engine ended is told that it lost.
#[test]
fn a_cut_attempt_is_stale() {
    let mut a = tool("a", &[]);
    a.exec.timeout = Some(5_000);
    a.exec.fallback = Some(text("instead"));
    let mut world = World::new(vec![a, tool("b", &["a"])]);
    let late = world.take("a");
    world.pass(5_000);
    assert_eq!((world.status("a"), world.status("b")), (TaskStatus::Succeeded, TaskStatus::Ready));
    assert_eq!(world.aborts, [id("a")]);
    assert_eq!(world.renew(&late.task, &late.token), Renewed::Lost);
    assert_eq!(world.finish(&late, "late"), Completed::Stale);
    assert_eq!(world.fails(&late, Permanent), Failed::Stale);
    assert_eq!(world.run.wasted.calls, 1, "an attempt costs once");
    assert_eq!(world.run.tasks["a"].result, Some(text("instead")));
    assert!(world.run.degraded);
}

/// Invariant 5: a join fires once, with what was there.
#[test]
fn a_join_freezes_its_inputs() {
    let tasks = vec![tool("a", &[]), tool("b", &[]), join("j", &["a", "b"], any()), tool("end", &["j", "b"])];
    let mut world = World::new(tasks);
    world.does("b");
    assert_eq!(world.run.tasks["j"].frozen.as_deref(), Some("01"));
    assert_eq!(world.status("a"), TaskStatus::Cancelled, "a loser");
    world.does("end");
    assert_eq!(world.run.status, RunStatus::Succeeded);
    assert_eq!(world.names().iter().filter(|name| **name == "task.succeeded").count(), 3);
}

/// Invariant 5: two inputs that end in one step: the first counts, the second comes too late.
#[test]
fn the_inputs_of_one_step_are_taken_in_order() {
    let tasks = vec![
        tool("t", &[]),
        join("x", &["t"], all()),
        join("y", &["t"], all()),
        join("j", &["x", "y"], any()),
        tool("end", &["j", "y"]),
    ];
    let mut world = World::new(tasks);
    world.does("t");
    assert_eq!(world.run.tasks["j"].frozen.as_deref(), Some("10"));
    assert_eq!(world.status("y"), TaskStatus::Succeeded, "recorded, not merged");
}

#[test]
fn a_join_ends_by_its_policy() {
    use OnMiss::{Default, Fail, Partial};
    // of a, b and c: what fails first, then what succeeds; then the join's state and what it froze
    type Case<'a> = (crate::JoinPolicy, &'a [&'a str], &'a [&'a str], TaskStatus, Option<&'a str>);
    let cases: [Case<'_>; 7] = [
        (all(), &[], &["c", "b", "a"], TaskStatus::Succeeded, Some("*")),
        (all(), &["b"], &[], TaskStatus::Failed, None),
        (any(), &["a", "b"], &["c"], TaskStatus::Succeeded, Some("001")),
        (policy(Need::Count(2), Fail, None), &["a", "b"], &[], TaskStatus::Failed, None),
        (policy(Need::All, Partial, None), &["a"], &["b"], TaskStatus::Waiting, None),
        (policy(Need::All, Partial, None), &["a"], &["b", "c"], TaskStatus::Succeeded, Some("011")),
        (policy(Need::Count(3), Default, None), &["a", "b", "c"], &[], TaskStatus::Succeeded, Some("000")),
    ];
    for (policy, fail, succeed, status, frozen) in cases {
        let abc = ["a", "b", "c"];
        let mut tasks: Vec<_> = abc.iter().map(|task| tool(task, &[])).collect();
        tasks.push(join("j", &abc, policy));
        let mut end = tool("end", &["j"]);
        end.exec.fallback = Some(text("instead"));
        tasks.extend([end, tool("last", &["end"])]);
        let mut world = World::new(tasks);
        for task in fail {
            let attempt = world.take(task);
            world.fails(&attempt, Permanent);
        }
        succeed.iter().for_each(|task| world.does(task));
        let join = &world.run.tasks["j"];
        assert_eq!(
            (join.status, join.frozen.as_deref()),
            (status, frozen),
            "{policy:?} {fail:?} {succeed:?}"
        );
        let short = policy.on_miss != Fail && status == TaskStatus::Succeeded;
        assert_eq!(join.degraded, short, "{policy:?} {fail:?} {succeed:?}");
        if status == TaskStatus::Failed {
            assert_eq!(join.error.as_ref().unwrap().as_bytes(), reason::UNMET.as_bytes());
            assert_eq!(world.status("c"), TaskStatus::Cancelled, "nobody waits for it");
        }
    }
}

/// A window opens with the first input that is ready, not with the run.
#[test]
fn a_window_opens_with_its_first_input() {
    let window = policy(Need::All, OnMiss::Partial, Some(1_000));
    let tasks = vec![
        tool("s", &[]),
        tool("a", &["s"]),
        tool("b", &["a"]),
        join("j", &["a", "b"], window),
        tool("end", &["j"]),
    ];
    let mut world = World::new(tasks);
    world.pass(5_000);
    assert_eq!(world.run.tasks["j"].due, 0);
    world.does("s");
    world.pass(400);
    world.does("a");
    assert_eq!(world.status("b"), TaskStatus::Ready);
    world.pass(599);
    assert_eq!(world.status("j"), TaskStatus::Waiting);
    world.pass(1);
    assert_eq!(world.run.tasks["j"].frozen.as_deref(), Some("10"));
    assert_eq!(world.status("b"), TaskStatus::Cancelled);
}

/// Invariant 7: a lease is renewed, lost, and at the third loss the task is quarantined.
#[test]
fn leases() {
    let mut world = World::new(vec![tool("a", &[])]);
    let a = world.take("a");
    for _ in 0..20 {
        world.pass(LEASE_MS - 1);
        assert_eq!(world.renew(&a.task, &a.token), Renewed::Held);
    }
    assert_eq!(world.renew(&a.task, &Token::new(EPOCH, 1, "other")), Renewed::Lost);
    for lost in 1..=MAX_LOST {
        world.pass(LEASE_MS);
        assert_eq!(world.run.tasks["a"].lost, lost);
        if lost < MAX_LOST {
            assert_eq!(world.take("a").attempt, lost + 1);
        }
    }
    assert_eq!(world.run.tasks["a"].error.as_ref().unwrap().as_bytes(), reason::POISON.as_bytes());
    assert_eq!(world.run.status, RunStatus::Failed);
    assert_eq!(world.names().iter().filter(|name| **name == "task.lost").count(), 2);
}

/// Invariant 7: what hands a task back unharmed burns no attempt.
#[test]
fn released_and_limited_burn_nothing() {
    let mut a = tool("a", &[]);
    a.exec.max_attempts = 1;
    let mut world = World::new(vec![a]);
    for _ in 0..5 {
        let attempt = world.take("a");
        assert_eq!(world.fails(&attempt, Released), Failed::Released);
    }
    for _ in 1..MAX_LIMITED {
        let attempt = world.take("a");
        let limited =
            Fail { retry_after: Some(700), ..world.failure(&attempt.task, &attempt.token, RateLimited) };
        assert_eq!(world.fail(&limited), Failed::Retrying(world.now + 750));
        world.pass(750);
    }
    let attempt = world.take("a");
    assert_eq!((attempt.attempt, world.run.tasks["a"].failures), (5 + MAX_LIMITED, 0));
    let limited = world.failure(&attempt.task, &attempt.token, RateLimited);
    assert_eq!(world.fail(&limited), Failed::Ended, "bounded all the same");
    let before = world.run.clone();
    assert_eq!(world.fail(&limited), Failed::Ended);
    assert_eq!(world.run, before, "a repeat is not wasted work");
}

/// Invariant 3: what an attempt was told stays true for it, whatever became of the task since.
#[test]
fn a_failure_is_answered_alike_at_any_later_time() {
    let mut world = World::new(vec![tool("a", &[]), tool("b", &["a"])]);
    let released = world.take("a");
    assert_eq!(world.fails(&released, Released), Failed::Released);
    let retried = world.take("a");
    let Failed::Retrying(at) = world.fails(&retried, Retryable) else { panic!("no retry") };
    world.pass(at - world.now);
    let lost = world.take("a");
    world.pass(LEASE_MS);
    assert_eq!(world.fails(&lost, Retryable), Failed::Stale);
    let held = world.take("a");
    let same = |world: &mut World| {
        let before = world.run.clone();
        assert_eq!(world.fails(&released, Released), Failed::Released);
        assert_eq!(world.fails(&retried, Retryable), Failed::Retrying(at));
        assert_eq!(world.fails(&lost, Retryable), Failed::Stale);
        for attempt in [&released, &retried, &lost] {
            assert_eq!(world.finish(attempt, "late"), Completed::Stale);
        }
        assert_eq!(world.run, before, "a repeat changed the run");
    };
    same(&mut world);
    world.finish(&held, "right");
    same(&mut world);
    world.cancel();
    same(&mut world);
    assert_eq!((world.run.usage.calls, world.run.wasted.calls), (3, 1));
}

/// What is remembered of attempts is bounded; a repeat of one that was forgotten is late, and costs again.
#[test]
fn old_attempts_are_forgotten() {
    let mut world = World::new(vec![tool("a", &[])]);
    let first = world.take("a");
    world.fails(&first, Released);
    for _ in 0..MAX_TOLD {
        assert_eq!(world.fails(&first, Released), Failed::Released);
        let other = world.take("a");
        world.fails(&other, Released);
    }
    assert_eq!(world.fails(&first, Released), Failed::Stale);
    assert_eq!(world.run.tasks["a"].told.len(), MAX_TOLD);
}

#[test]
fn attempts_run_out() {
    for max in 1..4 {
        let mut a = tool("a", &[]);
        a.exec.max_attempts = max;
        let mut world = World::new(vec![a]);
        for _ in 1..max {
            let attempt = world.take("a");
            assert!(matches!(world.fails(&attempt, Retryable), Failed::Retrying(_)));
            world.pass(BACKOFF_CAP_MS);
        }
        let attempt = world.take("a");
        assert_eq!((attempt.attempt, world.fails(&attempt, Retryable)), (max, Failed::Ended));
        assert_eq!(world.run.failure.as_ref().unwrap().error, text("broken"));
    }
}

/// Its time is over although the sweep, which will end it, has not come by yet.
#[test]
fn nobody_starts_a_task_past_its_limit() {
    let mut a = tool("a", &[]);
    a.exec.timeout = Some(500);
    let mut world = World::new(vec![a]);
    world.now += 500;
    assert_eq!(world.claim("a"), Claimed::NotReady);
    world.sweep();
    assert_eq!(world.status("a"), TaskStatus::Failed);
}

#[test]
fn backoff_doubles_up_to_its_bound() {
    let mut a = tool("a", &[]);
    a.exec.max_attempts = 30;
    let mut world = World::new(vec![a]);
    for failure in 0..29 {
        let attempt = world.take("a");
        let wait = ((100_u64 << failure).min(BACKOFF_CAP_MS)) / 2;
        assert_eq!(world.fails(&attempt, Retryable), Failed::Retrying(world.now + wait));
        world.pass(wait);
    }
    let attempt = world.take("a");
    let absurd =
        Fail { retry_after: Some(u64::MAX), ..world.failure(&attempt.task, &attempt.token, RateLimited) };
    assert_eq!(world.fail(&absurd), Failed::Retrying(u64::MAX), "no overflow");
}

/// Invariant 8: payloads come back byte for byte.
#[test]
fn payloads_are_opaque() {
    let odd = Payload::from_json(r#"{"n":9007199254740993,"list":[],"s":"\ud83d"}"#);
    let mut world = World::new(vec![tool("a", &[])]);
    let a = world.take("a");
    world.complete(&world.completion(&a.task, &a.token, Outcome::Result(odd.clone())));
    assert_eq!(world.run.tasks["a"].result, Some(odd));
}

/// Invariant 9: a map's children are bounded in every way.
#[test]
fn a_map_is_bounded() {
    let mut world = World::new(vec![map("m", &[], 3, all())]);
    let m = world.take("m");
    assert_eq!(world.extend(&m, 0, EXTEND_CHUNK + 1), Extended::Refused);
    assert_eq!(world.extend(&m, 1, 1), Extended::Refused, "a gap");
    for chunk in 0..MAX_WIDTH / 500 {
        assert_eq!(world.extend(&m, chunk * 500, 500), Extended::Width((chunk + 1) * 500));
    }
    assert_eq!(world.extend(&m, MAX_WIDTH, 1), Extended::Refused);
    assert_eq!(world.ready().len(), 3);
    assert_eq!(world.claim("m/3"), Claimed::NotReady);
}

#[test]
fn a_lost_map_takes_up_where_it_was() {
    let mut world = World::new(vec![map("m", &[], 2, all()), tool("end", &["m"])]);
    let lost = world.take("m");
    world.extend(&lost, 0, 2);
    world.does("m/0");
    world.pass(LEASE_MS);
    let m = world.take("m");
    assert_eq!(world.extend(&lost, 2, 1), Extended::Stale);
    assert_eq!(world.extend(&m, 0, 3), Extended::Width(3));
    assert_eq!(world.status("m"), TaskStatus::Running, "its children may end before it is expanded");
    world.does("m/1");
    world.does("m/2");
    world.expanded(&m);
    assert_eq!(world.run.tasks["m"].frozen.as_deref(), Some("*"));
}

#[test]
fn an_ended_map_drops_its_children() {
    let mut world = World::new(vec![map("m", &[], 2, any()), tool("end", &["m"])]);
    let m = world.take("m");
    world.extend(&m, 0, 3);
    world.expanded(&m);
    let (zero, one) = (world.take("m/0"), world.take("m/1"));
    world.finish(&one, "one");
    assert_eq!(world.run.tasks["m"].frozen.as_deref(), Some("010"));
    assert_eq!(world.aborts, [id("m")]);
    assert_eq!(world.renew(&zero.task, &zero.token), Renewed::Cancelled);
    assert_eq!(world.finish(&zero, "late"), Completed::Cancelled);
    assert_eq!(world.claim("m/2"), Claimed::Cancelled, "it was never released");
    world.pass(LEASE_MS);
    assert_eq!(world.status("m/0"), TaskStatus::Cancelled);
}

#[test]
fn a_map_of_nothing_has_all_it_needs() {
    let mut world = World::new(vec![map("m", &[], 2, all())]);
    let m = world.take("m");
    world.expanded(&m);
    assert_eq!((world.run.status, world.run.degraded), (RunStatus::Succeeded, false));
}

/// Invariant 10: a run ends once.
#[test]
fn a_run_ends_once() {
    let mut world =
        World::of(Submit { deadline: Some(60_000), ..request(vec![tool("a", &[]), tool("b", &["a"])]) });
    let a = world.take("a");
    assert_eq!(world.cancel(), Cancelled::Cancelled);
    assert_eq!(world.cancel(), Cancelled::Ended);
    assert_eq!(world.finish(&a, "late"), Completed::Cancelled);
    assert_eq!(world.fails(&a, Retryable), Failed::Cancelled);
    assert_eq!(world.claim("b"), Claimed::Cancelled);
    world.pass(60_000);
    assert_eq!(world.run.status, RunStatus::Cancelled, "the deadline comes too late");
    assert_eq!(world.run.wasted.calls, 1, "an attempt costs once");
    world.retire();
}

#[test]
fn a_child_never_outlives_its_run() {
    let mut world = World::of(Submit { deadline: Some(4_000), ..request(vec![tool("a", &[])]) });
    let a = world.take("a");
    assert_eq!(a.deadline, world.now + 4_000);
    world.pass(4_000);
    assert_eq!(world.run.failure.as_ref().unwrap().error.as_bytes(), reason::DEADLINE.as_bytes());
    assert_eq!(world.renew(&a.task, &a.token), Renewed::Cancelled);
}

#[test]
fn a_used_up_budget_ends_paid_tasks_only() {
    let mut paid = tool("paid", &["a"]);
    paid.exec.paid = true;
    paid.exec.fallback = Some(text("instead"));
    let budget = Budget { tokens: None, usd_micros: Some(5) };
    let mut world =
        World::of(Submit { budget, ..request(vec![tool("a", &[]), paid, tool("end", &["paid"])]) });
    let a = world.take("a");
    let usage = Usage { usd_micros: 5, ..Usage::default() };
    world.complete(&Complete { usage, ..world.completion(&a.task, &a.token, Outcome::Result(text("x"))) });
    assert_eq!(world.claim("paid"), Claimed::Done);
    assert_eq!(world.run.tasks["paid"].error.as_ref().unwrap().as_bytes(), reason::BUDGET.as_bytes());
    world.does("end");
    assert_eq!((world.run.status, world.run.degraded), (RunStatus::Succeeded, true));
}

#[test]
fn a_failure_skips_what_waits_and_names_its_root() {
    let tasks = vec![tool("a", &[]), tool("b", &[]), tool("c", &["a"]), tool("d", &["c", "b"])];
    let mut world = World::new(tasks);
    let a = world.take("a");
    world.fails(&a, Permanent);
    assert_eq!((world.status("c"), world.status("d")), (TaskStatus::Skipped, TaskStatus::Skipped));
    assert_eq!(world.run.failure.as_ref().unwrap().task, Some(id("a")));
    assert_eq!(*world.names().last().unwrap(), "run.failed");
}

/// The successor handed over is one that is still wanted at the end of the step.
#[test]
fn a_loser_that_became_ready_is_not_handed_over() {
    let tasks = vec![tool("a", &[]), tool("x", &["a"]), join("j", &["a", "x"], any()), tool("end", &["j"])];
    let mut world = World::new(tasks);
    let a = world.take("a");
    let next = world.next();
    let complete = Complete { next, ..world.completion(&a.task, &a.token, Outcome::Result(text("1"))) };
    let Completed::Recorded { next: Some(next) } = world.complete(&complete) else { panic!("no successor") };
    assert_eq!(next.task, id("end"));
    assert_eq!(world.status("x"), TaskStatus::Cancelled);
}
