//! A failed run goes on in a new one.

use serde_json::json;
use trireme_backend::DeadQuery;
use trireme_model::{
    Caller, Claimed, FailureClass, Replayed, RunStatus, TaskStatus,
    limits::{LEASE_MS, MAX_LOST},
};

use crate::stage::{ALL, Stage, id};

/// Starts `task` until it is in quarantine.
async fn forsake(stage: &Stage, run: &trireme_model::RunId, task: &str) {
    for start in 1..=MAX_LOST {
        stage.take(run, task).await;
        let then = if start < MAX_LOST { TaskStatus::Ready } else { TaskStatus::Failed };
        stage.after(LEASE_MS, async || stage.task_status(run, task).await == then).await;
    }
}

pub(crate) async fn of_a_dead_letter_does_only_what_is_missing(stage: Stage) {
    let draw = stage.draw().tool("a", &[]).tool("b", &["a"]).tool("c", &[]).join("end", &["b", "c"], ALL);
    let run = stage.submit(draw).await;
    let large = json!("x".repeat(100_000));
    stage.does(&run, "a", large.clone()).await;
    stage.does(&run, "c", json!(3)).await;
    forsake(&stage, &run, "b").await;
    let query = DeadQuery { pool: Some(stage.pool()), limit: 10, ..DeadQuery::default() };
    let letters = stage.backend().dead_letters(query.clone()).await.unwrap().letters;
    assert_eq!(letters.iter().map(|letter| letter.task.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!((letters[0].run_status, letters[0].starts), (RunStatus::Failed, MAX_LOST));
    let again = run.next_replay().unwrap();
    assert_eq!(
        stage.backend().replay(&run, &Caller::default()).await.unwrap(),
        Replayed::Created(again.clone())
    );
    assert_eq!(
        stage.backend().replay(&run, &Caller::default()).await.unwrap(),
        Replayed::Exists(again.clone())
    );
    assert_eq!(stage.backend().dead_letters(query).await.unwrap().letters, []);
    assert!(stage.run(&run).await.replayed);
    assert_eq!(stage.value(&again, "a").await, Some(large));
    assert_eq!(stage.try_claim(&again, "a").await, Claimed::Done);
    assert_eq!(stage.take(&again, "b").await.attempt, 1);
    stage.after(LEASE_MS, async || stage.task_status(&again, "b").await == TaskStatus::Ready).await;
    stage.does(&again, "b", json!(2)).await;
    assert_eq!(stage.output(&again).await, json!({"b": 2, "c": 3}));
    assert_eq!(stage.names(&again).await.first(), Some(&"run.started"));
    assert_eq!(stage.status(&run).await, RunStatus::Failed, "the old run stays as it ended");
}

pub(crate) async fn of_a_map_keeps_what_its_children_made(stage: Stage) {
    let run = stage.submit(stage.draw().map("m", &[], 2, ALL)).await;
    stage.expand(&run, "m", &[json!(0), json!(1), json!(2), json!(3), json!(4)]).await;
    for child in ["m/0", "m/2"] {
        stage.does(&run, child, json!(child)).await;
    }
    let bad = stage.take(&run, "m/1").await;
    stage.fails(&bad, FailureClass::Permanent).await;
    assert_eq!(stage.status(&run).await, RunStatus::Failed);
    let Replayed::Created(again) = stage.backend().replay(&run, &Caller::default()).await.unwrap() else {
        panic!("no replay")
    };
    stage.expand(&again, "m", &[json!(0), json!(1), json!(2), json!(3), json!(4)]).await;
    assert_eq!(stage.try_claim(&again, "m/2").await, Claimed::Done);
    assert_eq!(stage.try_claim(&again, "m/4").await, Claimed::NotReady, "no more than two at once");
    for child in ["m/1", "m/3", "m/4"] {
        stage.does(&again, child, json!(child)).await;
    }
    let all: Vec<String> = (0..5).map(|child| format!("m/{child}")).collect();
    assert_eq!(stage.output(&again).await, json!(all));
    assert_eq!(stage.task(&again, "m/2").await.attempt, 0);
    assert_eq!(stage.run(&again).await.tasks[&id("m/1")].attempt, 1);
}

pub(crate) async fn is_refused_for_what_has_not_failed(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[])).await;
    assert_eq!(
        stage.backend().replay(&run, &Caller::default()).await.unwrap(),
        Replayed::Refused(RunStatus::Running)
    );
    stage.does(&run, "a", json!(1)).await;
    assert_eq!(
        stage.backend().replay(&run, &Caller::default()).await.unwrap(),
        Replayed::Refused(RunStatus::Succeeded)
    );
    assert_eq!(
        stage.backend().replay(&stage.run_id("nobody"), &Caller::default()).await.unwrap(),
        Replayed::Gone
    );
}
