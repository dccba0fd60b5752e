//! What Redis says, as far as a caller acts on it.

use redis::{ErrorKind, RedisError, ServerErrorKind};
use trireme_backend::Error;

pub(crate) fn unavailable(reason: impl std::fmt::Display) -> Error {
    Error::Unavailable { service: "redis", reason: reason.to_string() }
}

/// Whether the connection is of no use any more.
pub(crate) fn breaks_connection(error: &RedisError) -> bool {
    error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error()
}

/// Whether the script must be loaded first.
pub(crate) fn needs_load(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

pub(crate) fn of(error: &RedisError) -> Error {
    if breaks_connection(error) || error.is_timeout() || error.is_connection_refusal() {
        return unavailable(error);
    }
    let text = error.to_string();
    if matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig) {
        return Error::Unusable(text);
    }
    of_text(error.code().unwrap_or(""), text)
}

/// What an error reply means, also one that a script caught.
pub(crate) fn of_text(code: &str, text: String) -> Error {
    match code {
        "OOM" | "MISCONF" => Error::Full(text),
        "LOADING" | "MASTERDOWN" | "READONLY" | "TRYAGAIN" | "CLUSTERDOWN" | "NOREPLICAS" | "BUSY"
        | "NOEPOCH" | "UNBLOCKED" | "MOVED" | "ASK" => unavailable(text),
        _ => Error::Unusable(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_what_a_caller_can_act_on() {
        let class = |code: &str| match of_text(code, String::new()) {
            Error::Unavailable { .. } => "later",
            Error::Full(_) => "full",
            _ => "broken",
        };
        assert_eq!(
            ["OOM", "MISCONF", "LOADING", "READONLY", "WRONGTYPE", "ERR"].map(class),
            ["full", "full", "later", "later", "broken", "broken"]
        );
    }
}
