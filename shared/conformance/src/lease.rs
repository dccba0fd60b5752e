//! How long a claim owns its task.

use serde_json::json;
use trireme_model::{
    Claimed, Completed, Failed, FailureClass, Renew, Renewed, RunStatus, TaskStatus,
    limits::{LEASE_MS, MAX_LOST},
};

use crate::stage::{Stage, id};

fn renewal(assignment: &trireme_model::Assignment) -> Renew {
    let (run, task) = (assignment.run.clone(), assignment.task.clone());
    Renew { run, task, token: assignment.token.clone() }
}

pub(crate) async fn a_renewal_keeps_it(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[]).tool("b", &[]).tool("end", &["a", "b"])).await;
    let (a, b) = (stage.take(&run, "a").await, stage.take(&run, "b").await);
    let stale = Renew { token: b.token.clone(), ..renewal(&a) };
    let gone = Renew { task: id("nobody"), ..renewal(&a) };
    let before = stage.task(&run, "a").await.due;
    if let Some(advance) = &stage.subject.advance {
        advance(LEASE_MS - 1);
    }
    let renewals = vec![renewal(&a), stale, gone, renewal(&b)];
    let answers = stage.backend().renew(renewals).await.unwrap();
    assert_eq!(answers, [Renewed::Held, Renewed::Lost, Renewed::Lost, Renewed::Held]);
    let task = stage.task(&run, "a").await;
    assert!(task.due >= before && task.due >= task.started_at + LEASE_MS, "{task:?}");
    if let Some(advance) = &stage.subject.advance {
        advance(LEASE_MS - 1);
        stage.sweep().await;
        assert_eq!(stage.task_status(&run, "a").await, TaskStatus::Running, "the lease was renewed");
    }
    stage.finish(&a, json!(1)).await;
    assert_eq!(stage.backend().renew(vec![renewal(&a)]).await.unwrap(), [Renewed::Lost]);
    stage.backend().cancel(&run).await.unwrap();
    assert_eq!(stage.backend().renew(vec![renewal(&b)]).await.unwrap(), [Renewed::Cancelled]);
}

pub(crate) async fn a_lost_one_goes_to_another_attempt(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[])).await;
    let lost = stage.take(&run, "a").await;
    stage.after(LEASE_MS, async || stage.task_status(&run, "a").await == TaskStatus::Ready).await;
    assert_eq!(stage.backend().renew(vec![renewal(&lost)]).await.unwrap(), [Renewed::Lost]);
    assert_eq!(stage.finish(&lost, json!("late")).await, Completed::Stale);
    let held = stage.take(&run, "a").await;
    assert_eq!(held.attempt, 2);
    assert_ne!(held.token, lost.token);
    assert_eq!(stage.finish(&lost, json!("late")).await, Completed::Stale);
    assert_eq!(stage.fails(&lost, FailureClass::Permanent).await, Failed::Stale);
    stage.finish(&held, json!("right")).await;
    assert_eq!(stage.output(&run).await, json!("right"));
    let names = stage.names(&run).await;
    let story =
        ["run.started", "task.started", "task.lost", "task.started", "task.succeeded", "run.succeeded"];
    assert_eq!(names, story);
}

pub(crate) async fn the_third_lost_start_is_quarantined(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[])).await;
    let mut last = None;
    for start in 1..=MAX_LOST {
        last = Some(stage.take(&run, "a").await);
        let then = if start < MAX_LOST { TaskStatus::Ready } else { TaskStatus::Failed };
        stage.after(LEASE_MS, async || stage.task_status(&run, "a").await == then).await;
    }
    assert_eq!(stage.error_class(&run, "a").await, "poison");
    assert_eq!(stage.status(&run).await, RunStatus::Failed);
    assert_eq!(stage.try_claim(&run, "a").await, Claimed::Cancelled);
    assert_ne!(stage.finish(&last.unwrap(), json!("late")).await, Completed::Recorded { next: None });
}
