//! How long one call may take, and how much of a provider's answer is held in memory.

use std::time::Duration;

/// Time limits of one call. Each has its own error, because the engine acts differently on them:
/// a late first token is worth a hedge, a stall a retry, the total a failed task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From sending the request (after waiting for a slot) to the first generated token of any
    /// kind: text, reasoning or tool call. Response headers do not count as a token: they often
    /// arrive long before. Models that hide their reasoning spend it inside this limit.
    pub first_token: Duration,
    /// Longest pause between two pieces of progress after the first token. Keep-alive comments
    /// and `ping` events are not progress.
    pub stall: Duration,
    /// The whole call, including the wait for a slot of the provider's `max_in_flight`.
    pub total: Duration,
}

impl Default for Limits {
    /// 60 s to the first token, 30 s between tokens, 10 minutes in total.
    fn default() -> Self {
        Self {
            first_token: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            total: Duration::from_secs(600),
        }
    }
}

/// Sizes that a provider's answer may not exceed; over any of them the call fails with
/// [`crate::Kind::TooLarge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Text and all tool-call arguments of one answer together, in bytes.
    pub(crate) response: usize,
    /// One server-sent event, in bytes.
    pub(crate) event: usize,
    /// Arguments of one tool call, in bytes.
    pub(crate) arguments: usize,
    /// Tool calls in one turn.
    pub(crate) calls: usize,
}

pub(crate) const DEFAULT_RESPONSE_BYTES: usize = 16 << 20;

impl Bounds {
    pub(crate) const fn with_response(response: usize) -> Self {
        Self { response, event: 1 << 20, arguments: 1 << 20, calls: 1_000 }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self::with_response(DEFAULT_RESPONSE_BYTES)
    }
}
