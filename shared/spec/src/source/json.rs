//! Reads strict JSON (RFC 8259) into a tree with places, noticing duplicate keys.

use std::collections::HashSet;

use super::{Data, Entry, MAX_DEPTH, Node, Parsed, is_json_number, join};
use crate::problem::{Invalid, Place, Problem, quoted};

struct Reader<'t> {
    text: &'t str,
    at: usize,
    line: u32,
    line_start: usize,
    path: String,
    problems: Vec<Problem>,
}

/// Reads `text`, which must be one JSON value.
pub(crate) fn parse(text: &str) -> Result<Parsed, Invalid> {
    let mut reader =
        Reader { text, at: 0, line: 1, line_start: 0, path: String::new(), problems: Vec::new() };
    reader.blank();
    let root = reader.value(0)?;
    reader.blank();
    if reader.at < text.len() {
        return reader.stop("nothing may follow the spec's closing brace");
    }
    Ok(Parsed { root, problems: reader.problems })
}

impl Reader<'_> {
    fn place(&self) -> Place {
        Place { line: self.line, column: (self.at - self.line_start) as u32 + 1 }
    }

    fn stop<T>(&self, message: impl Into<String>) -> Result<T, Invalid> {
        Err(Invalid::one(&self.path, Some(self.place()), format!("malformed JSON: {}", message.into())))
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blank(&mut self) {
        while let Some(byte @ (b' ' | b'\t' | b'\r' | b'\n')) = self.peek() {
            self.at += 1;
            if byte == b'\n' {
                self.line += 1;
                self.line_start = self.at;
            }
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Invalid> {
        self.blank();
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        self.stop(format!("expected `{}`{}", char::from(byte), self.found()))
    }

    fn found(&self) -> String {
        let found = self.text[self.at..].chars().next();
        found.map_or_else(|| ", but the text ends".to_owned(), |found| format!(", found {found:?}"))
    }

    fn value(&mut self, depth: usize) -> Result<Node, Invalid> {
        let place = self.place();
        let data = match self.peek() {
            Some(b'{' | b'[') if depth >= MAX_DEPTH => {
                return self.stop(format!("deeper than {MAX_DEPTH} levels"));
            }
            Some(b'{') => self.map(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Data::Text(self.string()?),
            _ => {
                let rest = &self.text[self.at..];
                let end = rest.find([',', ']', '}', ' ', '\t', '\r', '\n', ':']).unwrap_or(rest.len());
                let word = &rest[..end];
                let data = match word {
                    "null" => Data::Null,
                    "true" => Data::Bool(true),
                    "false" => Data::Bool(false),
                    "" => return self.stop(format!("expected a value{}", self.found())),
                    number if is_json_number(number) => Data::Number(number.to_owned()),
                    other => return self.stop(format!("{} is not a JSON value", quoted(other))),
                };
                self.at += end;
                data
            }
        };
        Ok(Node { place, data })
    }

    fn list(&mut self, depth: usize) -> Result<Data, Invalid> {
        self.at += 1;
        let mut items = Vec::new();
        self.blank();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Data::List(items));
        }
        let base = self.path.len();
        loop {
            self.path.push_str(&format!("[{}]", items.len()));
            self.blank();
            items.push(self.value(depth + 1)?);
            self.path.truncate(base);
            self.blank();
            if self.peek() == Some(b']') {
                self.at += 1;
                return Ok(Data::List(items));
            }
            self.expect(b',')?;
        }
    }

    fn map(&mut self, depth: usize) -> Result<Data, Invalid> {
        self.at += 1;
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen = HashSet::new();
        self.blank();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Data::Map(entries));
        }
        let base = self.path.clone();
        loop {
            self.blank();
            let place = self.place();
            if self.peek() != Some(b'"') {
                return self.stop(format!("expected a key in double quotes{}", self.found()));
            }
            let key = self.string()?;
            self.path = join(&base, &key);
            self.expect(b':')?;
            self.blank();
            let value = self.value(depth + 1)?;
            if seen.insert(key.clone()) {
                entries.push(Entry { key, place, value });
            } else {
                self.problems.push(super::twice(&base, &key, place));
            }
            self.path.clone_from(&base);
            self.blank();
            if self.peek() == Some(b'}') {
                self.at += 1;
                return Ok(Data::Map(entries));
            }
            self.expect(b',')?;
        }
    }

    fn string(&mut self) -> Result<String, Invalid> {
        let bytes = &self.text.as_bytes()[self.at..];
        let mut end = 1;
        loop {
            match bytes.get(end) {
                None => return self.stop("a text in double quotes is not closed"),
                Some(b'"') => break,
                Some(b'\\') => end += 2,
                Some(_) => end += 1,
            }
        }
        match serde_json::from_str(&self.text[self.at..=self.at + end]) {
            Ok(text) => {
                self.at += end + 1;
                Ok(text)
            }
            Err(_) => self.stop("a text has a bad escape, or a control character that is not escaped"),
        }
    }
}
