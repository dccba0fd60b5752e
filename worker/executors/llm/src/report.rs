//! Error bodies of providers, turned into [`Kind`].
//!
//! | seen | kind |
//! |---|---|
//! | 429, `rate_limit_error` | rate limited, unless the quota is spent (`insufficient_quota`) |
//! | 503, 529, `overloaded_error` | overloaded |
//! | 408, 409, 425, other 5xx, `api_error`, `server_error`, `timeout_error` | provider failed |
//! | 401, 402, 403, `authentication_error`, `permission_error`, `billing_error` | unauthorized |
//! | a message about the context length | context length |
//! | other 4xx, `invalid_request_error`, `not_found_error`, `request_too_large` | rejected |
//!
//! Sources: platform.claude.com "Errors", developers.openai.com "Error codes"; the OpenAI clients
//! repeat 408, 409, 429 and 5xx too.

use std::time::Duration;

use serde_json::Value;

use crate::Kind;

/// What a provider says about a failure.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    kind: String,
    code: String,
    message: String,
    status: Option<u16>,
    /// The body was JSON of a known form.
    understood: bool,
    raw: String,
}

impl Report {
    pub(crate) fn parse(body: &str) -> Self {
        let mut report = Self { raw: body.to_owned(), ..Self::default() };
        let Ok(value) = serde_json::from_str::<Value>(body) else {
            return report;
        };
        // Google's compatible endpoint wraps the object in a list.
        let value = match value {
            Value::Array(mut items) if items.len() == 1 => items.remove(0),
            other => other,
        };
        match (&value["error"], &value["detail"]) {
            (Value::Object(_), _) => report.fields(&value["error"]),
            // Ollama's own form, and gateways.
            (Value::String(text), _) => report.message.clone_from(text),
            (_, Value::String(text)) => report.message.clone_from(text),
            // FastAPI: `input` quotes the request and is left out.
            (_, Value::Array(items)) => {
                let items =
                    items.iter().take(8).map(|item| format!("{} at {}", text(&item["msg"]), item["loc"]));
                report.message = items.collect::<Vec<_>>().join("; ");
            }
            _ => report.fields(&value),
        }
        report.understood = !report.message.is_empty() || !report.kind.is_empty();
        report
    }

    fn fields(&mut self, error: &Value) {
        self.message = text(&error["message"]);
        self.kind = text(&error["type"]);
        self.code = text(&error["code"]);
        // vLLM, OpenRouter and Google put the HTTP status into `code`.
        self.status = self.code.parse().ok().filter(|s| (400..600).contains(s));
    }

    /// The body was JSON that speaks of an error.
    pub(crate) fn understood(&self) -> bool {
        self.understood
    }

    /// What to show: the known fields, or the whole body when it has another form.
    pub(crate) fn words(&self) -> String {
        if !self.understood {
            return self.raw.clone();
        }
        let tags: Vec<_> =
            [&self.kind, &self.code].into_iter().filter(|tag| !tag.is_empty()).map(String::as_str).collect();
        match tags.as_slice() {
            [] => self.message.clone(),
            tags => format!("{} ({})", self.message, tags.join(", ")),
        }
    }

    /// `status` is that of the response, or `None` for an error inside a 200 stream.
    pub(crate) fn kind(&self, status: Option<u16>, retry_after: Option<Duration>) -> Kind {
        let named = |word: &str| self.kind.contains(word) || self.code.contains(word);
        if named("insufficient_quota") || named("billing") {
            return Kind::Unauthorized;
        }
        match status.or(self.status) {
            Some(429) => return Kind::RateLimited { retry_after },
            Some(503 | 529) => return Kind::Overloaded { retry_after },
            Some(408 | 409 | 425 | 500..) => return Kind::ProviderFailed { retry_after },
            Some(401..=403) => return Kind::Unauthorized,
            Some(300..) => return self.rejected(),
            _ => {}
        }
        if named("rate_limit") || named("too_many_requests") {
            Kind::RateLimited { retry_after }
        } else if named("overloaded") || named("unavailable") {
            Kind::Overloaded { retry_after }
        } else if named("authentication") || named("permission") || named("api_key") {
            Kind::Unauthorized
        } else if named("invalid_request")
            || named("BadRequest")
            || named("not_found")
            || named("request_too_large")
            || named("context_length")
        {
            self.rejected()
        } else {
            // An error in the middle of an answer that does not say more is the server's.
            Kind::ProviderFailed { retry_after }
        }
    }

    fn rejected(&self) -> Kind {
        let message = self.message.to_lowercase();
        let too_long = self.code.contains("context_length")
            || [
                "maximum context length",
                "prompt is too long",
                "context window",
                "context size",
                "exceeds the context",
            ]
            .iter()
            .any(|words| message.contains(words));
        if too_long { Kind::ContextLength } else { Kind::Rejected }
    }
}

/// A string or number as text; anything else as nothing.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Option<Duration> = Some(Duration::from_secs(3));

    fn kind(status: impl Into<Option<u16>>, body: &str) -> Kind {
        Report::parse(body).kind(status.into(), WAIT)
    }

    #[test]
    fn by_status_and_by_words() {
        let retry_after = WAIT;
        let quota = r#"{"error":{"message":"m","type":"insufficient_quota","code":"insufficient_quota"}}"#;
        let long = r#"{"error":{"message":"This model's maximum context length is 8192 tokens","code":"context_length_exceeded"}}"#;
        let claude = |kind: &str| {
            format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"m"}},"request_id":"r"}}"#)
        };
        for (status, body, expected) in [
            (429, "{}", Kind::RateLimited { retry_after }),
            (429, quota, Kind::Unauthorized),
            (529, "", Kind::Overloaded { retry_after }),
            (503, "<html>", Kind::Overloaded { retry_after }),
            (500, "", Kind::ProviderFailed { retry_after }),
            (408, "", Kind::ProviderFailed { retry_after }),
            (401, "", Kind::Unauthorized),
            (400, long, Kind::ContextLength),
            (404, "", Kind::Rejected),
            (302, "", Kind::Rejected),
        ] {
            assert_eq!(kind(status, body), expected, "{status} {body}");
        }
        for (name, expected) in [
            ("overloaded_error", Kind::Overloaded { retry_after }),
            ("rate_limit_error", Kind::RateLimited { retry_after }),
            ("api_error", Kind::ProviderFailed { retry_after }),
            ("timeout_error", Kind::ProviderFailed { retry_after }),
            ("something_new", Kind::ProviderFailed { retry_after }),
            ("authentication_error", Kind::Unauthorized),
            ("permission_error", Kind::Unauthorized),
            ("billing_error", Kind::Unauthorized),
            ("invalid_request_error", Kind::Rejected),
            ("not_found_error", Kind::Rejected),
            ("request_too_large", Kind::Rejected),
        ] {
            assert_eq!(kind(None, &claude(name)), expected, "{name}");
        }
        let vllm = r#"{"object":"error","message":"prompt is too long","type":"BadRequestError","code":400}"#;
        assert_eq!(kind(None, vllm), Kind::ContextLength);
        let router = r#"{"error":{"code":429,"message":"slow down"}}"#;
        assert_eq!(kind(None, router), Kind::RateLimited { retry_after });
    }

    #[test]
    fn words_leave_out_quoted_input() {
        let fastapi = r#"{"detail":[{"type":"missing","loc":["body","model"],"msg":"Field required","input":{"messages":"secret"}}]}"#;
        assert_eq!(Report::parse(fastapi).words(), r#"Field required at ["body","model"]"#);
        assert_eq!(Report::parse(r#"{"error":"model 'x' not found"}"#).words(), "model 'x' not found");
        assert_eq!(Report::parse("<html>").words(), "<html>");
    }
}
