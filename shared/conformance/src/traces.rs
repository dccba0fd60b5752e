//! The trace of a run stays with it, and is told of when the run has ended.

use std::sync::Mutex;

use serde_json::json;
use trireme_backend::Ending;
use trireme_model::{Claim, Claimed, Kind, RunStatus, Submit, TaskStatus, Trace};

use crate::stage::{ALL, Stage, id};

const TRACE: Trace = Trace { id: 0x4bf9_2f35, parent: 7, sampled: true };

pub(crate) async fn goes_to_the_worker_with_the_input(stage: Stage) {
    let draw = stage.draw().tool("a", &[]).map("m", &["a"], 5, ALL);
    let request = Submit { trace: Some(TRACE), ..stage.request("run", draw) };
    let run = request.run.clone();
    stage.backend().submit(request).await.unwrap();
    assert_eq!(stage.run(&run).await.trace, Some(TRACE));
    let claim = Claim { run: run.clone(), task: id("a"), claim: "first".into(), has_input: false };
    let Claimed::Run(a) = stage.backend().claim(claim).await.unwrap() else { panic!("not ready") };
    assert_eq!((a.trace, &a.owner), (Some(TRACE), &None));
    stage.finish(&a, json!(1)).await;
    stage.expand(&run, "m", &[json!(1)]).await;
    let child = stage.take(&run, "m/0").await;
    assert_eq!((child.trace, child.owner), (None, Some(id("m"))), "it has the trace already");
    let plain = stage.request("plain", stage.draw().tool("a", &[]));
    let run = plain.run.clone();
    stage.backend().submit(plain).await.unwrap();
    let claim = Claim { run, task: id("a"), claim: "second".into(), has_input: false };
    let Claimed::Run(a) = stage.backend().claim(claim).await.unwrap() else { panic!("not ready") };
    assert_eq!(a.trace, None);
}

pub(crate) async fn an_end_is_told_once(stage: Stage) {
    let seen: Mutex<Vec<Ending>> = Mutex::default();
    // whoever asks first says from when on ends are told
    let endings = stage.backend().ended().await.unwrap();
    stage.backend().mark_ended(endings.mark).await.unwrap();
    let draw = stage.draw().tool("a", &[]).map("m", &[], 5, ALL).agent("agent", &[]).join(
        "j",
        &["a", "m", "agent"],
        ALL,
    );
    let name = "traced".to_owned();
    let request = Submit { trace: Some(TRACE), name, ..stage.request("traced", draw) };
    let run = request.run.clone();
    stage.backend().submit(request).await.unwrap();
    let untraced = stage.submit(stage.draw().tool("a", &[])).await;
    let unsampled = Trace { sampled: false, ..TRACE };
    let request = stage.request("unsampled", stage.draw().tool("a", &[]));
    let unsampled = Submit { trace: Some(unsampled), ..request };
    let quiet = unsampled.run.clone();
    stage.backend().submit(unsampled).await.unwrap();
    for run in [&untraced, &quiet, &run] {
        stage.does(run, "a", json!(1)).await;
    }
    stage.expand(&run, "m", &[json!(1)]).await;
    stage.does(&run, "m/0", json!(2)).await;
    stage.does(&run, "agent", json!("answer")).await;
    assert_eq!(stage.status(&run).await, RunStatus::Succeeded);

    let ask = || async {
        let endings = stage.backend().ended().await.unwrap();
        seen.lock().unwrap().extend(endings.runs);
        stage.backend().mark_ended(endings.mark).await.unwrap();
    };
    stage
        .after(5, || async {
            ask().await;
            seen.lock().unwrap().iter().any(|ending| ending.run == run)
        })
        .await;
    let state = stage.run(&run).await;
    let expected = Ending::of(&state).unwrap();
    let kinds: Vec<(Kind, TaskStatus)> = expected.parts.iter().map(|part| (part.kind, part.status)).collect();
    let all = [Kind::Agent, Kind::Join, Kind::Map].map(|kind| (kind, TaskStatus::Succeeded));
    assert_eq!(kinds, all);
    ask().await;
    let seen = seen.into_inner().unwrap();
    let mine: Vec<&Ending> =
        seen.iter().filter(|ending| [&run, &untraced, &quiet].contains(&&ending.run)).collect();
    assert_eq!(mine, [&expected]);
}
