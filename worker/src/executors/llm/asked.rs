//! What is measured of one call to a model.

use std::sync::Arc;

use tokio::time::Instant;
use trireme_llm::{ChatEvent, ChatResponse, Error, Kind, Usage};

use crate::metrics::{Call, ModelMetrics, Token};

/// A call under way. Dropped before its end, it counts as cancelled.
pub(super) struct Asked {
    metrics: Arc<ModelMetrics>,
    /// When the first token came, and when the last.
    first: Option<Instant>,
    last: Option<Instant>,
    gap: f64,
    /// What it used, and how many tokens of that are an estimate.
    usage: Usage,
    estimated: u64,
    ended: bool,
}

impl Asked {
    pub(super) fn new(metrics: Arc<ModelMetrics>) -> Self {
        Self {
            metrics,
            first: None,
            last: None,
            gap: 0.0,
            usage: Usage::default(),
            estimated: 0,
            ended: false,
        }
    }

    /// Takes note of what streams in.
    pub(super) fn saw(&mut self, event: &ChatEvent<'_>) {
        if let ChatEvent::Usage(_) = event {
            return;
        }
        let now = Instant::now();
        self.first.get_or_insert(now);
        if let Some(before) = self.last.replace(now) {
            self.gap = self.gap.max((now - before).as_secs_f64());
        }
    }

    /// So much was used so far.
    pub(super) fn used(&mut self, usage: Usage, estimated: u64) {
        (self.usage, self.estimated) = (usage, estimated);
    }

    /// The call has ended.
    pub(super) fn end(mut self, answered: &Result<ChatResponse, Error>) {
        self.ended = true;
        match answered {
            Ok(response) => {
                if response.usage_reported {
                    self.used(response.usage, 0);
                }
                self.metrics.ended(Call::Ok);
                self.metrics.first_token.observe(response.ttft.as_secs_f64());
                if let Some(micros) = response.cost_usd_micros {
                    self.metrics.cost.inc_by(micros as f64 / 1e6);
                }
                if let (Some(first), Some(last)) = (self.first, self.last) {
                    self.metrics.token_gap.observe(self.gap);
                    let took = (last - first).as_secs_f64();
                    // of an answer that came in one piece no rate is known
                    if took > 0.0 && self.usage.output > 1 {
                        self.metrics.token_rate.observe(self.usage.output as f64 / took);
                    }
                }
            }
            Err(error) => match call(error.kind()) {
                Some(call) => self.metrics.ended(call),
                None => return,
            },
        }
        self.count_tokens();
    }

    fn count_tokens(&self) {
        let Usage { input, output, cached_input, cache_write_input, reasoning } = self.usage;
        let counts = [
            (Token::Input, input),
            (Token::Output, output),
            (Token::CachedInput, cached_input),
            (Token::CacheWrite, cache_write_input),
            (Token::Reasoning, reasoning),
            (Token::Estimated, self.estimated),
        ];
        for (of, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            self.metrics.tokens(of, count);
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.ended {
            self.metrics.ended(Call::Cancelled);
            self.count_tokens();
        }
    }
}

/// How a failed call counts; `None` where none was made.
fn call(kind: &Kind) -> Option<Call> {
    match kind {
        Kind::UnknownModel { .. }
        | Kind::MissingKey { .. }
        | Kind::MissingSecret(_)
        | Kind::InvalidConfig(_)
        | Kind::InvalidRequest(_) => None,
        Kind::RateLimited { .. } => Some(Call::RateLimited),
        Kind::Overloaded { .. } => Some(Call::Overloaded),
        Kind::FirstTokenTimeout(_) | Kind::StallTimeout(_) | Kind::TotalTimeout(_) => Some(Call::Timeout),
        Kind::Garbage(_) | Kind::InvalidOutput(_) | Kind::TooLarge { .. } => Some(Call::InvalidOutput),
        _ => Some(Call::Error),
    }
}
