//! Pools of which nothing starts.

use serde_json::json;
use trireme_model::{Claimed, Completed, RunStatus, limits::REPUBLISH_MS};

use crate::stage::{Stage, soon};

async fn held(stage: &Stage) -> Option<u64> {
    let paused = stage.backend().paused().await.unwrap();
    paused.into_iter().find(|paused| paused.pool == stage.pool()).map(|paused| paused.held)
}

pub(crate) async fn nothing_starts_and_all_of_it_goes_on_when_resumed(stage: Stage) {
    let pool = stage.pool();
    let run = stage.submit(stage.draw().tool("a", &[]).tool("b", &[]).tool("end", &["a", "b"])).await;
    let a = stage.take(&run, "a").await;
    assert!(stage.backend().pause(&pool, true).await.unwrap());
    assert!(!stage.backend().pause(&pool, true).await.unwrap(), "a repeat is no change");
    assert_eq!(stage.try_claim(&run, "b").await, Claimed::Paused);
    assert_eq!(held(&stage).await, Some(1));
    // what runs goes on
    stage.finish(&a, json!(1)).await;
    let mut deliveries = stage.backend().consume(vec![(pool.clone(), 8)]).await.unwrap();
    // hints from before it was paused
    for _ in 0..2 {
        soon(deliveries.next()).await.unwrap().ack.done();
    }
    if let Some(advance) = &stage.subject.advance {
        advance(REPUBLISH_MS);
    }
    stage.sweep().await;
    assert_eq!(stage.try_claim(&run, "b").await, Claimed::Paused, "still");
    assert!(stage.backend().pause(&pool, false).await.unwrap());
    assert_eq!(held(&stage).await, None);
    stage.sweep().await;
    // at once, however long the pause was: nobody waits for the next time in `due`
    let woken = soon(deliveries.next()).await.unwrap();
    assert_eq!((woken.run, woken.task.as_str()), (run.clone(), "b"));
    woken.ack.done();
    stage.does(&run, "b", json!(2)).await;
    stage.does(&run, "end", json!(3)).await;
    assert_eq!(stage.status(&run).await, RunStatus::Succeeded);
}

pub(crate) async fn no_successor_is_taken_along(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[]).tool("b", &["a"])).await;
    let a = stage.take(&run, "a").await;
    stage.backend().pause(&stage.pool(), true).await.unwrap();
    let complete = trireme_model::Complete { next: stage.next(), ..stage.completion(&a, json!(1)) };
    assert_eq!(stage.backend().complete(complete).await.unwrap(), Completed::Recorded { next: None });
    assert_eq!(stage.try_claim(&run, "b").await, Claimed::Paused);
    stage.backend().pause(&stage.pool(), false).await.unwrap();
    stage.does(&run, "b", json!(2)).await;
    assert_eq!(stage.output(&run).await, json!(2));
}
