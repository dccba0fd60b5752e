//! The prompt cache: which beginnings of prompts were read before.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::compile::invalid;
use crate::{
    prompt::Prompt,
    scenario::{Error, PromptCache},
};

/// Prefixes that are remembered; over it the cache starts anew. 128 tokens each: 128 million tokens.
const MAX_PREFIXES: usize = 1_000_000;

/// The prefixes of all models.
#[derive(Debug)]
pub(super) struct Cache {
    rules: PromptCache,
    /// From when on each prefix can be read.
    prefixes: Mutex<HashMap<u64, Instant>>,
}

impl Cache {
    pub(super) fn new(rules: PromptCache) -> Result<Self, Error> {
        let wrong = |field: &str, problem: &str| Err(invalid(format!("prompt_cache.{field}"), problem));
        if !(1.0..=1e6).contains(&rules.speedup) {
            return wrong("speedup", "must be from 1 to 1000000");
        }
        if rules.step_tokens == 0 {
            return wrong("step_tokens", "must be over 0");
        }
        Ok(Self { rules, prefixes: Mutex::default() })
    }

    pub(super) fn clear(&self) {
        self.prefixes.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Tokens of the longest common prefix with an earlier prompt whose answer has begun.
    pub(super) fn cached(&self, prompt: &Prompt) -> u64 {
        let now = Instant::now();
        let known = self.prefixes.lock().unwrap_or_else(PoisonError::into_inner);
        let found = prompt.prefixes(self.rules.step_tokens).into_iter();
        let found = found.take_while(|prefix| known.get(prefix).is_some_and(|from| *from <= now)).count();
        let tokens = found as u64 * self.rules.step_tokens;
        if tokens < self.rules.min_tokens { 0 } else { tokens }
    }

    /// Later prompts find this one's prefixes `after` its first token's time.
    pub(super) fn keep(&self, prompt: &Prompt, after: Duration) {
        let from = Instant::now() + after;
        let mut known = self.prefixes.lock().unwrap_or_else(PoisonError::into_inner);
        for prefix in prompt.prefixes(self.rules.step_tokens) {
            if known.len() >= MAX_PREFIXES && !known.contains_key(&prefix) {
                known.clear();
            }
            known.entry(prefix).and_modify(|known| *known = (*known).min(from)).or_insert(from);
        }
    }

    /// How many uncached tokens are as much work as `prompt` tokens of which `cached` are cached.
    pub(super) fn work(&self, prompt: u64, cached: u64) -> f64 {
        (prompt - cached) as f64 + cached as f64 / self.rules.speedup
    }
}

#[cfg(test)]
mod tests;
