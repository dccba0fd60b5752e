//! Answers for calls that no rule describes: repeatable prose, and for structured output a small
//! value that fits the JSON schema.

use serde_json::{Map, Value, json};

use crate::{draw::Stream, prompt::Prompt, tokens::TOKEN_BYTES};

/// How deep a schema is followed.
const MAX_DEPTH: usize = 16;

const WORDS: [&str; 32] = [
    "market", "revenue", "growth", "margin", "demand", "supply", "report", "quarter", "outlook", "price",
    "risk", "trend", "analyst", "segment", "forecast", "capital", "steady", "rising", "falling", "strong",
    "weak", "broad", "early", "late", "global", "local", "new", "known", "likely", "stable", "mixed",
    "clear",
];

/// Text of exactly `tokens` tokens that depends on `seed` alone.
pub(crate) fn prose(seed: &str, tokens: u64) -> String {
    let bytes = tokens as usize * TOKEN_BYTES;
    let mut stream = Stream::from_text(seed);
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(WORDS[(stream.next_u64() % WORDS.len() as u64) as usize]);
    }
    // All words are ASCII, so every byte is a character.
    text.truncate(bytes.saturating_sub(1));
    if bytes > 0 {
        text.push('.');
    }
    text
}

/// The answer to a prompt that no rule describes.
pub(crate) fn answer(prompt: &Prompt) -> String {
    if let Some(schema) = &prompt.schema {
        return instance(schema, schema, &prompt.hash_text(), MAX_DEPTH).to_string();
    }
    let asked = prompt.last_user();
    let asked = &asked[..asked.floor_char_boundary(60)];
    let hash = prompt.hash_text();
    format!("[{hash}] {asked}: {}", prose(&hash, 12))
}

/// A value that fits the common parts of a JSON schema; what it does not know becomes a string.
fn instance(schema: &Value, root: &Value, seed: &str, depth: usize) -> Value {
    if depth == 0 {
        return Value::Null;
    }
    if let Some(target) = schema["$ref"].as_str().and_then(|r| r.strip_prefix('#')) {
        return root.pointer(target).map_or(Value::Null, |schema| instance(schema, root, seed, depth - 1));
    }
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    let mut stream = Stream::from_text(seed);
    if let Some(values) = schema["enum"].as_array().filter(|values| !values.is_empty()) {
        return values[(stream.next_u64() % values.len() as u64) as usize].clone();
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema[choice].get(0) {
            return instance(first, root, seed, depth - 1);
        }
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.first().and_then(Value::as_str),
        kind => kind.as_str(),
    };
    let least = schema["minimum"].as_i64().unwrap_or(0);
    match kind {
        Some("object") => object(schema, root, seed, depth),
        None if schema["properties"].is_object() => object(schema, root, seed, depth),
        Some("array") => {
            let count = schema["minItems"].as_u64().unwrap_or(1).clamp(1, 100);
            (0..count).map(|i| instance(&schema["items"], root, &format!("{seed}[{i}]"), depth - 1)).collect()
        }
        Some("integer") => json!(least + (stream.next_u64() % 100) as i64),
        Some("number") => json!(least as f64 + (stream.unit() * 100.0).round() / 100.0),
        Some("boolean") => json!(stream.next_u64().is_multiple_of(2)),
        Some("null") => Value::Null,
        _ => Value::String(prose(seed, 4)),
    }
}

fn object(schema: &Value, root: &Value, seed: &str, depth: usize) -> Value {
    let fields = schema["properties"].as_object().into_iter().flatten();
    let fields: Map<String, Value> = fields
        .map(|(key, field)| {
            let value = instance(field, root, &format!("{seed}.{key}"), depth - 1);
            (key.clone(), value)
        })
        .collect();
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_has_the_asked_length() {
        for tokens in [0, 1, 2, 50] {
            assert_eq!(tokens, crate::count_tokens(&prose("x", tokens)));
        }
        assert_ne!(prose("x", 10), prose("y", 10));
    }

    #[test]
    fn instances_fit_the_schema() {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "size": {"type": "integer", "minimum": 3},
                "kind": {"enum": ["a"]},
                "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
            },
            "$defs": {"tag": {"type": "boolean"}},
        });
        let value = instance(&schema, &schema, "seed", MAX_DEPTH);
        assert!(value["name"].is_string());
        assert!(value["size"].as_i64().unwrap() >= 3);
        assert_eq!("a", value["kind"]);
        assert!(value["tags"][0].is_boolean());
        assert_eq!(value, instance(&schema, &schema, "seed", MAX_DEPTH));
        // A schema that refers to itself ends.
        let endless = json!({"$ref": "#"});
        assert_eq!(Value::Null, instance(&endless, &endless, "seed", MAX_DEPTH));
    }
}
