//! A decided answer: what is said, how fast, and what goes wrong. Made by `rulebook`, sent by
//! `playback`.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::{
    scenario::{Fault, Stop},
    tokens::{offset, tokens_of_bytes},
};

/// The answer to a model call.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) plan: Plan,
    pub(crate) segments: Vec<Segment>,
    pub(crate) stop: Stop,
    pub(crate) usage: Usage,
    pub(crate) pace: Pace,
    /// 16 hexadecimal digits that ids are made of; differs between repeats of one request.
    pub(crate) id: String,
}

/// The answer of a tool.
#[derive(Debug, Clone)]
pub(crate) struct ToolReply {
    pub(crate) plan: Plan,
    pub(crate) latency: Duration,
    pub(crate) body: ToolBody,
}

/// Which rule decided, and what goes wrong.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The rule's name; `echo` when none matched.
    pub(crate) rule: String,
    /// How often this content was asked, this call included.
    pub(crate) occurrence: u64,
    pub(crate) fault: Option<Fault>,
    /// How long an error takes to come.
    pub(crate) fault_after: Duration,
}

#[derive(Debug, Clone)]
pub(crate) enum ToolBody {
    Json(Value),
    Text(String),
    Filler(u64),
}

/// One block of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Segment {
    Text(String),
    Call { id: String, name: String, arguments: String },
}

/// What is billed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    pub(crate) prompt: u64,
    pub(crate) completion: u64,
    pub(crate) cached: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) first_token: Duration,
    pub(crate) tokens_per_second: Option<f64>,
    pub(crate) chunk_interval: Duration,
}

// === impl Segment ===

impl Segment {
    pub(crate) fn tokens(&self) -> u64 {
        match self {
            Self::Text(text) => tokens_of_bytes(text.len()),
            Self::Call { name, arguments, .. } => tokens_of_bytes(name.len() + arguments.len()),
        }
    }

    /// The part of the text or of the arguments that lies between two token positions. The name of
    /// a call comes first and counts, but is sent whole when the call begins.
    pub(crate) fn slice(&self, from: u64, to: u64) -> &str {
        let last = self.tokens();
        let (text, head) = match self {
            Self::Text(text) => (text, 0),
            Self::Call { name, arguments, .. } => (arguments, name.len()),
        };
        let at = |tokens: u64| {
            if tokens >= last {
                return text.len();
            }
            let bytes = offset_bytes(tokens).saturating_sub(head);
            text.floor_char_boundary(bytes.min(text.len()))
        };
        &text[at(from)..at(to)]
    }

    fn truncate(&mut self, tokens: u64) {
        match self {
            Self::Text(text) => text.truncate(offset(text, tokens)),
            Self::Call { name, arguments, .. } => {
                let bytes = offset_bytes(tokens).saturating_sub(name.len());
                arguments.truncate(arguments.floor_char_boundary(bytes.min(arguments.len())));
            }
        }
    }
}

fn offset_bytes(tokens: u64) -> usize {
    usize::try_from(tokens).unwrap_or(usize::MAX).saturating_mul(crate::TOKEN_BYTES)
}

// === impl Reply ===

impl Reply {
    pub(crate) fn tokens(&self) -> u64 {
        self.segments.iter().map(Segment::tokens).sum()
    }

    /// Cuts the answer at the request's token limit, which leaves arguments invalid as in reality.
    pub(crate) fn limit(&mut self, max_tokens: Option<u64>) {
        let Some(mut left) = max_tokens.filter(|max| self.tokens() > *max) else {
            return;
        };
        self.stop = Stop::Length;
        self.segments.retain_mut(|segment| {
            if left == 0 {
                return false;
            }
            let tokens = segment.tokens();
            if tokens > left {
                segment.truncate(left);
            }
            left -= tokens.min(left);
            true
        });
    }
}

// === impl Pace ===

impl Pace {
    /// From the request to the token with this number (from 0).
    pub(crate) fn due(&self, token: u64) -> Duration {
        match self.tokens_per_second {
            Some(pace) => self.first_token + Duration::from_secs_f64((token as f64 / pace).min(86_400.0)),
            None => self.first_token,
        }
    }

    /// How many of `total` tokens are due so long after the request; at least one.
    pub(crate) fn tokens_due(&self, elapsed: Duration, total: u64) -> u64 {
        let since = elapsed.saturating_sub(self.first_token).as_secs_f64();
        match self.tokens_per_second {
            Some(pace) => ((since * pace) as u64 + 1).min(total),
            None => total,
        }
    }

    /// Until the last of `total` tokens.
    pub(crate) fn whole(&self, total: u64) -> Duration {
        self.due(total.saturating_sub(1))
    }
}

// === impl ToolBody ===

impl ToolBody {
    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Self::Text(_) => "text/plain; charset=utf-8",
            Self::Json(_) | Self::Filler(_) => "application/json",
        }
    }

    /// The body in pieces of at most 64 KiB where it is large.
    pub(crate) fn pieces(self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        static BLOCK: [u8; 64 << 10] = [b'x'; 64 << 10];
        match self {
            Self::Json(value) => Box::new(std::iter::once(value.to_string().into())),
            Self::Text(text) => Box::new(std::iter::once(text.into())),
            Self::Filler(bytes) => {
                let (whole, rest) = (bytes / BLOCK.len() as u64, bytes % BLOCK.len() as u64);
                let quote = || std::iter::once(Bytes::from_static(b"\""));
                let blocks = (0..whole).map(|_| Bytes::from_static(&BLOCK));
                let rest = std::iter::once(Bytes::from_static(&BLOCK[..rest as usize]));
                Box::new(quote().chain(blocks).chain(rest).chain(quote()))
            }
        }
    }
}
