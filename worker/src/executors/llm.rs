//! `llm` tasks: one streamed call of a model.

mod asked;
mod chat;
mod counted;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use trireme_llm::{ChatEvent, ChatRequest, ChatResponse, Class, Kind, Message, Metadata, Providers, Tool};
use trireme_model::{FailureClass, Ms, Payload, Usage};
use trireme_spec::{LlmCall, Role};
use trireme_tool::Tools;

use super::{Executors, Job};
use crate::{
    metrics::Metrics,
    outcome::{Ended, Failure},
};
use asked::Asked;
use chat::Chat;
use counted::Counted;

impl Executors {
    /// Exports the series of the configured models as 0.
    pub(crate) fn begin(&self, metrics: &Metrics) {
        for name in self.providers.known() {
            // `provider/...` stands for any model of it
            if let Some(model) = self.providers.resolve(&name).ok().filter(|model| model.model() != "...") {
                metrics.model(model.provider(), model.model());
            }
        }
    }
}

pub(super) async fn call(
    providers: &Providers,
    tools: &Tools,
    job: &Job<'_>,
    call: LlmCall,
) -> Result<Ended, Failure> {
    let stream = call.stream;
    let request = request(tools, job, call)?;
    let on_event = |event: ChatEvent<'_>| match event {
        ChatEvent::TextDelta(text) if stream => job.shared.deltas.push(job.assignment, text),
        _ => {}
    };
    match ask(providers, job, &request, job.deadline, on_event).await {
        Ok(response) => Ok(Ended::result(value(response))),
        Err(error) => Err(failure(&error)),
    }
}

/// Asks a model, until `until` at the latest, and books what that costs on top of what the attempt has spent. All the
/// while, so that it is known of a call that is cut or refused, too; tokens that are not reported are estimated.
pub(super) async fn ask(
    providers: &Providers,
    job: &Job<'_>,
    request: &ChatRequest,
    until: Option<Instant>,
    mut on_event: impl FnMut(ChatEvent<'_>) + Send,
) -> Result<ChatResponse, trireme_llm::Error> {
    let mut limits = job.shared.limits;
    if let Some(until) = until {
        limits.total = limits.total.min(until.saturating_duration_since(Instant::now()));
    }
    let before = job.spent.get();
    // a model that nobody knows is not called
    let model = providers.resolve(&request.model).ok();
    let book = |usage: &trireme_llm::Usage| {
        let mut spent = before;
        let trireme_llm::Usage { input, output, cached_input, .. } = *usage;
        let usd_micros = model.as_ref().and_then(|model| model.cost_usd_micros(usage)).unwrap_or(0);
        let (input_tokens, output_tokens, cached_tokens) = (input, output, cached_input);
        spent.add(&Usage { calls: 1, input_tokens, output_tokens, cached_tokens, usd_micros });
        job.spent.set(spent);
    };
    let mut counted = Counted::new(request);
    book(&counted.usage().0);
    let metrics = model.as_ref().map(|model| job.shared.metrics.model(model.provider(), model.model()));
    let chat = job.spans.zip(model.as_ref()).map(|(spans, model)| Chat::begin(spans, model, request));
    let mut asked = metrics.clone().map(Asked::new);
    let answered = providers.chat(request, limits, |event| {
        counted.saw(&event);
        let (usage, estimated) = counted.usage();
        if let Some(asked) = &mut asked {
            asked.saw(&event);
            asked.used(usage, estimated);
        }
        book(&usage);
        if let ChatEvent::FirstToken = event {
            job.spent.first_token(job.started.elapsed());
        }
        on_event(event);
    });
    let answered = answered.await;
    if let Some(asked) = asked {
        asked.end(&answered);
    }
    if let Some(chat) = chat {
        chat.end(&answered, |error| failure(error).code);
    }
    if let (Err(error), Some(metrics)) = (&answered, metrics)
        && failure(error).class == FailureClass::RateLimited
    {
        job.spent.limited(metrics);
    }
    match &answered {
        Ok(response) if response.usage_reported => book(&response.usage),
        Err(error) if unsent(error.kind()) => job.spent.set(before),
        Ok(_) | Err(_) => {}
    }
    answered
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
    Ok(ChatRequest {
        system,
        messages,
        tools: call.tools.iter().map(offer).collect::<Result<_, Failure>>()?,
        output_schema: call.schema,
        max_tokens: call.max_tokens,
        temperature: call.temperature.map(|temperature| temperature as f32),
        stop: call.stop,
        ..request_of(job, call.model, 0)
    })
}

/// A request for call number `call` of an attempt; what is asked is still missing.
pub(super) fn request_of(job: &Job<'_>, model: String, call: u32) -> ChatRequest {
    let assignment = job.assignment;
    ChatRequest {
        model,
        metadata: Metadata { run: Some(assignment.run.to_string()), task: Some(assignment.task.to_string()) },
        // the same for every attempt and every replay, so that a callee that honours it recognises a repeat
        idempotency_key: Some(format!("{}/{}/{call}", assignment.run.origin(), assignment.task)),
        ..ChatRequest::default()
    }
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

/// Whether the provider never saw the call.
fn unsent(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::UnknownModel { .. }
            | Kind::MissingKey { .. }
            | Kind::MissingSecret(_)
            | Kind::InvalidConfig(_)
            | Kind::InvalidRequest(_)
            | Kind::Connect(_)
    )
}

pub(super) fn failure(error: &trireme_llm::Error) -> Failure {
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
