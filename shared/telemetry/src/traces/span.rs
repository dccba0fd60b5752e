//! One span, until it is sent.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use trireme_model::{Ms, Trace};

use super::wire::{self, Value};

/// What a span stands for, by the numbers of OTLP's `SpanKind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Something inside the program.
    Internal = 1,
    /// A request to somebody else.
    Client = 3,
    /// A message that is sent.
    Producer = 4,
    /// A message that is worked on.
    Consumer = 5,
}

/// Bits of a link's flags: it is known whether the other span is of another process, and it is.
const REMOTE: u32 = 0x300;
/// OTLP's `STATUS_CODE_ERROR`.
const FAILED: u64 = 2;

/// A span under way.
#[derive(Debug)]
pub struct Span {
    id: u64,
    parent: u64,
    kind: SpanKind,
    name: Cow<'static, str>,
    begun: SystemTime,
    pub(super) end: SystemTime,
    /// Attributes and links, as OTLP's `Span` has them.
    written: Vec<u8>,
    failed: Option<Cow<'static, str>>,
}

/// Room for the attributes of most spans, in bytes.
const ROOM: usize = 640;

fn time(ms: Ms) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Span {
    pub(super) fn new(
        id: u64,
        parent: u64,
        kind: SpanKind,
        name: Cow<'static, str>,
        begun: SystemTime,
    ) -> Self {
        Self { id, parent, kind, name, begun, end: begun, written: Vec::with_capacity(ROOM), failed: None }
    }

    /// A span inside the process whose id and times are known from elsewhere, in ms since the Unix epoch.
    pub fn of(id: u64, parent: u64, name: impl Into<Cow<'static, str>>, begun: Ms) -> Self {
        Self::new(id, parent, SpanKind::Internal, name.into(), time(begun))
    }

    /// A time in ms since the Unix epoch.
    pub fn time(ms: Ms) -> SystemTime {
        time(ms)
    }

    /// Its id, for spans below it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Gives it another name.
    pub fn rename(&mut self, name: impl Into<Cow<'static, str>>) -> &mut Self {
        self.name = name.into();
        self
    }

    /// Moves its beginning back.
    pub fn begun_at(&mut self, begun: SystemTime) {
        self.begun = begun;
    }

    /// Sets an attribute that is not set yet.
    pub fn set<'a>(&mut self, key: &'static str, value: impl Into<Value<'a>>) -> &mut Self {
        wire::attribute(&mut self.written, 9, key, &value.into());
        self
    }

    /// Says why what it stands for failed: a word from a bounded set, as in `error.type`.
    pub fn fail(&mut self, class: impl Into<Cow<'static, str>>) {
        let class = class.into();
        self.set("error.type", &*class);
        self.failed = Some(class);
    }

    /// Points to the span that `trace` names as parent.
    pub fn link(&mut self, trace: &Trace) {
        let mut link = Vec::with_capacity(40);
        wire::bytes(&mut link, 1, &trace.id.to_be_bytes());
        wire::bytes(&mut link, 2, &trace.parent.to_be_bytes());
        wire::fixed32(&mut link, 6, u32::from(trace.sampled) | REMOTE);
        wire::bytes(&mut self.written, 13, &link);
    }

    /// Roughly what it takes in the queue: 1, and 1 more for every KiB of attributes.
    pub(super) fn weight(&self) -> usize {
        1 + self.written.len() / 1024
    }

    /// Writes it as a field of OTLP's `ScopeSpans`; `room` is for the message on the way.
    pub(super) fn write(&self, trace: u128, room: &mut Vec<u8>, out: &mut Vec<u8>) {
        room.clear();
        wire::bytes(room, 1, &trace.to_be_bytes());
        wire::bytes(room, 2, &self.id.to_be_bytes());
        if self.parent != 0 {
            wire::bytes(room, 4, &self.parent.to_be_bytes());
        }
        wire::bytes(room, 5, self.name.as_bytes());
        wire::number(room, 6, self.kind as u64);
        wire::fixed64(room, 7, nanos(self.begun));
        wire::fixed64(room, 8, nanos(self.end.max(self.begun)));
        room.extend_from_slice(&self.written);
        if let Some(class) = &self.failed {
            let mut status = Vec::with_capacity(class.len() + 4);
            wire::bytes(&mut status, 2, class.as_bytes());
            wire::number(&mut status, 3, FAILED);
            wire::bytes(room, 15, &status);
        }
        // it is sampled
        wire::fixed32(room, 16, 1);
        wire::bytes(out, 2, room);
    }
}
