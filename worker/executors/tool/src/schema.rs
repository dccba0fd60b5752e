//! Argument schemas: compiled once, and errors that say for each field what is wrong and what is right.

use jsonschema::{ValidationError, Validator, error::ValidationErrorKind};
use serde_json::Value;

use crate::{FieldError, error::shorten};

/// Most fields that one error lists.
const MAX_FIELDS: usize = 20;
/// Most bytes of an argument's value in an error.
const MAX_VALUE: usize = 120;

/// A compiled JSON schema. References to other documents are refused: validation does no I/O.
#[derive(Debug)]
pub(crate) struct Schema {
    validator: Validator,
    source: Value,
}

impl Schema {
    /// Compiles `source`, or says what is wrong with it.
    pub fn new(source: &Value) -> Result<Self, String> {
        let validator = jsonschema::options()
            .offline()
            .build(source)
            .map_err(|e| format!("`args` is not a usable JSON schema: {}", shorten(&e.to_string(), 500)))?;
        Ok(Self { validator, source: source.clone() })
    }

    /// Every field that is not as it should be, at most [`MAX_FIELDS`].
    pub fn check(&self, args: &Value) -> Result<(), Vec<FieldError>> {
        // The common case costs one pass without allocations.
        if self.validator.is_valid(args) {
            return Ok(());
        }
        Err(self.validator.iter_errors(args).flat_map(|e| self.explain(&e)).take(MAX_FIELDS).collect())
    }

    /// `args` with the defaults of the schema's top-level properties filled in.
    pub fn with_defaults(&self, mut args: Value) -> Value {
        if let (Some(object), Some(properties)) = (args.as_object_mut(), self.properties()) {
            for (name, property) in properties {
                if let Some(default) = property.get("default").filter(|_| !object.contains_key(name)) {
                    object.insert(name.clone(), default.clone());
                }
            }
        }
        args
    }

    /// The schema's top-level properties, when it lists them.
    pub fn properties(&self) -> Option<&serde_json::Map<String, Value>> {
        self.source.get("properties")?.as_object()
    }

    fn explain(&self, error: &ValidationError<'_>) -> Vec<FieldError> {
        let path = error.instance_path().to_string();
        let keyword = error.schema_path().to_string();
        // The schema object that the failing keyword stands in.
        let parent = self.source.pointer(keyword.rsplit_once('/').map_or("", |(head, _)| head));
        let known = parent.and_then(|p| p.get("properties")).and_then(Value::as_object);
        match error.kind() {
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                vec![FieldError {
                    path: format!("{path}/{}", escape(name)),
                    problem: "is missing".to_owned(),
                    expected: known.and_then(|k| k.get(name)).and_then(describe),
                }]
            }
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                let names = known.map(|k| k.keys().cloned().collect::<Vec<_>>().join(", "));
                unexpected
                    .iter()
                    .map(|name| FieldError {
                        path: format!("{path}/{}", escape(name)),
                        problem: "is not an argument of this tool".to_owned(),
                        expected: names.as_ref().map(|n| format!("one of: {}", shorten(n, 500))),
                    })
                    .collect()
            }
            _ => {
                let value = shorten(&error.instance().to_string(), MAX_VALUE);
                vec![FieldError {
                    path,
                    problem: format!("is {value}, which breaks `{}`", error.kind().keyword()),
                    expected: parent.and_then(describe),
                }]
            }
        }
    }
}

/// A schema in a few words: what a value has to be.
fn describe(schema: &Value) -> Option<String> {
    const KEYWORDS: [&str; 14] = [
        "type",
        "enum",
        "const",
        "format",
        "pattern",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
    ];
    let object = schema.as_object()?;
    let mut words: Vec<String> = KEYWORDS
        .iter()
        .filter_map(|k| object.get(*k).map(|v| (k, v)))
        .map(|(k, v)| match (*k, v) {
            ("type", Value::String(name)) => name.clone(),
            (k, v) => format!("{k} {}", shorten(&v.to_string(), 300)),
        })
        .collect();
    if let Some(text) = object.get("description").and_then(Value::as_str) {
        words.push(format!("({})", shorten(text, 200)));
    }
    (!words.is_empty()).then(|| words.join(" "))
}

fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Schema {
        Schema::new(&json!({
            "type": "object",
            "required": ["q", "page"],
            "additionalProperties": false,
            "properties": {
                "q": {"type": "string", "minLength": 2, "description": "words to look for"},
                "page": {"type": "integer", "minimum": 1},
                "sort": {"enum": ["asc", "desc"], "default": "asc"},
                "where": {"type": "array", "items": {"type": "object", "required": ["a/b"],
                    "properties": {"a/b": {"type": "number"}}}},
            },
        }))
        .unwrap()
    }

    #[test]
    fn each_failing_field_says_what_is_wrong_and_what_is_right() {
        let errors = schema()
            .check(&json!({"page": "1", "sort": "up", "qq": 1, "where": [{}, {"a/b": true}]}))
            .unwrap_err();
        let mut lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "/page is \"1\", which breaks `type`, expected integer minimum 1",
                "/q is missing, expected string minLength 2 (words to look for)",
                "/qq is not an argument of this tool, expected one of: q, page, sort, where",
                "/sort is \"up\", which breaks `enum`, expected enum [\"asc\",\"desc\"]",
                "/where/0/a~1b is missing, expected number",
                "/where/1/a~1b is true, which breaks `type`, expected number",
            ]
        );
    }

    #[test]
    fn lists_and_values_are_bounded() {
        let schema = Schema::new(&json!({"items": {"type": "string", "maxLength": 1}})).unwrap();
        let args = json!(vec!["x".repeat(10_000); 100]);
        let errors = schema.check(&args).unwrap_err();
        assert_eq!(errors.len(), MAX_FIELDS);
        assert!(errors.iter().all(|e| e.problem.len() < 300));
    }

    #[test]
    fn defaults_fill_gaps_only() {
        assert_eq!(schema().with_defaults(json!({"q": "x"})), json!({"q": "x", "sort": "asc"}));
        assert_eq!(schema().with_defaults(json!({"sort": "desc"})), json!({"sort": "desc"}));
    }

    #[test]
    fn bad_schemas_and_remote_references_are_refused() {
        for bad in [json!({"type": 7}), json!({"$ref": "https://example.com/s.json"})] {
            assert!(Schema::new(&bad).unwrap_err().starts_with("`args` is not a usable JSON schema"));
        }
    }
}
