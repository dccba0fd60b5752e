//! What can go wrong in a call, sorted by what the engine does about it.

use std::fmt;
use std::time::Duration;

/// A failed call. Small (one pointer), because it travels through every layer.
///
/// It carries what an operator needs and never an API key or a prompt: excerpts of the provider's
/// words are bounded to 2 KiB and scrubbed of both.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    provider: String,
    model: String,
    status: Option<u16>,
    request_id: Option<String>,
    excerpt: String,
}

/// What the caller should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Wait (as long as asked, if asked) and repeat; no attempt is burnt.
    RateLimited {
        /// The wait that the provider asked for, at most a day.
        retry_after: Option<Duration>,
    },
    /// Overload, a failure of the provider, or a lost connection: repeat with back-off, not sooner
    /// than asked.
    Retryable {
        /// The wait that the provider asked for, at most a day.
        retry_after: Option<Duration>,
    },
    /// No token within [`crate::Limits::first_token`].
    FirstTokenTimeout,
    /// No progress within [`crate::Limits::stall`].
    StallTimeout,
    /// Not done within [`crate::Limits::total`].
    TotalTimeout,
    /// The same request will fail again.
    Permanent,
    /// The model or the provider answered with something unusable. Sampling may give another
    /// answer, so one repeat is worth it, many are not.
    InvalidOutput,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Kind {
    /// Neither an alias nor `provider/model` of a known provider.
    #[error("unknown model `{name}`; known: {}", known.join(", "))]
    UnknownModel {
        /// As asked for.
        name: String,
        /// Aliases and `provider/...` prefixes that would have worked.
        known: Vec<String>,
    },
    /// The provider's API key is in no environment variable.
    #[error("no API key: set the environment variable {variable}")]
    MissingKey {
        /// The variable that is looked at.
        variable: String,
    },
    /// The provider's API key, or what a header of it names, is nowhere.
    #[error("no API key: {0}")]
    MissingSecret(String),
    /// The configuration cannot work.
    #[error("invalid configuration: {0}")]
    InvalidConfig(String),
    /// The request cannot be sent as it is.
    #[error("invalid request: {0}")]
    InvalidRequest(String),
    /// The provider says that there were too many requests or tokens.
    #[error("rate limited by the provider")]
    RateLimited {
        /// The wait that it asked for.
        retry_after: Option<Duration>,
    },
    /// The provider has no capacity (503, 529, `overloaded_error`).
    #[error("the provider is overloaded")]
    Overloaded {
        /// The wait that it asked for.
        retry_after: Option<Duration>,
    },
    /// The provider failed (other 5xx, 408, 409, 425, an error inside the stream).
    #[error("the provider failed")]
    ProviderFailed {
        /// The wait that it asked for.
        retry_after: Option<Duration>,
    },
    /// No connection: refused, name not found, TLS, or not within 5 s.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The connection broke before the answer ended.
    #[error("connection lost: {0}")]
    ConnectionLost(String),
    /// The stream ended cleanly, but without the mark of a complete answer.
    #[error("the answer was cut off")]
    CutStream,
    /// See [`Class::FirstTokenTimeout`].
    #[error("no token within {0:?}")]
    FirstTokenTimeout(Duration),
    /// See [`Class::StallTimeout`].
    #[error("the answer stalled for {0:?}")]
    StallTimeout(Duration),
    /// See [`Class::TotalTimeout`].
    #[error("not done within {0:?}")]
    TotalTimeout(Duration),
    /// The key is wrong or may not do this (401, 403), or the account has no credit.
    #[error("refused by the provider: key, permission or credit")]
    Unauthorized,
    /// The prompt and the asked-for output do not fit the model.
    #[error("the prompt is too long for the model")]
    ContextLength,
    /// Any other refusal of the request (4xx).
    #[error("the provider refused the request")]
    Rejected,
    /// The answer does not follow the protocol.
    #[error("the provider's answer is not understood: {0}")]
    Garbage(String),
    /// The model's answer is not what was asked for.
    #[error("invalid output: {0}")]
    InvalidOutput(String),
    /// The answer exceeds a bound of this client.
    #[error("the answer exceeds the bound of {bound} {what}")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// Its bound.
        bound: usize,
    },
}

// === impl Error ===

impl Error {
    pub(crate) fn new(kind: Kind) -> Self {
        Self(Box::new(Inner {
            kind,
            provider: String::new(),
            model: String::new(),
            status: None,
            request_id: None,
            excerpt: String::new(),
        }))
    }

    pub(crate) fn of(mut self, provider: &str, model: &str) -> Self {
        provider.clone_into(&mut self.0.provider);
        model.clone_into(&mut self.0.model);
        self
    }

    pub(crate) fn with_response(mut self, status: u16, request_id: Option<String>) -> Self {
        self.0.status = Some(status);
        self.0.request_id = request_id;
        self
    }

    pub(crate) fn with_excerpt(mut self, excerpt: String) -> Self {
        self.0.excerpt = excerpt;
        self
    }

    /// What the caller should do.
    pub fn class(&self) -> Class {
        match self.0.kind {
            Kind::RateLimited { retry_after } => Class::RateLimited { retry_after },
            Kind::Overloaded { retry_after } | Kind::ProviderFailed { retry_after } => {
                Class::Retryable { retry_after }
            }
            Kind::Connect(_) | Kind::ConnectionLost(_) | Kind::CutStream => {
                Class::Retryable { retry_after: None }
            }
            Kind::FirstTokenTimeout(_) => Class::FirstTokenTimeout,
            Kind::StallTimeout(_) => Class::StallTimeout,
            Kind::TotalTimeout(_) => Class::TotalTimeout,
            Kind::Garbage(_) | Kind::InvalidOutput(_) | Kind::TooLarge { .. } => Class::InvalidOutput,
            Kind::UnknownModel { .. }
            | Kind::MissingKey { .. }
            | Kind::MissingSecret(_)
            | Kind::InvalidConfig(_)
            | Kind::InvalidRequest(_)
            | Kind::Unauthorized
            | Kind::ContextLength
            | Kind::Rejected => Class::Permanent,
        }
    }

    /// What went wrong.
    pub fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// Name of the provider; empty when the call did not get that far.
    pub fn provider(&self) -> &str {
        &self.0.provider
    }

    /// The provider's name of the model; empty when the call did not get that far.
    pub fn model(&self) -> &str {
        &self.0.model
    }

    /// HTTP status, when there was a response.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// The provider's id of the request, to quote to its support.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// What the provider said: at most 2 KiB, without key and prompt. Empty when it said nothing.
    pub fn excerpt(&self) -> &str {
        &self.0.excerpt
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.provider.is_empty() {
            write!(f, "{}/{}: ", self.0.provider, self.0.model)?;
        }
        write!(f, "{}", self.0.kind)?;
        if let Some(status) = self.0.status {
            write!(f, " (http {status})")?;
        }
        if !self.0.excerpt.is_empty() {
            write!(f, ": {}", self.0.excerpt)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("provider", &self.0.provider)
            .field("model", &self.0.model)
            .field("status", &self.0.status)
            .field("request_id", &self.0.request_id)
            .field("excerpt", &self.0.excerpt)
            .finish()
    }
}

impl std::error::Error for Error {}
