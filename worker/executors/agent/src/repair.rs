//! Local repair: JSON that a model got nearly right is mended here, before anybody pays for another try.
//!
//! First the text: prose and code fences around the value, brackets and strings that never close, commas before a
//! closing bracket ([`trireme_llm::read_answer`]). Then, only where the value does not fit its schema, the types:
//!
//! | given | wanted | becomes |
//! |---|---|---|
//! | `"3"` | integer, number | `3` |
//! | `"true"`, `"False"` | boolean | `true`, `false` |
//! | `3` | string | `"3"` |
//! | `"[1]"`, `"{}"` | array, object | `[1]`, `{}` |
//! | `"x"` | array | `["x"]` |
//! | fields that the schema forbids | | dropped |
//!
//! What comes out fits the schema.

mod coerce;

use std::fmt;

use serde_json::Value;
use trireme_llm::read_answer;

/// Most faults that an error lists.
const MAX_FAULTS: usize = 10;
/// Most characters of one fault's reason, which may quote the value.
const MAX_REASON: usize = 300;

/// A value that fits.
#[derive(Debug, Clone, PartialEq)]
pub struct Repaired {
    /// The value.
    pub value: Value,
    /// It is not what was given.
    pub changed: bool,
}

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unrepairable {
    /// There is no JSON in the text, or none that can be mended.
    #[error("not JSON: {reason}")]
    NotJson {
        /// The parser's words about the text as given.
        reason: String,
    },
    /// The schema itself is of no use: nothing that a model writes can fit.
    #[error("the schema cannot be used: {reason}")]
    Schema {
        /// What is wrong with it.
        reason: String,
    },
    /// The value does not fit the schema, even mended.
    #[error("{}", .faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("; "))]
    Unfit {
        /// At least one and at most ten.
        faults: Vec<Fault>,
    },
}

/// One place where a value does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// A JSON pointer into the value; empty for the whole.
    pub path: String,
    /// What is wrong there; quotes the value.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "{}", self.reason),
            path => write!(f, "at `{path}`: {}", self.reason),
        }
    }
}

/// Reads `text` as JSON and, with a schema, makes it fit.
///
/// Brackets are closed even if the text was cut, so that half a list passes for a whole one: not for answers that
/// a token limit ended.
pub fn repair(text: &str, schema: Option<&Value>) -> Result<Repaired, Unrepairable> {
    let (value, mended) =
        read_answer(text).map_err(|error| Unrepairable::NotJson { reason: error.to_string() })?;
    let Some(schema) = schema else {
        return Ok(Repaired { value, changed: mended });
    };
    let fitted = fit(value, schema)?;
    Ok(Repaired { changed: mended || fitted.changed, ..fitted })
}

/// Makes `value` fit `schema`. References to other documents are refused.
pub fn fit(value: Value, schema: &Value) -> Result<Repaired, Unrepairable> {
    let validator = jsonschema::options()
        .offline()
        .build(schema)
        .map_err(|error| Unrepairable::Schema { reason: excerpt(&error.to_string()) })?;
    if validator.is_valid(&value) {
        return Ok(Repaired { value, changed: false });
    }
    let value = coerce::coerce(value, schema);
    let faults: Vec<Fault> = validator
        .iter_errors(&value)
        .take(MAX_FAULTS)
        .map(|error| Fault { path: error.instance_path().to_string(), reason: excerpt(&error.to_string()) })
        .collect();
    if faults.is_empty() {
        Ok(Repaired { value, changed: true })
    } else {
        Err(Unrepairable::Unfit { faults })
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_mended_and_types_follow_the_schema() {
        let schema = json!({
            "type": "object",
            "properties": {"n": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string"}}},
            "required": ["n"],
            "additionalProperties": false,
        });
        for (text, expected, changed) in [
            (r#"{"n":1}"#, json!({"n": 1}), false),
            ("Sure:\n```json\n{\"n\":1}\n```", json!({"n": 1}), true),
            (r#"{"n":"1","tags":7,"more":null"#, json!({"n": 1, "tags": ["7"]}), true),
            (r#"{"n":1.0,"tags":[]}"#, json!({"n": 1.0, "tags": []}), false),
        ] {
            assert_eq!(repair(text, Some(&schema)), Ok(Repaired { value: expected, changed }), "{text}");
        }
        assert_eq!(repair("[1,]", None), Ok(Repaired { value: json!([1]), changed: true }));
    }

    #[test]
    fn errors_say_where() {
        let schema = json!({"properties": {"a": {"items": {"type": "integer"}}}, "required": ["b"]});
        let error = |text: &str| repair(text, Some(&schema)).unwrap_err().to_string();
        assert_eq!(error(r#"{"a":["1","x"],"b":1}"#), "at `/a/1`: \"x\" is not of type \"integer\"");
        assert_eq!(error("{}"), "\"b\" is a required property");
        assert_eq!(error("no"), "not JSON: expected ident at line 1 column 2");
        for bad in [json!({"type": "nope"}), json!({"$ref": "http://localhost/x.json"})] {
            let refused = repair("{}", Some(&bad));
            assert!(matches!(refused, Err(Unrepairable::Schema { .. })), "{refused:?}");
        }
        let many = json!({"items": {"type": "integer"}});
        let Err(Unrepairable::Unfit { faults }) = fit(json!(vec!["x".repeat(999); 99]), &many) else {
            panic!()
        };
        assert_eq!((faults.len(), faults[0].reason.chars().count()), (MAX_FAULTS, MAX_REASON));
    }

    proptest! {
        #[test]
        fn what_comes_out_fits(
            fields in proptest::collection::vec(("[abx]", "[0-9]{1,3}|true|x|\\[1\\]|null"), 0..4),
            quoted in any::<bool>(),
            wanted in proptest::sample::subsequence(vec!["integer", "string", "boolean", "array", "null", "object"], 1..4),
        ) {
            let fields: serde_json::Map<_, _> = fields
                .into_iter()
                .map(|(name, text)| {
                    let plain = serde_json::from_str(&text).ok().filter(|_| !quoted);
                    (name, plain.unwrap_or(Value::String(text)))
                })
                .collect();
            let schema = json!({
                "properties": {"a": {"type": wanted}, "b": {"anyOf": [{"type": wanted[0]}, {"type": "null"}]}},
                "additionalProperties": false,
            });
            let text = Value::Object(fields).to_string();
            if let Ok(Repaired { value, changed }) = repair(&text, Some(&schema)) {
                prop_assert!(jsonschema::is_valid(&schema, &value));
                let shown = value.to_string();
                prop_assert_eq!(changed, shown != text);
                // Once it fits, it stays.
                prop_assert_eq!(fit(value.clone(), &schema), Ok(Repaired { value, changed: false }));
            }
        }
    }
}
