//! `llm` tasks: one streamed call of a model.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use trireme_llm::{ChatEvent, ChatRequest, ChatResponse, Class, Kind, Message, Metadata, Providers, Tool};
use trireme_model::{FailureClass, Ms, Payload, Usage};
use trireme_spec::{LlmCall, Role};
use trireme_tool::Tools;

use super::Job;
use crate::outcome::{Ended, Failure};

pub(super) async fn call(
    providers: &Providers,
    tools: &Tools,
    job: &Job<'_>,
    call: LlmCall,
) -> Result<Ended, Failure> {
    let stream = call.stream;
    let request = request(tools, job, call)?;
    let mut limits = job.shared.limits;
    if let Some(deadline) = job.deadline {
        limits.total = limits.total.min(deadline.saturating_duration_since(Instant::now()));
    }
    let mut spent = Usage { calls: 1, ..Usage::default() };
    job.spent.set(spent);
    let on_event = |event: ChatEvent<'_>| match event {
        ChatEvent::TextDelta(text) if stream => job.shared.deltas.push(job.assignment, text),
        ChatEvent::Usage(usage) => {
            // also of a call that is cut later
            count(&mut spent, usage);
            job.spent.set(spent);
        }
        _ => {}
    };
    match providers.chat(&request, limits, on_event).await {
        Ok(response) => {
            count(&mut spent, &response.usage);
            spent.usd_micros = response.cost_usd_micros.unwrap_or(0);
            job.spent.set(spent);
            Ok(Ended::Result(value(response)))
        }
        Err(error) => {
            if unsent(error.kind()) {
                job.spent.set(Usage::default());
            }
            Err(failure(&error))
        }
    }
}

fn request(tools: &Tools, job: &Job<'_>, call: LlmCall) -> Result<ChatRequest, Failure> {
    let mut system = call.system;
    let mut messages = Vec::with_capacity(call.messages.len());
    for message in call.messages {
        match message.role {
            Role::System => {
                let text = system.get_or_insert_with(String::new);
                if !text.is_empty() {
                    text.push_str("\n\n");
                }
                text.push_str(&message.content);
            }
            Role::User => messages.push(Message::User { content: message.content }),
            Role::Assistant => {
                messages.push(Message::Assistant { content: message.content, tool_calls: Vec::new() });
            }
        }
    }
    let offer = |name: &String| {
        let tool = tools.get(name).ok_or_else(|| {
            Failure::permanent("unknown_tool", format!("this worker has no tool named {name:?}"))
        })?;
        let spec = tool.spec();
        Ok(Tool {
            name: spec.name.clone(),
            description: spec.description.clone(),
            parameters: spec.args.clone(),
        })
    };
    let assignment = job.assignment;
    Ok(ChatRequest {
        model: call.model,
        system,
        messages,
        tools: call.tools.iter().map(offer).collect::<Result<_, Failure>>()?,
        output_schema: call.schema,
        max_tokens: call.max_tokens,
        temperature: call.temperature.map(|temperature| temperature as f32),
        stop: call.stop,
        metadata: Metadata { run: Some(assignment.run.to_string()), task: Some(assignment.task.to_string()) },
        // the same for every attempt, so that a callee that honours it recognises a repeat
        idempotency_key: Some(format!("{}/{}/0", assignment.run, assignment.task)),
        ..ChatRequest::default()
    })
}

/// The result as it is recorded: nothing in it depends on when or how fast it came.
fn value(response: ChatResponse) -> Payload {
    let mut value = json!({
        "text": response.text,
        "finish_reason": response.finish_reason,
        "model": response.model,
        "usage": {"input_tokens": response.usage.input, "output_tokens": response.usage.output},
    });
    if let Some(json) = response.json {
        value["json"] = json;
    }
    if !response.tool_calls.is_empty() {
        let call = |call: &trireme_llm::ToolCall| json!({"name": call.name, "arguments": call.arguments});
        value["tool_calls"] = Value::Array(response.tool_calls.iter().map(call).collect());
    }
    Payload::of(&value)
}

fn count(spent: &mut Usage, usage: &trireme_llm::Usage) {
    spent.input_tokens = usage.input;
    spent.output_tokens = usage.output;
    spent.cached_tokens = usage.cached_input;
}

/// Whether the provider never saw the call.
fn unsent(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::UnknownModel { .. }
            | Kind::MissingKey { .. }
            | Kind::InvalidConfig(_)
            | Kind::InvalidRequest(_)
            | Kind::Connect(_)
    )
}

fn failure(error: &trireme_llm::Error) -> Failure {
    let ms = |time: Option<Duration>| time.map(|time| Ms::try_from(time.as_millis()).unwrap_or(Ms::MAX));
    let (class, code, retry_after) = match error.class() {
        Class::RateLimited { retry_after } => (FailureClass::RateLimited, "rate_limited", ms(retry_after)),
        Class::Retryable { retry_after: Some(after) } => {
            // a pause that the provider asked for is a rate limit by another name
            (FailureClass::RateLimited, "overloaded", ms(Some(after)))
        }
        Class::Retryable { retry_after: None } => (FailureClass::Retryable, "provider_failed", None),
        Class::FirstTokenTimeout => (FailureClass::Retryable, "first_token_timeout", None),
        Class::StallTimeout => (FailureClass::Retryable, "stall_timeout", None),
        Class::InvalidOutput => (FailureClass::Retryable, "invalid_output", None),
        Class::TotalTimeout => (FailureClass::Permanent, "timeout", None),
        Class::Permanent => (FailureClass::Permanent, "refused", None),
    };
    Failure { class, code, message: error.to_string(), retry_after }
}
