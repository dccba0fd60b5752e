//! Templates of answers: minijinja with fuel, strict about undefined values, plus functions that
//! make up values repeatably. Compiled once when a scenario is loaded.

use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value as Jinja, value::Serde};
use serde_json::Value;

use crate::{draw::Stream, echo};

/// Instructions one rendering may take; a loop of 10,000 rounds is well inside.
const FUEL: u64 = 500_000;

/// The most tokens that `prose` makes.
const MAX_PROSE: u64 = 100_000;

/// All compiled templates of a scenario.
#[derive(Debug)]
pub(crate) struct Templates {
    env: Environment<'static>,
}

/// A text, compiled where it holds template syntax.
#[derive(Debug, Clone)]
pub(crate) enum Text {
    Literal(String),
    Template(String),
}

/// A JSON value whose strings may be templates. A string that is one whole `{{ expression }}`
/// keeps the type of its value.
#[derive(Debug, Clone)]
pub(crate) enum Json {
    Literal(Value),
    Text(String),
    Expression(String),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

// === impl Templates ===

impl Templates {
    /// `data` is seen by all templates under that name.
    pub(crate) fn new(data: &Value) -> Self {
        let mut env = Environment::new();
        env.add_global("data", Jinja::from(Serde(data)));
        env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_fuel(Some(FUEL));
        env.add_function("prose", |seed: String, tokens: u64| echo::prose(&seed, tokens.min(MAX_PROSE)));
        env.add_function("pick", |seed: String, from: Vec<Jinja>| {
            if from.is_empty() {
                return Err(Error::new(ErrorKind::InvalidOperation, "pick from an empty list"));
            }
            let index = Stream::from_text(&seed).next_u64() % from.len() as u64;
            Ok(from[index as usize].clone())
        });
        env.add_function("number", |seed: String, min: i64, max: i64| {
            let width = max.checked_sub(min).and_then(|width| width.checked_add(1));
            match width {
                Some(width) if width > 0 => {
                    Ok(min + (Stream::from_text(&seed).next_u64() % width as u64) as i64)
                }
                _ => Err(Error::new(ErrorKind::InvalidOperation, "number needs min <= max")),
            }
        });
        Self { env }
    }

    /// Compiles `source`; `place` names it in errors.
    pub(crate) fn text(&mut self, place: &str, source: &str) -> Result<Text, String> {
        if !["{{", "{%", "{#"].iter().any(|mark| source.contains(mark)) {
            return Ok(Text::Literal(source.to_owned()));
        }
        Ok(Text::Template(self.add(place, source.to_owned())?))
    }

    /// Compiles every string in `value`.
    pub(crate) fn json(&mut self, place: &str, value: &Value) -> Result<Json, String> {
        Ok(match value {
            Value::String(source) => match whole_expression(source) {
                Some(expression) => {
                    let source = format!("{{{{ ({expression}) | tojson }}}}");
                    Json::Expression(self.add(place, source)?)
                }
                None => match self.text(place, source)? {
                    Text::Literal(text) => Json::Literal(Value::String(text)),
                    Text::Template(name) => Json::Text(name),
                },
            },
            Value::Array(items) => Json::List(
                items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| self.json(&format!("{place}[{i}]"), item))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Object(fields) => Json::Map(
                fields
                    .iter()
                    .map(|(key, item)| Ok((key.clone(), self.json(&format!("{place}.{key}"), item)?)))
                    .collect::<Result<_, String>>()?,
            ),
            other => Json::Literal(other.clone()),
        })
    }

    pub(crate) fn render(&self, text: &Text, context: &Jinja) -> Result<String, String> {
        match text {
            Text::Literal(text) => Ok(text.clone()),
            Text::Template(name) => self.run(name, context),
        }
    }

    pub(crate) fn render_json(&self, json: &Json, context: &Jinja) -> Result<Value, String> {
        Ok(match json {
            Json::Literal(value) => value.clone(),
            Json::Text(name) => Value::String(self.run(name, context)?),
            Json::Expression(name) => serde_json::from_str(&self.run(name, context)?)
                .map_err(|error| format!("template {name}: {error}"))?,
            Json::List(items) => {
                items.iter().map(|item| self.render_json(item, context)).collect::<Result<_, _>>()?
            }
            Json::Map(fields) => Value::Object(
                fields
                    .iter()
                    .map(|(key, item)| Ok((key.clone(), self.render_json(item, context)?)))
                    .collect::<Result<_, String>>()?,
            ),
        })
    }

    /// The name that it got: its place, made unique where keys hold dots.
    fn add(&mut self, place: &str, source: String) -> Result<String, String> {
        let mut name = place.to_owned();
        while self.env.get_template(&name).is_ok() {
            name.push('\'');
        }
        self.env.add_template_owned(name.clone(), source).map_err(|error| format!("template: {error}"))?;
        Ok(name)
    }

    fn run(&self, name: &str, context: &Jinja) -> Result<String, String> {
        self.env
            .get_template(name)
            .and_then(|template| template.render(context))
            .map_err(|error| format!("template {name}: {error}"))
    }
}

/// The inside of `{{ ... }}` when that is the whole string.
fn whole_expression(source: &str) -> Option<&str> {
    let inner = source.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix('-').unwrap_or(inner);
    let inner = inner.strip_suffix('-').unwrap_or(inner);
    let plain = !["{{", "}}", "{%"].iter().any(|mark| inner.contains(mark));
    plain.then(|| inner.trim())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(value: Value) -> Result<Value, String> {
        let mut templates = Templates::new(&json!({"size": 7}));
        let json = templates.json("here", &value)?;
        let context = minijinja::context! { args => minijinja::context! { ids => vec![1, 2], q => "a<b" } };
        templates.render_json(&json, &context)
    }

    #[test]
    fn a_whole_expression_keeps_its_type() {
        let value = json!({"size": "{{ data.size }}", "ids": "{{ args.ids }}", "text": "ids: {{ args.ids|length }}", "n": 3, "q": "{{ args.q }}"});
        let expected = json!({"size": 7, "ids": [1, 2], "text": "ids: 2", "n": 3, "q": "a<b"});
        assert_eq!(expected, render(value).unwrap());
    }

    #[test]
    fn undefined_names_and_endless_loops_are_errors() {
        assert!(render(json!("{{ nobody }}!")).unwrap_err().contains("undefined"));
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        assert!(render(json!(endless)).unwrap_err().contains("fuel"));
        assert!(render(json!("{{ broken")).unwrap_err().contains("template"));
    }

    #[test]
    fn made_up_values_repeat() {
        let value = json!(["{{ number('a', 5, 9) }}", "{{ pick('b', [1, 2, 3]) }}", "{{ prose('c', 20) }}"]);
        let first = render(value.clone()).unwrap();
        assert_eq!(first, render(value).unwrap());
        assert!((5..=9).contains(&first[0].as_i64().unwrap()));
        assert_eq!(20, crate::count_tokens(first[2].as_str().unwrap()));
        assert!(render(json!("{{ number('a', 9, 5) }}")).is_err());
    }
}
