//! Failures by class, fallbacks, and what waits for a failure.

use serde_json::json;
use trireme_model::{Claimed, Completed, Fail, Failed, FailureClass, Payload, RunStatus, TaskStatus};

use crate::stage::{Stage, class_of, id};

pub(crate) async fn a_retryable_failure_comes_again_later(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[])).await;
    let a = stage.take(&run, "a").await;
    let answer = stage.fails(&a, FailureClass::Retryable).await;
    let Failed::Retrying(at) = answer else { panic!("{answer:?}") };
    let task = stage.task(&run, "a").await;
    assert_eq!((task.status, task.due), (TaskStatus::Retrying, at));
    // half of the first bound of 100 ms, as the jitter said
    assert!(at >= a.now + 50, "{at} is too soon after {}", a.now);
    if stage.subject.advance.is_some() {
        assert_eq!(at, a.now + 50);
        assert_eq!(stage.try_claim(&run, "a").await, Claimed::NotReady);
    }
    stage.after(50, async || stage.task_status(&run, "a").await == TaskStatus::Ready).await;
    let again = stage.take(&run, "a").await;
    assert_eq!(again.attempt, 2);
    stage.finish(&again, json!("second")).await;
    assert_eq!(stage.output(&run).await, json!("second"));
}

pub(crate) async fn attempts_run_out(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[]).with(|task| task.exec.max_attempts = 2)).await;
    let a = stage.take(&run, "a").await;
    assert!(matches!(stage.fails(&a, FailureClass::Retryable).await, Failed::Retrying(_)));
    stage.after(50, async || stage.task_status(&run, "a").await == TaskStatus::Ready).await;
    let a = stage.take(&run, "a").await;
    assert_eq!(stage.fails(&a, FailureClass::Retryable).await, Failed::Ended);
    assert_eq!(stage.error_class(&run, "a").await, "broken");
    let failure = stage.run(&run).await.failure.unwrap();
    assert_eq!((failure.task, class_of(&failure.error)), (Some(id("a")), "broken".into()));
}

pub(crate) async fn a_permanent_failure_ends_it(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[])).await;
    let a = stage.take(&run, "a").await;
    assert_eq!(stage.fails(&a, FailureClass::Permanent).await, Failed::Ended);
    assert_eq!(stage.status(&run).await, RunStatus::Failed);
    assert_eq!(stage.names(&run).await, ["run.started", "task.started", "task.failed", "run.failed"]);
}

pub(crate) async fn a_limited_rate_burns_no_attempt(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[]).with(|task| task.exec.max_attempts = 1)).await;
    for _ in 0..3 {
        let a = stage.take(&run, "a").await;
        let limited = Fail { retry_after: Some(300), ..stage.failure(&a, FailureClass::RateLimited) };
        let answer = stage.backend().fail(limited).await.unwrap();
        let Failed::Retrying(at) = answer else { panic!("{answer:?}") };
        assert!(at >= a.now + 300, "the provider asked for 300 ms");
        stage.after(400, async || stage.task_status(&run, "a").await == TaskStatus::Ready).await;
    }
    stage.does(&run, "a", json!("at last")).await;
    assert_eq!(stage.output(&run).await, json!("at last"));
}

pub(crate) async fn a_rate_limited_to_the_end_is_named(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[]).with(|task| task.exec.timeout = Some(1_000))).await;
    let a = stage.take(&run, "a").await;
    let limited = Fail { retry_after: Some(60_000), ..stage.failure(&a, FailureClass::RateLimited) };
    let answer = stage.backend().fail(limited).await.unwrap();
    assert!(
        matches!(answer, Failed::Retrying(at) if at <= a.now + 1_000),
        "no later than its limit: {answer:?}"
    );
    stage.after(1_000, async || stage.task_status(&run, "a").await == TaskStatus::Failed).await;
    assert_eq!(stage.error_class(&run, "a").await, "timeout");
    let error = stage.task(&run, "a").await.error.unwrap();
    assert!(format!("{error:?}").contains("limited the rate"), "{error:?}");
}

pub(crate) async fn a_released_task_is_ready_at_once(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[]).with(|task| task.exec.max_attempts = 1)).await;
    for _ in 0..4 {
        let a = stage.take(&run, "a").await;
        assert_eq!(stage.fails(&a, FailureClass::Released).await, Failed::Released);
        assert_eq!(stage.finish(&a, json!("late")).await, Completed::Stale);
        assert_eq!(stage.fails(&a, FailureClass::Released).await, Failed::Released, "a repeat");
    }
    let task = stage.task(&run, "a").await;
    assert_eq!((task.status, task.failures, task.lost), (TaskStatus::Ready, 0, 0));
    stage.does(&run, "a", json!(1)).await;
}

pub(crate) async fn a_fallback_takes_the_place_of_a_result(stage: Stage) {
    let fallback = Payload::from_json(r#"{"n":9007199254740993,"list":[]}"#);
    let given = fallback.clone();
    let draw = stage.draw().tool("a", &[]).with(|task| task.exec.fallback = Some(given)).tool("b", &["a"]);
    let run = stage.submit(draw).await;
    let a = stage.take(&run, "a").await;
    assert_eq!(stage.fails(&a, FailureClass::Permanent).await, Failed::Ended);
    let task = stage.task(&run, "a").await;
    assert_eq!((task.status, task.degraded), (TaskStatus::Succeeded, true));
    let recorded = stage.backend().recorded(&run, &[id("a")]).await.unwrap();
    assert_eq!(recorded, [Some(trireme_backend::Recorded::Result(fallback))], "not one digit changed");
    stage.does(&run, "b", json!("end")).await;
    assert!(stage.backend().summary(&run).await.unwrap().unwrap().degraded);
    assert_eq!(stage.output(&run).await, json!("end"));
}

pub(crate) async fn what_waits_for_a_failure_is_skipped(stage: Stage) {
    let draw = stage
        .draw()
        .tool("a", &[])
        .tool("other", &[])
        .tool("b", &["a"])
        .tool("c", &["b", "other"])
        .with(|task| task.exec.fallback = Some(Payload::of("instead")))
        .tool("d", &["c"]);
    let run = stage.submit(draw).await;
    let a = stage.take(&run, "a").await;
    stage.fails(&a, FailureClass::Permanent).await;
    assert_eq!(stage.task_status(&run, "b").await, TaskStatus::Skipped);
    assert_eq!(stage.task_status(&run, "other").await, TaskStatus::Cancelled, "nobody waits for it");
    assert_eq!(stage.value(&run, "c").await, Some(json!("instead")), "a skipped task has its fallback too");
    stage.does(&run, "d", json!("end")).await;
    assert_eq!(stage.output(&run).await, json!("end"));

    let chain = stage.request("chain", stage.draw().tool("a", &[]).tool("b", &["a"]).tool("c", &["b"]));
    let run = chain.run.clone();
    stage.backend().submit(chain).await.unwrap();
    let a = stage.take(&run, "a").await;
    stage.fails(&a, FailureClass::Permanent).await;
    assert_eq!(stage.run(&run).await.failure.unwrap().task, Some(id("a")), "the root of it is named");
}

pub(crate) async fn a_repeated_failure_gets_the_same_answer(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[])).await;
    let a = stage.take(&run, "a").await;
    let first = stage.fails(&a, FailureClass::Retryable).await;
    let before = stage.run(&run).await;
    assert_eq!(stage.fails(&a, FailureClass::Retryable).await, first);
    assert_eq!(stage.run(&run).await, before, "a repeat changed the run");
    stage.after(50, async || stage.task_status(&run, "a").await == TaskStatus::Ready).await;
    assert_eq!(stage.fails(&a, FailureClass::Retryable).await, first, "also when its time has come");
    let released = stage.take(&run, "a").await;
    assert_eq!(stage.fails(&released, FailureClass::Released).await, Failed::Released);
    let last = stage.take(&run, "a").await;
    assert_eq!(stage.fails(&last, FailureClass::Permanent).await, Failed::Ended);
    let before = stage.run(&run).await;
    assert_eq!(stage.fails(&a, FailureClass::Retryable).await, first);
    assert_eq!(stage.fails(&released, FailureClass::Released).await, Failed::Released);
    assert_eq!(stage.fails(&last, FailureClass::Permanent).await, Failed::Ended);
    assert_eq!(stage.run(&run).await, before, "a repeat changed the run");
}
