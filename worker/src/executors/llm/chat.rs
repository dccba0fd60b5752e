//! The span of one call to a model.

use serde_json::json;
use trireme_llm::{ChatRequest, ChatResponse, Error, FinishReason, Message, ModelRef, Usage};
use trireme_telemetry::traces::{Span, SpanKind, Value};

use crate::spans::Spans;

/// A call under way. Dropped before its end, it counts as cancelled.
pub(super) struct Chat<'a> {
    spans: &'a Spans,
    span: Option<Span>,
}

impl<'a> Chat<'a> {
    pub(super) fn begin(spans: &'a Spans, model: &ModelRef, request: &ChatRequest) -> Self {
        let mut span = spans.open(SpanKind::Client, format!("chat {}", model.model()));
        span.set("gen_ai.operation.name", "chat")
            .set("gen_ai.provider.name", model.provider())
            .set("gen_ai.request.model", model.model())
            .set("gen_ai.request.stream", true);
        if let Some(run) = &request.metadata.run {
            span.set("gen_ai.conversation.id", &**run).set("trireme.run.id", &**run);
        }
        if let Some(task) = &request.metadata.task {
            span.set("trireme.task.id", &**task);
        }
        if let Some(tokens) = request.max_tokens {
            span.set("gen_ai.request.max_tokens", i64::from(tokens));
        }
        if let Some(temperature) = request.temperature {
            span.set("gen_ai.request.temperature", f64::from(temperature));
        }
        if let Some(system) = &request.system
            && let Some(text) = spans.content(|| json!([{"type": "text", "content": system}]).to_string())
        {
            span.set("gen_ai.system_instructions", text);
        }
        if let Some(text) = spans.content(|| messages(&request.messages)) {
            span.set("gen_ai.input.messages", text);
        }
        Self { spans, span: Some(span) }
    }

    /// The call has ended.
    pub(super) fn end(
        mut self,
        answered: &Result<ChatResponse, Error>,
        failed: impl FnOnce(&Error) -> &'static str,
    ) {
        let Some(mut span) = self.span.take() else { return };
        match answered {
            Ok(response) => {
                answer(&mut span, response);
                if let Some(text) = self.spans.content(|| output(response)) {
                    span.set("gen_ai.output.messages", text);
                }
            }
            Err(error) => span.fail(failed(error)),
        }
        self.spans.close(span);
    }
}

impl Drop for Chat<'_> {
    fn drop(&mut self) {
        if let Some(mut span) = self.span.take() {
            span.fail("cancelled");
            self.spans.close(span);
        }
    }
}

fn answer(span: &mut Span, response: &ChatResponse) {
    let reasons = Value::OneOf(reason(&response.finish_reason).into());
    span.set("gen_ai.response.finish_reasons", reasons)
        .set("gen_ai.response.time_to_first_chunk", response.ttft.as_secs_f64());
    if let Some(model) = &response.served_model {
        span.set("gen_ai.response.model", &**model);
    }
    if let Some(id) = &response.id {
        span.set("gen_ai.response.id", &**id);
    }
    if response.usage_reported {
        let Usage { input, output, cached_input, cache_write_input, reasoning } = response.usage;
        let count = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
        span.set("gen_ai.usage.input_tokens", count(input)).set("gen_ai.usage.output_tokens", count(output));
        for (name, tokens) in [
            ("gen_ai.usage.cache_read.input_tokens", cached_input),
            ("gen_ai.usage.cache_creation.input_tokens", cache_write_input),
            ("gen_ai.usage.reasoning.output_tokens", reasoning),
        ] {
            if tokens > 0 {
                span.set(name, count(tokens));
            }
        }
    }
    if let Some(cost) = response.cost_usd_micros {
        span.set("trireme.cost.usd", cost as f64 / 1e6);
    }
}

fn reason(reason: &FinishReason) -> &str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::ContentFilter => "content_filter",
        FinishReason::Other(other) => other,
    }
}

/// As `gen_ai.input.messages` has them.
fn messages(messages: &[Message]) -> String {
    let message = |message: &Message| match message {
        Message::User { content } => json!({"role": "user", "parts": [text(content)]}),
        Message::Assistant { content, tool_calls } => {
            let calls = tool_calls
                .iter()
                .map(|call| json!({"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments}));
            json!({"role": "assistant", "parts": std::iter::once(text(content)).chain(calls).collect::<Vec<_>>()})
        }
        Message::Tool { tool_call_id, content, .. } => {
            json!({"role": "tool", "parts": [{"type": "tool_call_response", "id": tool_call_id, "response": content}]})
        }
    };
    json!(messages.iter().map(message).collect::<Vec<_>>()).to_string()
}

fn output(response: &ChatResponse) -> String {
    let calls = response.tool_calls.iter().map(
        |call| json!({"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments}),
    );
    let parts: Vec<_> = std::iter::once(text(&response.text)).chain(calls).collect();
    json!([{"role": "assistant", "parts": parts, "finish_reason": reason(&response.finish_reason)}])
        .to_string()
}

fn text(content: &str) -> serde_json::Value {
    json!({"type": "text", "content": content})
}
