//! Errors as RFC 9457 problem documents: one table of codes, each with its page under `docs/errors`.

use std::borrow::Cow;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use trireme_backend::Error;
use trireme_model::{Caller, RunId};

/// More errors of one request than this are counted, not listed.
const MAX_LISTED: usize = 100;

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind of error.
    pub code: Code,
    /// What it is about this time.
    pub detail: Cow<'static, str>,
    /// The places in the request that are wrong.
    pub errors: Vec<Place>,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Where: a path in the spec (`tasks.news.tool`), a parameter, a service.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

macro_rules! codes {
    ($($name:ident, $status:literal, $code:literal, $title:literal;)*) => {
        /// The kinds of errors that the API answers with. Clients act on them, so they never change meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the title says it, and the page more")]
        pub enum Code { $(#[doc = $title] $name,)* }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code as it stands in the answer and in the address of its page.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The HTTP status it comes with.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// One line for people.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// Its page: what happened, what to check, what to change. A code without one does not compile.
            pub fn page(self) -> &'static str {
                match self {
                    $(Self::$name => include_str!(concat!("../../../docs/errors/", $code, ".md")),)*
                }
            }
        }
    };
}

codes! {
    MalformedBody, 400, "malformed_body", "The body can't be read";
    InvalidParameter, 400, "invalid_parameter", "A parameter is not valid";
    InvalidRunId, 400, "invalid_run_id", "That is not a run id";
    InvalidIdempotencyKey, 400, "invalid_idempotency_key", "The idempotency key is not valid";
    Unauthorized, 401, "unauthorized", "A valid API key is needed";
    CrossOrigin, 403, "cross_origin", "Web pages of other origins may not do this";
    Forbidden, 403, "forbidden", "The API key may not do this";
    NotFound, 404, "not_found", "There is nothing at this address";
    RunNotFound, 404, "run_not_found", "There is no such run";
    KeyNotFound, 404, "key_not_found", "There is no such API key";
    DeadLetterNotFound, 404, "dead_letter_not_found", "There is no such dead letter";
    MethodNotAllowed, 405, "method_not_allowed", "This address does not take that method";
    BodyTimeout, 408, "body_timeout", "The body came too slowly";
    IdempotencyConflict, 409, "idempotency_conflict", "The idempotency key was used for another request";
    RunAlreadyEnded, 409, "run_already_ended", "The run has ended already";
    KeysNotInUse, 409, "keys_not_in_use", "API keys are not in use here";
    NotReplayable, 409, "not_replayable", "The run can't be replayed";
    RunNotEnded, 409, "run_not_ended", "The run has not ended";
    BodyTooLarge, 413, "body_too_large", "The body is too large";
    UnsupportedMediaType, 415, "unsupported_media_type", "This media type is not taken";
    InvalidSpec, 422, "invalid_spec", "The spec has errors";
    LimitExceeded, 422, "limit_exceeded", "A limit of the store is passed";
    RateLimited, 429, "rate_limited", "The API key starts runs too fast";
    TooManyRuns, 429, "too_many_runs", "The API key has too many runs under way";
    InternalError, 500, "internal_error", "The coordinator made a mistake";
    StoreUnusable, 500, "store_unusable", "The store can't be used";
    BacklogFull, 503, "backlog_full", "Too much waits already";
    NotReady, 503, "not_ready", "Not ready";
    Overloaded, 503, "overloaded", "Too many requests at once";
    StoreFull, 503, "store_full", "The store is full";
    StoreUnavailable, 503, "store_unavailable", "The store can't be reached";
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "<[Place]>::is_empty")]
    errors: &'a [Place],
}

impl Problem {
    /// A problem without places.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new() }
    }

    /// A bad query parameter or header, named by `path`.
    pub fn parameter(path: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let place = Place { path: path.into(), message: message.clone() };
        let problem = Self::new(Code::InvalidParameter, format!("{path}: {message}"));
        Self { errors: vec![place], ..problem }
    }

    /// A spec with these errors and `more` that are not listed; at most 100 are listed.
    pub fn spec(mut errors: Vec<Place>, more: usize) -> Self {
        let count = errors.len().saturating_add(more);
        let detail = match count {
            1 => "the spec has 1 error; nothing was started".to_owned(),
            _ => format!("the spec has {count} errors; nothing was started"),
        };
        errors.truncate(MAX_LISTED);
        Self { code: Code::InvalidSpec, detail: detail.into(), errors }
    }

    /// No run of this id.
    pub fn no_run(run: &RunId) -> Self {
        Self::new(Code::RunNotFound, format!("run {run} does not exist, or its retention has passed"))
    }

    /// As many runs of the caller's key are under way as may be.
    pub fn too_many_runs(caller: &Caller) -> Self {
        let most = caller.in_flight.unwrap_or(0);
        Self::new(Code::TooManyRuns, format!("the key may have {most} runs under way at once, and has"))
    }

    /// Too much of something at once.
    pub fn overloaded(what: &str, limit: usize) -> Self {
        Self::new(Code::Overloaded, format!("{limit} {what} are open already; try again in a moment"))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Unavailable { .. } => Code::StoreUnavailable,
            Error::Full(_) => Code::StoreFull,
            Error::TooLarge { .. } => Code::LimitExceeded,
            Error::Unusable(_) => Code::StoreUnusable,
        };
        if code.status() >= 500 {
            tracing::warn!(code = code.as_str(), %error, "the backend refused a request");
        }
        Self::new(code, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
            r#type: format!("/docs/errors/{}", self.code.as_str()),
            title: self.code.title(),
            status: self.code.status(),
            detail: &self.detail,
            code: self.code.as_str(),
            errors: &self.errors,
        };
        // strings and numbers always serialise
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let status = StatusCode::from_u16(document.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))];
        let mut response = (status, kind, body).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            // what waits is looked at every 5 s: sooner the answer would be the same
            let after = if self.code == Code::BacklogFull { "5" } else { "1" };
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(after));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_that_says_what_to_do() {
        for code in Code::ALL {
            let page = code.page();
            assert!(page.starts_with(&format!("# {}\n", code.as_str())), "{code:?}: heading");
            assert!(page.contains(&format!("HTTP {}", code.status())), "{code:?}: status");
            for part in ["## What happened", "## What to check", "## What to change"] {
                assert!(page.contains(part), "{code:?} lacks {part:?}");
            }
        }
    }

    #[test]
    fn a_spec_with_thousands_of_errors_lists_a_bounded_number() {
        let place = Place { path: "tasks".into(), message: "no".into() };
        let problem = Problem::spec(vec![place; 5000], 7);
        assert_eq!(problem.errors.len(), MAX_LISTED);
        assert_eq!(problem.detail, "the spec has 5007 errors; nothing was started");
    }
}
