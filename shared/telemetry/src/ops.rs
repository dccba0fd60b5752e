//! A small HTTP server for probes and scrapes, for processes without an API of their own.

use std::{
    future::{Future, IntoFuture},
    net::SocketAddr,
    time::Duration,
};

use axum::{
    Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::Registry;
use serde_json::json;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{CONTENT_TYPE, encode};

/// A readiness check that takes longer counts as a failure: a probe must not pile up.
const READY_LIMIT: Duration = Duration::from_secs(2);
/// How long requests in flight may go on after a shutdown was asked for.
const GRACE: Duration = Duration::from_secs(2);

/// Serves `/healthz` (the process is alive), `/readyz` (it can do its work) and `/metrics`.
#[derive(Debug)]
pub struct OpsServer {
    listener: TcpListener,
    router: Router,
    addr: SocketAddr,
}

impl OpsServer {
    /// Opens `listen` to serve [`ops_router`].
    pub async fn bind<A, F, Fut>(
        listen: SocketAddr,
        registry: Registry,
        alive: A,
        ready: F,
    ) -> std::io::Result<Self>
    where
        A: Fn() -> Result<(), String> + Clone + Send + Sync + 'static,
        F: Fn() -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        Ok(Self { listener, router: ops_router(registry, alive, ready), addr })
    }

    /// The address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `shutdown`, and then up to 2 s longer for requests in flight.
    pub async fn run(self, shutdown: CancellationToken) -> std::io::Result<()> {
        let stop = shutdown.clone().cancelled_owned();
        let serve = axum::serve(self.listener, self.router).with_graceful_shutdown(stop).into_future();
        tokio::select! {
            served = serve => served,
            () = async { shutdown.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
        }
    }
}

/// Serves `/healthz`, `/readyz` and `/metrics`. Both checks are asked anew by every probe; their error texts say what is
/// missing and go to the prober, so they must hold no secret. `alive` must look at this process only: where it fails,
/// the process is killed, and nobody else's outage may do that.
pub fn ops_router<A, F, Fut>(registry: Registry, alive: A, ready: F) -> Router
where
    A: Fn() -> Result<(), String> + Clone + Send + Sync + 'static,
    F: Fn() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), String>> + Send + 'static,
{
    let metrics = move || {
        let text = encode(&registry);
        async move { ([(header::CONTENT_TYPE, CONTENT_TYPE)], text) }
    };
    Router::new()
        .route("/healthz", get(move || std::future::ready(answer(alive(), "ok"))))
        .route("/readyz", get(move || readyz(ready())))
        .route("/metrics", get(metrics))
}

async fn readyz(ready: impl Future<Output = Result<(), String>>) -> Response {
    let checked = timeout(READY_LIMIT, ready).await;
    answer(checked.unwrap_or_else(|_| Err("the check did not answer within 2 s".into())), "ready")
}

fn answer(checked: Result<(), String>, good: &str) -> Response {
    match checked {
        Ok(()) => axum::Json(json!({"status": good})).into_response(),
        Err(reason) => {
            let problem = json!({
                "type": "/docs/errors/not_ready", "title": "Not ready", "status": 503,
                "code": "not_ready", "detail": reason,
            });
            let kind = [(header::CONTENT_TYPE, "application/problem+json")];
            (StatusCode::SERVICE_UNAVAILABLE, kind, problem.to_string()).into_response()
        }
    }
}
