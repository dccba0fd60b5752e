//! References in arguments: where a string stands for an earlier result, or has one inside.

use std::fmt;

use serde_json::Value;

/// A place in the result of a node: `$N`, `$N.field[0].x`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// The node.
    pub number: u32,
    /// From its result inwards; empty for the whole.
    pub path: Vec<Segment>,
}

/// One step into a result.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// `.name`: letters, digits, `_` and `-`, not beginning with a digit or `-`.
    Field(String),
    /// `[3]`, from 0.
    Index(usize),
}

/// One part of a string with references.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Reference(Reference),
}

/// The references in `args`, in the order of the text.
pub fn references(args: &Value) -> Vec<Reference> {
    let mut found = Vec::new();
    collect(args, &mut found);
    found
}

fn collect(value: &Value, found: &mut Vec<Reference>) {
    match value {
        Value::String(text) => match whole(text) {
            Some(reference) => found.push(reference),
            None => found.extend(parts(text).filter_map(|part| match part {
                Part::Reference(reference) => Some(reference),
                Part::Text(_) => None,
            })),
        },
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| collect(field, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The reference that `text` is as a whole: `$N.path`, or `${N.path}` alone.
pub(super) fn whole(text: &str) -> Option<Reference> {
    let inner = text.strip_prefix('$')?;
    let inner = inner.strip_prefix('{').and_then(|i| i.strip_suffix('}')).unwrap_or(inner);
    read(inner).filter(|(_, rest)| rest.is_empty()).map(|(reference, _)| reference)
}

/// Cuts a string that is no reference as a whole into its text and its `${N.path}`; `$$` becomes `$`.
pub(super) fn parts(mut text: &str) -> impl Iterator<Item = Part<'_>> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        // Text runs up to the next dollar that means something.
        let mut from = 0;
        while let Some(dollar) = text[from..].find('$').map(|at| from + at) {
            let after = &text[dollar + 1..];
            if let Some(behind) = after.strip_prefix('$') {
                // The first of the two goes out with the text, the second goes.
                let part = Part::Text(&text[..=dollar]);
                text = behind;
                return Some(part);
            }
            let braced = after.strip_prefix('{').and_then(read);
            if let Some((reference, rest)) = braced.and_then(|(r, rest)| Some((r, rest.strip_prefix('}')?))) {
                if dollar > 0 {
                    let part = Part::Text(&text[..dollar]);
                    text = &text[dollar..];
                    return Some(part);
                }
                text = rest;
                return Some(Part::Reference(reference));
            }
            from = dollar + 1;
        }
        Some(Part::Text(std::mem::take(&mut text)))
    })
}

/// Reads `N.path` from the front of `text`; what is left begins where the longest path ends.
fn read(text: &str) -> Option<(Reference, &str)> {
    let (number, mut rest) = digits(text)?;
    let number = u32::try_from(number).ok().filter(|&n| n > 0)?;
    let mut path = Vec::new();
    loop {
        let field = rest.strip_prefix('.').and_then(|after| {
            let end =
                after.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).unwrap_or(after.len());
            let name = &after[..end];
            name.starts_with(|c: char| c.is_alphabetic() || c == '_').then_some((name, &after[end..]))
        });
        let index = || {
            let (index, after) = digits(rest.strip_prefix('[')?)?;
            Some((index, after.strip_prefix(']')?))
        };
        if let Some((name, after)) = field {
            path.push(Segment::Field(name.to_owned()));
            rest = after;
        } else if let Some((index, after)) = index() {
            path.push(Segment::Index(index));
            rest = after;
        } else {
            return Some((Reference { number, path }, rest));
        }
    }
}

/// A decimal number without leading zeros.
fn digits(text: &str) -> Option<(usize, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    if number.len() > 1 && number.starts_with('0') {
        return None;
    }
    Some((number.parse().ok()?, rest))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.number)?;
        self.path.iter().try_for_each(|segment| segment.fmt(f))
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_references_are_references() {
        let shown = |text: &str| {
            references(&json!({"x": [text]})).iter().map(Reference::to_string).collect::<Vec<_>>()
        };
        for (text, expected) in [
            ("$1", vec!["$1"]),
            ("$12.items[0].title", vec!["$12.items[0].title"]),
            ("$1[2][0]", vec!["$1[2][0]"]),
            ("$1.größe_2-b", vec!["$1.größe_2-b"]),
            ("${3.a}", vec!["$3.a"]),
            ("${3.a} and ${4}", vec!["$3.a", "$4"]),
            ("a $${1} $${2", vec![]),
            ("$$${1}", vec!["$1"]),
            ("$$1", vec![]),
            ("$5 bill", vec![]),
            ("for $5", vec![]),
            ("US$", vec![]),
            ("$", vec![]),
            ("$1.50", vec![]),
            ("$1,000", vec![]),
            ("$1.", vec![]),
            ("$0", vec![]),
            ("$01", vec![]),
            ("$1[01]", vec![]),
            ("$4294967296", vec![]),
            ("${PATH} ${1.} ${1 } ${1", vec![]),
            ("${1.a.b[3]}x", vec!["$1.a.b[3]"]),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
        assert_eq!(references(&json!({"$1": 2, "a": {"b": "$2"}, "c": ["$1"]})).len(), 2);
    }

    #[test]
    fn escapes_lose_one_dollar() {
        let text = |given| {
            parts(given)
                .map(|part| match part {
                    Part::Text(text) => text.to_owned(),
                    Part::Reference(reference) => format!("<{reference}>"),
                })
                .collect::<String>()
        };
        for (given, expected) in [
            ("$$5", "$5"),
            ("a$$b$$", "a$b$"),
            ("$$$", "$$"),
            ("$$${1}", "$<$1>"),
            ("$${1}", "${1}"),
            ("${1}${2.x}", "<$1><$2.x>"),
            ("é${1}é", "é<$1>é"),
            ("5 $ and ${x}", "5 $ and ${x}"),
        ] {
            assert_eq!(text(given), expected, "{given}");
        }
    }
}
