//! The one minijinja environment: strict about what is undefined, limited in fuel, nothing of the host's in it.

use std::sync::{Arc, LazyLock};

use minijinja::{
    AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value,
    value::{Enumerator, Object, ValueKind},
};
use serde_json::Value as Json;
use trireme_model::merge::is_llm_result;

use super::MAX_RENDERED_BYTES;

/// Steps one rendering may take: far more than a loop over 10,000 items needs, and well under a second.
const FUEL: u64 = 1_000_000;

static ENGINE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut engine = Environment::new();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.set_auto_escape_callback(|_| AutoEscape::None);
    engine.set_fuel(Some(FUEL));
    engine.set_recursion_limit(64);
    engine.set_debug(false);
    // the first would print every value of the run, the others let a loop grow a value without end
    for global in ["debug", "namespace", "dict"] {
        engine.remove_global(global);
    }
    engine.set_formatter(|out, _, value| {
        if value.is_undefined() {
            return Err(ErrorKind::UndefinedError.into());
        }
        out.write_str(&print(value)?).map_err(minijinja::Error::from)
    });
    // the built-in one escapes for HTML, which has no place in a prompt
    engine.add_filter("tojson", |value: Value| -> Result<String, minijinja::Error> {
        Ok(plain(&value)?.to_string())
    });
    engine
});

/// Names that templates may use and that are no task's.
pub(crate) const GLOBALS: &[&str] = &["range"];

/// The result of an `llm` task: an object that prints as its text.
#[derive(Debug)]
struct Answer {
    members: Value,
    text: String,
}

/// The environment.
pub(crate) fn engine() -> &'static Environment<'static> {
    &ENGINE
}

/// Whether templates have a filter of this name.
pub(crate) fn has_filter(name: &str) -> bool {
    let called = engine().empty_state().apply_filter(name, &[]);
    !called.is_err_and(|error| error.kind() == ErrorKind::UnknownFilter)
}

/// Whether templates have a test of this name.
pub(crate) fn has_test(name: &str) -> bool {
    let called = engine().empty_state().perform_test(name, &[]);
    !called.is_err_and(|error| error.kind() == ErrorKind::UnknownTest)
}

/// A value as templates see it.
pub(crate) fn value_of(json: Json) -> Value {
    match json {
        Json::Array(items) => items.into_iter().map(value_of).collect::<Vec<_>>().into(),
        Json::Object(members) => {
            let text = is_llm_result(&members).then(|| members["text"].as_str().unwrap_or("").to_owned());
            let members = Value::from_pairs(members.into_iter().map(|(key, value)| (key, value_of(value))));
            match text {
                Some(text) => Value::from_object(Answer { members, text }),
                None => members,
            }
        }
        Json::String(text) => text.into(),
        Json::Bool(flag) => flag.into(),
        Json::Null => ().into(),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.as_f64().unwrap_or(f64::NAN).into(),
        },
    }
}

/// A value as it stands inside a text. Values over [`MAX_RENDERED_BYTES`] are a `WriteFailure`.
pub(crate) fn print(value: &Value) -> Result<String, minijinja::Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => match (Copy { texts: true, left: MAX_RENDERED_BYTES }).json(value)? {
            Json::String(text) => Ok(text),
            json => Ok(json.to_string()),
        },
    }
}

/// A value as JSON, nothing replaced. Values over [`MAX_RENDERED_BYTES`] are a `WriteFailure`.
pub(crate) fn plain(value: &Value) -> Result<Json, minijinja::Error> {
    Copy { texts: false, left: MAX_RENDERED_BYTES }.json(value)
}

/// Copies a value out of the engine.
struct Copy {
    /// Whether answers of models are replaced by their texts.
    texts: bool,
    /// Bytes that may still be copied: a short template can name one long list ten thousand times.
    left: usize,
}

impl Copy {
    fn take(&mut self, bytes: usize) -> Result<(), minijinja::Error> {
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => return Err(ErrorKind::WriteFailure.into()),
        }
        Ok(())
    }

    fn json(&mut self, value: &Value) -> Result<Json, minijinja::Error> {
        self.take(1)?;
        if self.texts
            && let Some(answer) = value.downcast_object_ref::<Answer>()
        {
            self.take(answer.text.len())?;
            return Ok(Json::String(answer.text.clone()));
        }
        if let Some(text) = value.as_str() {
            self.take(text.len())?;
            return Ok(Json::String(text.to_owned()));
        }
        match value.kind() {
            ValueKind::Undefined => Err(ErrorKind::UndefinedError.into()),
            ValueKind::Seq | ValueKind::Iterable => {
                value.try_iter()?.map(|item| self.json(&item)).collect::<Result<_, _>>().map(Json::Array)
            }
            ValueKind::Map => {
                let mut members = serde_json::Map::new();
                for key in value.try_iter()? {
                    let name = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                    self.take(name.len())?;
                    members.insert(name, self.json(&value.get_item(&key)?)?);
                }
                Ok(Json::Object(members))
            }
            ValueKind::Number => {
                let number = serde_json::to_value(value).ok().filter(Json::is_number);
                number.ok_or_else(|| {
                    let message = format!("{value} is not a number that JSON can hold");
                    minijinja::Error::new(ErrorKind::BadSerialization, message)
                })
            }
            _ => serde_json::to_value(value)
                .map_err(|error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string())),
        }
    }
}

impl Object for Answer {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.members.get_item(key).ok().filter(|member| !member.is_undefined())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let keys = self.members.try_iter().map(Iterator::collect::<Vec<_>>);
        Enumerator::Values(keys.unwrap_or_default())
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}
