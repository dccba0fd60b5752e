//! One spelling per JSON value, and the keys made of it: two calls that ask the same have the same key.

use std::fmt::Write;

use serde_json::{Number, Value};
use sha2::{Digest, Sha256};

/// Bytes of SHA-256 in a key. Keys are compared within one run of at most some ten thousand calls, where
/// 64 bits collide by chance once in about 10^11 runs.
const KEY_BYTES: usize = 8;

/// `value` as JSON with sorted keys, no spaces, and one spelling per number: `1`, `1.0` and `1e0` agree.
///
/// Strings stay as they are: two Unicode spellings of one text differ.
pub fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value);
    out
}

/// The id under which a repeated model call finds tool work that has begun: 16 hex digits over the tool's
/// name and its arguments in canonical form.
pub fn call_key(tool: &str, args: &Value) -> String {
    // As an array, no tool name runs into the arguments.
    digest(&format!("[{},{}]", Value::from(tool), canonical(args)))
}

/// What an observation is compared by: 16 hex digits over a result, or an error's text, in canonical form.
pub fn result_key(result: &Value) -> String {
    digest(&canonical(result))
}

fn digest(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().take(KEY_BYTES).fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (at, (name, field)) in fields.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                string(out, name);
                out.push(':');
                write(out, field);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(out, item);
            }
            out.push(']');
        }
        Value::Number(number) => self::number(out, number),
        Value::String(text) => string(out, text),
        Value::Null | Value::Bool(_) => {
            let _ = write!(out, "{value}");
        }
    }
}

fn string(out: &mut String, text: &str) {
    // `Value`'s own escaping, the one place that knows it.
    let _ = write!(out, "{}", Value::from(text));
}

fn number(out: &mut String, number: &Number) {
    // Whole floats within the range of JSON integers here; the conversion is exact there. Past it, every
    // spelling is read as a float anyway.
    const PAST_INTEGERS: f64 = 18_446_744_073_709_551_616.0;
    let whole = number
        .as_f64()
        .filter(|f| number.is_f64() && f.fract() == 0.0 && f.abs() < PAST_INTEGERS)
        .map(|f| f as i128);
    let _ = match whole {
        Some(whole) => write!(out, "{whole}"),
        None => write!(out, "{number}"),
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, from_str, json};

    use super::*;

    #[test]
    fn spellings_agree() {
        for (a, b) in [
            (r#"{"b":1,"a":[true,null]}"#, r#" { "a" : [ true , null ], "b" : 1.0 } "#),
            ("1", "1e0"),
            ("-0.0", "0"),
            ("100", "1E+2"),
            ("0.5", "5e-1"),
            ("10000000000000000000", "1e19"),
            ("-9007199254740992", "-9007199254740992.0"),
            ("1e300", "10e299"),
            (r#""\u00e9\/""#, "\"é/\""),
        ] {
            let (left, right): (Value, Value) = (from_str(a).unwrap(), from_str(b).unwrap());
            assert_eq!(canonical(&left), canonical(&right), "{a} {b}");
            assert_eq!(call_key("t", &left), call_key("t", &right));
        }
        assert_eq!(
            canonical(&json!({"b": {"z": 1.50, "y": "\n"}, "a": []})),
            r#"{"a":[],"b":{"y":"\n","z":1.5}}"#
        );
    }

    #[test]
    fn keys_tell_calls_apart() {
        let calls = [
            ("a", json!({})),
            ("a", json!({"x": 1})),
            ("a", json!({"x": "1"})),
            ("a", json!({"x": 1.5})),
            ("a", json!({"x": [1]})),
            ("b", json!({"x": 1})),
            ("a\",{}", json!({})),
        ];
        let keys: std::collections::BTreeSet<_> =
            calls.iter().map(|(tool, args)| call_key(tool, args)).collect();
        assert_eq!(keys.len(), calls.len());
        assert!(keys.iter().all(|k| k.len() == 16 && k.bytes().all(|b| b.is_ascii_hexdigit())));
        // Keys are stored: another spelling would orphan the work that has begun.
        assert_eq!(call_key("search", &json!({"q": "x"})), "d3cd68091631d82b");
        assert_ne!(result_key(&json!("1")), result_key(&json!(1)));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((".{0,4}", inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    fn reversed(value: &Value) -> Value {
        match value {
            Value::Object(fields) => fields.iter().rev().map(|(k, v)| (k.clone(), reversed(v))).collect(),
            Value::Array(items) => items.iter().map(reversed).collect(),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn canonical_is_json_and_its_own_canonical_form(value in any_json()) {
            let text = canonical(&value);
            let back: Value = from_str(&text).unwrap();
            prop_assert_eq!(canonical(&back), text);
        }

        #[test]
        fn order_of_fields_does_not_count(value in any_json()) {
            prop_assert_eq!(canonical(&reversed(&value)), canonical(&value));
        }
    }
}
