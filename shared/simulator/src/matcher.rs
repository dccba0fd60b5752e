//! Compiled conditions: globs and text matches.

use regex::Regex;
use serde_json::Value;

use crate::scenario::TextMatch;

/// A glob of `*` (any run of characters) and `?` (one character) over a whole name.
#[derive(Debug, Clone)]
pub(crate) struct Glob(Vec<char>);

/// A compiled [`TextMatch`].
#[derive(Debug, Clone)]
pub(crate) struct Text {
    contains: Option<String>,
    lacks: Option<String>,
    equals: Option<String>,
    regex: Option<Regex>,
}

// === impl Glob ===

impl Glob {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(pattern.chars().collect())
    }

    /// Linear in practice: on a mismatch only the last star gives way by one character.
    pub(crate) fn holds(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut at, mut pos) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while pos < name.len() {
            match self.0.get(at) {
                Some('*') => {
                    star = Some((at, pos));
                    at += 1;
                }
                Some(c) if *c == '?' || *c == name[pos] => {
                    at += 1;
                    pos += 1;
                }
                _ => match star.as_mut() {
                    Some((star_at, taken)) => {
                        *taken += 1;
                        at = *star_at + 1;
                        pos = *taken;
                    }
                    None => return false,
                },
            }
        }
        self.0[at..].iter().all(|c| *c == '*')
    }
}

// === impl Text ===

impl Text {
    pub(crate) fn compile(wanted: &TextMatch) -> Result<Self, String> {
        if *wanted == TextMatch::default() {
            return Err("needs one of contains, lacks, equals, regex".to_owned());
        }
        let regex = wanted.regex.as_deref().map(Regex::new).transpose();
        Ok(Self {
            contains: wanted.contains.clone(),
            lacks: wanted.lacks.clone(),
            equals: wanted.equals.clone(),
            regex: regex.map_err(|error| format!("regex: {error}"))?,
        })
    }

    pub(crate) fn holds(&self, text: &str) -> bool {
        self.contains.as_ref().is_none_or(|part| text.contains(part))
            && self.lacks.as_ref().is_none_or(|part| !text.contains(part))
            && self.equals.as_ref().is_none_or(|whole| text == whole)
            && self.regex.as_ref().is_none_or(|regex| regex.is_match(text))
    }

    /// Strings as they are, everything else as compact JSON.
    pub(crate) fn holds_value(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.holds(text),
            other => self.holds(&other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        let holds = |pattern: &str, name: &str| Glob::new(pattern).holds(name);
        assert!(holds("*", ""));
        assert!(holds("sim/*", "sim/fast"));
        assert!(holds("*a*b", "xaxxab"));
        assert!(holds("gpt-?", "gpt-5"));
        assert!(!holds("gpt-?", "gpt-"));
        assert!(!holds("sim/*", "sim"));
        assert!(!holds("fast", "faster"));
    }

    #[test]
    fn all_parts_must_hold() {
        let text = Text::compile(&TextMatch {
            contains: Some("Acme".into()),
            lacks: Some("secret".into()),
            equals: None,
            regex: Some("(?i)news$".into()),
        })
        .unwrap();
        assert!(text.holds("Acme NEWS"));
        assert!(!text.holds("acme NEWS"));
        assert!(!text.holds("Acme secret news"));
        assert!(!text.holds("Acme news."));
        assert!(Text::compile(&TextMatch::default()).is_err());
    }

    #[test]
    fn values_compare_as_compact_json() {
        let text =
            Text::compile(&TextMatch { equals: Some("[1,2]".into()), ..TextMatch::default() }).unwrap();
        assert!(text.holds_value(&serde_json::json!([1, 2])));
        assert!(text.holds_value(&serde_json::json!("[1,2]")));
    }
}
