//! The text of a spec as a tree that knows where everything stands and keeps numbers as they were written.
//!
//! serde's own data model would lose both, and would stop at the first error.

pub(crate) mod json;
pub(crate) mod yaml;

use serde_json::Value;
use trireme_model::Payload;

use crate::problem::{Invalid, Place, Problem};

/// Bytes of a spec's text.
pub const MAX_TEXT_BYTES: usize = 1024 * 1024;
/// Objects and lists inside each other.
pub const MAX_DEPTH: usize = 64;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub place: Place,
    pub data: Data,
}

/// What YAML and JSON have in common.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    /// As JSON writes it.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A member of an object.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key: String,
    pub place: Place,
    pub value: Node,
}

/// What a reader made of a text; duplicate keys do not stop it.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub root: Node,
    pub problems: Vec<Problem>,
}

/// Reads JSON where the text is JSON, else YAML.
pub(crate) fn parse(text: &str) -> Result<Parsed, Invalid> {
    if text.len() > MAX_TEXT_BYTES {
        let message = format!("{} bytes are over the limit of {MAX_TEXT_BYTES}", text.len());
        return Err(Invalid::one("", None, message));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // `{a: 1}` is YAML in flow form; whoever opens a quote after the brace means JSON, and gets its errors
    let json =
        text.trim_start().strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with(['"', '}']));
    if json { json::parse(text) } else { yaml::parse(text) }
}

/// `base.key`, for the path of a problem.
pub(crate) fn join(base: &str, key: &str) -> String {
    let key: String = key.chars().take(80).collect();
    if base.is_empty() { key } else { format!("{base}.{key}") }
}

impl Node {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self.data {
            Data::Null => "null",
            Data::Bool(_) => "true or false",
            Data::Number(_) => "a number",
            Data::Text(_) => "text",
            Data::List(_) => "a list",
            Data::Map(_) => "an object",
        }
    }

    /// The value as compact JSON.
    pub fn payload(&self) -> Payload {
        let mut out = String::new();
        self.write(&mut out);
        Payload::from_json(out)
    }

    /// The value for those who need no exact numbers.
    pub fn value(&self) -> Value {
        self.payload().parse().unwrap_or_default()
    }

    fn write(&self, out: &mut String) {
        match &self.data {
            Data::Null => out.push_str("null"),
            Data::Bool(true) => out.push_str("true"),
            Data::Bool(false) => out.push_str("false"),
            Data::Number(number) => out.push_str(number),
            Data::Text(text) => write_text(text, out),
            Data::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    out.push(if at == 0 { '[' } else { ',' });
                    item.write(out);
                }
                out.push_str(if items.is_empty() { "[]" } else { "]" });
            }
            Data::Map(entries) => {
                for (at, entry) in entries.iter().enumerate() {
                    out.push(if at == 0 { '{' } else { ',' });
                    write_text(&entry.key, out);
                    out.push(':');
                    entry.value.write(out);
                }
                out.push_str(if entries.is_empty() { "{}" } else { "}" });
            }
        }
    }
}

/// Appends `text` as a JSON string.
pub(crate) fn write_text(text: &str, out: &mut String) {
    out.push_str(&Value::from(text).to_string());
}

/// Whether `text` is a number as JSON writes it, of a size that a reader of JSON can hold.
pub(crate) fn is_json_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    plain
        && digits.starts_with(|first: char| first.is_ascii_digit())
        && serde_json::from_str::<f64>(text).is_ok_and(f64::is_finite)
}

fn twice(base: &str, key: &str, place: Place) -> Problem {
    let message = format!("the key {} stands twice", crate::problem::quoted(key));
    Problem { path: join(base, key), place: Some(place), message }
}
