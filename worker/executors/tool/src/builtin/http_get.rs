//! `http_get`: fetches a URL that a model or a template chose, so every hop is vetted.

use async_trait::async_trait;
use reqwest::{
    Method, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Value, json};

use super::spec;
use crate::{
    CallContext, Effect, Error, FieldError, Limits, Tool, ToolOutput, ToolSpec,
    egress::{Egress, Host},
    http::fetch::{Request, fetch},
};

const NAME: &str = "http_get";

/// Headers that belong to the connection or to the client, not to the caller.
const FORBIDDEN: [&str; 9] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "keep-alive",
];

/// The tool.
pub(super) struct HttpGet {
    spec: ToolSpec,
    egress: Egress,
    output_bytes: usize,
}

// === impl HttpGet ===

impl HttpGet {
    pub fn new(egress: Egress, limits: &Limits) -> Self {
        let args = json!({
            "type": "object", "required": ["url"], "additionalProperties": false,
            "properties": {
                "url": {"type": "string", "maxLength": 8192, "description": "an absolute https URL"},
                "headers": {"type": "object", "maxProperties": 32,
                    "additionalProperties": {"type": "string", "maxLength": 8192}},
            },
        });
        let mut spec =
            spec(NAME, "Fetches a public URL. JSON comes back as JSON, anything else as text.", args);
        spec.effect = Effect::Read;
        spec.timeout = limits.timeout;
        Self { spec, egress, output_bytes: limits.output_bytes }
    }
}

#[async_trait]
impl Tool for HttpGet {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    async fn call(&self, _ctx: &CallContext, args: Value) -> Result<ToolOutput, Error> {
        let text = args["url"].as_str().unwrap_or_default();
        let url = Url::parse(text)
            .map_err(|e| bad("/url", format!("is not a URL: {e}"), "an absolute https URL"))?;
        let request = Request {
            method: Method::GET,
            url,
            headers: headers(&args["headers"])?,
            body: None,
            host: Host::Stranger,
            effect: Effect::Read,
        };
        fetch(&self.egress, request, self.output_bytes).await?.select(None)
    }
}

fn headers(given: &Value) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in given.as_object().into_iter().flatten() {
        let path = format!("/headers/{name}");
        let Ok(key) = name.parse::<HeaderName>() else {
            return Err(bad(&path, "is not a header name".to_owned(), "letters, digits and dashes"));
        };
        if FORBIDDEN.contains(&key.as_str()) || key.as_str().starts_with("proxy-") {
            return Err(bad(&path, "cannot be set by the caller".to_owned(), "another header"));
        }
        let value = HeaderValue::from_str(value.as_str().unwrap_or_default()).map_err(|_| {
            bad(&path, "has characters that a header cannot hold".to_owned(), "visible characters")
        })?;
        headers.insert(key, value);
    }
    Ok(headers)
}

fn bad(path: &str, problem: String, expected: &str) -> Error {
    Error::InvalidArgs {
        tool: NAME.to_owned(),
        fields: vec![FieldError { path: path.to_owned(), problem, expected: Some(expected.to_owned()) }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_cannot_set_headers_of_the_connection() {
        for bad in [
            json!({"Host": "x"}),
            json!({"a": "b\r\nc: d"}),
            json!({"a b": "c"}),
            json!({"Proxy-Authorization": "x"}),
        ] {
            assert!(matches!(headers(&bad), Err(Error::InvalidArgs { .. })), "{bad}");
        }
        assert_eq!(headers(&json!({"Accept": "text/plain"})).unwrap()["accept"], "text/plain");
        assert!(headers(&Value::Null).unwrap().is_empty());
    }
}
