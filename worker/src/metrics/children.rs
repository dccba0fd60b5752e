//! The children of what is counted for every task or model call, looked up by their labels once.

use prometheus::{Counter, CounterVec, Histogram, HistogramVec, IntCounter, IntCounterVec};
use trireme_model::{FailureClass, Kind, Priority};
use trireme_telemetry::OTHER;

/// Outcomes of attempts that are exported as 0 from the start, because nobody sees the first increase of a series
/// that was not there. Others appear when they occur.
const OUTCOMES: [&str; 12] = [
    "cancelled",
    "lost",
    "released",
    "panicked",
    "timeout",
    "rate_limited",
    "overloaded",
    "provider_failed",
    "refused",
    "invalid_output",
    "unreachable",
    "http_status",
];

/// Of one pool.
pub(crate) struct PoolMetrics {
    queue: [Histogram; 2],
    start: [Histogram; 2],
    /// Successors executed without a hint.
    pub(crate) continued: IntCounter,
    kinds: [Kinds; 4],
}

/// Of one kind of task in a pool.
pub(crate) struct Kinds {
    /// Attempts that succeeded.
    pub(crate) succeeded: IntCounter,
    /// Seconds of an attempt.
    pub(crate) duration: Histogram,
    retries: [IntCounter; 3],
}

/// Why a task is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    Retryable,
    RateLimited,
    Released,
}

/// Of one model.
pub(crate) struct ModelMetrics {
    requests: [IntCounter; Call::ALL.len()],
    tokens: [IntCounter; Token::ALL.len()],
    /// US dollars.
    pub(crate) cost: Counter,
    /// Seconds to the first token.
    pub(crate) first_token: Histogram,
    /// Longest pause of a call, in seconds.
    pub(crate) token_gap: Histogram,
    /// Tokens per second.
    pub(crate) token_rate: Histogram,
    /// Seconds until a rate-limited call is repeated; one for all models of a provider.
    pub(crate) limit_wait: Histogram,
}

/// How a call to a provider ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Ok,
    RateLimited,
    Overloaded,
    Timeout,
    InvalidOutput,
    Error,
    Cancelled,
}

/// A type of token.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Token {
    Input,
    Output,
    CachedInput,
    CacheWrite,
    Reasoning,
    /// Not reported by the provider.
    Estimated,
}

fn place(priority: Priority) -> usize {
    usize::from(priority == Priority::High)
}

impl PoolMetrics {
    pub(super) fn of(
        attempts: &IntCounterVec,
        queue: &HistogramVec,
        start: &HistogramVec,
        duration: &HistogramVec,
        retries: &IntCounterVec,
        continued: &IntCounterVec,
    ) -> impl Fn(&str) -> Self + Send + Sync + 'static {
        let (attempts, retries, continued) = (attempts.clone(), retries.clone(), continued.clone());
        let (queue, start, duration) = (queue.clone(), start.clone(), duration.clone());
        move |pool| Self {
            queue: ["normal", "high"].map(|priority| queue.with_label_values(&[pool, priority])),
            start: ["normal", "high"].map(|priority| start.with_label_values(&[pool, priority])),
            continued: continued.with_label_values(&[pool]),
            kinds: ["llm", "tool", "map", "agent"].map(|kind| {
                for outcome in OUTCOMES {
                    attempts.with_label_values(&[pool, kind, outcome]);
                }
                Kinds {
                    succeeded: attempts.with_label_values(&[pool, kind, "succeeded"]),
                    duration: duration.with_label_values(&[pool, kind]),
                    retries: Retry::ALL.map(|class| retries.with_label_values(&[pool, kind, class.name()])),
                }
            }),
        }
    }

    /// Seconds from a hint's publication to the claim.
    pub(crate) fn queue(&self, priority: Priority) -> &Histogram {
        &self.queue[place(priority)]
    }

    /// Seconds from ready to the claim.
    pub(crate) fn start(&self, priority: Priority) -> &Histogram {
        &self.start[place(priority)]
    }

    /// Of one kind of task. Joins are never executed; one that is all the same counts as a map, its nearest kin.
    pub(crate) fn kind(&self, kind: Kind) -> &Kinds {
        let [llm, tool, map, agent] = &self.kinds;
        match kind {
            Kind::Llm => llm,
            Kind::Tool => tool,
            Kind::Map | Kind::Join => map,
            Kind::Agent => agent,
        }
    }
}

impl Kinds {
    /// Attempts after which the task is tried again for this reason.
    pub(crate) fn retried(&self, why: Retry) -> &IntCounter {
        &self.retries[why as usize]
    }
}

impl Retry {
    const ALL: [Self; 3] = [Self::Retryable, Self::RateLimited, Self::Released];

    /// What a failure of this class leads to, if to another attempt.
    pub(crate) fn after(class: FailureClass) -> Option<Self> {
        match class {
            FailureClass::Retryable => Some(Self::Retryable),
            FailureClass::RateLimited => Some(Self::RateLimited),
            FailureClass::Released => Some(Self::Released),
            FailureClass::Permanent => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Retryable => "retryable",
            Self::RateLimited => "rate_limited",
            Self::Released => "released",
        }
    }
}

impl ModelMetrics {
    pub(super) fn of(
        requests: &IntCounterVec,
        tokens: &IntCounterVec,
        cost: &CounterVec,
        first_token: &HistogramVec,
        token_gap: &HistogramVec,
        token_rate: &HistogramVec,
        limit_wait: &HistogramVec,
    ) -> impl Fn(&str) -> Self + Send + Sync + 'static {
        let (requests, tokens, cost) = (requests.clone(), tokens.clone(), cost.clone());
        let (first_token, token_gap) = (first_token.clone(), token_gap.clone());
        let (token_rate, limit_wait) = (token_rate.clone(), limit_wait.clone());
        move |name| {
            let (provider, model) = name.split_once('/').unwrap_or((OTHER, OTHER));
            let labels = &[provider, model];
            Self {
                requests: Call::ALL.map(|call| requests.with_label_values(&[provider, model, call.name()])),
                tokens: Token::ALL.map(|token| tokens.with_label_values(&[provider, model, token.name()])),
                cost: cost.with_label_values(labels),
                first_token: first_token.with_label_values(labels),
                token_gap: token_gap.with_label_values(labels),
                token_rate: token_rate.with_label_values(labels),
                limit_wait: limit_wait.with_label_values(&[provider]),
            }
        }
    }

    /// Counts a call that ended.
    pub(crate) fn ended(&self, call: Call) {
        self.requests[call as usize].inc();
    }

    /// Counts tokens.
    pub(crate) fn tokens(&self, of: Token, count: u64) {
        self.tokens[of as usize].inc_by(count);
    }
}

impl Call {
    const ALL: [Self; 7] = [
        Self::Ok,
        Self::RateLimited,
        Self::Overloaded,
        Self::Timeout,
        Self::InvalidOutput,
        Self::Error,
        Self::Cancelled,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::InvalidOutput => "invalid_output",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Token {
    const ALL: [Self; 6] =
        [Self::Input, Self::Output, Self::CachedInput, Self::CacheWrite, Self::Reasoning, Self::Estimated];

    fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::CachedInput => "cached_input",
            Self::CacheWrite => "cache_write",
            Self::Reasoning => "reasoning",
            Self::Estimated => "estimated",
        }
    }
}
