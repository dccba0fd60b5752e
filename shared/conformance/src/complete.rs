//! Recording results: first write wins, and only by the token that holds the task.

use serde_json::json;
use trireme_model::{
    Claimed, Complete, Completed, Fail, FailureClass, OnMiss, RunStatus, TaskStatus, Token, Usage,
};

use crate::stage::{Stage, need};

pub(crate) async fn first_write_wins(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[]).tool("b", &["a"])).await;
    let a = stage.take(&run, "a").await;
    let forged = Complete { token: Token::new("e", 1, "forged"), ..stage.completion(&a, json!("forged")) };
    assert_eq!(stage.backend().complete(forged.clone()).await.unwrap(), Completed::Stale);
    assert_eq!(stage.value(&run, "a").await, None);
    assert_eq!(stage.finish(&a, json!("right")).await, Completed::Recorded { next: None });
    assert_eq!(stage.backend().complete(forged).await.unwrap(), Completed::Stale);
    stage.finish(&a, json!("other")).await;
    assert_eq!(stage.value(&run, "a").await, Some(json!("right")));
}

pub(crate) async fn a_repeat_gets_the_same_answer(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[]).tool("b", &["a"]).tool("c", &["b"])).await;
    let a = stage.take(&run, "a").await;
    let usage = Usage { calls: 1, ..Usage::default() };
    let complete = Complete { next: stage.next(), usage, ..stage.completion(&a, json!(1)) };
    let first = stage.backend().complete(complete.clone()).await.unwrap();
    let before = stage.run(&run).await;
    let Completed::Recorded { next: Some(next) } = &first else { panic!("no successor: {first:?}") };
    let again = stage.backend().complete(complete.clone()).await.unwrap();
    let Completed::Recorded { next: Some(repeated) } = &again else { panic!("not repeatable: {again:?}") };
    assert_eq!((&next.task, &next.token), (&repeated.task, &repeated.token));
    assert_eq!(stage.run(&run).await, before, "a repeat changed the run");
    stage.finish(next, json!(2)).await;
    assert_eq!(
        stage.backend().complete(complete).await.unwrap(),
        Completed::Recorded { next: None },
        "the successor has ended by now"
    );
    stage.does(&run, "c", json!(3)).await;
    assert_eq!(stage.finish(&a, json!(1)).await, Completed::Recorded { next: None }, "even after the end");
    assert_eq!(stage.run(&run).await.usage.calls, 1);
}

pub(crate) async fn the_successor_goes_on_in_the_same_hands(stage: Stage) {
    let draw = stage.draw().tool("a", &[]).tool("b", &["a"]).tool("c", &["a"]).tool("d", &["b", "c"]);
    let run = stage.submit(draw).await;
    let a = stage.take(&run, "a").await;
    let complete = Complete { next: stage.next(), ..stage.completion(&a, json!(1)) };
    let answer = stage.backend().complete(complete).await.unwrap();
    let Completed::Recorded { next: Some(next) } = answer else { panic!("no successor: {answer:?}") };
    let other = if next.task.as_str() == "b" { "c" } else { "b" };
    assert_eq!(stage.try_claim(&run, next.task.as_str()).await, Claimed::Busy);
    let wrong_pool = trireme_model::Next { claim: "x".into(), pools: vec!["elsewhere".into()] };
    stage.does(&run, other, json!(2)).await;
    let complete = Complete { next: Some(wrong_pool), ..stage.completion(&next, json!(3)) };
    let answer = stage.backend().complete(complete).await.unwrap();
    assert_eq!(answer, Completed::Recorded { next: None }, "a pool that the caller does not serve");
    stage.does(&run, "d", json!("end")).await;
    assert_eq!(stage.output(&run).await, json!("end"));
}

pub(crate) async fn usage_is_booked(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[]).tool("b", &["a"])).await;
    let a = stage.take(&run, "a").await;
    let usage = Usage { calls: 1, input_tokens: 10, output_tokens: 5, cached_tokens: 3, usd_micros: 7 };
    let forged = Complete { token: Token::new("e", 9, "x"), usage, ..stage.completion(&a, json!(0)) };
    stage.backend().complete(forged).await.unwrap();
    let failure = Fail { usage, retry_after: Some(1), ..stage.failure(&a, FailureClass::RateLimited) };
    stage.backend().fail(failure).await.unwrap();
    stage.after(200, async || stage.task_status(&run, "a").await == TaskStatus::Ready).await;
    let a = stage.take(&run, "a").await;
    stage.backend().complete(Complete { usage, ..stage.completion(&a, json!(1)) }).await.unwrap();
    let state = stage.run(&run).await;
    let twice = Usage { calls: 2, input_tokens: 20, output_tokens: 10, cached_tokens: 6, usd_micros: 14 };
    assert_eq!((state.usage, state.wasted), (twice, usage));
}

pub(crate) async fn a_timed_out_attempt_is_stale(stage: Stage) {
    let draw = stage
        .draw()
        .tool("a", &[])
        .with(|task| {
            task.exec.timeout = Some(1_000);
            task.exec.fallback = Some(trireme_model::Payload::of("instead"));
        })
        .tool("b", &["a"]);
    let run = stage.submit(draw).await;
    let a = stage.take(&run, "a").await;
    stage.after(1_000, async || stage.task_status(&run, "a").await == TaskStatus::Succeeded).await;
    let usage = Usage { calls: 1, ..Usage::default() };
    let late = Complete { usage, ..stage.completion(&a, json!("late")) };
    assert_eq!(stage.backend().complete(late.clone()).await.unwrap(), Completed::Stale);
    assert_eq!(stage.value(&run, "a").await, Some(json!("instead")));
    assert_eq!(stage.run(&run).await.wasted.calls, 1, "its cost is wasted, not lost");
    assert_eq!(stage.status(&run).await, RunStatus::Running);
    let before = stage.run(&run).await;
    assert_eq!(stage.backend().complete(late.clone()).await.unwrap(), Completed::Stale);
    let failure = Fail { usage, ..stage.failure(&a, FailureClass::Retryable) };
    assert_eq!(stage.backend().fail(failure).await.unwrap(), trireme_model::Failed::Stale);
    assert_eq!(stage.run(&run).await, before, "its cost was booked twice");
    stage.backend().cancel(&run).await.unwrap();
    let before = stage.run(&run).await;
    assert_eq!(stage.backend().complete(late).await.unwrap(), Completed::Stale, "the same answer");
    assert_eq!(stage.run(&run).await, before);
}

/// `x` becomes ready by the same step in which the join fires and cancels it.
pub(crate) async fn a_loser_that_became_ready_is_not_handed_over(stage: Stage) {
    let draw = stage
        .draw()
        .tool("a", &[])
        .tool("x", &["a"])
        .join("first", &["a", "x"], need(1, OnMiss::Fail))
        .tool("end", &["first"]);
    let run = stage.submit(draw).await;
    let a = stage.take(&run, "a").await;
    let complete = Complete { next: stage.next(), ..stage.completion(&a, json!(1)) };
    let answer = stage.backend().complete(complete).await.unwrap();
    let Completed::Recorded { next: Some(next) } = answer else { panic!("no successor: {answer:?}") };
    assert_eq!(next.task.as_str(), "end");
    assert_eq!(stage.task_status(&run, "x").await, TaskStatus::Cancelled);
    stage.finish(&next, json!("end")).await;
    assert_eq!(stage.output(&run).await, json!("end"));
}
