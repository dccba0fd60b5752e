//! Starting runs, and starting them once.

use std::{collections::HashSet, sync::Arc};

use futures::future::join_all;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use trireme_coordinator::{SpecIntake, run_of_key};
use trireme_model::Tenant;
use trireme_spec::Permissive;

use super::{
    server::{Server, embedded, soon, unhurried},
    worker::Worker,
};

const JSON: &str = "application/json";

async fn post(server: &Server, kind: Option<&str>, key: &str, body: &str) -> Response {
    let mut request = server.request(Method::POST, "/v1/runs").body(body.to_owned());
    if let Some(kind) = kind {
        request = request.header("content-type", kind);
    }
    if !key.is_empty() {
        request = request.header("idempotency-key", key);
    }
    soon("an answer", request.send()).await.unwrap()
}

#[tokio::test]
async fn json_and_yaml_run_alike_declared_or_not() {
    let backend = embedded();
    let _worker = Worker::free(backend.clone());
    let server = Server::start(backend).await;
    let (json, yaml) = (r#"{"name": "night", "tasks": {"a": []}}"#, "name: night\ntasks:\n  a: []\n");
    let cases = [
        (Some(JSON), json),
        (Some("application/yaml"), yaml),
        (Some("text/yaml; charset=utf-8"), yaml),
        (None, json),
        (None, yaml),
    ];
    let mut seen = HashSet::new();
    for (kind, body) in cases {
        let response = post(&server, kind, "", body).await;
        assert_eq!(response.status(), 202, "{kind:?}");
        let location = response.headers()["location"].to_str().unwrap().to_owned();
        let state: Value = response.json().await.unwrap();
        let id = state["run_id"].as_str().unwrap();
        assert_eq!(state, json!({"run_id": id, "status": "running"}));
        assert_eq!(location, format!("/v1/runs/{id}"));
        let view = server.json(&format!("{location}?wait=1h")).await;
        assert_eq!((&view["status"], &view["name"]), (&json!("succeeded"), &json!("night")));
        assert_eq!(view["output"], json!({"task": "a"}));
        assert!(seen.insert(id.to_owned()), "ids repeat");
    }
}

#[tokio::test]
async fn a_hundred_submits_at_once_with_one_key_are_one_run() {
    let backend = embedded();
    let first = Server::start(backend.clone()).await;
    let second = Server::start(backend).await;
    let body = r#"{"tasks": {"a": []}}"#;
    let answers = (0..100).map(|at| post([&first, &second][at % 2], Some(JSON), "order 17", body));
    let mut created = 0;
    for response in join_all(answers).await {
        let (status, replayed) = (response.status(), response.headers().contains_key("idempotent-replayed"));
        let state: Value = response.json().await.unwrap();
        assert_eq!(state["run_id"], run_of_key(&Tenant::default(), "order 17").as_str());
        match status.as_u16() {
            202 => created += 1,
            status => assert_eq!((status, replayed), (200, true)),
        }
    }
    assert_eq!(created, 1);
    assert_eq!(first.json("/v1/runs").await["runs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_repeat_means_the_same_and_a_conflict_starts_nothing() {
    let backend = embedded();
    let _worker = Worker::free(backend.clone());
    let server = Server::start(backend).await;
    let body = r#"{"name": "night", "tasks": {"a": []}, "input": {"x": 1, "y": 2}}"#;
    let run = format!("/v1/runs/{}", run_of_key(&Tenant::default(), "k"));
    assert_eq!(post(&server, Some(JSON), "k", body).await.status(), 202);
    assert_eq!(server.json(&format!("{run}?wait=1h")).await["status"], "succeeded");

    let reordered = r#"{"input": {"y": 2, "x": 1},  "tasks": {"a": []}, "name": "night"}"#;
    let yaml = "name: night\ntasks: {a: []}\ninput:\n  y: 2\n  x: 1\n";
    for (kind, body) in [(JSON, body), (JSON, reordered), ("application/yaml", yaml)] {
        let response = post(&server, Some(kind), "k", body).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["idempotent-replayed"]),
            (200, &"true".parse().unwrap())
        );
        assert_eq!(response.headers()["location"].to_str().unwrap(), run);
        // a repeat tells where the run stands by now
        assert_eq!(response.json::<Value>().await.unwrap()["status"], "succeeded");
    }
    let other = r#"{"name": "night", "tasks": {"a": []}, "input": {"x": 1, "y": 3}}"#;
    let response = post(&server, Some(JSON), "k", other).await;
    assert_eq!(response.status(), 409);
    assert_eq!(response.json::<Value>().await.unwrap()["code"], "idempotency_conflict");
    assert_eq!(server.json("/v1/runs").await["runs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn checking_shows_the_graph_and_starts_nothing() {
    let server = Server::start(embedded()).await;
    let spec = json!({"name": "n", "tasks": {"a": [], "b": [], "c": ["a", "b"]}});
    let response = server.post("/v1/check", spec).await;
    assert_eq!(response.status(), 200);
    let checked: Value = response.json().await.unwrap();
    let task =
        |id: &str, inputs: &[&str]| json!({"id": id, "kind": "tool", "pool": "test", "inputs": inputs});
    let tasks = [task("a", &[]), task("b", &[]), task("c", &["a", "b"])];
    assert_eq!(checked, json!({"name": "n", "deadline_ms": null, "tasks": tasks}));
    assert_eq!(server.json("/v1/runs").await, json!({"runs": []}));
}

#[tokio::test]
async fn run_specs_are_taken_as_they_are_documented() {
    let intake = Arc::new(SpecIntake::new(Arc::new(Permissive)));
    let server = Server::taking(intake, unhurried(), embedded()).await;
    let spec = r#"
name: brief
input: {company: Acme}
deadline: 30s
tasks:
  news: {tool: {name: search, args: {q: "{{ input.company }} news"}}, fallback: []}
  filings: {tool: {name: search, args: {q: "{{ input.company }} 10-K"}}}
  facts: {join: {from: [news, filings], need: all, within: 4s, on_miss: partial}}
  brief: {llm: {model: best, prompt: "Brief: {{ facts }}"}}
output: "{{ brief.text }}"
"#;
    let request = server.request(Method::POST, "/v1/check").header("content-type", "application/yaml");
    let checked: Value = soon("an answer", request.body(spec).send()).await.unwrap().json().await.unwrap();
    let inputs = |id: &str| {
        let task = checked["tasks"].as_array().unwrap().iter().find(|task| task["id"] == id).unwrap();
        task["inputs"].clone()
    };
    assert_eq!((&checked["name"], &checked["deadline_ms"]), (&json!("brief"), &json!(30_000)));
    assert_eq!(
        (inputs("news"), inputs("facts"), inputs("brief")),
        (json!([]), json!(["news", "filings"]), json!(["facts"]))
    );

    assert_eq!(post(&server, Some("application/yaml"), "k", spec).await.status(), 202);
    assert_eq!(post(&server, Some("application/yaml"), "k", spec).await.status(), 200);
    let view = server.json(&format!("/v1/runs/{}", run_of_key(&Tenant::default(), "k"))).await;
    assert_eq!((&view["name"], &view["status"]), (&json!("brief"), &json!("running")));
    let of_task = |id: &str| {
        view["tasks"].as_array().unwrap().iter().find(|task| task["id"] == id).unwrap()["status"].clone()
    };
    assert_eq!(
        (of_task("news"), of_task("filings"), of_task("brief")),
        (json!("ready"), json!("ready"), json!("waiting"))
    );

    let broken =
        spec.replace("[news, filings]", "[news, fillings]").replace("name: brief\n", "nmae: brief\n");
    let response = post(&server, Some("application/yaml"), "", &broken).await;
    assert_eq!(response.status(), 422);
    let problem: Value = response.json().await.unwrap();
    let paths: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|e| e["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["nmae", "tasks.facts.join.from[1]"], "{problem}");
}
