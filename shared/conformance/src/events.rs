//! A run's log: gapless, in order, ended once.

use serde_json::json;
use trireme_model::{Event, FailureClass, TaskStatus, What};

use crate::stage::{Stage, id, soon};

pub(crate) async fn tell_the_story_without_gaps(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[]).tool("b", &["a"])).await;
    let a = stage.take(&run, "a").await;
    stage.fails(&a, FailureClass::Retryable).await;
    stage.after(50, async || stage.task_status(&run, "a").await == TaskStatus::Ready).await;
    stage.does(&run, "a", json!(1)).await;
    stage.does(&run, "b", json!(2)).await;
    let log = stage.log(&run).await;
    let names: Vec<&str> = log.iter().map(|event| event.what.name()).collect();
    let story = [
        "run.started",
        "task.started",
        "task.retrying",
        "task.started",
        "task.succeeded",
        "task.started",
        "task.succeeded",
        "run.succeeded",
    ];
    assert_eq!(names, story);
    assert_eq!(log[3].what, What::TaskStarted { task: id("a"), attempt: 2 });
    let part = stage.backend().events(&run, 3, 2).await.unwrap().unwrap();
    assert_eq!(part.length, 8);
    assert_eq!(part.events, [(3, log[3].clone()), (4, log[4].clone())]);
    let after = stage.backend().events(&run, 8, 5).await.unwrap().unwrap();
    assert_eq!((after.events, after.length), (Vec::new(), 8));
    assert!(!part.epoch.is_empty() && part.epoch == after.epoch);
}

pub(crate) async fn a_watch_wakes(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[])).await;
    let mut watch = stage.backend().watch(&run).await.unwrap();
    stage.take(&run, "a").await;
    soon(watch.changed()).await;
    stage.backend().cancel(&run).await.unwrap();
    // a spurious wake-up is allowed, so look at the log as a reader would
    soon(async {
        while !stage.backend().summary(&run).await.unwrap().unwrap().status.terminal() {
            watch.changed().await;
        }
    })
    .await;
}

pub(crate) async fn a_follower_sees_every_event_once(stage: Stage) {
    let names: Vec<String> = (0..50).map(|at| format!("t{at}")).collect();
    let draw = names.iter().fold(stage.draw(), |draw, name| draw.tool(name, &[]));
    let run = stage.submit(draw.tool("end", &names.iter().map(String::as_str).collect::<Vec<_>>())).await;
    let follow = soon(async {
        let mut watch = stage.backend().watch(&run).await.unwrap();
        let mut seen: Vec<Event> = Vec::new();
        loop {
            let part = stage.backend().events(&run, seen.len() as u64, 7).await.unwrap().unwrap();
            assert!(!part.events.is_empty() || part.length == seen.len() as u64, "the log hides events");
            for (seq, event) in part.events {
                assert_eq!(seq, seen.len() as u64);
                seen.push(event);
            }
            if seen.last().is_some_and(|event| event.what.ends_run()) {
                return seen;
            }
            if part.length == seen.len() as u64 {
                watch.changed().await;
            }
        }
    });
    let work = async {
        futures::future::join_all(names.iter().map(|name| stage.does(&run, name, json!(1)))).await;
        stage.does(&run, "end", json!(1)).await;
    };
    let (seen, ()) = tokio::join!(follow, work);
    assert_eq!(seen, stage.log(&run).await);
    assert_eq!(seen.len(), 2 + 2 * 51);
}
