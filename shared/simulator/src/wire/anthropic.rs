//! Messages. A stream is named events around content blocks, each begun, filled and stopped under
//! its index; a tool call is complete at its `content_block_stop`.

use serde_json::{Value, json};

use super::{Encoder, quote};
use crate::{
    prompt::Refusal,
    reply::{Reply, Segment, Usage},
    scenario::Stop,
};

/// The events of one streamed answer.
pub(super) struct Events {
    message: Value,
    /// Index of the current block.
    block: u64,
}

// === impl Events ===

impl Events {
    pub(super) fn new(model: &str, reply: &Reply) -> Self {
        let mut usage = usage(reply.usage);
        // Nothing has been said yet; the real number comes with `message_delta`.
        usage["output_tokens"] = json!(1);
        Self {
            message: json!({
                "id": format!("msg_{}", reply.id), "type": "message", "role": "assistant", "model": model,
                "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage,
            }),
            block: 0,
        }
    }
}

fn event(out: &mut Vec<u8>, name: &str, data: &Value) {
    out.extend_from_slice(format!("event: {name}\ndata: {data}\n\n").as_bytes());
}

impl Encoder for Events {
    fn open(&mut self, out: &mut Vec<u8>) {
        let message = self.message.take();
        event(out, "message_start", &json!({"type": "message_start", "message": message}));
        event(out, "ping", &json!({"type": "ping"}));
    }

    fn begin(&mut self, out: &mut Vec<u8>, segment: &Segment) {
        let block = match segment {
            Segment::Text(_) => json!({"type": "text", "text": ""}),
            Segment::Call { id, name, .. } => {
                json!({"type": "tool_use", "id": id, "name": name, "input": {}})
            }
        };
        let data = json!({"type": "content_block_start", "index": self.block, "content_block": block});
        event(out, "content_block_start", &data);
    }

    fn delta(&mut self, out: &mut Vec<u8>, segment: &Segment, piece: &str) {
        let (kind, field) = match segment {
            Segment::Text(_) => ("text_delta", "text"),
            Segment::Call { .. } => ("input_json_delta", "partial_json"),
        };
        let index = self.block;
        let head = format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":{index},\"delta\":{{\"type\":\"{kind}\",\"{field}\":"
        );
        out.extend_from_slice(head.as_bytes());
        quote(out, piece);
        out.extend_from_slice(b"}}\n\n");
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        event(out, "content_block_stop", &json!({"type": "content_block_stop", "index": self.block}));
        self.block += 1;
    }

    fn finish(&mut self, out: &mut Vec<u8>, stop: Stop, used: Usage) {
        let data = json!({
            "type": "message_delta",
            "delta": {"stop_reason": reason(stop), "stop_sequence": null},
            "usage": usage(used),
        });
        event(out, "message_delta", &data);
        event(out, "message_stop", &json!({"type": "message_stop"}));
    }

    fn error(&mut self, out: &mut Vec<u8>, refusal: &Refusal) {
        event(out, "error", &error(refusal, "req_simulator"));
    }
}

pub(super) fn body(model: &str, reply: &Reply) -> Value {
    let content: Vec<Value> = reply
        .segments
        .iter()
        .map(|segment| match segment {
            Segment::Text(text) => json!({"type": "text", "text": text}),
            Segment::Call { id, name, arguments } => {
                // Whole answers carry an object; arguments that are none (cut or broken on
                // purpose) are shown as the text they are.
                let input = serde_json::from_str(arguments).unwrap_or_else(|_| json!(arguments));
                json!({"type": "tool_use", "id": id, "name": name, "input": input})
            }
        })
        .collect();
    json!({
        "id": format!("msg_{}", reply.id), "type": "message", "role": "assistant", "model": model,
        "content": content, "stop_reason": reason(reply.stop), "stop_sequence": null,
        "usage": usage(reply.usage),
    })
}

pub(super) fn error(refusal: &Refusal, id: &str) -> Value {
    let kind = match refusal.status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": refusal.message}, "request_id": id})
}

pub(super) fn models(models: &[String]) -> Value {
    let list: Vec<Value> = models
        .iter()
        .map(
            |id| json!({"type": "model", "id": id, "display_name": id, "created_at": "2023-11-14T22:13:20Z"}),
        )
        .collect();
    json!({"data": list, "has_more": false, "first_id": models.first(), "last_id": models.last()})
}

fn reason(stop: Stop) -> &'static str {
    match stop {
        Stop::Stop => "end_turn",
        Stop::Length => "max_tokens",
        Stop::ToolCalls => "tool_use",
        Stop::Refusal => "refusal",
    }
}

/// `input_tokens` leaves out what came from the cache.
fn usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt - usage.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.completion,
    })
}
