//! The ops server over real HTTP.
#![allow(clippy::unwrap_used)]

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use prometheus::{IntGauge, Registry};
use tokio_util::sync::CancellationToken;
use trireme_telemetry::OpsServer;

#[tokio::test]
async fn probes_and_metrics_follow_the_process() {
    let registry = Registry::new();
    let gauge = IntGauge::new("slots", "Free slots.").unwrap();
    registry.register(Box::new(gauge.clone())).unwrap();
    let up = Arc::new(AtomicBool::new(false));
    let flag = up.clone();
    let ready = move || {
        let up = flag.load(Ordering::SeqCst);
        async move { if up { Ok(()) } else { Err("redis: connection refused".to_owned()) } }
    };
    let moves = Arc::new(AtomicBool::new(true));
    let pulse = moves.clone();
    let alive = move || if pulse.load(Ordering::SeqCst) { Ok(()) } else { Err("it stands still".to_owned()) };
    let server = OpsServer::bind(([127, 0, 0, 1], 0).into(), registry, alive, ready).await.unwrap();
    let base = format!("http://{}", server.addr());
    let stop = CancellationToken::new();
    let served = tokio::spawn(server.run(stop.clone()));

    // plain HTTP, but the client wants a TLS provider all the same
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::new();
    let get = |path: &str| http.get(format!("{base}{path}")).send();
    assert_eq!(get("/healthz").await.unwrap().status(), 200);
    let refused = get("/readyz").await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    assert!(refused.text().await.unwrap().contains("redis: connection refused"));
    up.store(true, Ordering::SeqCst);
    assert_eq!(get("/readyz").await.unwrap().status(), 200);
    moves.store(false, Ordering::SeqCst);
    assert_eq!(get("/healthz").await.unwrap().status(), 503);
    assert_eq!(get("/readyz").await.unwrap().status(), 200);
    gauge.set(7);
    assert!(get("/metrics").await.unwrap().text().await.unwrap().contains("\nslots 7\n"));

    stop.cancel();
    served.await.unwrap().unwrap();
    assert!(get("/healthz").await.is_err());
}
