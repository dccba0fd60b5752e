//! References from one step's arguments to another's result: `$id.field` and, inside text, `${id.field}`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use regex::{Captures, Regex};
use serde_json::{Map, Value};

const WHOLE: &str = r"^\$([A-Za-z0-9_]+)((?:\.[A-Za-z0-9_]+)*)$";
const INSIDE: &str = r"\$\{([A-Za-z0-9_]+)((?:\.[A-Za-z0-9_]+)*)\}";

// Both patterns are constants that a test compiles.
static PATTERNS: LazyLock<Option<(Regex, Regex)>> =
    LazyLock::new(|| Some((Regex::new(WHOLE).ok()?, Regex::new(INSIDE).ok()?)));

/// What becomes of one reference, given its name and path.
type Replace<'a> = &'a mut dyn FnMut(&str, &str) -> Option<Value>;

/// The steps that the arguments refer to.
pub(super) fn names(arguments: &Map<String, Value>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    replaced_all(arguments, &mut |name, _| {
        names.insert(name.to_owned());
        Some(Value::Null)
    });
    names
}

/// The arguments with results in place of references; nothing while one is missing.
pub(super) fn resolve(
    arguments: &Map<String, Value>,
    values: &BTreeMap<String, Value>,
) -> Option<Map<String, Value>> {
    replaced_all(arguments, &mut |name, path| {
        let steps = path.split('.').filter(|part| !part.is_empty());
        steps
            .fold(values.get(name), |value, part| match value? {
                Value::Array(items) => items.get(part.parse::<usize>().ok()?),
                other => other.get(part),
            })
            .cloned()
    })
}

/// The arguments with the numbers of a plan in place of names.
pub(super) fn numbered(
    arguments: &Map<String, Value>,
    numbers: &BTreeMap<&str, usize>,
) -> Map<String, Value> {
    let Some((whole, inside)) = PATTERNS.as_ref() else { return arguments.clone() };
    fn walk(value: &Value, rename: &dyn Fn(&str) -> String) -> Value {
        match value {
            Value::String(text) => Value::String(rename(text)),
            Value::Array(items) => items.iter().map(|item| walk(item, rename)).collect(),
            Value::Object(fields) => {
                Value::Object(fields.iter().map(|(key, item)| (key.clone(), walk(item, rename))).collect())
            }
            other => other.clone(),
        }
    }
    let number = |name: &str| numbers.get(name).map_or_else(|| name.to_owned(), usize::to_string);
    let rename = |text: &str| {
        if let Some(parts) = whole.captures(text) {
            return format!("${}{}", number(&parts[1]), &parts[2]);
        }
        inside
            .replace_all(text, |parts: &Captures| format!("${{{}{}}}", number(&parts[1]), &parts[2]))
            .into_owned()
    };
    arguments.iter().map(|(key, value)| (key.clone(), walk(value, &rename))).collect()
}

fn replaced_all(arguments: &Map<String, Value>, replace: Replace<'_>) -> Option<Map<String, Value>> {
    arguments.iter().map(|(key, value)| Some((key.clone(), replaced(value, replace)?))).collect()
}

fn replaced(value: &Value, replace: Replace<'_>) -> Option<Value> {
    match value {
        Value::String(text) => in_text(text, replace),
        Value::Array(items) => {
            items.iter().map(|item| replaced(item, replace)).collect::<Option<Vec<_>>>().map(Value::Array)
        }
        Value::Object(fields) => replaced_all(fields, replace).map(Value::Object),
        other => Some(other.clone()),
    }
}

fn in_text(text: &str, replace: Replace<'_>) -> Option<Value> {
    let Some((whole, inside)) = PATTERNS.as_ref() else { return Some(Value::String(text.to_owned())) };
    if let Some(parts) = whole.captures(text) {
        return replace(&parts[1], &parts[2]);
    }
    let mut out = String::with_capacity(text.len());
    let mut end = 0;
    for parts in inside.captures_iter(text) {
        let found = parts.get(0)?;
        out.push_str(&text[end..found.start()]);
        match replace(&parts[1], &parts[2])? {
            Value::String(text) => out.push_str(&text),
            other => out.push_str(&other.to_string()),
        }
        end = found.end();
    }
    out.push_str(&text[end..]);
    Some(Value::String(out))
}
