//! The scenario file: what the simulated providers and tools answer, how long they take and what
//! goes wrong. Only data here; `rulebook` compiles and applies it. Every field is described in
//! `README.md` of this crate.

mod latency;
mod llm;
mod script;
mod speed;
mod tool;
mod value;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use latency::{Latency, LogNormal, Spread, Straggler, Uniform};
pub use llm::{LlmResponse, LlmRule, LlmWhen, Stop, ToolCall, UsageOverride};
pub use script::{Script, Step, Stuck};
pub use speed::{PromptCache, Speed};
pub use tool::{ToolResponse, ToolRule, ToolWhen};
pub use value::{Fault, Match, Range, Span, TextMatch};

/// The longest scenario file that is read, in bytes.
pub const MAX_BYTES: u64 = 4 << 20;

/// Everything a simulator does. The default (an empty file) answers every model call with
/// repeatable text and every tool call with its own arguments, at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// Changes every latency and chance, but no text.
    pub seed: u64,
    /// What `GET /v1/models` lists. When given, any other model is answered with 404.
    pub models: Vec<String>,
    /// What happens to a call that no rule matches.
    pub unmatched: Unmatched,
    /// Least time between two chunks of one stream: a chunk holds all tokens that are due by then.
    /// 50 ms unless told; smaller is smoother and costs more CPU.
    pub chunk_interval: Span,
    /// For rules without their own `time_to_first_token`, and for unmatched calls.
    pub time_to_first_token: Latency,
    /// For rules without their own `tokens_per_second`; unlimited unless told.
    pub tokens_per_second: Option<f64>,
    /// Prompt tokens that a model reads in a second before its first token; unlimited unless told.
    pub prompt_tokens_per_second: Option<f64>,
    /// Speeds of single models, before the three above; the first whose glob fits wins.
    pub speeds: Vec<Speed>,
    /// Prompts that share a beginning cost less; no cache unless told.
    pub prompt_cache: Option<PromptCache>,
    /// Any value; templates see it as `data`.
    pub data: Value,
    /// Rules for model calls; the first that matches wins.
    pub rules: Vec<LlmRule>,
    /// How a model pursues goals, for calls that no rule matches; the first that matches wins.
    pub scripts: Vec<Script>,
    /// Rules for HTTP tools; the first that matches wins.
    pub tools: Vec<ToolRule>,
}

/// What happens to a call that no rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unmatched {
    /// Repeatable text from a hash of the prompt; a tool answers its arguments.
    #[default]
    Echo,
    /// 404 in the provider's error format, for tests that want every call to be foreseen.
    Error,
}

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read scenario {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is not YAML or JSON of the right shape; the message names line and column.
    #[error("scenario is not valid: {0}")]
    Parse(String),
    /// A value cannot be used.
    #[error("scenario is not valid at {place}: {problem}")]
    Invalid {
        /// Path to the value, such as `rules[2].when.model`.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
}

// === impl Scenario ===

impl Default for Scenario {
    fn default() -> Self {
        Self {
            seed: 0,
            models: Vec::new(),
            unmatched: Unmatched::default(),
            chunk_interval: Span::from_millis(50),
            time_to_first_token: Latency::default(),
            tokens_per_second: None,
            prompt_tokens_per_second: None,
            speeds: Vec::new(),
            prompt_cache: None,
            data: Value::Null,
            rules: Vec::new(),
            scripts: Vec::new(),
            tools: Vec::new(),
        }
    }
}

impl Scenario {
    /// Reads a scenario from YAML or JSON text and checks it, templates and patterns included.
    ///
    /// # Errors
    /// [`Error::Parse`] with line and column, or [`Error::Invalid`] with the place.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let scenario: Self = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|error| Error::Parse(error.to_string()))?
        } else if text.lines().all(|line| line.trim().is_empty() || line.starts_with('#')) {
            Self::default()
        } else {
            serde_saphyr::from_str(text).map_err(|error| Error::Parse(error.to_string()))?
        };
        crate::rulebook::Rulebook::compile(&scenario)?;
        Ok(scenario)
    }

    /// Reads a scenario file of at most [`MAX_BYTES`].
    ///
    /// # Errors
    /// As [`Scenario::parse`], and [`Error::Read`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let read = |source| Error::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(read)?.len() > MAX_BYTES {
            return Err(Error::Parse(format!("file is over {MAX_BYTES} bytes")));
        }
        Self::parse(&std::fs::read_to_string(path).map_err(read)?)
    }
}

impl std::str::FromStr for Scenario {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests;
