//! The list of runs.

use serde_json::json;
use trireme_backend::ListQuery;
use trireme_model::{RunId, RunStatus, view::RunSummary};

use crate::stage::Stage;

async fn five(stage: &Stage) -> Vec<RunId> {
    let mut runs = Vec::new();
    for at in 0..5 {
        let request = stage.request(&format!("r{at}"), stage.draw().tool("a", &[]));
        runs.push(request.run.clone());
        stage.backend().submit(request).await.unwrap();
        if let Some(advance) = &stage.subject.advance {
            advance(u64::from(at % 2 == 0));
        }
    }
    runs
}

async fn pages(stage: &Stage, mut query: ListQuery) -> Vec<RunSummary> {
    let mut all = Vec::new();
    loop {
        let page = stage.backend().list(query.clone()).await.unwrap();
        assert!(page.runs.len() <= query.limit);
        all.extend(page.runs);
        let Some(next) = page.next else { return all };
        assert_ne!(query.after.as_ref(), Some(&next), "the cursor does not move");
        query.after = Some(next);
    }
}

pub(crate) async fn newest_first_page_by_page(stage: Stage) {
    let runs = five(&stage).await;
    let name = stage.request("x", stage.draw().tool("a", &[])).name;
    let listed = pages(&stage, ListQuery { name: Some(name), limit: 2, ..ListQuery::default() }).await;
    let mut ids: Vec<RunId> = listed.iter().map(|run| run.run_id.clone()).collect();
    assert!(listed.windows(2).all(|pair| pair[0].created_ms >= pair[1].created_ms), "{listed:?}");
    ids.sort();
    assert_eq!(ids, runs, "each run once");
}

pub(crate) async fn filters(stage: Stage) {
    let runs = five(&stage).await;
    let name = Some(stage.request("x", stage.draw().tool("a", &[])).name);
    stage.does(&runs[1], "a", json!(1)).await;
    stage.backend().cancel(&runs[3]).await.unwrap();
    let having =
        |status| ListQuery { status: Some(status), name: name.clone(), limit: 1, ..ListQuery::default() };
    let ids = async |status| {
        let listed = pages(&stage, having(status)).await;
        let mut ids: Vec<RunId> = listed.into_iter().map(|run| run.run_id).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(RunStatus::Succeeded).await, [runs[1].clone()]);
    assert_eq!(ids(RunStatus::Cancelled).await, [runs[3].clone()]);
    assert_eq!(ids(RunStatus::Running).await, [runs[0].clone(), runs[2].clone(), runs[4].clone()]);
    let nobody = ListQuery { name: Some("nobody".into()), limit: 5, ..ListQuery::default() };
    assert_eq!(pages(&stage, nobody).await, []);
}
