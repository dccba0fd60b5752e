//! HTTP tools: arguments come from the query, a JSON object as body, or both (the body wins).

use std::sync::Arc;

use axum::{
    extract::{Path, Query, RawQuery, State, rejection::BytesRejection, rejection::QueryRejection},
    http::HeaderMap,
    response::Response,
};
use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep_until};

use super::{App, fault_name, identify, refuse, replaced, respond, whole};
use crate::{
    Kind,
    ledger::{Outcome, Received},
    playback::{MAX_HANG, plain_body},
    prompt::Refusal,
    reply::ToolBody,
    rulebook::tool_hash,
    scenario::Fault,
};

pub(super) async fn call(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let start = Instant::now();
    let seen = match &body {
        Ok(body) if !body.is_empty() => body.as_ref(),
        _ => raw.as_deref().unwrap_or_default().as_bytes(),
    };
    let received = Received { target: name.clone(), ..identify(&headers, seen) };
    let reply = arguments(query, body).and_then(|args| {
        let hash = tool_hash(&name, &Value::Object(args.clone()));
        Ok((app.rulebook.tool(&name, &args)?, hash))
    });
    let (reply, hash) = match reply {
        Ok(reply) => reply,
        Err(refusal) => return refuse(Kind::Tool, &refusal, None, app.ledger.open(Kind::Tool, received)),
    };
    let entry = app.ledger.open(
        Kind::Tool,
        Received {
            content_hash: format!("{hash:016x}"),
            occurrence: reply.plan.occurrence,
            rule: reply.plan.rule.clone(),
            fault: reply.plan.fault.as_ref().map(|fault| fault_name(fault).to_owned()),
            ..received
        },
    );
    let mut entry = match replaced(Kind::Tool, &reply.plan, false, entry).await {
        Ok(response) => return response,
        Err(entry) => entry,
    };
    let pause = match &reply.plan.fault {
        Some(Fault::Hang { pause, .. }) => pause.map_or(MAX_HANG, |pause| pause.0),
        _ => std::time::Duration::ZERO,
    };
    sleep_until(start + reply.latency + pause).await;
    entry.status(200);
    let content_type = reply.body.content_type();
    if let (ToolBody::Filler(_), None) = (&reply.body, &reply.plan.fault) {
        let body = plain_body(reply.body.pieces(), entry, Outcome::Completed, false);
        return respond(200, content_type, body);
    }
    whole(content_type, reply.body.pieces().collect(), &reply.plan, entry).await
}

fn arguments(
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Map<String, Value>, Refusal> {
    let Query(query) = query.map_err(|error| Refusal::new(error.body_text()))?;
    let body =
        body.map_err(|error| Refusal { status: error.status().as_u16(), ..Refusal::new(error.body_text()) })?;
    let query = query.into_iter().map(|(key, value)| (key, Value::String(value)));
    let mut args: Map<String, Value> = query.collect();
    if !body.is_empty() {
        match serde_json::from_slice(&body) {
            Ok(Value::Object(fields)) => args.extend(fields),
            Ok(_) => return Err(Refusal::new("the body must be a JSON object")),
            Err(error) => return Err(Refusal::new(format!("the body is not JSON: {error}"))),
        }
    }
    Ok(args)
}
