//! Ending a run by hand.

use serde_json::json;
use trireme_backend::Abort;
use trireme_model::{Cancelled, Claimed, Completed, Failed, FailureClass, RunStatus, Usage};

use crate::stage::{Stage, soon};

pub(crate) async fn nothing_starts_after_it(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[]).tool("b", &[]).tool("end", &["a", "b"])).await;
    let a = stage.take(&run, "a").await;
    assert_eq!(stage.backend().cancel(&run).await.unwrap(), Cancelled::Cancelled);
    assert_eq!(stage.status(&run).await, RunStatus::Cancelled);
    assert_eq!(stage.try_claim(&run, "b").await, Claimed::Cancelled);
    let usage = Usage { calls: 1, ..Usage::default() };
    let late = trireme_model::Complete { usage, ..stage.completion(&a, json!("late")) };
    assert_eq!(stage.backend().complete(late).await.unwrap(), Completed::Cancelled);
    assert_eq!(stage.fails(&a, FailureClass::Retryable).await, Failed::Cancelled);
    assert_eq!(stage.run(&run).await.wasted.calls, 1);
    assert_eq!(stage.names(&run).await, ["run.started", "task.started", "run.cancelled"]);
}

pub(crate) async fn only_once(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[])).await;
    assert_eq!(stage.backend().cancel(&run).await.unwrap(), Cancelled::Cancelled);
    let before = stage.run(&run).await;
    assert_eq!(stage.backend().cancel(&run).await.unwrap(), Cancelled::Ended);
    assert_eq!(stage.run(&run).await, before);

    let done = stage.request("done", stage.draw().tool("a", &[]));
    let run = done.run.clone();
    stage.backend().submit(done).await.unwrap();
    stage.does(&run, "a", json!(1)).await;
    assert_eq!(stage.backend().cancel(&run).await.unwrap(), Cancelled::Ended);
    assert_eq!(stage.status(&run).await, RunStatus::Succeeded);
}

pub(crate) async fn attempts_are_told(stage: Stage) {
    let mut aborts = stage.backend().aborts();
    let run = stage.submit(stage.draw().tool("a", &[])).await;
    stage.take(&run, "a").await;
    stage.backend().cancel(&run).await.unwrap();
    let told = soon(async {
        loop {
            let abort = aborts.recv().await.unwrap();
            if abort.run == run {
                return abort;
            }
        }
    });
    assert_eq!(told.await, Abort { run: run.clone(), task: None });
}
