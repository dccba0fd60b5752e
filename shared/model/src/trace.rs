//! The trace that a run belongs to, as its W3C `traceparent` says it.
//!
//! It is kept with the run because messages are hints: whoever goes on with a run, by whatever way, finds it.
//! Nothing in the engine depends on it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Bytes of a `traceparent`.
const LENGTH: usize = 55;

/// The trace of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Trace {
    /// Its id, never 0.
    pub id: u128,
    /// The caller's span that the run is part of; 0 where the trace begins with the run.
    pub parent: u64,
    /// Whether its spans are kept. Decided once, when the run is accepted.
    pub sampled: bool,
}

/// A text that is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent: 00-<32 hex digits>-<16 hex digits>-<2 hex digits>")]
pub struct NoTrace;

impl Trace {
    /// Reads the header `traceparent` of a request or a message. `None` for what the W3C recommendation says to
    /// ignore, an all-zero trace or parent among it; a later version is read as far as this one goes.
    pub fn of_header(header: &str) -> Option<Self> {
        let known = match header.get(LENGTH..)? {
            "" => header,
            rest if rest.starts_with('-') && !header.starts_with("00") => &header[..LENGTH],
            _ => return None,
        };
        read(known).filter(|trace| trace.parent != 0)
    }

    /// The header `traceparent` for what happens inside span `span` of this trace.
    pub fn header(&self, span: u64) -> String {
        Self { parent: span, ..*self }.to_string()
    }
}

fn read(text: &str) -> Option<Trace> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| {
        let part = text.get(from..to)?;
        part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)).then_some(part)
    };
    if bytes.len() != LENGTH || [2, 35, 52].iter().any(|at| bytes[*at] != b'-') || digits(0, 2)? == "ff" {
        return None;
    }
    let id = u128::from_str_radix(digits(3, 35)?, 16).ok().filter(|id| *id != 0)?;
    let parent = u64::from_str_radix(digits(36, 52)?, 16).ok()?;
    let flags = u8::from_str_radix(digits(53, 55)?, 16).ok()?;
    Some(Trace { id, parent, sampled: flags & 1 == 1 })
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.id, self.parent, u8::from(self.sampled))
    }
}

/// Of what [`Trace`]'s `Display` wrote, where a parent of zeros means that there is none.
impl FromStr for Trace {
    type Err = NoTrace;
    fn from_str(text: &str) -> Result<Self, NoTrace> {
        read(text).ok_or(NoTrace)
    }
}

impl TryFrom<String> for Trace {
    type Error = NoTrace;
    fn try_from(text: String) -> Result<Self, NoTrace> {
        text.parse()
    }
}

impl From<Trace> for String {
    fn from(trace: Trace) -> Self {
        trace.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_is_read_and_written_alike() {
        let trace = Trace::of_header(HEADER).unwrap();
        assert_eq!((trace.parent, trace.sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(trace.header(trace.parent), HEADER);
        assert_eq!(trace.header(7), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01");
        assert!(!Trace::of_header(&HEADER.replace("-01", "-fe")).unwrap().sampled);
        // later versions may say more behind what this one knows
        assert_eq!(Trace::of_header(&HEADER.replace("00-4b", "cc-4b")), Some(trace));
        assert_eq!(
            Trace::of_header(&(HEADER.replace("00-4b", "cc-4b") + "-what-the-future-is")),
            Some(trace)
        );
    }

    #[test]
    fn what_is_no_header_is_ignored() {
        for header in [
            "",
            "garbage",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "00-4bf92f3577b34da6a3ce929d0e0e473\u{e9}-0f067aa0ba902b7-01",
        ] {
            assert_eq!(Trace::of_header(header), None, "{header}");
        }
    }

    #[test]
    fn a_trace_that_begins_with_its_run_is_kept_too() {
        let trace = Trace { id: 5, parent: 0, sampled: true };
        assert_eq!(trace.to_string().parse(), Ok(trace));
        assert_eq!(serde_json::from_str::<Trace>(&serde_json::to_string(&trace).unwrap()).unwrap(), trace);
        assert_eq!("00-".parse::<Trace>(), Err(NoTrace));
    }
}
