//! The simulator's own endpoints, for tests that run it as another process.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::App;
use crate::{Call, Stats};

/// Calls in one answer unless fewer are asked for.
const MAX_PAGE: usize = 10_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    since: u64,
    limit: Option<usize>,
}

#[derive(Debug, serde::Serialize)]
pub(super) struct Calls {
    calls: Vec<Call>,
    /// `since` of the next page; the same as asked when there is nothing new.
    next: u64,
}

pub(super) async fn ledger(State(app): State<Arc<App>>, Query(page): Query<Page>) -> Json<Calls> {
    let limit = page.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE);
    let calls = app.ledger.since(page.since, limit);
    let next = calls.last().map_or(page.since, |call| call.id);
    Json(Calls { calls, next })
}

pub(super) async fn clear(State(app): State<Arc<App>>) -> StatusCode {
    app.ledger.clear();
    StatusCode::NO_CONTENT
}

pub(super) async fn stats(State(app): State<Arc<App>>) -> Json<Stats> {
    Json(app.ledger.stats())
}

pub(super) async fn reset(State(app): State<Arc<App>>) -> StatusCode {
    app.ledger.clear();
    app.rulebook.reset();
    StatusCode::NO_CONTENT
}

pub(super) async fn unknown() -> (StatusCode, Json<Value>) {
    let message = "no such endpoint in the simulator";
    (StatusCode::NOT_FOUND, Json(json!({"error": {"message": message, "type": "invalid_request_error"}})))
}
