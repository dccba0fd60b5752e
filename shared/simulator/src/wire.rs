//! The two providers' formats: stream events, whole answers, errors and model lists.

mod anthropic;
mod openai;

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

use crate::{
    Kind,
    prompt::Refusal,
    reply::{Reply, Segment, Usage},
    scenario::Stop,
};

/// Writes one answer as the events of a stream. Each call appends whole events.
pub(crate) trait Encoder: Send {
    /// What comes with the headers, before the first token.
    fn open(&mut self, out: &mut Vec<u8>);
    /// A text or a tool call begins.
    fn begin(&mut self, out: &mut Vec<u8>, segment: &Segment);
    /// A piece of the text or of the call's arguments.
    fn delta(&mut self, out: &mut Vec<u8>, segment: &Segment, piece: &str);
    /// The text or the call is complete.
    fn end(&mut self, out: &mut Vec<u8>);
    /// The answer is complete.
    fn finish(&mut self, out: &mut Vec<u8>, stop: Stop, usage: Usage);
    /// An error inside the stream.
    fn error(&mut self, out: &mut Vec<u8>, refusal: &Refusal);
}

pub(crate) fn encoder(kind: Kind, model: &str, reply: &Reply, include_usage: bool) -> Box<dyn Encoder> {
    match kind {
        Kind::Anthropic => Box::new(anthropic::Events::new(model, reply)),
        _ => Box::new(openai::Chunks::new(model, reply, include_usage)),
    }
}

/// The whole answer as one JSON body.
pub(crate) fn body(kind: Kind, model: &str, reply: &Reply) -> Value {
    match kind {
        Kind::Anthropic => anthropic::body(model, reply),
        _ => openai::body(model, reply),
    }
}

/// An error as JSON body. `id` is the request's id where the provider shows one.
pub(crate) fn error(kind: Kind, refusal: &Refusal, id: &str) -> Value {
    match kind {
        Kind::OpenAi => openai::error(refusal),
        Kind::Anthropic => anthropic::error(refusal, id),
        Kind::Tool => serde_json::json!({"error": refusal.message, "status": refusal.status}),
    }
}

/// The answer to `GET /v1/models`.
pub(crate) fn models(kind: Kind, models: &[String]) -> Value {
    match kind {
        Kind::Anthropic => anthropic::models(models),
        _ => openai::models(models),
    }
}

/// What the providers say when they say nothing particular.
pub(crate) fn usual_message(status: u16) -> &'static str {
    match status {
        400 => "invalid request",
        401 => "invalid API key",
        403 => "permission denied",
        404 => "not found",
        413 => "request too large",
        429 => "rate limit reached, please try again later",
        529 => "Overloaded",
        _ => "the server had an error while processing your request",
    }
}

/// Appends a text as a JSON string, quotes included.
fn quote(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // Writing into a Vec and serialising a string cannot fail.
    let _ = serde_json::to_writer(out, value);
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
