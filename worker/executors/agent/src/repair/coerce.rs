//! Values brought nearer to their schema. Only a guess at what was meant: the caller validates.

use serde_json::{Map, Number, Value};
use trireme_llm::read_answer;

/// Deepest nesting of schemas, references included, that is followed.
const MAX_DEPTH: usize = 64;
/// Most values and parts of the schema that are looked at; what is left stays as it is.
const MAX_STEPS: usize = 100_000;
/// Most alternatives of `anyOf` and `oneOf`, over the whole schema, that are tried.
const MAX_TRIES: usize = 64;

/// `value` with the types that `schema` wants, where there is an obvious way.
pub(super) fn coerce(value: Value, schema: &Value) -> Value {
    Coercion { root: schema, steps: MAX_STEPS, tries: MAX_TRIES }.value(value, schema, 0)
}

struct Coercion<'a> {
    /// What local references point into.
    root: &'a Value,
    /// How many are left, of either kind.
    steps: usize,
    tries: usize,
}

impl Coercion<'_> {
    fn value(&mut self, value: Value, schema: &Value, depth: usize) -> Value {
        let Some(schema) = schema.as_object().filter(|_| depth < MAX_DEPTH && self.steps > 0) else {
            return value;
        };
        self.steps -= 1;
        let mut value = value;
        let local = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
        if let Some(target) = local.and_then(|pointer| self.root.pointer(pointer)) {
            value = self.value(value, target, depth + 1);
        }
        for part in list(schema, "allOf") {
            value = self.value(value, part, depth + 1);
        }
        for choice in ["anyOf", "oneOf"] {
            value = self.choose(value, list(schema, choice), depth + 1);
        }
        value = convert(value, schema);
        match value {
            Value::Object(fields) => Value::Object(self.object(fields, schema, depth)),
            Value::Array(items) => Value::Array(self.array(items, schema, depth)),
            other => other,
        }
    }

    /// As the first alternative that it fits, mended if need be.
    fn choose(&mut self, value: Value, alternatives: &[Value], depth: usize) -> Value {
        if alternatives.iter().any(|alternative| self.fits(&value, alternative)) {
            return value;
        }
        for alternative in alternatives {
            let mended = self.value(value.clone(), alternative, depth);
            if self.fits(&mended, alternative) {
                return mended;
            }
        }
        value
    }

    /// Whether `value` is valid for a part of the schema.
    fn fits(&mut self, value: &Value, part: &Value) -> bool {
        let Some(part) = part.as_object().filter(|_| self.tries > 0) else { return false };
        self.tries -= 1;
        let mut schema = part.clone();
        // What its references point at stands at the root.
        for shared in ["$defs", "definitions"] {
            if let Some(definitions) = self.root.get(shared) {
                schema.insert(shared.to_owned(), definitions.clone());
            }
        }
        jsonschema::options().offline().build(&schema.into()).is_ok_and(|validator| validator.is_valid(value))
    }

    fn object(
        &mut self,
        fields: Map<String, Value>,
        schema: &Map<String, Value>,
        depth: usize,
    ) -> Map<String, Value> {
        let properties = schema.get("properties").and_then(Value::as_object);
        let rest = schema.get("additionalProperties");
        // Patterns and sibling schemas may allow more names than are listed here.
        let closed = rest == Some(&Value::Bool(false)) && !schema.contains_key("patternProperties");
        let mut out = Map::new();
        for (name, field) in fields {
            match properties.and_then(|p| p.get(&name)) {
                Some(property) => out.insert(name, self.value(field, property, depth + 1)),
                None if closed => None,
                None => {
                    let field = match rest {
                        Some(rest) => self.value(field, rest, depth + 1),
                        None => field,
                    };
                    out.insert(name, field)
                }
            };
        }
        out
    }

    fn array(&mut self, items: Vec<Value>, schema: &Map<String, Value>, depth: usize) -> Vec<Value> {
        let first = list(schema, "prefixItems");
        let rest = schema.get("items");
        let items = items.into_iter().enumerate();
        items
            .map(|(at, item)| match first.get(at).or(rest) {
                Some(schema) => self.value(item, schema, depth + 1),
                None => item,
            })
            .collect()
    }
}

fn list<'a>(schema: &'a Map<String, Value>, keyword: &str) -> &'a [Value] {
    schema.get(keyword).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// `value` as the first of the schema's types that it can become, unless it has one of them.
fn convert(value: Value, schema: &Map<String, Value>) -> Value {
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => return value,
    };
    if types.iter().any(|wanted| is(&value, wanted)) {
        return value;
    }
    types.iter().find_map(|wanted| become_type(&value, wanted)).unwrap_or(value)
}

fn is(value: &Value, wanted: &str) -> bool {
    match wanted {
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => false,
    }
}

fn become_type(value: &Value, wanted: &str) -> Option<Value> {
    let inner = || value.as_str().and_then(|text| read_answer(text).ok()).map(|(inner, _)| inner);
    match (wanted, value) {
        ("integer" | "number", Value::String(text)) => {
            let number = Value::Number(text.trim().parse::<Number>().ok()?);
            is(&number, wanted).then_some(number)
        }
        ("boolean", Value::String(text)) => text.trim().to_ascii_lowercase().parse().ok().map(Value::Bool),
        ("string", Value::Number(number)) => Some(Value::String(number.to_string())),
        ("object", Value::String(_)) => inner().filter(Value::is_object),
        ("array", Value::Null) => None,
        ("array", _) => inner().filter(Value::is_array).or_else(|| Some(Value::Array(vec![value.clone()]))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_slip_has_its_way_back() {
        for (schema, given, expected) in [
            (json!({"type": "integer"}), json!(" 3 "), json!(3)),
            (json!({"type": "integer"}), json!("3.5"), json!("3.5")),
            (json!({"type": "number"}), json!("-3.5e2"), json!(-350.0)),
            (json!({"type": "number"}), json!("NaN"), json!("NaN")),
            (json!({"type": "boolean"}), json!("True"), json!(true)),
            (json!({"type": "boolean"}), json!(1), json!(1)),
            (json!({"type": "string"}), json!(3), json!("3")),
            (json!({"type": ["integer", "null"]}), json!("7"), json!(7)),
            (json!({"type": ["null", "string"]}), json!(7), json!("7")),
            (json!({"type": "array", "items": {"type": "integer"}}), json!("3"), json!([3])),
            (json!({"type": "array"}), json!("[1, \"x\",]"), json!([1, "x"])),
            (json!({"type": "array"}), json!({"a": 1}), json!([{"a": 1}])),
            (json!({"type": "array"}), Value::Null, Value::Null),
            (json!({"type": "object"}), json!("{\"a\":1}"), json!({"a": 1})),
            (json!({"type": "object"}), json!("[1]"), json!("[1]")),
            (json!({"additionalProperties": {"type": "integer"}}), json!({"a": "1"}), json!({"a": 1})),
            (json!({"additionalProperties": false}), json!({"a": 1}), json!({})),
            (
                json!({"additionalProperties": false, "patternProperties": {"^x": {}}}),
                json!({"x": 1}),
                json!({"x": 1}),
            ),
            (
                json!({"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}),
                json!([1, "2"]),
                json!(["1", 2]),
            ),
            (
                json!({"allOf": [{"properties": {"a": {"type": "string"}}}]}),
                json!({"a": 1}),
                json!({"a": "1"}),
            ),
            (json!({"anyOf": [{"type": "integer"}, {"type": "null"}]}), json!("7"), json!(7)),
            (json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}), json!("7"), json!("7")),
            (
                json!({"$defs": {"n": {"type": "integer"}}, "oneOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}),
                json!("7"),
                json!(7),
            ),
            (json!(true), json!("7"), json!("7")),
        ] {
            assert_eq!(coerce(given.clone(), &schema), expected, "{schema} {given}");
        }
    }

    #[test]
    fn alternatives_are_told_apart_by_what_fits() {
        let shape = |kind: &str, field: &str| {
            json!({
                "type": "object",
                "properties": {"kind": {"const": kind}, field: {"type": "number"}},
                "required": ["kind", field],
                "additionalProperties": false,
            })
        };
        let schema = json!({"oneOf": [shape("circle", "r"), shape("square", "a")]});
        let given = json!({"kind": "square", "a": "2", "r": 1});
        assert_eq!(coerce(given, &schema), json!({"kind": "square", "a": 2}));
        let neither = json!({"kind": "line", "a": "2"});
        assert_eq!(coerce(neither.clone(), &schema), neither);
    }

    #[test]
    fn schemas_that_never_end_are_left() {
        let endless = json!({"$ref": "#"});
        assert_eq!(coerce(json!("1"), &endless), json!("1"));
        let tree = json!({"anyOf": [{"$ref": "#"}, {"type": "integer"}]});
        assert_eq!(coerce(json!("x"), &tree), json!("x"));
        let double = json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}]});
        assert_eq!(coerce(json!("x"), &double), json!("x"));
    }
}
