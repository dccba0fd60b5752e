//! From the text of a spec to something the store accepts.
//!
//! The API knows only [`Intake`], so that another language for runs needs no change in it.

use serde_json::Value;

pub use trireme_spec::Compiled;

/// The language of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON, strictly.
    Json,
    /// YAML, of which JSON is a part.
    Yaml,
}

/// Compiles specs. Pure work: no I/O, and bounded by the size of the text.
pub trait Intake: Send + Sync + 'static {
    /// Compiles `text`, or says everything that is wrong with it.
    fn compile(&self, text: &str, format: Format) -> Result<Compiled, Refused>;
}

/// Why a text is no spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The text is not even JSON or YAML.
    pub malformed: bool,
    /// At least one thing that is wrong.
    pub problems: Vec<SpecProblem>,
    /// How many more there are.
    pub more: usize,
}

/// One thing that is wrong with a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecProblem {
    /// Where in the spec: `tasks.brief.llm.prompt`; empty for the whole of it.
    pub path: String,
    /// What is wrong, with the line where it is known.
    pub message: String,
}

impl Format {
    /// The text as plain values, whatever they mean; `None` where it is not in this language at all.
    pub(crate) fn read(self, text: &str) -> Option<Value> {
        match self {
            Self::Json => serde_json::from_str(text).ok(),
            Self::Yaml => {
                let options = serde_saphyr::options! {
                    // `y`, `no` and `off` are names here, as in YAML 1.2
                    strict_booleans: true,
                    // a mistake, but one of the spec and not of the language
                    duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
                };
                serde_saphyr::from_str_with_options(text, options).ok()
            }
        }
    }
}
