//! Pools paused and resumed over HTTP, and runs that are forgotten before their time.

use serde_json::{Value, json};

use super::{
    server::{POOL, Server, embedded, soon},
    worker::Worker,
};

async fn post(server: &Server, path: &str) -> (u16, Value) {
    let response = server.post(path, "").await;
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn a_paused_pool_starts_nothing_and_goes_on_when_resumed() {
    let backend = embedded();
    let server = Server::start(backend.clone()).await;
    let pool = |paused: bool, ready: u64, held: u64| json!({"pool": POOL, "paused": paused, "ready": ready, "held": held});
    for _ in 0..2 {
        assert_eq!(post(&server, &format!("/v1/pools/{POOL}/pause")).await, (200, pool(true, 0, 0)));
    }
    let run = server.submit(json!({"tasks": {"a": [], "b": ["a"]}})).await;
    assert_eq!(server.json("/v1/pools").await, json!({"pools": [pool(true, 1, 0)]}));
    let _worker = Worker::free(backend);
    soon("the hint is met", async {
        while server.json("/v1/pools").await != json!({"pools": [pool(true, 0, 1)]}) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(server.json(&format!("/v1/runs/{run}")).await["tasks"][0]["status"], "ready");
    let (status, resumed) = post(&server, &format!("/v1/pools/{POOL}/resume")).await;
    assert_eq!((status, &resumed["paused"]), (200, &json!(false)));
    assert_eq!(server.json(&format!("/v1/runs/{run}?wait=1h")).await["status"], "succeeded");
    let (status, problem) = post(&server, "/v1/pools/No%20Pool/pause").await;
    assert_eq!((status, &problem["code"]), (400, &json!("invalid_parameter")));
}

#[tokio::test]
async fn one_paused_pool_too_many_is_told_as_such() {
    let server = Server::start(embedded()).await;
    for at in 0..64 {
        assert_eq!(post(&server, &format!("/v1/pools/p{at}/pause")).await.0, 200);
    }
    let (status, problem) = post(&server, "/v1/pools/more/pause").await;
    assert_eq!((status, &problem["title"]), (422, &json!("A limit of the store is passed")));
    assert_eq!(problem["detail"], "number of paused pools of 65 is over the limit of 64");
}

#[tokio::test]
async fn no_more_than_a_bounded_number_of_pools_is_paused() {
    let server = Server::start(embedded()).await;
    for number in 0..64 {
        assert_eq!(post(&server, &format!("/v1/pools/p{number}/pause")).await.0, 200);
    }
    let (status, problem) = post(&server, "/v1/pools/p64/pause").await;
    assert_eq!((status, &problem["code"]), (422, &json!("limit_exceeded")));
    assert_eq!(post(&server, "/v1/pools/p3/pause").await.0, 200);
}

#[tokio::test]
async fn an_ended_run_is_deleted_and_one_at_work_is_not() {
    let server = Server::start(embedded()).await;
    let run = server.submit(json!({"tasks": {"a": []}})).await;
    let path = format!("/v1/runs/{run}");
    let delete =
        || async { soon("an answer", server.request(reqwest::Method::DELETE, &path).send()).await.unwrap() };
    let refused = delete().await;
    assert_eq!(refused.status(), 409);
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "run_not_ended");
    server.post(&format!("{path}/cancel"), "").await;
    assert_eq!(delete().await.status(), 204);
    assert_eq!(delete().await.status(), 404);
    assert_eq!(server.get(&path).await.status(), 404);
    assert_eq!(server.json("/v1/runs").await, json!({"runs": []}));
}
