//! From the bytes of an answer to a value.

use bytes::Bytes;
use serde_json::Value;

use crate::{Error, ToolOutput, error::excerpt};

/// A successful answer, already within the size limit.
#[derive(Debug)]
pub(crate) struct Answer {
    /// As received; may be empty.
    pub content_type: String,
    pub body: Bytes,
}

// === impl Answer ===

impl Answer {
    /// The value at `pointer`, or all of it.
    ///
    /// JSON content types are parsed; anything else has to be text and becomes a string; an empty
    /// body is `null`.
    pub fn select(self, pointer: Option<&str>) -> Result<ToolOutput, Error> {
        let bytes = self.body.len();
        let mut value = self.value()?;
        if let Some(pointer) = pointer {
            value = value
                .pointer_mut(pointer)
                .map(Value::take)
                .ok_or_else(|| self.unusable(format!("there is nothing at `{pointer}`")))?;
        }
        Ok(ToolOutput { value, received: Some(bytes) })
    }

    fn value(&self) -> Result<Value, Error> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        let kind = self.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if kind == "application/json" || kind.ends_with("+json") || kind == "text/json" {
            return serde_json::from_slice(&self.body)
                .map_err(|e| self.unusable(format!("broken JSON: {e}")));
        }
        match std::str::from_utf8(&self.body) {
            Ok(text) => Ok(Value::String(text.to_owned())),
            // Old pages in other encodings are still worth reading.
            Err(_) if kind.starts_with("text/") => {
                Ok(Value::String(String::from_utf8_lossy(&self.body).into_owned()))
            }
            Err(_) => Err(Error::BadOutput {
                message: format!("the body is not text (content type `{}`)", excerpt(&self.content_type)),
                excerpt: String::new(),
            }),
        }
    }

    fn unusable(&self, message: String) -> Error {
        // Lossy decoding of the first bytes only: the body may be megabytes.
        let head = &self.body[..self.body.len().min(crate::error::EXCERPT_BYTES)];
        Error::BadOutput { message, excerpt: excerpt(&String::from_utf8_lossy(head)) }
    }
}

/// Replaces every occurrence of a secret in what a remote sent back.
pub(crate) fn redact(mut error: Error, secrets: &[String]) -> Error {
    let text = match &mut error {
        Error::Status { excerpt, .. }
        | Error::RateLimited { excerpt, .. }
        | Error::BadOutput { excerpt, .. } => excerpt,
        _ => return error,
    };
    for secret in secrets {
        *text = text.replace(secret.as_str(), "***");
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(content_type: &str, body: &[u8]) -> Answer {
        Answer { content_type: content_type.to_owned(), body: Bytes::copy_from_slice(body) }
    }

    #[test]
    fn decoding_table() {
        let value = |kind, body: &[u8]| answer(kind, body).select(None).map(|o| o.value);
        assert_eq!(value("application/json; charset=utf-8", b"{\"a\":1}").unwrap(), json!({"a": 1}));
        assert_eq!(value("application/problem+json", b"[]").unwrap(), json!([]));
        assert_eq!(value("text/plain", b"{}").unwrap(), json!("{}"));
        assert_eq!(value("", b"x").unwrap(), json!("x"));
        assert_eq!(value("application/json", b"").unwrap(), json!(null));
        assert_eq!(value("text/html", b"caf\xe9").unwrap(), json!("caf\u{fffd}"));
        assert!(matches!(value("application/json", b"<html>"), Err(Error::BadOutput { .. })));
        assert!(matches!(value("image/png", b"\x89PNG\xff"), Err(Error::BadOutput { .. })));
    }

    #[test]
    fn the_selected_part_or_an_error() {
        let body = br#"{"items": [{"n": 1}]}"#;
        assert_eq!(answer("application/json", body).select(Some("/items/0/n")).unwrap().value, json!(1));
        let error = answer("application/json", body).select(Some("/data")).unwrap_err();
        assert!(
            error.to_string().contains("nothing at `/data`") && error.to_string().contains("items"),
            "{error}"
        );
    }

    #[test]
    fn secrets_do_not_come_back() {
        let error = Error::Status { status: 401, excerpt: "bad token hunter2hunter2".into() };
        assert_eq!(redact(error, &["hunter2hunter2".into()]).to_string(), "HTTP status 401: bad token ***");
    }
}
