//! Texts with references in them: what they refer to, and what they become once the values are known.
//!
//! Most templates are texts around plain references (`{{ facts.news }}`). Those are resolved on the raw JSON
//! text of the values, without parsing them and without losing a digit. Only filters, arithmetic and
//! statements go through minijinja, fuel-limited and without anything of the host's.

pub(crate) mod analyse;
pub(crate) mod engine;
pub(crate) mod path;
pub(crate) mod scope;

use minijinja::Expression;
use serde_json::Value;
use trireme_model::Payload;

use crate::{
    RenderError,
    source::MAX_TEXT_BYTES,
    template::{analyse::analyse, path::Path, scope::Scope},
};

/// Bytes of one rendered text.
pub const MAX_RENDERED_BYTES: usize = MAX_TEXT_BYTES;

/// A text that is ready to be rendered.
#[derive(Debug)]
pub(crate) enum Text {
    /// No template in it.
    Fixed(String),
    /// Texts and references in turn.
    Parts(Vec<Part>),
    /// It has statements: rendered as a whole.
    Whole { source: String, roots: Vec<String> },
}

/// A piece of a [`Text`].
pub(crate) enum Part {
    Text(String),
    Path(Path),
    Expression { compiled: Expression<'static, 'static>, roots: Vec<String>, source: String },
}

/// A JSON value with templates in it.
#[derive(Debug)]
pub(crate) enum Json {
    /// No template in it.
    Fixed(Value),
    Text(Text),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

/// Whether `text` needs rendering at all.
pub(crate) fn is_template(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        rest = &rest[at + 1..];
        if rest.starts_with(['{', '%', '#']) {
            return true;
        }
    }
    false
}

/// Whether a template stands anywhere in `value`.
pub(crate) fn has_template(value: &Value) -> bool {
    match value {
        Value::String(text) => is_template(text),
        Value::Array(items) => items.iter().any(has_template),
        Value::Object(members) => members.values().any(has_template),
        _ => false,
    }
}

impl Text {
    /// Prepares `source`; the error says what is wrong with it.
    pub fn parse(source: String) -> Result<Self, String> {
        if !is_template(&source) {
            return Ok(Self::Fixed(source));
        }
        let analysis = analyse(&source)?;
        match analysis.parts {
            Some(parts) => Ok(Self::Parts(parts)),
            None => {
                Ok(Self::Whole { roots: analysis.roots.into_iter().map(|root| root.name).collect(), source })
            }
        }
    }

    /// Renders it as text.
    pub fn render(&self, scope: &Scope<'_>, place: &str) -> Result<String, RenderError> {
        let text = match self {
            Self::Fixed(text) => text.clone(),
            Self::Parts(parts) => {
                let mut out = String::new();
                for part in parts {
                    match part {
                        Part::Text(text) => out.push_str(text),
                        Part::Path(path) => scope::print_raw(scope.resolve(path, place)?.get(), &mut out),
                        Part::Expression { compiled, roots, source } => {
                            out.push_str(&scope.print(&scope.eval(compiled, roots, source, place)?, place)?);
                        }
                    }
                    if out.len() > MAX_RENDERED_BYTES {
                        return Err(RenderError::TooLarge { place: place.to_owned() });
                    }
                }
                out
            }
            Self::Whole { source, roots } => scope.render(source, roots, place)?,
        };
        if text.len() > MAX_RENDERED_BYTES {
            return Err(RenderError::TooLarge { place: place.to_owned() });
        }
        Ok(text)
    }

    /// Renders it as JSON: one reference alone keeps its type, everything else is text.
    pub fn json(&self, scope: &Scope<'_>, place: &str) -> Result<Payload, RenderError> {
        if let Self::Parts(parts) = self {
            match parts.as_slice() {
                [Part::Path(path)] => {
                    return Ok(Payload::from_json(scope.resolve(path, place)?.get().to_owned()));
                }
                [Part::Expression { compiled, roots, source }] => {
                    let value = scope.eval(compiled, roots, source, place)?;
                    return scope.payload(&value, place);
                }
                _ => {}
            }
        }
        Ok(Payload::of(&self.render(scope, place)?))
    }
}

impl Json {
    /// Prepares `value`.
    pub fn parse(value: Value) -> Result<Self, String> {
        if !has_template(&value) {
            return Ok(Self::Fixed(value));
        }
        Ok(match value {
            Value::String(text) => Self::Text(Text::parse(text)?),
            Value::Array(items) => Self::List(items.into_iter().map(Self::parse).collect::<Result<_, _>>()?),
            Value::Object(members) => Self::Map(
                members
                    .into_iter()
                    .map(|(key, value)| Ok((key, Self::parse(value)?)))
                    .collect::<Result<_, String>>()?,
            ),
            other => Self::Fixed(other),
        })
    }

    /// Fills in the templates.
    pub fn render(&self, scope: &Scope<'_>, place: &str) -> Result<Value, RenderError> {
        match self {
            Self::Fixed(value) => Ok(value.clone()),
            Self::Text(text) => {
                let payload = text.json(scope, place)?;
                if let Some(number) = payload.wide_integer() {
                    return Err(RenderError::Template {
                        place: place.to_owned(),
                        reason: format!("the number {number} {}", crate::problem::WIDE),
                    });
                }
                payload.parse().map_err(|error| RenderError::Template {
                    place: place.to_owned(),
                    reason: format!("the value it refers to can't be read: {error}"),
                })
            }
            Self::List(items) => items
                .iter()
                .enumerate()
                .map(|(at, item)| item.render(scope, &format!("{place}[{at}]")))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            Self::Map(members) => members
                .iter()
                .map(|(key, value)| Ok((key.clone(), value.render(scope, &format!("{place}.{key}"))?)))
                .collect::<Result<_, _>>()
                .map(Value::Object),
        }
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Path(path) => write!(f, "{{{{ {path} }}}}"),
            Self::Expression { source, .. } => write!(f, "{{{{ {source} }}}}"),
        }
    }
}
