//! Replays recorded streams without a network, in any chunking.

use proptest::prelude::*;

use crate::config::Api;
use crate::limits::Bounds;
use crate::sse::{Decoder, SseError};
use crate::turn::{Fault, Progress, Turn};
use crate::wire::Stream;
use crate::{ChatEvent, FinishReason, ToolCall, Usage};

/// An event, owned.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    Text(String),
    Call(ToolCall),
    Usage(Usage),
}

/// All that came out of a stream.
#[derive(Debug, PartialEq)]
pub(crate) struct Replay {
    pub(crate) seen: Vec<Seen>,
    pub(crate) text: String,
    pub(crate) calls: Vec<ToolCall>,
    pub(crate) finish: Option<FinishReason>,
    pub(crate) usage: Option<Usage>,
    /// Complete, cut, or broken.
    pub(crate) end: Result<bool, Fault>,
}

pub(crate) fn replay(api: Api, chunks: &[&[u8]], bounds: Bounds) -> Replay {
    let mut seen = Vec::new();
    let mut on = |event: ChatEvent<'_>| match event {
        ChatEvent::TextDelta(text) => seen.push(Seen::Text(text.to_owned())),
        ChatEvent::ToolCall(call) => seen.push(Seen::Call(call.clone())),
        ChatEvent::Usage(usage) => seen.push(Seen::Usage(*usage)),
        ChatEvent::FirstToken => {}
    };
    let mut turn = Turn::new(bounds, None);
    let mut stream = Stream::new(api);
    let mut decoder = Decoder::new(bounds.event);
    let mut ended = false;
    let mut fault = None;
    {
        let mut event = |data: &[u8]| {
            if !ended {
                ended = stream.event(data, &mut turn, &mut on)? == Progress::End;
            }
            Ok(())
        };
        let mut keep = |result: Result<(), SseError<Fault>>| {
            if let (None, Err(error)) = (&fault, result) {
                fault = Some(match error {
                    SseError::Refused(fault) => fault,
                    SseError::TooLarge => Fault::TooLarge("event", bounds.event),
                });
            }
        };
        for chunk in chunks {
            keep(decoder.push(chunk, &mut event));
        }
        keep(decoder.finish(&mut event));
    }
    let end = match fault {
        Some(fault) => Err(fault),
        None => stream.finish(&mut turn, &mut on),
    };
    Replay {
        text: std::mem::take(&mut turn.text),
        calls: turn.take_calls(),
        finish: turn.finish,
        usage: turn.usage,
        seen,
        end,
    }
}

/// The stream in one piece.
pub(crate) fn whole(api: Api, text: &str) -> Replay {
    replay(api, &[text.as_bytes()], Bounds::default())
}

/// `data:` lines out of JSON values.
pub(crate) fn sse(events: &[&str]) -> String {
    events.iter().map(|e| format!("data: {e}\n\n")).collect()
}

/// Cut once at every byte, then byte by byte: the replay must not change.
pub(crate) fn assert_chunking_is_irrelevant(api: Api, text: &str) {
    let bytes = text.as_bytes();
    let expected = whole(api, text);
    for cut in 0..=bytes.len() {
        let got = replay(api, &[&bytes[..cut], &bytes[cut..]], Bounds::default());
        assert_eq!(got, expected, "cut at {cut}");
    }
    let single: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(replay(api, &single, Bounds::default()), expected);
}

/// Any chunking of `text`.
pub(crate) fn chunkings(text: &str) -> impl Strategy<Value = Vec<usize>> + use<> {
    let len = text.len();
    prop::collection::vec(0..=len, 0..40).prop_map(move |mut cuts| {
        cuts.extend([0, len]);
        cuts.sort_unstable();
        cuts
    })
}

pub(crate) fn replay_cut(api: Api, text: &str, cuts: &[usize]) -> Replay {
    let chunks: Vec<_> = cuts.windows(2).map(|w| &text.as_bytes()[w[0]..w[1]]).collect();
    replay(api, &chunks, Bounds::default())
}
