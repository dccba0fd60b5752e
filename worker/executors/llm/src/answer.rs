//! The answer as JSON: read, mended where that is safe, and checked against the schema.
//!
//! The check is ours, since a provider's promise covers only some of its models and parts of JSON
//! schema. Brackets are never closed for an answer that the token limit cut: half a list would
//! pass for a whole one.

use serde_json::Value;

use crate::turn::Turn;
use crate::{FinishReason, json};

/// Why there is no valid answer, and the words to show.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unfit {
    pub(crate) reason: String,
    pub(crate) words: String,
}

/// Whether `schema` can be used at all.
pub(crate) fn check_schema(schema: &Value) -> Result<(), String> {
    match jsonschema::validator_for(schema) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string().chars().take(300).collect()),
    }
}

/// The turn's answer and whether it was mended; `None` when the turn asks for tools instead.
pub(crate) fn read(turn: &mut Turn, schema: &Value) -> Result<Option<(Value, bool)>, Unfit> {
    let unfit = |reason: &str, words: &str| Unfit { reason: reason.to_owned(), words: words.to_owned() };
    let (value, mended) = match turn.answer.take() {
        Some(answer) => (answer, false),
        None if turn.has_calls() => return Ok(None),
        None => match turn.finish {
            Some(FinishReason::ContentFilter) => {
                return Err(unfit("the model refused or was filtered", &turn.text));
            }
            Some(FinishReason::Length) => match json::parse(turn.text.trim()) {
                Ok(value) => (value, false),
                Err(_) => {
                    return Err(unfit("the answer was cut by the token limit", ""));
                }
            },
            _ => json::read_answer(&turn.text).map_err(|_| unfit("the answer is not JSON", &turn.text))?,
        },
    };
    // Compiled again rather than kept: thousands of calls wait in between.
    let validator =
        jsonschema::validator_for(schema).map_err(|_| unfit("the schema cannot be compiled", ""))?;
    match validator.validate(&value) {
        Ok(()) => Ok(Some((value, mended))),
        Err(error) => Err(Unfit {
            reason: format!("the answer does not fit the schema at `{}`", error.instance_path()),
            words: error.to_string(),
        }),
    }
}
