//! How fast a model reads and speaks, and what it need not read again.

use serde::{Deserialize, Serialize};

use super::Latency;

/// The speed of the models that a glob fits. What is not told falls back to the scenario's own fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Speed {
    /// Glob (`*`, `?`) on the whole model name.
    pub model: String,
    /// Until the first token of an answer to an empty prompt.
    #[serde(default)]
    pub time_to_first_token: Option<Latency>,
    /// Prompt tokens read in a second, 0.001 to 1e9.
    #[serde(default)]
    pub prompt_tokens_per_second: Option<f64>,
    /// Tokens of the answer in a second, 0.001 to 1e9.
    #[serde(default)]
    pub tokens_per_second: Option<f64>,
}

/// A prompt cache like that of OpenAI's models up to GPT-5.5: automatic, and the longest common prefix of earlier
/// prompts to the same model counts, in whole steps. Nothing is evicted by time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptCache {
    /// How many times less time a cached token costs, at least 1.
    pub speedup: f64,
    /// Shorter common prefixes do not count. 1,024 unless told, as OpenAI documents.
    #[serde(default = "min_tokens")]
    pub min_tokens: u64,
    /// Prefixes count in whole multiples of this. 128 unless told, as OpenAI documents.
    #[serde(default = "step_tokens")]
    pub step_tokens: u64,
}

fn min_tokens() -> u64 {
    1024
}

fn step_tokens() -> u64 {
    128
}
