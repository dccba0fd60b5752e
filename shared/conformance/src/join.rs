//! Joins: when they fire, with what, and what becomes of the rest.

use serde_json::json;
use trireme_model::{Claimed, Completed, FailureClass, JoinPolicy, Need, OnMiss, RunStatus, TaskStatus};

use crate::stage::{ALL, Draw, Stage, need};

/// `a`, `b` and `c` into the join `j` into `end`.
fn three(stage: &Stage, policy: JoinPolicy) -> Draw {
    let draw = stage.draw().tool("a", &[]).tool("b", &[]).tool("c", &[]);
    draw.join("j", &["a", "b", "c"], policy).tool("end", &["j"])
}

pub(crate) async fn all(stage: Stage) {
    let run = stage.submit(three(&stage, ALL)).await;
    for task in ["c", "a"] {
        stage.does(&run, task, json!(task)).await;
        assert_eq!(stage.task_status(&run, "j").await, TaskStatus::Waiting);
    }
    stage.does(&run, "b", json!("b")).await;
    assert_eq!(stage.task(&run, "j").await.frozen.as_deref(), Some("*"));
    assert_eq!(stage.value(&run, "j").await, Some(json!({"a": "a", "b": "b", "c": "c"})));
    assert!(!stage.task(&run, "j").await.degraded);
    stage.does(&run, "end", json!(1)).await;
    let names = stage.names(&run).await;
    assert_eq!(names.iter().filter(|name| **name == "task.succeeded").count(), 5, "each task once");
}

pub(crate) async fn any_cancels_the_losers(stage: Stage) {
    let run = stage.submit(three(&stage, need(1, OnMiss::Fail))).await;
    let running = stage.take(&run, "a").await;
    stage.does(&run, "b", json!("b")).await;
    assert_eq!(stage.value(&run, "j").await, Some(json!({"b": "b"})));
    assert_eq!(stage.task(&run, "j").await.frozen.as_deref(), Some("010"));
    assert!(!stage.task(&run, "j").await.degraded, "it has what it needs");
    for loser in ["a", "c"] {
        assert_eq!(stage.task_status(&run, loser).await, TaskStatus::Cancelled);
    }
    assert_eq!(stage.try_claim(&run, "c").await, Claimed::Done);
    assert_eq!(stage.finish(&running, json!("late")).await, Completed::Cancelled);
    stage.does(&run, "end", json!("end")).await;
    assert_eq!(stage.output(&run).await, json!("end"));
}

pub(crate) async fn k_of_n(stage: Stage) {
    let run = stage.submit(three(&stage, need(2, OnMiss::Fail))).await;
    let a = stage.take(&run, "a").await;
    stage.fails(&a, FailureClass::Permanent).await;
    stage.does(&run, "c", json!("c")).await;
    assert_eq!(stage.task_status(&run, "j").await, TaskStatus::Waiting);
    stage.does(&run, "b", json!("b")).await;
    assert_eq!(stage.value(&run, "j").await, Some(json!({"b": "b", "c": "c"})));
}

pub(crate) async fn unmet_fails(stage: Stage) {
    let run = stage.submit(three(&stage, need(2, OnMiss::Fail))).await;
    for task in ["a", "b"] {
        let attempt = stage.take(&run, task).await;
        stage.fails(&attempt, FailureClass::Permanent).await;
    }
    assert_eq!(stage.error_class(&run, "j").await, "join_unmet");
    assert_eq!(stage.task_status(&run, "j").await, TaskStatus::Failed);
    assert_eq!(stage.status(&run).await, RunStatus::Failed, "without waiting for c");
    assert_eq!(stage.try_claim(&run, "c").await, Claimed::Cancelled);
}

pub(crate) async fn partial_goes_without(stage: Stage) {
    let policy = JoinPolicy { on_miss: OnMiss::Partial, ..ALL };
    let run = stage.submit(three(&stage, policy)).await;
    let a = stage.take(&run, "a").await;
    stage.fails(&a, FailureClass::Permanent).await;
    stage.does(&run, "b", json!("b")).await;
    assert_eq!(stage.task_status(&run, "j").await, TaskStatus::Waiting, "c may still come");
    stage.does(&run, "c", json!("c")).await;
    assert_eq!(stage.value(&run, "j").await, Some(json!({"b": "b", "c": "c"})));
    assert!(stage.task(&run, "j").await.degraded);
    stage.does(&run, "end", json!(1)).await;
    assert!(stage.run(&run).await.degraded);
}

pub(crate) async fn default_fills_in(stage: Stage) {
    let policy = JoinPolicy { on_miss: OnMiss::Default, ..ALL };
    let run = stage.submit(three(&stage, policy)).await;
    for task in ["a", "c"] {
        let attempt = stage.take(&run, task).await;
        stage.fails(&attempt, FailureClass::Permanent).await;
    }
    stage.does(&run, "b", json!("b")).await;
    let value = json!({"a": "missing", "b": "b", "c": "missing"});
    assert_eq!(stage.value(&run, "j").await, Some(value));
}

pub(crate) async fn the_window_closes(stage: Stage) {
    let within = |on_miss| JoinPolicy { need: Need::All, within: Some(500), on_miss };
    let run = stage.submit(three(&stage, within(OnMiss::Partial))).await;
    stage.does(&run, "b", json!("b")).await;
    stage.after(500, async || stage.task_status(&run, "j").await == TaskStatus::Succeeded).await;
    assert_eq!(stage.value(&run, "j").await, Some(json!({"b": "b"})));
    assert_eq!(stage.task_status(&run, "a").await, TaskStatus::Cancelled);
    assert!(stage.task(&run, "j").await.degraded);

    let failing = stage.request("failing", three(&stage, within(OnMiss::Fail)));
    let run = failing.run.clone();
    stage.backend().submit(failing).await.unwrap();
    stage.after(500, async || stage.task_status(&run, "j").await == TaskStatus::Failed).await;
    assert_eq!(stage.error_class(&run, "j").await, "join_timeout");
    assert_eq!(stage.status(&run).await, RunStatus::Failed);
}

/// An input that another task still waits for goes on after the join has fired without it.
pub(crate) async fn a_late_input_is_not_merged(stage: Stage) {
    let draw = stage
        .draw()
        .tool("a", &[])
        .tool("b", &[])
        .join("j", &["a", "b"], need(1, OnMiss::Fail))
        .tool("end", &["j", "b"]);
    let run = stage.submit(draw).await;
    stage.does(&run, "a", json!("a")).await;
    let fired = stage.task(&run, "j").await;
    stage.does(&run, "b", json!("b")).await;
    assert_eq!(stage.task(&run, "j").await, fired, "it fired once, with what was there");
    assert_eq!(stage.value(&run, "j").await, Some(json!({"a": "a"})));
    assert_eq!(stage.value(&run, "b").await, Some(json!("b")), "recorded all the same");
    stage.does(&run, "end", json!(1)).await;
}
