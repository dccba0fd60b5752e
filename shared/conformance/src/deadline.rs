//! Time limits of runs and tasks, and the sweep that keeps them.

use serde_json::json;
use trireme_model::{Claimed, Completed, Failed, FailureClass, RunStatus, Submit, TaskStatus};

use crate::stage::{Stage, class_of};

pub(crate) async fn of_the_run(stage: Stage) {
    let draw = stage.draw().tool("a", &[]).tool("b", &["a"]);
    let request = Submit { deadline: Some(500), ..stage.request("run", draw) };
    let run = request.run.clone();
    stage.backend().submit(request).await.unwrap();
    let a = stage.take(&run, "a").await;
    stage.after(500, async || stage.status(&run).await == RunStatus::Failed).await;
    let failure = stage.run(&run).await.failure.unwrap();
    assert_eq!((failure.task, class_of(&failure.error)), (None, "deadline".into()));
    assert_eq!(stage.finish(&a, json!("late")).await, Completed::Cancelled);
    assert_eq!(stage.try_claim(&run, "b").await, Claimed::Cancelled);
    stage.log(&run).await;
}

pub(crate) async fn a_sweep_says_when_the_next_one_is_due(stage: Stage) {
    let draw = stage.draw().tool("a", &[]).with(|task| task.exec.timeout = Some(3_000)).tool("b", &["a"]);
    let run = stage.submit(draw).await;
    stage.sweep().await;
    let swept = stage.backend().sweep().await.unwrap();
    // others may be due before this one, and by the time of this line a little of its time has passed
    assert!(swept.next.is_some_and(|next| next <= 3_000), "{swept:?}");
    stage.after(3_000, async || stage.status(&run).await == RunStatus::Failed).await;
}

pub(crate) async fn of_the_run_met_by_a_failing_attempt(stage: Stage) {
    let draw = stage.draw().tool("a", &[]).tool("b", &["a"]);
    let request = Submit { deadline: Some(500), ..stage.request("run", draw) };
    let run = request.run.clone();
    stage.backend().submit(request).await.unwrap();
    let a = stage.take(&run, "a").await;
    // elsewhere the sweep may come first, and then it is the other story
    let Some(advance) = &stage.subject.advance else { return };
    advance(500);
    for _ in 0..2 {
        assert_eq!(stage.fails(&a, FailureClass::Retryable).await, Failed::Ended);
    }
    let state = stage.run(&run).await;
    assert_eq!((state.status, state.tasks["a"].status), (RunStatus::Failed, TaskStatus::Failed));
    let failure = state.failure.unwrap();
    assert_eq!((failure.task, class_of(&failure.error)), (None, "deadline".into()));
    assert_eq!(stage.names(&run).await, ["run.started", "task.started", "task.failed", "run.failed"]);
}

pub(crate) async fn of_a_task(stage: Stage) {
    let draw = stage
        .draw()
        .tool("a", &[])
        .with(|task| task.exec.timeout = Some(500))
        .tool("b", &[])
        .tool("end", &["a", "b"]);
    let run = stage.submit(draw).await;
    stage.after(500, async || stage.task_status(&run, "a").await == TaskStatus::Failed).await;
    assert_eq!(stage.error_class(&run, "a").await, "timeout");
    assert_eq!(stage.status(&run).await, RunStatus::Failed);
}

pub(crate) async fn a_sweep_is_bounded_and_says_that_there_is_more(stage: Stage) {
    const TASKS: usize = 5_000;
    let names: Vec<String> = (0..TASKS).map(|at| format!("t{at}")).collect();
    let mut draw = stage.draw();
    for name in &names {
        draw = draw.tool(name, &[]).with(|task| {
            task.exec.timeout = Some(1_000);
            task.exec.fallback = Some(trireme_model::Payload::of(&0));
        });
    }
    let draw = draw.tool("end", &names.iter().map(String::as_str).collect::<Vec<_>>());
    let run = stage.submit(draw).await;
    if let Some(advance) = &stage.subject.advance {
        advance(1_000);
        let swept = stage.backend().sweep().await.unwrap();
        assert!(swept.more && swept.looked > 0 && swept.looked < TASKS, "{swept:?}");
    }
    stage.after(1_000, async || stage.task_status(&run, "end").await == TaskStatus::Ready).await;
    stage.does(&run, "end", json!("end")).await;
    assert_eq!(stage.output(&run).await, json!("end"));
}
