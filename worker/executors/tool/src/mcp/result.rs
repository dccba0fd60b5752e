//! What a call's answer or failure on the wire means to the engine.

use std::error::Error as _;

use rmcp::{
    model::{CallToolResult, ContentBlock},
    service::ServiceError,
    transport::streamable_http_client::StreamableHttpError,
};
use serde_json::Value;

use super::stdout::TOO_LARGE;
use crate::{Error, ToolOutput, egress::chain, error::excerpt, http::fetch::parse_retry_after};

/// Why a call gave no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server answered, and this is what it comes to.
    Answered(Error),
    /// The server did not take the call; it may be made again on a new session.
    NotSent(String),
    /// The server refused the call unseen, perhaps because it no longer knows the session; on a new
    /// one the refusal is the answer.
    Refused(Error),
    /// The session ended during the call.
    Lost(String),
}

/// The value of a result: structured content, else its text, else its content blocks.
pub(super) fn output(result: CallToolResult) -> Result<ToolOutput, Error> {
    let texts: Option<Vec<&str>> = result
        .content
        .iter()
        .map(|block| match block {
            ContentBlock::Text(text) => Some(text.text.as_str()),
            _ => None,
        })
        .collect();
    if result.is_error == Some(true) {
        let words = texts.filter(|t| !t.is_empty()).map(|t| t.join("\n")).unwrap_or_default();
        let message =
            if words.is_empty() { "the tool failed without saying why".to_owned() } else { excerpt(&words) };
        return Err(Error::Failed { message });
    }
    let value = match (result.structured_content, texts) {
        (Some(value), _) => value,
        (None, Some(texts)) => Value::String(texts.join("\n")),
        (None, None) => serde_json::to_value(&result.content)
            .map_err(|e| Error::BadOutput { message: e.to_string(), excerpt: String::new() })?,
    };
    Ok(value.into())
}

/// Sorts what rmcp reports. `limit` is the largest output.
pub(super) fn failure(error: &ServiceError, limit: usize) -> Failure {
    match error {
        ServiceError::McpError(data) if data.code.0 == TOO_LARGE => {
            Failure::Answered(Error::OutputTooLarge { limit })
        }
        ServiceError::McpError(data) => Failure::Answered(Error::Failed {
            message: excerpt(&format!("mcp error {}: {}", data.code.0, data.message)),
        }),
        ServiceError::TransportSend(send) => {
            let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(send.error.as_ref());
            while let Some(current) = cause {
                if let Some(sorted) = transport_failure(current, limit) {
                    return sorted;
                }
                cause = current.source();
            }
            Failure::Lost(chain(error))
        }
        ServiceError::TransportClosed => Failure::Lost("the session ended".to_owned()),
        ServiceError::Cancelled { .. } => Failure::Lost("the session was cancelled".to_owned()),
        // The server wants input that nobody here can give, or broke the protocol.
        other => Failure::Answered(Error::BadOutput { message: chain(other), excerpt: String::new() }),
    }
}

fn transport_failure(error: &(dyn std::error::Error + 'static), limit: usize) -> Option<Failure> {
    // A broken pipe: at most a part of the line went out, and a part of a line is no call.
    if let Some(pipe) = error.downcast_ref::<std::io::Error>() {
        return Some(Failure::NotSent(pipe.to_string()));
    }
    Some(match error.downcast_ref::<StreamableHttpError<reqwest::Error>>()? {
        StreamableHttpError::HttpStatus(status) if status.status == 429 => {
            Failure::Answered(Error::RateLimited {
                retry_after: status.retry_after.as_deref().and_then(parse_retry_after),
                excerpt: String::new(),
            })
        }
        StreamableHttpError::HttpStatus(status_error) => {
            Failure::Answered(status(status_error.status, String::new()))
        }
        StreamableHttpError::ResponseBodyTooLarge { .. } => {
            Failure::Answered(Error::OutputTooLarge { limit })
        }
        StreamableHttpError::Client(client) if client.is_connect() => {
            Failure::NotSent(client.source().map_or_else(|| client.to_string(), chain))
        }
        StreamableHttpError::SessionExpired => Failure::Refused(status(404, String::new())),
        StreamableHttpError::AuthRequired(_) => Failure::Answered(status(401, String::new())),
        StreamableHttpError::InsufficientScope(_) => Failure::Answered(status(403, String::new())),
        StreamableHttpError::UnexpectedServerResponse(text) => match refusal(text) {
            Some((code @ (400 | 404), rest)) => Failure::Refused(status(code, excerpt(rest))),
            Some((code, rest)) => Failure::Answered(status(code, excerpt(rest))),
            // A success status with a body that is no answer; the call may have taken effect.
            None => Failure::Answered(Error::BadOutput { message: excerpt(text), excerpt: String::new() }),
        },
        _ => Failure::Lost(chain(error)),
    })
}

fn status(status: u16, excerpt: String) -> Error {
    Error::Status { status, excerpt }
}

/// Status and body of rmcp's text for a refused request, `HTTP 400 Bad Request: ...`.
fn refusal(text: &str) -> Option<(u16, &str)> {
    let (code, rest) = text.strip_prefix("HTTP ")?.split_once(' ')?;
    Some((code.parse().ok()?, rest.split_once(": ").map_or(rest, |(_, body)| body)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn result(value: Value) -> CallToolResult {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn value_of_a_result() {
        let text = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        assert_eq!(output(result(json!({"content": text}))).unwrap().value, json!("a\nb"));
        let both = json!({"content": text, "structuredContent": {"n": 1}});
        assert_eq!(output(result(both)).unwrap().value, json!({"n": 1}));
        let image = json!([{"type": "image", "data": "AA==", "mimeType": "image/png"}]);
        assert_eq!(output(result(json!({"content": image}))).unwrap().value[0]["mimeType"], "image/png");
    }

    #[test]
    fn refusals_are_told_from_broken_answers() {
        assert_eq!(refusal("HTTP 400 Bad Request: no session"), Some((400, "no session")));
        assert_eq!(refusal("HTTP 404 Not Found: "), Some((404, "")));
        assert_eq!(refusal("could not parse JSON response"), None);
    }

    #[test]
    fn an_error_result_is_a_typed_error() {
        let failed = json!({"isError": true, "content": [{"type": "text", "text": "x".repeat(5000)}]});
        match output(result(failed)) {
            Err(Error::Failed { message }) => assert!(message.len() < 2100 && message.starts_with('x')),
            other => panic!("{other:?}"),
        }
    }
}
