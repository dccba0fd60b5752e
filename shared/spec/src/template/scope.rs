//! The names a template sees, and how values are printed into texts.

use std::{cell::RefCell, collections::HashMap, io};

use minijinja::{ErrorKind, Expression, Value};
use serde_json::value::RawValue;
use trireme_model::Payload;

use super::{MAX_RENDERED_BYTES, engine, path::Path};
use crate::{Bindings, RenderError};

/// The values of one call. Parsed values are kept while it is rendered.
pub(crate) struct Scope<'b> {
    bindings: &'b Bindings,
    index: Option<Payload>,
    parsed: RefCell<HashMap<String, Value>>,
}

impl<'b> Scope<'b> {
    pub fn new(bindings: &'b Bindings) -> Self {
        let index = bindings.index.map(|index| Payload::of(&index));
        Self { bindings, index, parsed: RefCell::default() }
    }

    fn root(&self, name: &str) -> Option<&Payload> {
        match name {
            "input" => Some(&self.bindings.input),
            "item" => self.bindings.item.as_ref(),
            "index" => self.index.as_ref(),
            _ => self.bindings.values.iter().find(|(id, _)| id.as_str() == name).map(|(_, value)| value),
        }
    }

    /// The raw JSON text that `path` leads to.
    pub fn resolve(&self, path: &Path, place: &str) -> Result<&RawValue, RenderError> {
        let missing = |reason| RenderError::Missing { place: place.to_owned(), reason };
        let Some(payload) = self.root(&path.root) else {
            return Err(missing(format!("`{path}` does not exist: `{}` has no value", path.root)));
        };
        let text = if payload.is_empty() { b"null" } else { payload.as_bytes().as_ref() };
        let value: &RawValue = serde_json::from_slice(text)
            .map_err(|error| missing(format!("`{}` can't be read: {error}", path.root)))?;
        path.follow(value).map_err(missing)
    }

    fn context(&self, roots: &[String], place: &str) -> Result<Value, RenderError> {
        let mut parsed = self.parsed.borrow_mut();
        let mut context = Vec::with_capacity(roots.len());
        for name in roots {
            if let Some(value) = parsed.get(name) {
                context.push((name.clone(), value.clone()));
            } else if let Some(payload) = self.root(name) {
                let json = payload.parse().map_err(|error| RenderError::Missing {
                    place: place.to_owned(),
                    reason: format!("`{name}` can't be read: {error}"),
                })?;
                let value = engine::value_of(json);
                parsed.insert(name.clone(), value.clone());
                context.push((name.clone(), value));
            }
        }
        Ok(Value::from_pairs(context))
    }

    /// The value of an expression.
    pub fn eval(
        &self,
        compiled: &Expression<'static, 'static>,
        roots: &[String],
        source: &str,
        place: &str,
    ) -> Result<Value, RenderError> {
        let value = compiled
            .eval(self.context(roots, place)?)
            .map_err(|error| failure(&error, &format!("`{source}`"), place))?;
        if value.is_undefined() {
            let reason = format!("`{source}` does not exist");
            return Err(RenderError::Missing { place: place.to_owned(), reason });
        }
        Ok(value)
    }

    /// A value as text.
    pub fn print(&self, value: &Value, place: &str) -> Result<String, RenderError> {
        engine::print(value).map_err(|error| failure(&error, "the value", place))
    }

    /// A value as JSON.
    pub fn payload(&self, value: &Value, place: &str) -> Result<Payload, RenderError> {
        let json = engine::plain(value).map_err(|error| failure(&error, "the value", place))?;
        let payload = Payload::of(&json);
        if payload.len() > MAX_RENDERED_BYTES {
            return Err(RenderError::TooLarge { place: place.to_owned() });
        }
        Ok(payload)
    }

    /// Renders a template that has statements.
    pub fn render(&self, source: &str, roots: &[String], place: &str) -> Result<String, RenderError> {
        let mut out = Capped(Vec::new());
        let context = self.context(roots, place)?;
        let rendered = engine::engine()
            .template_from_str(source)
            .and_then(|template| template.render_captured_to(context, &mut out).map(drop));
        match rendered {
            Ok(()) => Ok(String::from_utf8_lossy(&out.0).into_owned()),
            Err(error) => Err(failure(&error, "the template", place)),
        }
    }
}

fn failure(error: &minijinja::Error, subject: &str, place: &str) -> RenderError {
    let place = place.to_owned();
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    match error.kind() {
        ErrorKind::UndefinedError => RenderError::Missing {
            place,
            reason: format!("{subject} refers to something that does not exist{line}{detail}"),
        },
        ErrorKind::OutOfFuel => RenderError::Endless { place },
        ErrorKind::WriteFailure => RenderError::TooLarge { place },
        kind => RenderError::Template { place, reason: format!("{subject} failed{line}: {kind}{detail}") },
    }
}

/// A buffer that refuses to grow past the limit.
struct Capped(Vec<u8>);

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_RENDERED_BYTES {
            return Err(io::Error::other("too large"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Appends a value as it stands inside a text: strings as they are, answers of models as their text, everything
/// else as compact JSON with every digit kept.
pub(crate) fn print_raw(json: &str, out: &mut String) {
    let first = json.as_bytes().first();
    if first == Some(&b'"') {
        out.push_str(&serde_json::from_str::<String>(json).unwrap_or_default());
    } else if json.contains("\"finish_reason\"") {
        let mut replaced = String::new();
        replace(json, &mut replaced);
        if replaced.starts_with('"') {
            out.push_str(&serde_json::from_str::<String>(&replaced).unwrap_or_default());
        } else {
            out.push_str(&replaced);
        }
    } else {
        compact(json, out);
    }
}

/// Appends `json` with every answer of a model replaced by its text.
fn replace(json: &str, out: &mut String) {
    match json.as_bytes().first() {
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(json).unwrap_or_default();
            for (at, item) in items.iter().enumerate() {
                out.push(if at == 0 { '[' } else { ',' });
                replace(item.get(), out);
            }
            out.push_str(if items.is_empty() { "[]" } else { "]" });
        }
        Some(b'{') => {
            let members: Members<'_> = serde_json::from_str(json).unwrap_or_default();
            let text = members.0.iter().find(|(key, value)| key == "text" && value.get().starts_with('"'));
            if let Some((_, text)) = text
                && members.0.iter().any(|(key, _)| key == "finish_reason")
            {
                out.push_str(text.get());
                return;
            }
            for (at, (key, value)) in members.0.iter().enumerate() {
                out.push(if at == 0 { '{' } else { ',' });
                crate::source::write_text(key, out);
                out.push(':');
                replace(value.get(), out);
            }
            out.push_str(if members.0.is_empty() { "{}" } else { "}" });
        }
        _ => out.push_str(json),
    }
}

/// Appends `json` without the blanks between its tokens.
fn compact(json: &str, out: &mut String) {
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, byte) in json.bytes().enumerate() {
        if quoted {
            quoted = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte == b'"' {
            quoted = true;
        } else if byte.is_ascii_whitespace() {
            out.push_str(&json[start..at]);
            start = at + 1;
        }
    }
    out.push_str(&json[start..]);
}

/// An object's members in order, their values raw.
#[derive(Default)]
struct Members<'v>(Vec<(String, &'v RawValue)>);

impl<'v> serde::Deserialize<'v> for Members<'v> {
    fn deserialize<D: serde::Deserializer<'v>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'v> serde::de::Visitor<'v> for Visit {
            type Value = Members<'v>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'v>>(self, mut map: A) -> Result<Members<'v>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}
