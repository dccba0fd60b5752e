//! What can go wrong between a caller and a backend.

/// Why an operation has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The store or the broker can't be reached, or did not answer in time. The operation may or may not
    /// have taken effect: repeat the same call until there is an answer.
    #[error("{service} is unavailable: {reason}")]
    Unavailable {
        /// `redis` or `rabbitmq`.
        service: &'static str,
        /// What it said.
        reason: String,
    },
    /// The store refuses for want of memory or disk; nothing was changed. Repeat later.
    #[error("the store is full: {0}")]
    Full(String),
    /// The request is over a limit; repeating it won't help.
    #[error("{what} of {got} is over the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// The store holds something that this version can't read, or is set up in a way it can't work with.
    #[error("the store can't be used: {0}")]
    Unusable(String),
}

impl Error {
    /// Whether repeating the same call may succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Full(_))
    }
}
