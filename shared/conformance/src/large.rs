//! Results too large to stand beside everything else.

use serde_json::json;
use trireme_backend::Error;
use trireme_model::{
    Added, Complete, Completed, Extend, More, Outcome, Payload,
    limits::{INLINE_BYTES, MAX_RESULT_BYTES},
};

use crate::stage::{ALL, Stage};

pub(crate) async fn results_come_back_whole(stage: Stage) {
    let draw = stage.draw().tool("a", &[]).tool("b", &[]).join("j", &["a", "b"], ALL).tool("end", &["j"]);
    let run = stage.submit(draw).await;
    let sizes = [INLINE_BYTES - 2, INLINE_BYTES * 5];
    let results = sizes.map(|size| json!("é".repeat(size / 2)));
    let a = stage.take(&run, "a").await;
    let complete = stage.completion(&a, results[0].clone());
    assert_eq!(stage.backend().complete(complete).await.unwrap(), Completed::Recorded { next: None });
    let b = stage.take(&run, "b").await;
    let complete = stage.completion(&b, results[1].clone());
    let first = stage.backend().complete(complete.clone()).await.unwrap();
    assert_eq!(stage.backend().complete(complete).await.unwrap(), first);
    assert_eq!(stage.value(&run, "a").await.as_ref(), Some(&results[0]));
    assert_eq!(stage.value(&run, "b").await.as_ref(), Some(&results[1]));
    assert_eq!(stage.value(&run, "j").await, Some(json!({"a": results[0], "b": results[1]})));
    stage.does(&run, "end", results[1].clone()).await;
    assert_eq!(stage.output(&run).await, results[1]);
}

pub(crate) async fn too_large_is_refused(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[])).await;
    let a = stage.take(&run, "a").await;
    let outcome = Outcome::Result(Payload::of(&"x".repeat(MAX_RESULT_BYTES)));
    let complete = Complete { outcome, ..stage.completion(&a, json!(null)) };
    let refused = stage.backend().complete(complete).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    let large = Payload::of(&"x".repeat(MAX_RESULT_BYTES / 2));
    let spec = |task| stage.draw().tool(task, &[]).with(|task| task.body = large.clone()).last();
    let tasks: Vec<Added> =
        ["a/1", "a/2"].map(|task| Added { spec: spec(task), vital: false, resource: None }).into();
    let complete = Complete { tasks: tasks.clone(), ..stage.completion(&a, json!(null)) };
    let refused = stage.backend().complete(complete).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    for more in [More::Tasks(tasks), More::Children { start: 0, args: vec![large.clone(), large.clone()] }] {
        let (run, task, token) = (run.clone(), a.task.clone(), a.token.clone());
        let refused = stage.backend().extend(Extend { run, task, token, more }).await;
        assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    }
    assert_eq!(stage.finish(&a, json!("small")).await, Completed::Recorded { next: None }, "still held");
}
