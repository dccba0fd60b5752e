//! Tasks in quarantine over HTTP, and their runs once more.

use std::sync::Arc;

use serde_json::{Value, json};
use trireme_backend::Backend;
use trireme_backend_embedded::{Clock, Config as Store, Embedded, Hand};
use trireme_model::{
    Claim, Claimed, RunId, TaskId,
    limits::{LEASE_MS, MAX_LOST},
};

use super::{
    server::{POOL, Server},
    worker::Worker,
};

struct Ward {
    store: Arc<Embedded>,
    hand: Hand,
    server: Server,
}

impl Ward {
    async fn open() -> Self {
        let (clock, hand) = Clock::manual(1_000_000);
        let store = Arc::new(Embedded::new(Store { clock, ..Store::default() }));
        let server = Server::start(store.clone()).await;
        Self { store, hand, server }
    }

    async fn claim(&self, run: &str, task: &str, claim: String) -> Claimed {
        let (run, task) = (RunId::new(run).unwrap(), TaskId::new(task).unwrap());
        self.store.claim(Claim { run, task, claim, has_input: true }).await.unwrap()
    }

    /// A run whose task `a/b` is in quarantine.
    async fn dead(&self, spec: &Value) -> String {
        let run = self.server.submit(spec.clone()).await;
        for start in 0..MAX_LOST {
            let claimed = self.claim(&run, "a/b", format!("c{start}")).await;
            assert!(matches!(claimed, Claimed::Run(_)), "{claimed:?}");
            self.hand.advance(LEASE_MS);
            while self.store.sweep().await.unwrap().looked > 0 {}
        }
        run
    }

    async fn post(&self, path: &str) -> (u16, Value) {
        let response = self.server.post(path, "").await;
        (response.status().as_u16(), response.json().await.unwrap())
    }
}

#[tokio::test]
async fn a_dead_letter_is_listed_shown_and_replayed_once() {
    let ward = Ward::open().await;
    let spec = json!({"name": "n", "tasks": {"a/b": [], "end": ["a/b"]}});
    let run = ward.dead(&spec).await;
    let list = ward.server.json("/v1/dead-letters").await;
    let letter = json!({
        "run_id": run, "task": "a/b", "run_name": "n", "tenant": "default", "run_status": "failed", "kind": "tool", "pool": POOL,
        "quarantined_ms": 1_000_000 + u64::from(MAX_LOST) * LEASE_MS, "starts": MAX_LOST,
    });
    assert_eq!(list, json!({"dead_letters": [letter]}));
    let path = format!("/v1/dead-letters/{run}/a%2Fb");
    assert_eq!(ward.server.json(&path).await, letter);
    for filter in ["pool=other", "run=other"] {
        assert_eq!(
            ward.server.json(&format!("/v1/dead-letters?{filter}")).await,
            json!({"dead_letters": []})
        );
    }
    let again = format!("{run}-r1");
    let replay = |status: &str| json!({"run_id": again, "replay_of": run, "status": status});
    assert_eq!(ward.post(&format!("{path}/replay")).await, (202, replay("running")));
    assert_eq!(ward.post(&format!("{path}/replay")).await, (200, replay("running")));
    assert_eq!(ward.post(&format!("/v1/runs/{run}/replay")).await, (200, replay("running")));
    assert_eq!(ward.server.json("/v1/dead-letters").await, json!({"dead_letters": []}));
    let _worker = Worker::free(ward.store.clone());
    let view = ward.server.json(&format!("/v1/runs/{again}?wait=1h")).await;
    assert_eq!((&view["status"], &view["replay_of"]), (&json!("succeeded"), &json!(run)), "{view}");
    assert_eq!(ward.server.json(&format!("/v1/runs/{run}")).await["replayed_as"], json!(again));
    assert_eq!(ward.post(&format!("{path}/replay")).await, (200, replay("succeeded")));
}

#[tokio::test]
async fn all_are_replayed_page_by_page() {
    let ward = Ward::open().await;
    let spec = json!({"tasks": {"a/b": []}});
    let mut runs = Vec::new();
    for _ in 0..5 {
        runs.push(ward.dead(&spec).await);
    }
    let page = ward.server.json("/v1/dead-letters?limit=2").await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let second = ward.server.json(&format!("/v1/dead-letters?limit=2&cursor={cursor}")).await;
    let ids: Vec<&Value> = [&page, &second]
        .iter()
        .flat_map(|page| page["dead_letters"].as_array().unwrap())
        .map(|letter| &letter["run_id"])
        .collect();
    assert_eq!(ids, [&json!(runs[4]), &json!(runs[3]), &json!(runs[2]), &json!(runs[1])]);
    let (mut replayed, mut path) = (Vec::new(), "/v1/dead-letters/replay?limit=2".to_owned());
    loop {
        let (status, page) = ward.post(&path).await;
        assert_eq!((status, &page["left"]), (200, &json!([])), "{page}");
        let replays = page["replays"].as_array().unwrap();
        replayed.extend(replays.iter().map(|replay| replay["replay_of"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/dead-letters/replay?limit=2&cursor={cursor}");
    }
    runs.reverse();
    assert_eq!(replayed, runs);
    assert_eq!(ward.server.json("/v1/dead-letters").await, json!({"dead_letters": []}));
}

#[tokio::test]
async fn what_can_not_be_replayed_says_why() {
    let ward = Ward::open().await;
    let run = ward.server.submit(json!({"tasks": {"a/b": []}})).await;
    for (path, status, code) in [
        (format!("/v1/dead-letters/{run}/a%2Fb/replay"), 404, "dead_letter_not_found"),
        ("/v1/dead-letters/nobody/a/replay".into(), 404, "run_not_found"),
        ("/v1/runs/nobody/replay".into(), 404, "run_not_found"),
        ("/v1/dead-letters/no%20id/a/replay".into(), 400, "invalid_run_id"),
        (format!("/v1/dead-letters/{run}/a%20b/replay"), 400, "invalid_parameter"),
        (format!("/v1/runs/{run}/replay"), 409, "not_replayable"),
        ("/v1/dead-letters/replay?pool=NO".into(), 400, "invalid_parameter"),
        ("/v1/dead-letters/replay?pol=x".into(), 400, "invalid_parameter"),
    ] {
        let (got, problem) = ward.post(&path).await;
        assert_eq!((got, &problem["code"]), (status, &json!(code)), "{path}: {problem}");
    }
    ward.server.post(&format!("/v1/runs/{run}/cancel"), "").await;
    let (_, problem) = ward.post(&format!("/v1/runs/{run}/replay")).await;
    assert_eq!(problem["detail"], format!("run {run} was cancelled: only a run that failed is replayed"));
}
