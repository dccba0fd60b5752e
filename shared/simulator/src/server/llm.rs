//! The model endpoints.

use std::sync::Arc;

use axum::{
    extract::{State, rejection::BytesRejection},
    http::HeaderMap,
    response::Response,
};
use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::{App, fault_name, identify, refuse, replaced, respond, whole};
use crate::{
    Kind,
    ledger::Received,
    playback::{MAX_HANG, Playback},
    prompt::{Prompt, Refusal},
    reply::Reply,
    scenario::Fault,
    wire,
};

pub(super) async fn openai(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    answer(&app, Kind::OpenAi, &headers, body).await
}

pub(super) async fn anthropic(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    answer(&app, Kind::Anthropic, &headers, body).await
}

pub(super) async fn models(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let kind = if headers.contains_key("anthropic-version") { Kind::Anthropic } else { Kind::OpenAi };
    let body = wire::models(kind, &app.rulebook.models).to_string();
    respond(200, "application/json", body.into())
}

async fn answer(app: &App, kind: Kind, headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Response {
    let start = Instant::now();
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            let refusal =
                Refusal { status: rejection.status().as_u16(), message: rejection.body_text(), param: None };
            let entry = app.ledger.open(kind, identify(headers, b""));
            return refuse(kind, &refusal, None, entry);
        }
    };
    let received = identify(headers, &body);
    let parsed = match kind {
        Kind::Anthropic if !headers.contains_key("anthropic-version") => {
            Err(Refusal::new("anthropic-version: header is required"))
        }
        _ => Prompt::parse(kind, &body),
    };
    let prompt = match parsed {
        Ok(prompt) => prompt,
        Err(refusal) => return refuse(kind, &refusal, None, app.ledger.open(kind, received)),
    };
    let received = Received {
        target: prompt.model.clone(),
        stream: prompt.stream,
        content_hash: prompt.hash_text(),
        cache_key: prompt.cache_key.clone(),
        ..received
    };
    let reply = match app.rulebook.answer(&prompt) {
        Ok(reply) => reply,
        Err(refusal) => return refuse(kind, &refusal, None, app.ledger.open(kind, received)),
    };
    let plan = &reply.plan;
    let refused = matches!(plan.fault, Some(Fault::Error { .. }))
        || matches!(plan.fault, Some(Fault::StreamError { .. }) if !prompt.stream);
    let entry = app.ledger.open(
        kind,
        Received {
            occurrence: plan.occurrence,
            rule: plan.rule.clone(),
            fault: plan.fault.as_ref().map(|fault| fault_name(fault).to_owned()),
            // The providers bill nothing for an error status.
            prompt_tokens: if refused { 0 } else { reply.usage.prompt },
            cached_tokens: if refused { 0 } else { reply.usage.cached },
            ..received
        },
    );
    send(kind, &prompt, reply, entry, start).await
}

async fn send(
    kind: Kind,
    prompt: &Prompt,
    mut reply: Reply,
    entry: crate::ledger::Open,
    start: Instant,
) -> Response {
    let mut entry = match replaced(kind, &reply.plan, prompt.stream, entry).await {
        Ok(response) => return response,
        Err(entry) => entry,
    };
    let mut start = start;
    if let Some(Fault::Hang { before_headers: true, pause: Some(pause), .. }) = reply.plan.fault {
        // That hang is over; the answer takes its own time after it.
        start += pause.0;
        reply.plan.fault = None;
    }
    entry.status(200);
    if prompt.stream {
        let encoder = wire::encoder(kind, &prompt.model, &reply, prompt.include_usage);
        let mut response = respond(
            200,
            "text/event-stream; charset=utf-8",
            Playback::new(reply, encoder, entry, start).into_body(),
        );
        let value = axum::http::HeaderValue::from_static("no-cache");
        response.headers_mut().insert(axum::http::header::CACHE_CONTROL, value);
        return response;
    }
    if let Some(Fault::Hang { pause, .. }) = reply.plan.fault {
        start += pause.map_or(MAX_HANG, |pause| pause.0);
    }
    sleep_until(start + reply.pace.whole(reply.tokens())).await;
    entry.sent(reply.usage.completion);
    let body = wire::body(kind, &prompt.model, &reply).to_string();
    whole("application/json", vec![body.into()], &reply.plan, entry).await
}
