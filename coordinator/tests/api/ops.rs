//! What a coordinator says about itself, and its sweeper.

use std::{sync::Arc, sync::atomic::Ordering::SeqCst, time::Duration};

use prometheus::Registry;
use reqwest::Method;
use serde_json::{Value, json};
use trireme_coordinator::{Config, Coordinator, Error};

use super::{
    faulty::Faulty,
    server::{Plain, Server, embedded, soon, unhurried},
    worker::Worker,
};

#[tokio::test]
async fn readiness_names_what_is_down_and_liveness_does_not_care() {
    let backend = Faulty::new(embedded());
    let server = Server::start(backend.clone()).await;
    assert_eq!(server.json("/readyz").await, json!({"status": "ready"}));
    backend.fail(Faulty::down());
    let response = server.get("/readyz").await;
    assert_eq!(response.status(), 503);
    let reason = "redis is unavailable: connection refused";
    let expected = json!({
        "type": "/docs/errors/not_ready", "title": "Not ready", "status": 503, "code": "not_ready",
        "detail": format!("store: {reason}"), "errors": [{"path": "store", "message": reason}],
    });
    assert_eq!(response.json::<Value>().await.unwrap(), expected);
    assert_eq!(server.json("/healthz").await, json!({"status": "ok"}));
    backend.fail(None);
    assert_eq!(server.get("/readyz").await.status(), 200);
    backend.panics.store(true, SeqCst);
    assert_eq!(server.get("/readyz").await.status(), 503);
}

#[tokio::test]
async fn every_documented_address_answers_and_problems_lead_to_their_page() {
    let server = Server::start(embedded()).await;
    let document = server.json("/openapi.json").await;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).unwrap();
            let path = path.replace("{id}", "nobody").replace("{code}", "not_ready");
            let response = soon(&path, server.request(method.clone(), &path).send()).await.unwrap();
            // a route that is missing would answer `not_found` or `method_not_allowed`
            if response.status().as_u16() >= 400 {
                let problem: Value = response.json().await.unwrap();
                assert!(
                    !["not_found", "method_not_allowed"].contains(&problem["code"].as_str().unwrap()),
                    "{path}"
                );
                let page = server.get(problem["type"].as_str().unwrap()).await;
                assert!(page.text().await.unwrap().contains("## What to change"));
            }
        }
    }
}

#[tokio::test]
async fn metrics_count_requests_by_route_and_submits_by_outcome() {
    let backend = embedded();
    let _worker = Worker::free(backend.clone());
    let server = Server::start(backend).await;
    let run = server.submit(json!({"tasks": {"a": []}})).await;
    server.post("/v1/runs", "{").await;
    server.get(&format!("/v1/runs/{run}?wait=1h")).await;
    server.get("/nowhere").await;
    let invented = server.request(Method::from_bytes(b"BREW").unwrap(), "/v1/runs");
    soon("an answer", invented.send()).await.unwrap();
    let text = server.get("/metrics").await.text().await.unwrap();
    for line in [
        r#"trireme_http_requests_total{method="POST",route="/v1/runs",status="202"} 1"#,
        r#"trireme_http_requests_total{method="POST",route="/v1/runs",status="400"} 1"#,
        r#"trireme_http_requests_total{method="GET",route="/v1/runs/{id}",status="200"} 1"#,
        r#"trireme_http_requests_total{method="GET",route="unmatched",status="404"} 1"#,
        r#"trireme_http_requests_total{method="OTHER",route="/v1/runs",status="405"} 1"#,
        r#"trireme_submits_total{outcome="created"} 1"#,
        r#"trireme_submits_total{outcome="refused"} 1"#,
        "trireme_submit_seconds_count 1",
        "trireme_event_streams 0",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains(&run), "a run's id must not become a series");
}

#[tokio::test]
async fn a_request_keeps_the_name_its_client_gave_it() {
    let server = Server::start(embedded()).await;
    let request = server.request(Method::GET, "/healthz").header("x-request-id", "deploy-17");
    assert_eq!(soon("an answer", request.send()).await.unwrap().headers()["x-request-id"], "deploy-17");
    assert_eq!(server.get("/healthz").await.headers()["x-request-id"].len(), 16);
}

#[tokio::test]
async fn the_sweeper_outlives_errors_and_panics_and_counts_them() {
    let backend = Faulty::new(embedded());
    let config = Config { sweep_interval: Duration::from_millis(1), ..unhurried() };
    let server = Server::with(config, backend.clone()).await;
    let sweeps = async |count: usize| {
        for _ in 0..count {
            soon("a sweep", backend.swept.notified()).await;
        }
    };
    sweeps(2).await;
    backend.fail(Faulty::down());
    sweeps(3).await;
    backend.fail(None);
    backend.panics.store(true, SeqCst);
    sweeps(3).await;
    backend.panics.store(false, SeqCst);
    sweeps(3).await;
    let text = server.get("/metrics").await.text().await.unwrap();
    let errors = text.lines().find_map(|line| line.strip_prefix("trireme_sweep_errors_total ")).unwrap();
    assert!(errors.parse::<u32>().unwrap() >= 2, "{errors}");
}

#[tokio::test]
async fn what_is_due_is_swept_without_anybody_asking() {
    let (clock, hand) = trireme_backend_embedded::Clock::manual(1_000_000);
    let store = Arc::new(trireme_backend_embedded::Embedded::new(trireme_backend_embedded::Config {
        clock,
        ..trireme_backend_embedded::Config::default()
    }));
    let config = Config { sweep_interval: Duration::from_millis(1), ..unhurried() };
    let server = Server::with(config, store.clone()).await;
    let run = server.submit(json!({"tasks": {"a": []}})).await;
    // nobody took the hint; a day after the run's end it is forgotten
    server.post(&format!("/v1/runs/{run}/cancel"), "").await;
    hand.advance(trireme_model::limits::RETENTION_MS + 1);
    soon("the purge", async {
        while server.get(&format!("/v1/runs/{run}")).await.status() != 404 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_can_not_work_is_refused_before_it_listens() {
    let new = |config: Config, registry: &Registry| {
        Coordinator::new(config, embedded(), Arc::new(Plain), registry.clone())
    };
    let zero = Config { max_body: 0, ..unhurried() };
    assert!(matches!(new(zero, &Registry::new()), Err(Error::Config { name, .. }) if name == "max_body"));
    let registry = Registry::new();
    let bound = new(unhurried(), &registry).unwrap().bind().await.unwrap();
    assert!(matches!(new(unhurried(), &registry), Err(Error::Metrics(_))));
    let taken = Config { listen: bound.addr(), ..unhurried() };
    let error = new(taken, &Registry::new()).unwrap().bind().await.err().unwrap();
    assert!(error.to_string().starts_with(&format!("can't listen on {}", bound.addr())), "{error}");
}
