//! Chat completions. A stream is `data: {chunk}` lines that end with `data: [DONE]`; the id, the
//! role and a call's name come once, arguments in pieces under the call's index.

use serde_json::{Value, json};

use super::{Encoder, quote, unix_seconds};
use crate::{
    prompt::Refusal,
    reply::{Reply, Segment, Usage},
    scenario::Stop,
};

/// The events of one streamed answer.
pub(super) struct Chunks {
    /// A chunk up to its `choices`, made once: it is the same in every chunk.
    head: String,
    include_usage: bool,
    started: bool,
    has_text: bool,
    /// Index of the latest call.
    call: Option<u64>,
}

// === impl Chunks ===

impl Chunks {
    pub(super) fn new(model: &str, reply: &Reply, include_usage: bool) -> Self {
        let (id, model) = (json!(format!("chatcmpl-{}", reply.id)), json!(model));
        let created = unix_seconds();
        Self {
            head: format!(
                "data: {{\"id\":{id},\"object\":\"chat.completion.chunk\",\"created\":{created},\"model\":{model},\"system_fingerprint\":\"fp_simulator\""
            ),
            include_usage,
            started: false,
            has_text: matches!(reply.segments.first(), None | Some(Segment::Text(_))),
            call: None,
        }
    }

    /// One chunk with `delta` written by the caller.
    fn chunk(&self, out: &mut Vec<u8>, delta: impl FnOnce(&mut Vec<u8>), finish: Option<&str>) {
        out.extend_from_slice(self.head.as_bytes());
        out.extend_from_slice(b",\"choices\":[{\"index\":0,\"delta\":{");
        delta(out);
        out.extend_from_slice(b"},\"logprobs\":null,\"finish_reason\":");
        quote(out, &finish);
        out.extend_from_slice(b"}]");
        if self.include_usage {
            out.extend_from_slice(b",\"usage\":null");
        }
        out.extend_from_slice(b"}\n\n");
    }

    fn role(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.started, true) {
            let content = if self.has_text { "\"\"" } else { "null" };
            let delta = format!("\"role\":\"assistant\",\"content\":{content},\"refusal\":null");
            self.chunk(out, |out| out.extend_from_slice(delta.as_bytes()), None);
        }
    }
}

impl Encoder for Chunks {
    fn open(&mut self, _out: &mut Vec<u8>) {}

    fn begin(&mut self, out: &mut Vec<u8>, segment: &Segment) {
        self.role(out);
        if let Segment::Call { id, name, .. } = segment {
            let index = self.call.map_or(0, |index| index + 1);
            self.call = Some(index);
            let call = json!([{"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}]);
            let delta = format!("\"tool_calls\":{call}");
            self.chunk(out, |out| out.extend_from_slice(delta.as_bytes()), None);
        }
    }

    fn delta(&mut self, out: &mut Vec<u8>, segment: &Segment, piece: &str) {
        let index = self.call.unwrap_or_default();
        let delta = |out: &mut Vec<u8>| match segment {
            Segment::Text(_) => {
                out.extend_from_slice(b"\"content\":");
                quote(out, piece);
            }
            Segment::Call { .. } => {
                let open = format!("\"tool_calls\":[{{\"index\":{index},\"function\":{{\"arguments\":");
                out.extend_from_slice(open.as_bytes());
                quote(out, piece);
                out.extend_from_slice(b"}}]");
            }
        };
        self.chunk(out, delta, None);
    }

    fn end(&mut self, _out: &mut Vec<u8>) {}

    fn finish(&mut self, out: &mut Vec<u8>, stop: Stop, used: Usage) {
        self.role(out);
        self.chunk(out, |_| {}, Some(reason(stop)));
        if self.include_usage {
            let last = format!("{},\"choices\":[],\"usage\":{}}}\n\n", self.head, usage(used));
            out.extend_from_slice(last.as_bytes());
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn error(&mut self, out: &mut Vec<u8>, refusal: &Refusal) {
        out.extend_from_slice(format!("data: {}\n\n", error(refusal)).as_bytes());
    }
}

pub(super) fn body(model: &str, reply: &Reply) -> Value {
    let mut text = None;
    let mut calls = Vec::new();
    for segment in &reply.segments {
        match segment {
            Segment::Text(said) => text = Some(said),
            Segment::Call { id, name, arguments } => calls.push(json!({
                "id": id, "type": "function", "function": {"name": name, "arguments": arguments},
            })),
        }
    }
    let mut message = json!({"role": "assistant", "content": text, "refusal": null, "annotations": []});
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    } else if text.is_none() {
        message["content"] = json!("");
    }
    json!({
        "id": format!("chatcmpl-{}", reply.id),
        "object": "chat.completion",
        "created": unix_seconds(),
        "model": model,
        "system_fingerprint": "fp_simulator",
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": reason(reply.stop)}],
        "usage": usage(reply.usage),
    })
}

pub(super) fn error(refusal: &Refusal) -> Value {
    let (kind, code) = match refusal.status {
        401 => ("invalid_request_error", Some("invalid_api_key")),
        404 => ("invalid_request_error", Some("model_not_found")),
        429 => ("requests", Some("rate_limit_exceeded")),
        400..=499 => ("invalid_request_error", None),
        _ => ("server_error", None),
    };
    json!({"error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": code}})
}

pub(super) fn models(models: &[String]) -> Value {
    let list: Vec<Value> = models
        .iter()
        .map(|id| json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "simulator"}))
        .collect();
    json!({"object": "list", "data": list})
}

fn reason(stop: Stop) -> &'static str {
    match stop {
        Stop::Stop => "stop",
        Stop::Length => "length",
        Stop::ToolCalls => "tool_calls",
        Stop::Refusal => "content_filter",
    }
}

fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    })
}
