//! Plain references such as `facts.filings.items[0]`, resolved on raw JSON text.

use std::fmt;

use serde::{
    Deserializer as _,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::problem::hint;

/// A name and what is taken of its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    pub root: String,
    pub steps: Vec<Step>,
}

/// One step into a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    /// From the end when negative.
    Index(i64),
}

impl Path {
    /// Follows the steps from the root's value; the error says which one leads nowhere.
    pub fn follow<'v>(&self, value: &'v RawValue) -> Result<&'v RawValue, String> {
        let mut value = value;
        for (at, step) in self.steps.iter().enumerate() {
            value = step.take(value).ok_or_else(|| self.missing(at, value))?;
        }
        Ok(value)
    }

    fn missing(&self, at: usize, value: &RawValue) -> String {
        let base = Self { root: self.root.clone(), steps: self.steps[..at].to_vec() };
        match (&self.steps[at], value.get().as_bytes().first()) {
            (Step::Key(key), Some(b'{')) => {
                let keys = keys(value);
                let hint = if keys.is_empty() {
                    "; it is empty".to_owned()
                } else {
                    hint(key, keys.iter().map(String::as_str))
                };
                format!("`{self}` does not exist: `{base}` has no field `{key}`{hint}")
            }
            (Step::Index(_), Some(b'[')) => {
                format!("`{self}` does not exist: `{base}` has {} items", length(value))
            }
            (_, first) => format!("`{self}` does not exist: `{base}` is {}", kind(first)),
        }
    }
}

impl Step {
    fn take<'v>(&self, value: &'v RawValue) -> Option<&'v RawValue> {
        let mut reader = serde_json::Deserializer::from_str(value.get());
        match (self, value.get().as_bytes().first()?) {
            (Self::Key(key), b'{') => reader.deserialize_map(Field(key)).ok()?,
            (Self::Index(index), b'[') => {
                let index = if *index < 0 { index.checked_add(length(value) as i64)? } else { *index };
                reader.deserialize_seq(Item(usize::try_from(index).ok()?)).ok()?
            }
            _ => None,
        }
    }
}

/// What a value that starts with `first` is, for messages.
pub(crate) fn kind(first: Option<&u8>) -> &'static str {
    match first {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "text",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn keys(value: &RawValue) -> Vec<String> {
    let map: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(value.get());
    map.map(|map| map.into_iter().map(|(key, _)| key).collect()).unwrap_or_default()
}

fn length(value: &RawValue) -> usize {
    serde_json::from_str::<Vec<IgnoredAny>>(value.get()).map_or(0, |items| items.len())
}

/// Picks one member; the last of that name, as parsers into maps do.
struct Field<'k>(&'k str);

impl<'v> Visitor<'v> for Field<'_> {
    type Value = Option<&'v RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'v>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(wanted) = map.next_key_seed(Is(self.0))? {
            if wanted {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Compares a key without keeping it.
struct Is<'k>(&'k str);

impl<'v> DeserializeSeed<'v> for Is<'_> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'v>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

/// Picks one item.
struct Item(usize);

impl<'v> Visitor<'v> for Item {
    type Value = Option<&'v RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'v>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let mut at = 0;
        loop {
            if at == self.0 {
                let Some(item) = items.next_element()? else { return Ok(None) };
                found = Some(item);
            } else if items.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            at += 1;
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.root)?;
        self.steps.iter().try_for_each(|step| match step {
            Step::Key(key) => write!(f, ".{key}"),
            Step::Index(index) => write!(f, "[{index}]"),
        })
    }
}
