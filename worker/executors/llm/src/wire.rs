//! The two wire formats: request bodies out, stream events in.

use crate::config::{Api, StructuredOutput};
use crate::providers::ModelRef;
use crate::request::ChatRequest;
use crate::turn::{Fault, Progress, Sink, Turn};

pub(crate) mod anthropic;
pub(crate) mod openai;

/// Name of the schema, and of the tool that stands for it under [`StructuredOutput::Tool`].
pub(crate) const ANSWER: &str = "trireme_answer";

/// Reads one call's stream.
pub(crate) enum Stream {
    OpenAi(openai::Stream),
    Anthropic(anthropic::Stream),
}

impl Stream {
    pub(crate) fn new(api: Api) -> Self {
        match api {
            Api::OpenAi => Self::OpenAi(openai::Stream::default()),
            Api::Anthropic => Self::Anthropic(anthropic::Stream::default()),
        }
    }

    /// Takes one event's data.
    pub(crate) fn event(
        &mut self,
        data: &[u8],
        turn: &mut Turn,
        on: &mut Sink<'_>,
    ) -> Result<Progress, Fault> {
        let data = std::str::from_utf8(data).map_err(|_| {
            let seen = String::from_utf8_lossy(data).into_owned();
            Fault::Garbage("an event is not UTF-8".into(), seen)
        })?;
        match self {
            Self::OpenAi(stream) => stream.event(data, turn, on),
            Self::Anthropic(stream) => stream.event(data, turn, on),
        }
    }

    /// The stream is over. `Ok(false)`: without the mark of a complete answer.
    pub(crate) fn finish(&mut self, turn: &mut Turn, on: &mut Sink<'_>) -> Result<bool, Fault> {
        match self {
            Self::OpenAi(stream) => stream.finish(turn, on),
            Self::Anthropic(stream) => stream.finish(turn),
        }
    }

    /// The answer's content is complete and only its tail (usage, end mark) may be missing.
    pub(crate) fn complete(&self, turn: &Turn) -> bool {
        matches!(self, Self::OpenAi(_)) && turn.finish.is_some()
    }
}

/// The request as JSON.
pub(crate) fn body(model: &ModelRef, request: &ChatRequest) -> Result<Vec<u8>, serde_json::Error> {
    match model.provider.api {
        Api::OpenAi => serde_json::to_vec(&openai::Body::new(model, request)),
        Api::Anthropic => serde_json::to_vec(&anthropic::Body::new(model, request)),
    }
}

/// The system prompt; under [`StructuredOutput::JsonObject`] the schema is appended to it.
fn system(request: &ChatRequest, output: StructuredOutput) -> Option<String> {
    match (&request.output_schema, output) {
        (Some(schema), StructuredOutput::JsonObject) => {
            let given = request.system.as_deref().unwrap_or_default();
            let gap = if given.is_empty() { "" } else { "\n\n" };
            Some(format!(
                "{given}{gap}Answer with one JSON value, without any text around it, \
                 that satisfies this JSON schema: {schema}"
            ))
        }
        _ => request.system.clone(),
    }
}

/// Garbage, with what was seen.
fn garbage(what: &str, error: &serde_json::Error, data: &str) -> Fault {
    // Only the place: serde's messages quote input.
    let place = format!("{what} at column {}", error.column());
    Fault::Garbage(place, data.to_owned())
}

/// How to say that a tool call's arguments are not JSON.
fn bad_arguments(name: &str, turn: &Turn) -> Fault {
    let why = match turn.finish {
        Some(crate::FinishReason::Length) => "were cut by the token limit",
        _ => "are not JSON",
    };
    let name: String = name.chars().take(64).collect();
    Fault::Invalid(format!("the arguments of the call to `{name}` {why}"))
}

#[cfg(test)]
pub(crate) mod testing;
