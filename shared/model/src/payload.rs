//! Opaque JSON text. The engine carries payloads and never looks inside them: Lua's cjson would turn
//! `[]` into `{}` and large integers into floats, and parsing costs time on the hot path.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::value::RawValue;

/// A JSON text, cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Payload(Bytes);

impl Payload {
    /// Serialises `value`; a value that JSON can't hold (a non-string map key) becomes `null`.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Self {
        Self(serde_json::to_vec(value).map_or_else(|_| Bytes::from_static(b"null"), Bytes::from))
    }

    /// Wraps a text that is known to be JSON: it was made by [`Payload::of`], or checked by a parser.
    pub fn from_json(text: impl Into<Bytes>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The text's length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no text at all (which is not JSON: an absent payload).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A whole number in the text that 64 bits don't hold; see [`wide_integer`].
    pub fn wide_integer(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok().and_then(wide_integer)
    }

    /// Parses the text.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.0)
    }
}

/// The first whole number in the JSON text `json` that 64 bits don't hold: parsed into a value it would become the
/// nearest float, another number. Payloads keep it as it is, so it matters only where somebody calculates or calls
/// with it. What is written with a point or an exponent is a float from the start.
pub fn wide_integer(json: &str) -> Option<&str> {
    let (bytes, mut at) = (json.as_bytes(), 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let end = |byte: &u8| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                let length = bytes[at..].iter().position(end).unwrap_or(bytes.len() - at);
                let number = &json[at..at + length];
                let whole = !number.contains(['.', 'e', 'E']);
                if whole && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    return Some(number);
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    None
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = if self.0.is_empty() { b"null" } else { self.0.as_ref() };
        let raw: &RawValue = serde_json::from_slice(text).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(Bytes::from(Box::<str>::from(raw).into_string())))
    }
}

/// Deserialises an optional payload whose text may be `null`: only an absent field is `None`. It goes with
/// `default` and `skip_serializing_if`.
pub(crate) fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Payload>, D::Error> {
    Payload::deserialize(deserializer).map(Some)
}

/// Deserialises a payload inside a tagged or flattened type, where serde has parsed the text already. For
/// small payloads that the engine wrote itself, such as errors.
pub(crate) fn buffered<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Payload, D::Error> {
    serde_json::Value::deserialize(deserializer).map(|value| Payload::of(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_optional_null_is_not_nothing() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Holder {
            #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
            value: Option<Payload>,
        }
        for value in [None, Some(Payload::from_json("null"))] {
            let holder = Holder { value };
            let text = serde_json::to_string(&holder).unwrap();
            assert_eq!(serde_json::from_str::<Holder>(&text).unwrap(), holder, "{text}");
        }
    }

    #[test]
    fn whole_numbers_over_64_bits_are_found() {
        let fit = r#"{"a\"18446744073709551616": [18446744073709551615, -9223372036854775808, 1e30, 0.1, "99999999999999999999\\"]}"#;
        assert_eq!(wide_integer(fit), None);
        for wide in ["18446744073709551616", "-9223372036854775809", "100000000000000000000000000000001"] {
            assert_eq!(wide_integer(&format!(r#"{{"a": "\"1", "b": [1, {wide}]}}"#)), Some(wide));
            assert_eq!(wide_integer(wide), Some(wide));
        }
        assert_eq!(wide_integer("\"half \\"), None, "no JSON, and no panic");
    }

    #[test]
    fn json_text_survives_embedding_untouched() {
        let text = r#"{"a":[],"n":9007199254740993}"#;
        let payload = Payload::from_json(text);
        let outer = serde_json::to_string(&vec![payload.clone()]).unwrap();
        assert_eq!(outer, format!("[{text}]"));
        assert_eq!(serde_json::from_str::<Vec<Payload>>(&outer).unwrap(), [payload]);
    }
}
