//! Token deltas in a run's log.

use serde_json::json;
use trireme_backend::Delta;
use trireme_model::{RunId, What};

use crate::stage::{Stage, id, soon};

fn delta(run: &RunId, text: &str) -> Delta {
    Delta { run: run.clone(), task: id("a"), attempt: 1, text: text.into() }
}

pub(crate) async fn stand_in_the_log(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[])).await;
    let other = stage.request("other", stage.draw().tool("a", &[]));
    let other_run = other.run.clone();
    stage.backend().submit(other).await.unwrap();
    stage.take(&other_run, "a").await;
    let a = stage.take(&run, "a").await;
    let mut watch = stage.backend().watch(&run).await.unwrap();
    let texts = ["Hel", "lo \"wörld\"\n", "🚣"];
    let mut deltas: Vec<Delta> = texts.iter().map(|text| delta(&run, text)).collect();
    deltas.insert(1, delta(&other_run, "elsewhere"));
    stage.backend().append(deltas).await.unwrap();
    soon(watch.changed()).await;
    stage.finish(&a, json!("Hello")).await;
    let log = stage.log(&run).await;
    let told: Vec<&str> = log
        .iter()
        .filter_map(|event| match &event.what {
            What::TaskDelta { task, attempt: 1, text } if *task == id("a") => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(told, texts);
    assert_eq!(stage.log(&other_run).await.len(), 3);
}

pub(crate) async fn of_an_ended_run_are_dropped(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[])).await;
    stage.does(&run, "a", json!(1)).await;
    stage.backend().append(vec![delta(&run, "late"), delta(&stage.run_id("unknown"), "x")]).await.unwrap();
    assert_eq!(stage.log(&run).await.len(), 4);
}
