//! The results that a request holds: of native tool calls, and of a plan's lines in a user message.
//!
//! A line of a plan is a number, a tool and its arguments; what follows, up to the next such line, is its result:
//! `1 search {"q":"x"} -> {"value":3}`, on one line or several.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use crate::prompt::{Prompt, Role};

// A constant that a test compiles.
static LINE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?m)^[^\w\n{]{0,4}(\d{1,6})[.:)\]]?[ \t]+([A-Za-z0-9_-]+)[ \t:(]*").ok());

static SCALAR: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"\\?"(\w+)\\?"\s*:\s*(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|\\?"[^"\\]*\\?")"#).ok()
});

/// One result.
#[derive(Debug)]
pub(super) struct Known {
    tool: String,
    /// As they were sent; those of a plan may still hold references.
    arguments: Value,
    /// The number of its line in a plan.
    pub(super) number: Option<usize>,
    pub(super) text: String,
}

impl Known {
    /// Whether this is the result of the step at `index`, which calls `tool` with `arguments`.
    pub(super) fn answers(&self, index: usize, tool: &str, arguments: Option<&Map<String, Value>>) -> bool {
        if self.tool != tool {
            return false;
        }
        let Some(sent) = self.arguments.as_object() else { return false };
        if arguments.is_some_and(|wanted| {
            wanted.len() == sent.len()
                && wanted.iter().all(|(key, value)| sent.get(key).is_some_and(|s| same(s, value)))
        }) {
            return true;
        }
        // A plan's line as it was planned: its own number, and references where the values would be.
        let arguments = self.arguments.to_string();
        self.number == Some(index + 1) && (arguments.contains("\"$") || arguments.contains("${"))
    }
}

/// All results in a request, in order.
pub(super) fn all(prompt: &Prompt) -> Vec<Known> {
    let native = prompt.all_results().map(|(call, result)| Known {
        tool: call.name.clone(),
        arguments: serde_json::from_str(&call.arguments).unwrap_or_default(),
        number: None,
        text: result.text.clone(),
    });
    let mut all: Vec<Known> = native.collect();
    for message in prompt.messages.iter().filter(|message| message.role == Role::User) {
        lines(&message.text, &mut all);
    }
    all
}

fn lines(text: &str, all: &mut Vec<Known>) {
    let Some(line) = LINE.as_ref() else { return };
    // Line, tool, arguments, and where these end.
    let mut found: Vec<(usize, Known, usize)> = Vec::new();
    for parts in line.captures_iter(text) {
        let Some(whole) = parts.get(0) else { continue };
        let mut values = serde_json::Deserializer::from_str(&text[whole.end()..]).into_iter::<Value>();
        if let Some(Ok(arguments @ Value::Object(_))) = values.next() {
            let known = Known {
                tool: parts[2].to_owned(),
                arguments,
                number: parts[1].parse().ok(),
                text: String::new(),
            };
            found.push((whole.start(), known, whole.end() + values.byte_offset()));
        }
    }
    let ends: Vec<usize> = found.iter().skip(1).map(|(start, ..)| *start).chain([text.len()]).collect();
    for ((_, mut known, from), to) in found.into_iter().zip(ends) {
        let result = text.get(from..to).unwrap_or_default();
        let result = result.trim_start_matches(|c: char| c.is_whitespace() || "->=:)".contains(c));
        // A line without a result is a plan that has not run.
        if !result.trim().is_empty() {
            known.text = result.trim().to_owned();
            all.push(known);
        }
    }
}

/// What a model reads out of a result: its JSON, or the first value of each `"name": value` in any other text.
pub(super) fn value(text: &str) -> Value {
    if let Some(Ok(value)) = serde_json::Deserializer::from_str(text).into_iter::<Value>().next()
        && (value.is_object() || value.is_array())
    {
        return value;
    }
    let mut fields = Map::new();
    for parts in SCALAR.iter().flat_map(|scalar| scalar.captures_iter(text)) {
        let raw = parts[2].replace('\\', "");
        let value = serde_json::from_str(&raw).unwrap_or(Value::Null);
        fields.entry(parts[1].to_owned()).or_insert(value);
    }
    if fields.is_empty() { Value::String(text.to_owned()) } else { Value::Object(fields) }
}

/// Equality that does not tell 5 from 5.0.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}
