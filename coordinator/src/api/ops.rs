//! Health, metrics and documents: what machines and people ask a coordinator about itself.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::header,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use serde_json::{Value, json};
use tokio::time::timeout;
use trireme_backend::Health;
use trireme_telemetry::{CONTENT_TYPE, encode};

use super::{
    App,
    problem::{Code, Place, Problem},
};

/// The API as a document; kept by hand, held to the routes by a test.
pub const OPENAPI: &str = include_str!("openapi.json");
/// Services that take longer count as down: probes must not pile up.
const HEALTH_LIMIT: Duration = Duration::from_secs(2);

/// `GET /healthz`: the process is alive. Says nothing about the store, or a store that is down would have
/// every coordinator restarted.
pub async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /readyz`: requests would be served.
pub async fn readyz(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    let mut errors: Vec<Place> = Vec::new();
    let mut down = |path: &str, message: String| errors.push(Place { path: path.into(), message });
    if app.shutdown.is_cancelled() {
        down("coordinator", "shutting down".into());
    }
    let health = timeout(HEALTH_LIMIT, AssertUnwindSafe(app.backend.health()).catch_unwind()).await;
    match health {
        Ok(Ok(Health { store, broker })) => {
            if let Err(reason) = store {
                down("store", reason);
            }
            if let Err(reason) = broker {
                down("broker", reason);
            }
        }
        Ok(Err(_)) => down("backend", "the health check panicked".into()),
        Err(_) => down("backend", "no answer within 2 s".into()),
    }
    if errors.is_empty() {
        return Ok(Json(json!({"status": "ready"})));
    }
    let detail: Vec<String> =
        errors.iter().map(|place| format!("{}: {}", place.path, place.message)).collect();
    Err(Problem { errors, ..Problem::new(Code::NotReady, detail.join("; ")) })
}

/// `GET /metrics`
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], encode(&app.registry)).into_response()
}

/// `GET /openapi.json`
pub async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// `GET /docs/errors/{code}`: where the `type` of a problem leads.
pub async fn error_page(name: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let name = name.map_or_else(|_| String::new(), |Path(name)| name);
    let code = Code::ALL.iter().find(|code| code.as_str() == name);
    let code = code.ok_or_else(|| Problem::new(Code::NotFound, "there is no error of that code"))?;
    Ok(([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], code.page()).into_response())
}
