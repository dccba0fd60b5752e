//! `json_query`: takes parts out of a JSON value by JSON pointer (RFC 6901) or JSONPath (RFC 9535).

use async_trait::async_trait;
use serde_json::{Value, json};
use serde_json_path::JsonPath;

use super::spec;
use crate::{CallContext, Error, Tool, ToolOutput, ToolSpec, error::shorten};

/// Longest query in bytes.
const MAX_QUERY: usize = 4096;

/// The tool.
pub(super) struct JsonQuery(ToolSpec);

// === impl JsonQuery ===

impl JsonQuery {
    pub fn new() -> Self {
        let args = json!({
            "type": "object", "required": ["data", "query"], "additionalProperties": false,
            "properties": {
                "data": {"description": "the JSON value to search"},
                "query": {"type": "string", "maxLength": MAX_QUERY,
                    "description": "a JSON pointer such as /items/0/name gives that value; a JSONPath such as $.items[?@.price < 10].name gives the list of matches"},
            },
        });
        Self(spec("json_query", "Takes parts out of a JSON value by JSON pointer or JSONPath.", args))
    }
}

#[async_trait]
impl Tool for JsonQuery {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    async fn call(&self, _ctx: &CallContext, mut args: Value) -> Result<ToolOutput, Error> {
        let mut data = args.get_mut("data").map(Value::take).unwrap_or_default();
        query(&mut data, args["query"].as_str().unwrap_or_default()).map(ToolOutput::from)
    }
}

fn query(data: &mut Value, query: &str) -> Result<Value, Error> {
    let fail = |message: String| Error::Failed { message };
    if query.is_empty() || query.starts_with('/') {
        return data
            .pointer_mut(query)
            .map(Value::take)
            .ok_or_else(|| fail(format!("there is nothing at `{query}`")));
    }
    if !query.starts_with('$') {
        return Err(fail(format!(
            "`{}` is neither a JSON pointer (starts with /) nor a JSONPath (starts with $)",
            shorten(query, 200)
        )));
    }
    let path = JsonPath::parse(query)
        .map_err(|e| fail(format!("bad JSONPath: {}", shorten(&e.to_string(), 500))))?;
    // Matches may overlap (`$..*`), so bound the copy: the registry's limit comes after it.
    let mut budget = 64 * 1024 * 1024_usize;
    let mut found = Vec::new();
    for node in path.query(data).all() {
        let size = crate::call::json_size(node);
        budget = budget.checked_sub(size).ok_or(Error::OutputTooLarge { limit: 64 * 1024 * 1024 })?;
        found.push(node.clone());
    }
    Ok(Value::Array(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let data = json!({"items": [{"n": "a", "p": 5}, {"n": "b", "p": 20}], "x/y": {"~": 1}});
        for (text, want) in [
            ("/items/0/n", json!("a")),
            ("/x~1y/~0", json!(1)),
            ("", data.clone()),
            ("$.items[*].n", json!(["a", "b"])),
            ("$.items[?@.p < 10].n", json!(["a"])),
            ("$.nothing", json!([])),
        ] {
            assert_eq!(query(&mut data.clone(), text).unwrap(), want, "{text}");
        }
        for (text, why) in [("/items/9", "nothing at"), ("items", "neither"), ("$.[", "bad JSONPath")] {
            let error = query(&mut data.clone(), text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
