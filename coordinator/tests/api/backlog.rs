//! Past the configured backlog new runs are told to come back; accepted ones go on.

use reqwest::Method;
use serde_json::{Value, json};
use trireme_coordinator::{Bounds, Config};

use super::{
    server::{POOL, Server, embedded, soon, unhurried},
    worker::{Worker, fail},
};

#[tokio::test]
async fn a_full_backlog_refuses_and_takes_again_once_workers_have_come() {
    let backend = embedded();
    let bounds = Bounds { max_ready_in: [(POOL.to_owned(), 3)].into(), ..Bounds::default() };
    let server = Server::with(Config { backlog: bounds, ..unhurried() }, backend.clone()).await;
    let spec = json!({"tasks": {"a": [], "b": ["a"]}});
    let keyed = |key: &'static str| {
        let request = server.request(Method::POST, "/v1/runs").header("idempotency-key", key);
        soon("an answer", request.header("content-type", "application/json").body(spec.to_string()).send())
    };
    let mut accepted = Vec::new();
    for key in ["k0", "k1", "k2"] {
        let response = keyed(key).await.unwrap();
        assert_eq!(response.status(), 202);
        let state: Value = response.json().await.unwrap();
        accepted.push(state["run_id"].as_str().unwrap().to_owned());
    }
    let refused = keyed("k3").await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"5".parse().unwrap()));
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "backlog_full");
    let detail = format!(
        "3 tasks of pool {POOL} wait for workers, of 3 that may; nothing was started, try again in a moment"
    );
    assert_eq!(problem["detail"], detail);
    // who repeats an accepted request gets its answer all the same
    assert_eq!(keyed("k1").await.unwrap().status(), 200);
    assert_eq!(server.json("/v1/runs").await["runs"].as_array().unwrap().len(), 3, "nothing was written");
    let text = server.get("/metrics").await.text().await.unwrap();
    assert!(text.contains(r#"trireme_submits_total{outcome="shed"} 1"#), "{text}");
    let _worker = Worker::free(backend);
    for run in &accepted {
        let view = server.json(&format!("/v1/runs/{run}?wait=1h")).await;
        assert_eq!((&view["status"], &view["output"]), (&json!("succeeded"), &json!({"task": "b"})));
    }
    assert_eq!(keyed("k3").await.unwrap().status(), 202);
}

#[tokio::test]
async fn a_replay_is_refused_as_well_unless_it_is_a_repeat() {
    let backend = embedded();
    let bounds = Bounds { max_ready: Some(1), ..Bounds::default() };
    let server = Server::with(Config { backlog: bounds, ..unhurried() }, backend.clone()).await;
    let spec = json!({"tasks": {"a": []}});
    let run = server.submit(spec.clone()).await;
    fail(&*backend, &run).await;
    let replay = async || {
        let response = server.post(&format!("/v1/runs/{run}/replay"), "").await;
        (response.status().as_u16(), response.json::<Value>().await.unwrap()["code"].clone())
    };
    assert_eq!(replay().await, (503, json!("backlog_full")));
    // takes the hint that waits, and is gone when the next one comes
    let worker = Worker::stepped(backend.clone());
    soon("room for a run", async {
        while replay().await.0 != 202 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(worker);
    soon("a full backlog", async {
        while server.post("/v1/runs", &spec).await.status() != 503 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(replay().await.0, 200);
}
