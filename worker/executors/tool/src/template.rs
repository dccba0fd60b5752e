//! The templates of this crate in one place: strict, fuel-limited, without host objects.
//!
//! A template sees `args` and nothing else. Loading other templates is impossible: each stands
//! alone in its environment.

use std::io::{self, Write};

use minijinja::{
    Environment, UndefinedBehavior,
    value::{Serde, Value as Jinja},
};
use serde_json::Value;

use crate::Error;

/// Instructions that one rendering may take: far over any sane template, some 10 ms of work.
const FUEL: u64 = 100_000;
/// Largest rendered text in bytes; equal to the largest arguments, which it usually repeats.
const MAX_RENDERED: usize = 1024 * 1024;
/// Largest template in bytes.
const MAX_SOURCE: usize = 64 * 1024;

/// A compiled string template over `args`.
#[derive(Debug)]
pub(crate) struct Template {
    place: String,
    env: Environment<'static>,
    /// The expression, when the template is nothing but one `{{ expression }}`.
    whole: Option<String>,
    /// Names `x` of every `args.x` in it.
    args: Vec<String>,
}

/// A JSON value whose strings are templates.
#[derive(Debug)]
pub(crate) enum JsonTemplate {
    Fixed(Value),
    Text(Box<Template>),
    List(Vec<JsonTemplate>),
    Object(Vec<(String, JsonTemplate)>),
}

/// How values are written into the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Escape {
    /// As they are.
    None,
    /// Percent-encoded, so that a value stays inside one segment of a URL.
    Url,
}

// === impl Template ===

impl Template {
    /// Compiles `source`, or says what is wrong with it. `place` is how errors call it.
    pub fn new(place: impl Into<String>, source: &str, escape: Escape) -> Result<Self, String> {
        let place = place.into();
        let fault = |e: &dyn std::fmt::Display| format!("template `{place}`: {e}");
        if source.len() > MAX_SOURCE {
            return Err(fault(&format!("{} bytes, the limit is {MAX_SOURCE}", source.len())));
        }
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        env.set_fuel(Some(FUEL));
        env.set_debug(false);
        if escape == Escape::Url {
            env.set_formatter(|out, state, value| {
                if value.is_undefined() {
                    return minijinja::escape_formatter(out, state, value);
                }
                let text = value.to_string();
                out.write_str(&percent_encode(&text)).map_err(minijinja::Error::from)
            });
        }
        env.add_template_owned("it", source.to_owned()).map_err(|e| fault(&e))?;
        let whole = whole_expression(&env, source);
        let mut args = Vec::new();
        for name in env.get_template("it").map_err(|e| fault(&e))?.undeclared_variables(true) {
            match name.split_once('.') {
                Some(("args", rest)) => args.push(rest.split('.').next().unwrap_or(rest).to_owned()),
                None if name == "args" || env.globals().any(|(global, _)| global == name) => {}
                _ => return Err(fault(&format!("`{name}` is unknown; only `args` is known here"))),
            }
        }
        args.sort();
        args.dedup();
        Ok(Self { place, env, whole, args })
    }

    /// Names `x` of every `args.x` in the template.
    pub fn args(&self) -> &[String] {
        &self.args
    }

    /// True when the template is nothing but one `{{ expression }}`.
    pub fn is_whole(&self) -> bool {
        self.whole.is_some()
    }

    /// Renders to text.
    pub fn text(&self, args: &Value) -> Result<String, Error> {
        let mut out = Bounded(Vec::new());
        let template = self.env.get_template("it").map_err(|e| self.fault(&e))?;
        template.render_captured_to(context(args), &mut out).map_err(|e| self.fault(&e))?;
        String::from_utf8(out.0).map_err(|e| self.fault(&e))
    }

    /// The value of a whole `{{ expression }}` with its JSON type, `None` when it is undefined; the
    /// rendered text of any other template.
    pub fn value(&self, args: &Value) -> Result<Option<Value>, Error> {
        let Some(source) = &self.whole else { return self.text(args).map(|t| Some(Value::String(t))) };
        let expression = self.env.compile_expression(source).map_err(|e| self.fault(&e))?;
        let value = expression.eval(context(args)).map_err(|e| self.fault(&e))?;
        if value.is_undefined() {
            return Ok(None);
        }
        serde_json::to_value(&value).map(Some).map_err(|e| self.fault(&e))
    }

    /// As [`Template::value`], but undefined is an error.
    pub fn required(&self, args: &Value) -> Result<Value, Error> {
        self.value(args)?.ok_or_else(|| self.fault(&"the value is undefined"))
    }

    fn fault(&self, error: &dyn std::fmt::Display) -> Error {
        Error::Template { place: self.place.clone(), message: crate::error::shorten(&error.to_string(), 500) }
    }
}

// === impl JsonTemplate ===

impl JsonTemplate {
    /// Compiles every string in `source`; keys are not templates.
    pub fn new(place: &str, source: &Value) -> Result<Self, String> {
        Ok(match source {
            Value::String(text) if text.contains('{') => {
                Self::Text(Box::new(Template::new(place, text, Escape::None)?))
            }
            Value::Array(items) => Self::List(
                items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| Self::new(&format!("{place}/{i}"), item))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Object(fields) => Self::Object(
                fields
                    .iter()
                    .map(|(name, item)| Ok((name.clone(), Self::new(&format!("{place}/{name}"), item)?)))
                    .collect::<Result<_, String>>()?,
            ),
            fixed => Self::Fixed(fixed.clone()),
        })
    }

    /// Renders to a JSON value.
    pub fn render(&self, args: &Value) -> Result<Value, Error> {
        Ok(match self {
            Self::Fixed(value) => value.clone(),
            Self::Text(template) => template.required(args)?,
            Self::List(items) => {
                Value::Array(items.iter().map(|i| i.render(args)).collect::<Result<_, _>>()?)
            }
            Self::Object(fields) => Value::Object(
                fields.iter().map(|(n, t)| Ok((n.clone(), t.render(args)?))).collect::<Result<_, Error>>()?,
            ),
        })
    }

    /// Every string template in it.
    pub fn templates(&self) -> Vec<&Template> {
        match self {
            Self::Fixed(_) => Vec::new(),
            Self::Text(template) => vec![template.as_ref()],
            Self::List(items) => items.iter().flat_map(Self::templates).collect(),
            Self::Object(fields) => fields.iter().flat_map(|(_, t)| t.templates()).collect(),
        }
    }
}

/// Encodes all but the unreserved characters of RFC 3986.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn context(args: &Value) -> Jinja {
    minijinja::context! { args => Jinja::from(Serde(args)) }
}

/// The expression of a template that is `{{ expression }}` alone. Something like `{{ a }}{{ b }}`
/// does not compile as one expression, so compiling decides.
fn whole_expression(env: &Environment<'_>, source: &str) -> Option<String> {
    let inner = source.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.trim_start_matches('-').trim_end_matches('-').trim();
    env.compile_expression(inner).ok().map(|_| inner.to_owned())
}

/// Collects at most [`MAX_RENDERED`] bytes.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.0.len() + data.len() > MAX_RENDERED {
            return Err(io::Error::other(format!("rendered text is over {MAX_RENDERED} bytes")));
        }
        self.0.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plain(source: &str) -> Template {
        Template::new("t", source, Escape::None).unwrap()
    }

    #[test]
    fn a_whole_value_keeps_its_type() {
        let args = json!({"n": 3, "list": [1, "a", null], "o": {"x": true}, "s": "1"});
        let body = JsonTemplate::new(
            "body",
            &json!({"n": "{{ args.n }}", "l": ["{{args.list}}"], "o": "{{ args.o }}", "s": "{{ args.s }}",
                "t": "n={{ args.n }}", "f": 7}),
        )
        .unwrap();
        assert_eq!(
            body.render(&args).unwrap(),
            json!({"n": 3, "l": [[1, "a", null]], "o": {"x": true}, "s": "1", "t": "n=3", "f": 7})
        );
        assert_eq!(plain("{{ args.n }}{{ args.s }}").value(&args).unwrap(), Some(json!("31")));
    }

    #[test]
    fn undefined_is_an_error_in_text_and_none_as_a_whole_value() {
        let error = plain("a{{ args.x }}").text(&json!({})).unwrap_err();
        assert!(matches!(&error, Error::Template { place, .. } if place == "t"), "{error}");
        assert_eq!(plain("{{ args.x }}").value(&json!({})).unwrap(), None);
        assert!(plain("{{ args.x }}").required(&json!({})).is_err());
        assert_eq!(plain("a{{ args.x | default('d') }}").text(&json!({})).unwrap(), "ad");
    }

    #[test]
    fn url_values_stay_in_their_segment() {
        let url = Template::new("url", "http://h/{{ args.a }}?b={{ args.b | safe }}", Escape::Url).unwrap();
        let text = url.text(&json!({"a": "../x y/é", "b": "1&c=2#d"})).unwrap();
        assert_eq!(text, "http://h/..%2Fx%20y%2F%C3%A9?b=1%26c%3D2%23d");
    }

    #[test]
    fn endless_loops_and_floods_end() {
        let lots = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        assert!(plain(lots).text(&json!({})).unwrap_err().to_string().contains("fuel"));
        let flood = "{% for a in range(100) %}{{ args.s }}{% endfor %}";
        let error = plain(flood).text(&json!({"s": "x".repeat(100_000)})).unwrap_err();
        assert!(matches!(error, Error::Template { .. }), "{error}");
    }

    #[test]
    fn mistakes_are_found_when_compiling() {
        for (bad, why) in
            [("{{ args.x", "syntax"), ("{{ env.HOME }}", "only `args`"), ("{{ x }}", "only `args`")]
        {
            let error = Template::new("url", bad, Escape::None).unwrap_err();
            assert!(error.contains(why) && error.starts_with("template `url`"), "{error}");
        }
        assert_eq!(plain("{{ args.b }}{{ args.a.c }}").args(), ["a", "b"]);
    }
}
