//! What a message says: ids only.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trireme_model::Trace;

/// Largest message, in bytes. What is larger is refused on both sides.
pub const MAX_HINT_BYTES: usize = 1_024;

/// The only version that is written and read. A reader acks what it cannot read; the sweep repairs that.
const VERSION: u8 = 1;

/// "This task is ready": where to look, and nothing that could contradict the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hint {
    /// Version of the message's form.
    #[serde(rename = "v")]
    pub version: u8,
    /// The store's shard that holds the run.
    #[serde(rename = "s")]
    pub shard: u16,
    /// Id of the run.
    #[serde(rename = "r")]
    pub run: String,
    /// Id of the task in the run.
    #[serde(rename = "t")]
    pub task: String,
    /// When it was published, in milliseconds since 1970 by the publisher's clock: for metrics only.
    #[serde(rename = "p")]
    pub published_ms: u64,
    /// The span that published it: a property of the message, no part of its body.
    #[serde(skip)]
    pub trace: Option<Trace>,
}

/// Why a message is not a hint. The reader acks it and counts it: it will not become readable by coming again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HintError {
    /// Larger than [`MAX_HINT_BYTES`].
    #[error("message of {0} bytes is larger than {MAX_HINT_BYTES}")]
    TooLarge(usize),
    /// Written by a newer program.
    #[error("message has version {0}, this program reads {VERSION}")]
    UnknownVersion(u64),
    /// Anything else.
    #[error("message is not a hint: {0}")]
    Garbage(String),
}

impl Hint {
    /// A hint of the present version.
    pub fn new(shard: u16, run: impl Into<String>, task: impl Into<String>, published_ms: u64) -> Self {
        Self { version: VERSION, shard, run: run.into(), task: task.into(), published_ms, trace: None }
    }

    /// The message.
    ///
    /// # Errors
    /// [`HintError::TooLarge`], and [`HintError::UnknownVersion`] for one that we could not read back.
    pub fn encode(&self) -> Result<Bytes, HintError> {
        if self.version != VERSION {
            return Err(HintError::UnknownVersion(self.version.into()));
        }
        let mut text = Vec::with_capacity(self.run.len() + self.task.len() + 64);
        serde_json::to_writer(&mut text, self).map_err(|error| HintError::Garbage(error.to_string()))?;
        if text.len() > MAX_HINT_BYTES {
            return Err(HintError::TooLarge(text.len()));
        }
        Ok(text.into())
    }

    /// Reads a message. Unknown fields, missing fields and empty ids are errors.
    ///
    /// # Errors
    /// See [`HintError`].
    pub fn decode(message: &[u8]) -> Result<Self, HintError> {
        if message.len() > MAX_HINT_BYTES {
            return Err(HintError::TooLarge(message.len()));
        }
        match serde_json::from_slice::<Self>(message) {
            Ok(hint) if hint.version != VERSION => Err(HintError::UnknownVersion(hint.version.into())),
            Ok(hint) if hint.run.is_empty() || hint.task.is_empty() => {
                Err(HintError::Garbage("empty id".to_owned()))
            }
            Ok(hint) => Ok(hint),
            // A newer form fails on its fields first: say that it is newer, which is what an operator must know.
            Err(error) => match serde_json::from_slice::<OnlyVersion>(message) {
                Ok(only) if only.v != u64::from(VERSION) => Err(HintError::UnknownVersion(only.v)),
                _ => Err(HintError::Garbage(error.to_string())),
            },
        }
    }
}

#[derive(Deserialize)]
struct OnlyVersion {
    v: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote() {
        let hint = Hint::new(7, "0192-run", "research/step-2/call-0", 1_700_000_000_123);
        let message = hint.encode().unwrap();
        assert_eq!(message, r#"{"v":1,"s":7,"r":"0192-run","t":"research/step-2/call-0","p":1700000000123}"#);
        assert_eq!(Hint::decode(&message).unwrap(), hint);
    }

    #[test]
    fn refuses_what_is_too_large_both_ways() {
        let hint = Hint::new(0, "r", "t".repeat(MAX_HINT_BYTES), 0);
        assert!(matches!(hint.encode(), Err(HintError::TooLarge(_))));
        assert!(matches!(Hint::decode(&[b' '; MAX_HINT_BYTES + 1]), Err(HintError::TooLarge(1_025))));
    }

    #[test]
    fn tells_a_newer_version_from_garbage() {
        for (message, version) in [
            (r#"{"v":2,"s":1,"r":"r","t":"t","p":0}"#, 2),
            (r#"{"v":3,"new":true}"#, 3),
            (r#"{"v":900}"#, 900),
        ] {
            assert_eq!(Hint::decode(message.as_bytes()), Err(HintError::UnknownVersion(version)));
        }
        for message in [
            "",
            "garbage",
            "[]",
            "null",
            "{}",
            r#"{"v":1}"#,
            r#"{"v":-1,"s":1,"r":"r","t":"t","p":0}"#,
            r#"{"v":1,"s":99999,"r":"r","t":"t","p":0}"#,
            r#"{"v":1,"s":1,"r":"r","t":"t","p":0,"x":1}"#,
            r#"{"v":1,"s":1,"r":"r","t":"t","p":0,"p":1}"#,
            r#"{"v":1,"s":1,"r":"","t":"t","p":0}"#,
            r#"{"v":1,"s":1,"r":"r","t":"t","p":0} trailing"#,
            "\u{0}\u{1}",
        ] {
            let read = Hint::decode(message.as_bytes());
            assert!(matches!(read, Err(HintError::Garbage(_))), "{message}: {read:?}");
        }
        assert!(matches!(Hint::decode(&[0xff, 0xfe]), Err(HintError::Garbage(_))));
    }
}
