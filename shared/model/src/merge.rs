//! How a join's or a map's value is put together from the results that it froze.
//!
//! The engine fires joins without looking at results; whoever reads the join's value merges here.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::payload::Payload;

/// The shape of a merged value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// `{name: value}` per input.
    #[default]
    Object,
    /// The values in the order of the inputs.
    List,
    /// The first value in the order of the inputs, or null.
    First,
    /// Lists appended to each other, or else texts.
    Concat,
}

/// How to merge. It stands under the key `merge` in the body of every join and map.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Merge {
    /// The shape of the value.
    pub form: Form,
    /// One name per input, for [`Form::Object`]; empty for a map.
    #[serde(default)]
    pub names: Vec<String>,
    /// What a missing input counts as; without it, missing inputs are left out.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::payload::given")]
    pub default: Option<Payload>,
}

#[derive(Deserialize)]
struct Body {
    merge: Merge,
}

impl Merge {
    /// Reads the merge out of a join's or map's body.
    pub fn of_body(body: &Payload) -> Result<Self, serde_json::Error> {
        body.parse::<Body>().map(|body| body.merge)
    }

    /// Merges `parts`, one per input, `None` where an input is missing.
    pub fn merge(&self, parts: &[Option<Payload>]) -> Result<Payload, serde_json::Error> {
        let filled = parts
            .iter()
            .enumerate()
            .filter_map(|(at, part)| part.as_ref().or(self.default.as_ref()).map(|payload| (at, payload)));
        // texts are put together from the raw payloads where possible: numbers keep their exact digits
        match self.form {
            Form::List => Ok(Payload::of(&filled.map(|(_, payload)| payload).collect::<Vec<_>>())),
            Form::First => Ok(filled
                .map(|(_, payload)| payload.clone())
                .next()
                .unwrap_or_else(|| Payload::from_json(bytes::Bytes::from_static(b"null")))),
            Form::Object => {
                let mut object = Vec::new();
                for (at, payload) in filled {
                    let name = self.names.get(at).map_or_else(|| at.to_string(), Clone::clone);
                    object.push((name, payload));
                }
                Ok(object_of(&object))
            }
            Form::Concat => {
                let values = filled.map(|(_, payload)| payload.parse()).collect::<Result<Vec<Value>, _>>()?;
                Ok(concat(values))
            }
        }
    }
}

fn object_of(entries: &[(String, &Payload)]) -> Payload {
    let mut text = Vec::from(b"{");
    for (at, (name, payload)) in entries.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        text.extend_from_slice(Payload::of(name).as_bytes());
        text.push(b':');
        text.extend_from_slice(payload.as_bytes());
    }
    text.push(b'}');
    Payload::from_json(text)
}

/// Lists are appended; objects merge by key, later ones win; anything else becomes text. The result of a
/// model counts as its text.
fn concat(values: Vec<Value>) -> Payload {
    if values.iter().all(Value::is_array) {
        let items: Vec<Value> = values
            .into_iter()
            .flat_map(|value| if let Value::Array(items) = value { items } else { Vec::new() })
            .collect();
        return Payload::of(&items);
    }
    let texts = values.iter().map(|value| match value {
        Value::String(text) => text.clone(),
        Value::Object(object) if is_llm_result(object) => object["text"].as_str().unwrap_or("").to_owned(),
        other => other.to_string(),
    });
    Payload::of(&texts.collect::<String>())
}

/// Whether `object` is what an `llm` task results in: it has a `text` and a `finish_reason`.
pub fn is_llm_result(object: &Map<String, Value>) -> bool {
    object.get("text").is_some_and(Value::is_string) && object.contains_key("finish_reason")
}

/// Which of `width` inputs a join froze, from its `frozen` field (`*`, or one `0`/`1` per input).
pub fn frozen(frozen: &str, width: usize) -> Vec<bool> {
    if frozen == "*" {
        return vec![true; width];
    }
    let mut included: Vec<bool> = frozen.bytes().map(|byte| byte == b'1').collect();
    included.resize(width, false);
    included
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(texts: &[Option<&'static str>]) -> Vec<Option<Payload>> {
        texts.iter().map(|text| text.map(|text| Payload::from_json(text.as_bytes().to_vec()))).collect()
    }

    fn merged(form: Form, default: Option<&str>, texts: &[Option<&'static str>]) -> String {
        let default = default.map(|text| Payload::from_json(text.to_owned()));
        let merge = Merge { form, names: vec!["a".into(), "b".into(), "c".into()], default };
        format!("{:?}", merge.merge(&parts(texts)).unwrap())
    }

    #[test]
    fn forms() {
        let three = [Some("[1]"), None, Some("9007199254740993")];
        assert_eq!(merged(Form::Object, None, &three), r#"{"a":[1],"c":9007199254740993}"#);
        assert_eq!(merged(Form::Object, Some("[]"), &three), r#"{"a":[1],"b":[],"c":9007199254740993}"#);
        assert_eq!(merged(Form::List, None, &three), "[[1],9007199254740993]");
        assert_eq!(merged(Form::First, None, &[None, Some("2"), Some("3")]), "2");
        assert_eq!(merged(Form::First, None, &[None]), "null");
        assert_eq!(merged(Form::Concat, None, &[Some("[1]"), Some("[2,3]")]), "[1,2,3]");
        let texts = [Some("\"x \""), Some(r#"{"text":"y","finish_reason":"stop"}"#)];
        assert_eq!(merged(Form::Concat, None, &texts), "\"x y\"");
    }

    #[test]
    fn frozen_says_which_inputs_count() {
        assert_eq!(frozen("*", 2), [true, true]);
        assert_eq!(frozen("010", 3), [false, true, false]);
    }
}
