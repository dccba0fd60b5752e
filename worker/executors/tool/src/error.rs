//! Why a call did not give a value, in the terms in which the engine acts on it.

use std::{fmt, time::Duration};

use crate::Effect;

/// Most bytes of a remote body that an error carries.
pub(crate) const EXCERPT_BYTES: usize = 2 * 1024;

/// What the engine should do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Try again with back-off.
    Retryable,
    /// The callee asks for a pause; it does not count as an attempt.
    RateLimited {
        /// How long it asked for, when it said so.
        retry_after: Option<Duration>,
    },
    /// The same call would fail again, or repeating it could do harm.
    Permanent,
    /// Time ran out on a tool that must not be repeated blindly.
    Timeout,
    /// The caller gave up.
    Cancelled,
}

/// One argument that is not as the schema wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// JSON pointer of the argument; `` is the whole.
    pub path: String,
    /// What is wrong.
    pub problem: String,
    /// What would be right, when the schema says it in a few words.
    pub expected: Option<String>,
}

/// Why a call did not give a value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such tool in the registry.
    #[error("unknown tool `{name}`; known tools: {}", list(known))]
    UnknownTool {
        /// What was asked for.
        name: String,
        /// Names that exist, sorted, at most 100.
        known: Vec<String>,
    },
    /// The arguments do not match the tool's schema.
    #[error("invalid arguments for tool `{tool}`: {}", list(fields))]
    InvalidArgs {
        /// The tool.
        tool: String,
        /// Every failing field, at most 20.
        fields: Vec<FieldError>,
    },
    /// The arguments are larger than the limit.
    #[error("arguments are {bytes} bytes of JSON, the limit is {limit}")]
    ArgsTooLarge {
        /// Size of the arguments.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A template of the tool cannot be rendered with these arguments.
    #[error("template `{place}`: {message}")]
    Template {
        /// Where it stands: `url`, `query.q`, `body/user/name`, `resource`.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// The target is not one that this call may reach.
    #[error("egress to `{target}` refused: {reason}")]
    EgressDenied {
        /// Host or URL.
        target: String,
        /// Why, and what would allow it.
        reason: String,
    },
    /// The callee was not reached; nothing was sent.
    #[error("cannot reach {target}: {message}")]
    Unreachable {
        /// Host, or name of the MCP server.
        target: String,
        /// Why.
        message: String,
    },
    /// The connection was lost after the call was sent; whether it took effect is unknown.
    #[error("connection to {target} lost during the call: {message}")]
    Interrupted {
        /// Host, or name of the MCP server.
        target: String,
        /// Why.
        message: String,
        /// Effect of the tool, which decides the class.
        effect: Effect,
    },
    /// The callee answered with an error status.
    #[error("HTTP status {status}{}", colon(excerpt))]
    Status {
        /// HTTP status code.
        status: u16,
        /// Start of the body, at most 2 KiB.
        excerpt: String,
    },
    /// The callee asks for a pause (HTTP 429).
    #[error("rate limited{}", colon(excerpt))]
    RateLimited {
        /// From `Retry-After`, at most one day.
        retry_after: Option<Duration>,
        /// Start of the body, at most 2 KiB.
        excerpt: String,
    },
    /// The callee's answer cannot be used: broken JSON, not text, or without the selected part.
    #[error("unusable output: {message}{}", colon(excerpt))]
    BadOutput {
        /// What is wrong.
        message: String,
        /// Start of the body, at most 2 KiB.
        excerpt: String,
    },
    /// The output is larger than the limit; reading stopped there.
    #[error("output too large: over {limit} bytes")]
    OutputTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The tool ran and says that it failed.
    #[error("{message}")]
    Failed {
        /// The tool's own words, at most 2 KiB.
        message: String,
    },
    /// The time for the call ran out.
    #[error("timed out after {} ms", after.as_millis())]
    Timeout {
        /// How long the call was allowed to take.
        after: Duration,
        /// Effect of the tool, which decides the class.
        effect: Effect,
    },
    /// The caller gave up.
    #[error("cancelled")]
    Cancelled,
}

/// Why a registry cannot be built: the operator's config is wrong or an MCP server does not start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A tool's declaration is wrong.
    #[error("tool `{name}`: {problem}")]
    Tool {
        /// The tool.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// An MCP server's declaration is wrong.
    #[error("mcp server `{name}`: {problem}")]
    Mcp {
        /// The server.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// Two tools have one name.
    #[error("tool `{name}` is declared twice")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// An MCP server that has to start at once did not.
    #[error("mcp server `{name}` does not start: {source}")]
    Start {
        /// The server.
        name: String,
        /// Why.
        source: Error,
    },
    /// The HTTP client cannot be made, for instance for want of a TLS provider.
    #[error("cannot make the HTTP client: {0}")]
    Client(String),
}

// === impl Error ===

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Unreachable { .. } => Class::Retryable,
            Self::Interrupted { effect, .. } if effect.repeatable() => Class::Retryable,
            Self::Timeout { effect, .. } if effect.repeatable() => Class::Retryable,
            Self::Timeout { .. } => Class::Timeout,
            // 408 and 425 say "again" by definition; 5xx is the callee's trouble, and the call
            // carries an idempotency key.
            Self::Status { status, .. } if *status >= 500 || matches!(status, 408 | 425) => Class::Retryable,
            Self::RateLimited { retry_after, .. } => Class::RateLimited { retry_after: *retry_after },
            Self::Cancelled => Class::Cancelled,
            Self::UnknownTool { .. }
            | Self::InvalidArgs { .. }
            | Self::ArgsTooLarge { .. }
            | Self::Template { .. }
            | Self::EgressDenied { .. }
            | Self::Interrupted { .. }
            | Self::Status { .. }
            | Self::BadOutput { .. }
            | Self::OutputTooLarge { .. }
            | Self::Failed { .. } => Class::Permanent,
        }
    }

    /// A stable word for metrics and for the error object of a task.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownTool { .. } => "unknown_tool",
            Self::InvalidArgs { .. } => "invalid_args",
            Self::ArgsTooLarge { .. } => "args_too_large",
            Self::Template { .. } => "template",
            Self::EgressDenied { .. } => "egress_denied",
            Self::Unreachable { .. } => "unreachable",
            Self::Interrupted { .. } => "interrupted",
            Self::Status { .. } => "http_status",
            Self::RateLimited { .. } => "rate_limited",
            Self::BadOutput { .. } => "bad_output",
            Self::OutputTooLarge { .. } => "output_too_large",
            Self::Failed { .. } => "tool_failed",
            Self::Timeout { .. } => "timeout",
            Self::Cancelled => "cancelled",
        }
    }
}

// === impl FieldError ===

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "(arguments)" } else { &self.path };
        write!(f, "{path} {}", self.problem)?;
        match &self.expected {
            Some(expected) => write!(f, ", expected {expected}"),
            None => Ok(()),
        }
    }
}

/// The first [`EXCERPT_BYTES`] of `text`, cut at a character, marked when cut.
pub(crate) fn excerpt(text: &str) -> String {
    shorten(text, EXCERPT_BYTES)
}

/// The first `max` bytes of `text`, cut at a character, marked when cut.
pub(crate) fn shorten(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(max)])
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_table() {
        let status = |status| Error::Status { status, excerpt: String::new() }.class();
        assert_eq!(status(500), Class::Retryable);
        assert_eq!(status(529), Class::Retryable);
        assert_eq!(status(408), Class::Retryable);
        assert_eq!(status(404), Class::Permanent);
        let timeout = |effect| Error::Timeout { after: Duration::from_secs(1), effect }.class();
        assert_eq!(timeout(Effect::Read), Class::Retryable);
        assert_eq!(timeout(Effect::Idempotent), Class::Retryable);
        assert_eq!(timeout(Effect::Write), Class::Timeout);
        let lost = |effect| Error::Interrupted { target: "t".into(), message: "m".into(), effect }.class();
        assert_eq!(lost(Effect::Pure), Class::Retryable);
        assert_eq!(lost(Effect::Write), Class::Permanent);
        assert_eq!(Error::OutputTooLarge { limit: 1 }.class(), Class::Permanent);
        assert_eq!(Error::Cancelled.class(), Class::Cancelled);
    }

    #[test]
    fn excerpts_are_bounded_and_cut_at_a_character() {
        let long = "é".repeat(2000);
        let cut = excerpt(&long);
        assert!(cut.ends_with('…') && cut.len() <= EXCERPT_BYTES + '…'.len_utf8());
        assert_eq!(excerpt("short"), "short");
    }
}
