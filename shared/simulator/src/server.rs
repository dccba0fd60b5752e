//! HTTP: routes, and what all calls have in common (identity headers, faults that replace the
//! answer, errors in the caller's format).

mod admin;
mod llm;
mod tool;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::DefaultBodyLimit,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
    routing::{get, post},
};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use crate::{
    Kind, Ledger,
    ledger::{Open, Outcome, Received},
    playback::{self, plain_body},
    prompt::Refusal,
    reply::Plan,
    rulebook::Rulebook,
    scenario::{Fault, Span},
    wire,
};

/// Longest request body, in bytes; 32 MB is what the providers take.
const MAX_BODY: usize = 32 << 20;

/// Longest value kept of an identity header, in bytes.
const MAX_HEADER: usize = 256;

/// What every handler needs.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) rulebook: Rulebook,
    pub(crate) ledger: Ledger,
}

pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(llm::openai))
        // Some OpenAI-compatible providers have no version in the path.
        .route("/chat/completions", post(llm::openai))
        .route("/v1/messages", post(llm::anthropic))
        .route("/v1/models", get(llm::models))
        .route("/tools/{name}", get(tool::call).post(tool::call))
        .route("/_simulator/ledger", get(admin::ledger).delete(admin::clear))
        .route("/_simulator/stats", get(admin::stats))
        .route("/_simulator/reset", post(admin::reset))
        .fallback(admin::unknown)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(app)
}

/// The identity of a call as far as headers and body tell it.
fn identify(headers: &HeaderMap, body: &[u8]) -> Received {
    let text = |name: &str| {
        let value = headers.get(name)?.to_str().ok()?;
        Some(value[..value.len().min(MAX_HEADER)].to_owned())
    };
    let digest = Sha256::digest(body);
    Received {
        body_hash: digest[..16].iter().map(|byte| format!("{byte:02x}")).collect(),
        idempotency_key: text("idempotency-key"),
        run: text("x-trireme-run"),
        task: text("x-trireme-task"),
        ..Received::default()
    }
}

fn respond(status: u16, content_type: &str, body: Body) -> Response {
    let mut response = Response::new(body);
    // Statuses are checked when the scenario is loaded.
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let value = HeaderValue::from_str(content_type);
    let value = value.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

/// Answers with an error in the format of `kind` and closes the entry.
fn refuse(kind: Kind, refusal: &Refusal, retry_after: Option<Span>, mut entry: Open) -> Response {
    let id = format!("req_{:016x}", crate::draw::hash(refusal.message.as_bytes()));
    let body = wire::error(kind, refusal, &id).to_string();
    entry.status(refusal.status);
    entry.close(Outcome::Error);
    let mut response = respond(refusal.status, "application/json", body.into());
    let headers = response.headers_mut();
    let name = if kind == Kind::Anthropic { "request-id" } else { "x-request-id" };
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(name, value);
    }
    if let Some(Span(wait)) = retry_after {
        // The header knows whole seconds only; what is finer goes the way that OpenAI sends it.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        headers.insert("retry-after-ms", HeaderValue::from(wait.as_millis() as u64));
    }
    response
}

/// Plays a fault that takes the place of the whole answer; gives the entry back when there is none.
async fn replaced(kind: Kind, plan: &Plan, stream: bool, mut entry: Open) -> Result<Response, Open> {
    let refusal = |status: u16, message: &Option<String>| Refusal {
        status,
        message: message.clone().unwrap_or_else(|| wire::usual_message(status).to_owned()),
        param: None,
    };
    match &plan.fault {
        Some(Fault::Error { status, retry_after, message, .. }) => {
            sleep(plan.fault_after).await;
            Ok(refuse(kind, &refusal(*status, message), *retry_after, entry))
        }
        Some(Fault::StreamError { status, .. }) if !stream => {
            Ok(refuse(kind, &refusal(*status, &None), None, entry))
        }
        Some(Fault::WrongContentType { content_type, body }) => {
            entry.status(200);
            let pieces = std::iter::once(Bytes::from(body.clone()));
            let body = plain_body(pieces, entry, Outcome::Garbled, false);
            Ok(respond(200, content_type, body))
        }
        Some(Fault::Empty) => {
            entry.status(200);
            entry.close(Outcome::Garbled);
            let content_type = if stream { "text/event-stream" } else { "application/json" };
            Ok(respond(200, content_type, Body::empty()))
        }
        Some(Fault::Hang { before_headers: true, pause, .. }) => {
            sleep(pause.map_or(playback::MAX_HANG, |pause| pause.0)).await;
            if pause.is_some() {
                return Err(entry);
            }
            entry.close(Outcome::Cut);
            Ok(respond(504, "application/json", Body::empty()))
        }
        _ => Err(entry),
    }
}

/// The name of a fault as the scenario spells it.
fn fault_name(fault: &Fault) -> &'static str {
    match fault {
        Fault::Error { .. } => "error",
        Fault::StreamError { .. } => "stream_error",
        Fault::Cut { .. } => "cut",
        Fault::Truncate { .. } => "truncate",
        Fault::Hang { .. } => "hang",
        Fault::Garbage { .. } => "garbage",
        Fault::WrongContentType { .. } => "wrong_content_type",
        Fault::Empty => "empty",
    }
}

/// Sends a body that is not a stream, damaged where the plan says so.
async fn whole(content_type: &str, pieces: Vec<Bytes>, plan: &Plan, entry: Open) -> Response {
    let Some(fault) = &plan.fault else {
        return respond(200, content_type, plain_body(pieces.into_iter(), entry, Outcome::Completed, false));
    };
    let most = usize::try_from(playback::after_tokens(fault)).unwrap_or(usize::MAX);
    let most = most.saturating_mul(crate::TOKEN_BYTES);
    let body = match fault {
        Fault::Cut { .. } => plain_body(head(pieces, most).into_iter(), entry, Outcome::Cut, true),
        Fault::Truncate { .. } => plain_body(head(pieces, most).into_iter(), entry, Outcome::Cut, false),
        // The hour is over and nobody left.
        Fault::Hang { pause: None, .. } => plain_body(std::iter::empty(), entry, Outcome::Cut, true),
        Fault::Garbage { .. } => {
            let garbage = Bytes::from_static(playback::GARBAGE);
            let pieces = head(pieces, most).into_iter().chain([garbage]);
            plain_body(pieces, entry, Outcome::Garbled, false)
        }
        _ => plain_body(pieces.into_iter(), entry, Outcome::Completed, false),
    };
    respond(200, content_type, body)
}

/// The first `most` bytes, and at most all but one: damage must show.
fn head(pieces: Vec<Bytes>, most: usize) -> Vec<Bytes> {
    let all: usize = pieces.iter().map(Bytes::len).sum();
    let mut left = most.min(all.saturating_sub(1));
    let mut kept = Vec::new();
    for mut piece in pieces {
        piece.truncate(left);
        left -= piece.len();
        if !piece.is_empty() {
            kept.push(piece);
        }
    }
    kept
}
