//! Identifiers: runs, tasks and fencing tokens.
//!
//! Their alphabets are narrow on purpose: an id may stand in a Redis key, a message, a URL, a log line
//! and a JSON text without any escaping.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch on the store's clock, or a duration in milliseconds.
pub type Ms = u64;

/// Longest task id in bytes.
pub const MAX_TASK_ID: usize = 256;

/// The run a task belongs to: 1 to 64 characters of `[A-Za-z0-9_-]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(Arc<str>);

/// A task inside its run: a path such as `news`, `each/17` or `research/step-2/call-0`.
///
/// Segments are `[A-Za-z0-9_-]+`, joined by `/`; at most [`MAX_TASK_ID`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskId(Arc<str>);

/// The fencing token of one attempt, `epoch.attempt.claim`: only its holder may record a result.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(Arc<str>);

/// Longest tenant in bytes.
pub const MAX_TENANT: usize = 64;

/// Whose runs they are: 1 to 64 characters of `[A-Za-z0-9_-]`. Tenants do not see each other's runs.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tenant(Arc<str>);

/// An API key's public part, by which it is looked up: 16 lower-case hex digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(Arc<str>);

/// An identifier that uses a character or a length that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {given:?} is not valid: use 1 to {max} characters of {alphabet}")]
pub struct InvalidId {
    kind: &'static str,
    given: String,
    max: usize,
    alphabet: &'static str,
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

impl RunId {
    /// Checks and wraps `id`.
    pub fn new(id: impl AsRef<str>) -> Result<Self, InvalidId> {
        let id = id.as_ref();
        if (1..=64).contains(&id.len()) && id.bytes().all(word) {
            return Ok(Self(id.into()));
        }
        Err(InvalidId { kind: "run id", given: excerpt(id), max: 64, alphabet: "A-Z a-z 0-9 _ -" })
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shard that holds this run: FNV-1a of the id, modulo `shards` (at least 1).
    pub fn shard(&self, shards: u16) -> u16 {
        let hash = self.0.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // the remainder is below a u16, so the cast cannot truncate
        (hash % u64::from(shards.max(1))) as u16
    }
}

impl RunId {
    /// The run that a replay of this one makes: `r`, `r-r1`, `r-r2`. A function of the id, so that a repeated replay
    /// finds its run whatever was lost in between. Ids that the product draws never have such an ending.
    ///
    /// # Errors
    /// It would be longer than an id may be.
    pub fn next_replay(&self) -> Result<Self, InvalidId> {
        let (origin, times) = self.split_replay();
        Self::new(format!("{origin}-r{}", u64::from(times) + 1))
    }

    /// The run that this one is a replay of.
    pub fn replay_of(&self) -> Option<Self> {
        match self.split_replay() {
            (_, 0) => None,
            (origin, 1) => Some(Self(origin.into())),
            (origin, times) => Some(Self(format!("{origin}-r{}", times - 1).into())),
        }
    }

    /// The first run of a chain of replays, under which callees know its effects.
    pub fn origin(&self) -> &str {
        self.split_replay().0
    }

    fn split_replay(&self) -> (&str, u32) {
        let split = || {
            let (origin, times) = self.0.rsplit_once("-r")?;
            let number: u32 = times.parse().ok()?;
            let canonical = number > 0 && !times.starts_with('0') && !origin.is_empty();
            canonical.then_some((origin, number))
        };
        split().unwrap_or((&self.0, 0))
    }
}

impl TaskId {
    /// Checks and wraps `id`.
    pub fn new(id: impl AsRef<str>) -> Result<Self, InvalidId> {
        let id = id.as_ref();
        let segments = id.split('/').all(|part| !part.is_empty() && part.bytes().all(word));
        if id.len() <= MAX_TASK_ID && segments {
            return Ok(Self(id.into()));
        }
        Err(InvalidId {
            kind: "task id",
            given: excerpt(id),
            max: MAX_TASK_ID,
            alphabet: "A-Z a-z 0-9 _ -, segments joined by /",
        })
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the `index`-th child of this task.
    pub fn child(&self, index: u32) -> Self {
        Self(format!("{}/{index}", self.0).into())
    }

    /// Splits `each/17` into `each` and 17; `None` unless the last segment is a canonical number.
    pub fn split_child(&self) -> Option<(&str, u32)> {
        let (parent, last) = self.0.rsplit_once('/')?;
        let index: u32 = last.parse().ok()?;
        (last.len() == 1 || !last.starts_with('0')).then_some((parent, index))
    }
}

impl Tenant {
    /// Checks and wraps `tenant`.
    pub fn new(tenant: impl AsRef<str>) -> Result<Self, InvalidId> {
        let tenant = tenant.as_ref();
        if (1..=MAX_TENANT).contains(&tenant.len()) && tenant.bytes().all(word) {
            return Ok(Self(tenant.into()));
        }
        let (given, max) = (excerpt(tenant), MAX_TENANT);
        Err(InvalidId { kind: "tenant", given, max, alphabet: "A-Z a-z 0-9 _ -" })
    }

    /// The tenant as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Tenant {
    /// Where there are no API keys, everything belongs to `default`.
    fn default() -> Self {
        Self("default".into())
    }
}

impl KeyId {
    /// Checks and wraps `id`.
    pub fn new(id: impl AsRef<str>) -> Result<Self, InvalidId> {
        let id = id.as_ref();
        if id.len() == 16 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Self(id.into()));
        }
        Err(InvalidId {
            kind: "key id",
            given: excerpt(id),
            max: 16,
            alphabet: "0-9 a-f, exactly 16 of them",
        })
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Token {
    /// The token of attempt `attempt` claimed as `claim` in `epoch`.
    pub fn new(epoch: &str, attempt: u32, claim: &str) -> Self {
        Self([epoch, ".", &attempt.to_string(), ".", claim].concat().into())
    }

    /// Wraps a token as it was read from a store or a message.
    pub fn from_raw(raw: &str) -> Self {
        Self(raw.into())
    }

    /// The token as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The claim id inside the token.
    pub fn claim(&self) -> &str {
        self.0.splitn(3, '.').nth(2).unwrap_or("")
    }
}

impl std::borrow::Borrow<str> for TaskId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for RunId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

macro_rules! text {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    )*};
}
text!(RunId, TaskId, Token, Tenant, KeyId);

macro_rules! parsed {
    ($($name:ty),*) => {$(
        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(id: String) -> Result<Self, InvalidId> {
                Self::new(id)
            }
        }
        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(id: &str) -> Result<Self, InvalidId> {
                Self::new(id)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().into()
            }
        }
    )*};
}
parsed!(RunId, TaskId, Tenant, KeyId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_would_need_escaping() {
        for bad in ["", "a b", "a/", "/a", "a//b", "a\"b", "ä", "a:b", &"x".repeat(257)] {
            assert!(TaskId::new(bad).is_err(), "{bad:?} was taken");
        }
        for bad in ["", "a/b", "a.b", &"x".repeat(65)] {
            assert!(RunId::new(bad).is_err(), "{bad:?} was taken");
        }
        for bad in ["", "a/b", "a:b", "ä", &"x".repeat(65)] {
            assert!(Tenant::new(bad).is_err(), "{bad:?} was taken");
        }
        for bad in ["", "0123456789abcde", "0123456789abcdeF", "0123456789abcdef0"] {
            assert!(KeyId::new(bad).is_err(), "{bad:?} was taken");
        }
        assert!(TaskId::new("research/step-2/call_0").is_ok());
    }

    #[test]
    fn a_child_id_splits_back_only_when_canonical() {
        let parent = TaskId::new("a/each").unwrap();
        assert_eq!(parent.child(17).split_child(), Some(("a/each", 17)));
        assert_eq!(TaskId::new("each/017").unwrap().split_child(), None);
        assert_eq!(TaskId::new("each/x").unwrap().split_child(), None);
        assert_eq!(TaskId::new("each").unwrap().split_child(), None);
    }

    #[test]
    fn a_replay_is_named_after_its_run() {
        let run = RunId::new("a-b").unwrap();
        let (first, second) =
            (run.next_replay().unwrap(), run.next_replay().and_then(|run| run.next_replay()).unwrap());
        assert_eq!((first.as_str(), second.as_str()), ("a-b-r1", "a-b-r2"));
        assert_eq!((first.replay_of(), second.replay_of()), (Some(run.clone()), Some(first)));
        assert_eq!((run.replay_of(), second.origin()), (None, "a-b"));
        for plain in ["r1", "-r1", "a-r0", "a-r01", "a-r", "a-rx", "a-r99999999999"] {
            assert_eq!(RunId::new(plain).unwrap().replay_of(), None, "{plain}");
        }
        assert!(RunId::new("x".repeat(62)).unwrap().next_replay().is_err());
    }

    #[test]
    fn a_token_keeps_its_claim() {
        assert_eq!(Token::new("E1", 3, "c-9.x").claim(), "c-9.x");
    }
}
