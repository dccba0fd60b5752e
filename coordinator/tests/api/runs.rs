//! Looking at runs, listing and cancelling them.

use serde_json::{Value, json};

use super::{
    server::{Server, embedded, soon, unhurried},
    worker::Worker,
};

#[tokio::test]
async fn a_long_poll_answers_when_the_run_ends() {
    let backend = embedded();
    let worker = Worker::stepped(backend.clone());
    // nothing here looks by the clock: only being woken can answer the poll
    let server = Server::start(backend).await;
    let run = server.submit(json!({"tasks": {"a": [], "b": ["a"]}})).await;
    let path = format!("/v1/runs/{run}?wait=1h");
    let poll = async { server.json(&path).await };
    let work = async {
        // the poll is open before the run may end: its gauge says so
        soon("an open poll", async {
            while !server.get("/metrics").await.text().await.unwrap().contains("trireme_long_polls 1") {
                tokio::task::yield_now().await;
            }
        })
        .await;
        worker.steps.add_permits(2);
    };
    let (view, ()) = tokio::join!(poll, work);
    assert_eq!((&view["status"], &view["output"]), (&json!("succeeded"), &json!({"task": "b"})));
    let ids: Vec<&str> =
        view["tasks"].as_array().unwrap().iter().map(|t| t["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a", "b"]);
    assert!(server.get("/metrics").await.text().await.unwrap().contains("trireme_long_polls 0"));
}

#[tokio::test]
async fn a_wait_that_passes_shows_the_run_as_it_stands() {
    let server = Server::start(embedded()).await;
    let run = server.submit(json!({"tasks": {"a": []}})).await;
    for query in ["", "?wait=0s", "?wait=10ms"] {
        let view = server.json(&format!("/v1/runs/{run}{query}")).await;
        assert_eq!((&view["status"], &view["output"]), (&json!("running"), &Value::Null), "{query}");
    }
}

#[tokio::test]
async fn waits_over_the_cap_are_cut_to_it() {
    let config =
        trireme_coordinator::Config { max_wait: std::time::Duration::from_millis(20), ..unhurried() };
    let server = Server::with(config, embedded()).await;
    let run = server.submit(json!({"tasks": {"a": []}})).await;
    assert_eq!(server.json(&format!("/v1/runs/{run}?wait=1h")).await["status"], "running");
}

#[tokio::test]
async fn cancelling_ends_a_run_once() {
    let backend = embedded();
    let worker = Worker::stepped(backend.clone());
    let server = Server::start(backend).await;
    let run = server.submit(json!({"tasks": {"a": []}})).await;
    for _ in 0..2 {
        // a repeat of a cancel whose answer was lost is no error
        let response = server.post(&format!("/v1/runs/{run}/cancel"), "").await;
        assert_eq!(response.status(), 200);
        let state: Value = response.json().await.unwrap();
        assert_eq!(state, json!({"run_id": run, "status": "cancelled"}));
    }
    let view = server.json(&format!("/v1/runs/{run}?wait=1h")).await;
    assert_eq!((&view["status"], &view["tasks"][0]["status"]), (&json!("cancelled"), &json!("cancelled")));

    worker.steps.add_permits(2);
    let ended = server.submit(json!({"tasks": {"a": []}})).await;
    server.json(&format!("/v1/runs/{ended}?wait=1h")).await;
    let response = server.post(&format!("/v1/runs/{ended}/cancel"), "").await;
    assert_eq!(response.status(), 409);
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["detail"], format!("run {ended} has succeeded; nothing was cancelled"));
}

#[tokio::test]
async fn pages_of_the_list_cover_every_run_once_newest_first() {
    let server = Server::start(embedded()).await;
    let mut ids = Vec::new();
    for at in 0..7 {
        let name = if at % 2 == 0 { "even" } else { "odd" };
        ids.push(server.submit(json!({"name": name, "tasks": {"a": []}})).await);
    }
    server.post(&format!("/v1/runs/{}/cancel", ids[3]), "").await;
    ids.sort_by(|a, b| b.cmp(a));

    let mut listed = Vec::new();
    let mut path = "/v1/runs?limit=3".to_owned();
    let mut sizes = Vec::new();
    loop {
        let page = server.json(&path).await;
        let runs = page["runs"].as_array().unwrap();
        sizes.push(runs.len());
        listed.extend(runs.iter().map(|run| run["run_id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page.get("next_cursor") else { break };
        path = format!("/v1/runs?limit=3&cursor={}", cursor.as_str().unwrap());
    }
    let mut sorted = listed.clone();
    sorted.sort_by(|a, b| b.cmp(a));
    assert_eq!(sorted, ids);
    assert_eq!(sizes, [3, 3, 1]);

    let count =
        async |query: &str| server.json(&format!("/v1/runs?{query}")).await["runs"].as_array().unwrap().len();
    assert_eq!(count("name=even").await, 4);
    assert_eq!(count("status=cancelled").await, 1);
    assert_eq!(count("status=running&name=odd").await, 2);
    assert_eq!(count("name=none").await, 0);
}
