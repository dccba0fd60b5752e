//! Arguments with the results that they refer to in place.

use serde_json::{Map, Value};

use super::reference::{Part, Reference, Segment, parts, whole};

/// Most bytes of JSON that a node's references may bring in: one result at its largest.
pub const MAX_RESOLVED: usize = trireme_model::limits::MAX_RESULT_BYTES;

/// Why arguments cannot be completed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// The node has no result.
    #[error("`{reference}`: node {} has no result", reference.number)]
    NoResult {
        /// As written.
        reference: Reference,
    },
    /// The result has nothing at this place.
    #[error("`{reference}`: no `{segment}` in {found}")]
    NoSuchPlace {
        /// As written.
        reference: Reference,
        /// The step that failed.
        segment: Segment,
        /// What was there instead: its type, and its first fields or its length.
        found: String,
    },
    /// The references bring in more than [`MAX_RESOLVED`].
    #[error("the references bring in more than {MAX_RESOLVED} bytes")]
    TooLarge,
}

/// `args` with each reference replaced by what `result` knows of its node. A string that is a reference takes
/// the value with its type; inside a longer string, texts go in raw and everything else as compact JSON.
///
/// What comes in is not looked at again: a result that holds `$2` stays as it is.
pub fn resolve<'a>(args: &Value, result: impl Fn(u32) -> Option<&'a Value>) -> Result<Value, Unresolved> {
    Resolver { result, left: MAX_RESOLVED }.value(args)
}

struct Resolver<F> {
    result: F,
    /// Bytes that may still come in.
    left: usize,
}

impl<'a, F: Fn(u32) -> Option<&'a Value>> Resolver<F> {
    fn value(&mut self, value: &Value) -> Result<Value, Unresolved> {
        Ok(match value {
            Value::String(text) => match whole(text) {
                Some(reference) => {
                    let found = self.find(&reference)?;
                    self.pay(json_bytes(found))?;
                    found.clone()
                }
                None => Value::String(self.text(text)?),
            },
            Value::Array(items) => {
                Value::Array(items.iter().map(|item| self.value(item)).collect::<Result<_, _>>()?)
            }
            Value::Object(fields) => Value::Object(
                fields.iter().map(|(name, field)| Ok((name.clone(), self.value(field)?))).collect::<Result<
                    Map<_, _>,
                    _,
                >>(
                )?,
            ),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        })
    }

    fn text(&mut self, text: &str) -> Result<String, Unresolved> {
        let mut out = String::new();
        for part in parts(text) {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Reference(reference) => match self.find(&reference)? {
                    Value::String(text) => {
                        self.pay(text.len())?;
                        out.push_str(text);
                    }
                    other => {
                        self.pay(json_bytes(other))?;
                        out.push_str(&other.to_string());
                    }
                },
            }
        }
        Ok(out)
    }

    fn find(&self, reference: &Reference) -> Result<&'a Value, Unresolved> {
        let result = (self.result)(reference.number)
            .ok_or_else(|| Unresolved::NoResult { reference: reference.clone() })?;
        reference.path.iter().try_fold(result, |value, segment| {
            let inner = match segment {
                Segment::Field(name) => value.as_object().and_then(|fields| fields.get(name)),
                Segment::Index(index) => value.as_array().and_then(|items| items.get(*index)),
            };
            inner.ok_or_else(|| Unresolved::NoSuchPlace {
                reference: reference.clone(),
                segment: segment.clone(),
                found: describe(value),
            })
        })
    }

    fn pay(&mut self, bytes: usize) -> Result<(), Unresolved> {
        self.left = self.left.checked_sub(bytes).ok_or(Unresolved::TooLarge)?;
        Ok(())
    }
}

/// The size of `value` as JSON, without building it.
fn json_bytes(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Neither counting nor serialising a `Value` can fail.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// What stands where a step was to go: enough for the model to mend its reference.
fn describe(value: &Value) -> String {
    /// Most field names that are listed.
    const NAMES: usize = 10;
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "a boolean".to_owned(),
        Value::Number(_) => "a number".to_owned(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(fields) if fields.is_empty() => "an empty object".to_owned(),
        Value::Object(fields) => {
            let names: Vec<String> = fields.keys().take(NAMES).map(|n| super::problem::excerpt(n)).collect();
            let more = if fields.len() > NAMES { ", ..." } else { "" };
            format!("an object with {}{more}", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(args: Value) -> Result<Value, Unresolved> {
        let results = [
            json!({"value": 67.5, "items": [{"title": "$2 \"x\""}, {"title": null}], "text": "a\nb"}),
            json!("plain ${1.value}"),
        ];
        resolve(&args, |number| results.get(number as usize - 1))
    }

    #[test]
    fn types_are_kept_and_text_is_interpolated() {
        for (given, expected) in [
            (json!({"a": "$1.value", "n": 1}), json!({"a": 67.5, "n": 1})),
            (json!(["$1.items[1]", "${2}"]), json!([{"title": null}, "plain ${1.value}"])),
            (json!("${1.value} * 2"), json!("67.5 * 2")),
            (json!("<${1.items[1]}|${1.text}>"), json!("<{\"title\":null}|a\nb>")),
            // What came in is not looked at again.
            (json!("${1.items[0].title}${2}"), json!("$2 \"x\"plain ${1.value}")),
            (json!("$1.items[0].title"), json!("$2 \"x\"")),
            (json!({"$1": "$$5, $5 and US$"}), json!({"$1": "$5, $5 and US$"})),
        ] {
            assert_eq!(with(given.clone()), Ok(expected), "{given}");
        }
    }

    #[test]
    fn errors_name_the_reference_and_what_was_there() {
        for (given, expected) in [
            ("$3.x", "`$3.x`: node 3 has no result"),
            ("$1.nope.x", "`$1.nope.x`: no `.nope` in an object with value, items, text"),
            ("$1.items[2].title", "`$1.items[2].title`: no `[2]` in an array of 2"),
            ("$1.value.x", "`$1.value.x`: no `.x` in a number"),
            ("$1.items[1].title[0]", "`$1.items[1].title[0]`: no `[0]` in null"),
            ("x ${2.y}", "`$2.y`: no `.y` in a string"),
            ("$1[0]", "`$1[0]`: no `[0]` in an object with value, items, text"),
        ] {
            assert_eq!(with(json!({"a": given})).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn what_comes_in_is_bounded() {
        let large = json!("x".repeat(MAX_RESOLVED / 2));
        let twice = resolve(&json!("${1}${1}"), |_| Some(&large)).unwrap();
        assert_eq!(twice.as_str().map(str::len), Some(MAX_RESOLVED));
        assert_eq!(resolve(&json!("${1}${1}${1}"), |_| Some(&large)), Err(Unresolved::TooLarge));
        assert_eq!(resolve(&json!(["$1", "$1", "$1"]), |_| Some(&large)), Err(Unresolved::TooLarge));
    }
}
