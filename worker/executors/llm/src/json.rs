//! JSON as models write it: when does a value close, and how is a nearly right one mended.

use serde::Deserialize;
use serde_json::Value;

/// Follows the brackets of JSON text that arrives in pieces, aware of strings and escapes.
#[derive(Debug, Default, Clone)]
pub struct Brackets {
    /// Closers still owed, innermost last.
    open: Vec<u8>,
    in_string: bool,
    escaped: bool,
    closed: bool,
    began: bool,
}

/// Deepest nesting followed; serde_json refuses more than 128 anyway.
const MAX_DEPTH: usize = 128;

impl Brackets {
    /// Takes the next piece. Returns the offset in `text` just after the byte that closed the
    /// outermost object or array, when this piece did so.
    pub fn push(&mut self, text: &str) -> Option<usize> {
        for (at, byte) in text.bytes().enumerate() {
            if self.closed {
                break;
            }
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                // Past the depth that any parser takes, counting stops: such a value never closes
                // early, and the parser gives the error.
                b'{' | b'[' if self.open.len() < MAX_DEPTH => {
                    self.began = true;
                    self.open.push(if byte == b'{' { b'}' } else { b']' });
                }
                b'}' | b']' if self.began => {
                    self.open.pop();
                    if self.open.is_empty() {
                        self.closed = true;
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// The outermost object or array has closed.
    pub fn closed(&self) -> bool {
        self.closed
    }
}

/// Parses JSON, replacing escaped surrogates without a partner (`\ud83d` alone) by U+FFFD: models
/// and servers cut emoji in two, and serde_json refuses the halves.
pub(crate) fn parse(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text).or_else(|error| match pair_surrogates(text) {
        Some(mended) => serde_json::from_str(&mended),
        None => Err(error),
    })
}

/// As [`parse`], into a type that may borrow from `text`; `mended` is storage for the second try.
pub(crate) fn parse_into<'a, T: Deserialize<'a>>(
    text: &'a str,
    mended: &'a mut String,
) -> Result<T, serde_json::Error> {
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        Err(error) => {
            *mended = pair_surrogates(text).ok_or(error)?;
            serde_json::from_str(mended)
        }
    }
}

/// `None` when every escaped surrogate has its partner.
fn pair_surrogates(text: &str) -> Option<String> {
    let unit = |at: usize| -> Option<u16> {
        let hex = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(hex, 16).ok()
    };
    let mut out = String::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = text[at..].find('\\') {
        at += found;
        match unit(at) {
            Some(0xD800..=0xDBFF) if matches!(unit(at + 6), Some(0xDC00..=0xDFFF)) => at += 12,
            Some(0xD800..=0xDFFF) => {
                out.push_str(&text[copied..at]);
                out.push_str("\\ufffd");
                at += 6;
                copied = at;
            }
            // Skip the escaped character, so that `\\ud83d` is read as a backslash and text.
            _ => at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        }
    }
    (copied > 0).then(|| {
        out.push_str(&text[copied..]);
        out
    })
}

/// Reads a model's answer as JSON. The flag says whether repair was needed: code fences or prose
/// around the value removed, its string and brackets closed, commas without a successor dropped, or
/// control characters in its strings escaped.
///
/// Whether an answer that was cut may be closed is the caller's to decide: half a list passes for a
/// whole one here.
pub fn read_answer(text: &str) -> Result<(Value, bool), serde_json::Error> {
    let text = text.trim();
    let first = match parse(text) {
        Ok(value) => return Ok((value, false)),
        Err(error) => error,
    };
    let Some(start) = text.find(['{', '[']) else {
        return Err(first);
    };
    let body = &text[start..];
    let mut brackets = Brackets::default();
    let body = match brackets.push(body) {
        Some(end) => body[..end].to_owned(),
        None => brackets.close(body),
    };
    match parse(&body).or_else(|_| parse(&tidy(&body))) {
        Ok(value) => Ok((value, true)),
        // The first error names the place in the text as the model wrote it.
        Err(_) => Err(first),
    }
}

/// `text` without commas before a closing bracket, and with the control characters in its strings
/// (most often line breaks) escaped.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            ',' if !in_string && text[at + 1..].trim_start().starts_with(['}', ']']) => continue,
            '\n' if in_string => {
                out.push_str("\\n");
                continue;
            }
            c if in_string && c.is_ascii_control() => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
                continue;
            }
            _ => {}
        }
        out.push(c);
    }
    out
}

impl Brackets {
    /// `text`, which these brackets have followed to its end, with what it lacks appended.
    fn close(&self, text: &str) -> String {
        let text = text.strip_suffix("```").unwrap_or(text).trim_end();
        let mut out = text.to_owned();
        if self.in_string {
            if self.escaped {
                out.pop();
            }
            out.push('"');
        } else if out.ends_with(',') {
            out.pop();
        }
        out.extend(self.open.iter().rev().map(|&b| char::from(b)));
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn closes_only_at_the_outer_bracket() {
        let text = r#" {"a":"}\"]","b":[{"c":"\\"}]} x"#;
        let mut brackets = Brackets::default();
        assert_eq!(brackets.push(text), Some(text.len() - 2));
        assert!(brackets.closed());
        for scalar in ["null", "1", "\"{}\"", "]"] {
            assert_eq!(Brackets::default().push(scalar), None, "{scalar}");
        }
    }

    #[test]
    fn lone_surrogates_become_replacement_characters() {
        assert_eq!(parse(r#""\ud83d\ude00""#).unwrap(), "😀");
        assert_eq!(parse(r#""a\ud83d""#).unwrap(), "a\u{fffd}");
        assert_eq!(parse(r#""\ude00é\uD83Dx""#).unwrap(), "\u{fffd}é\u{fffd}x");
        assert_eq!(parse(r#""\\ud83d""#).unwrap(), r"\ud83d");
        assert!(parse(r#""\ud83"#).is_err());
        assert!(parse("\"\\é").is_err());
    }

    #[test]
    fn answers_are_mended() {
        let good = json!({"a": [1, "x"]});
        for (text, repaired) in [
            (r#"{"a":[1,"x"]}"#, false),
            ("```json\n{\"a\":[1,\"x\"]}\n```", true),
            ("Here you are: {\"a\":[1,\"x\"]} Anything else?", true),
            (r#"{"a":[1,"x"#, true),
            (r#"{"a":[1,"x\"#, true),
            (r#"{"a":[1,"x","#, true),
            ("```json\n{\"a\":[1,\"x\"\n```", true),
            ("{\"a\":[1,\"x\" , ]\n,}", true),
        ] {
            assert_eq!(read_answer(text).unwrap(), (good.clone(), repaired), "{text}");
        }
        let lines = r#"{"a": "1\n2	3,]\"4"}"#.replace("\\n", "\n");
        assert_eq!(read_answer(&lines).unwrap(), (json!({"a": "1\n2\t3,]\"4"}), true));
        for text in ["", "no json", "{\"a\" 1}", "{\"a\":", "{\"a\":1,\"b"] {
            assert!(read_answer(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn brackets_agree_with_the_parser(value in "[a-z{}\\[\\]\"\\\\ é]{0,20}", cut in 0usize..40) {
            let text = json!({"k": [value, {"n": 1}]}).to_string();
            let cut = (0..=cut.min(text.len())).rev().find(|&c| text.is_char_boundary(c)).unwrap();
            let mut brackets = Brackets::default();
            let first = brackets.push(&text[..cut]);
            let second = brackets.push(&text[cut..]);
            prop_assert!(brackets.closed());
            let end = first.or(second.map(|end| end + cut));
            prop_assert_eq!(end, Some(text.len()));
        }
    }
}
