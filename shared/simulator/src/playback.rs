//! Sends a decided answer in its time: as a stream of chunks or as one body, and plays the fault.
//!
//! A stream has one timer. It wakes when the next tokens are due, but not sooner than the chunk
//! interval after the last chunk, and sends all that are due by then; the last token is never late
//! for the sake of the interval. So the cost is bounded by chunks a second, not tokens a second.

use std::{io, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    ledger::{Open, Outcome},
    prompt::Refusal,
    reply::Reply,
    scenario::Fault,
    wire::{self, Encoder},
};

/// A hang without `for` ends in a cut after this long, so that no call lives for ever.
pub(crate) const MAX_HANG: Duration = Duration::from_secs(3600);

/// Bytes that are neither UTF-8 nor JSON nor an event.
pub(crate) const GARBAGE: &[u8] = b"data: {\"id\": \xff\xfe\x00\x01 not json\n\n\x80\x81{{{\n\n";

/// Most tokens of text in one event, so that an unpaced answer still comes in several.
const TEXT_EVENT: u64 = 32;

/// A streamed answer under way.
pub(crate) struct Playback {
    reply: Reply,
    encoder: Box<dyn Encoder>,
    entry: Open,
    /// Shifted by a pause.
    start: Instant,
    last_chunk: Instant,
    total: u64,
    sent: u64,
    segment: usize,
    sent_in_segment: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Opening,
    Speaking,
    /// One more poll breaks the connection.
    Breaking,
    Done,
}

// === impl Playback ===

impl Playback {
    pub(crate) fn new(reply: Reply, encoder: Box<dyn Encoder>, entry: Open, start: Instant) -> Self {
        Self {
            total: reply.tokens(),
            reply,
            encoder,
            entry,
            start,
            last_chunk: start,
            sent: 0,
            segment: 0,
            sent_in_segment: 0,
            state: State::Opening,
        }
    }

    pub(crate) fn into_body(self) -> Body {
        // Boxed so that polling moves a pointer, not the whole state.
        Body::from_stream(stream::unfold(Box::new(self), |mut playback| async {
            let chunk = playback.next().await?;
            Some((chunk, playback))
        }))
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let mut out = Vec::new();
        loop {
            match self.state {
                State::Done => return None,
                State::Breaking => {
                    self.state = State::Done;
                    // Yield once, so that the connection flushes what was sent before it breaks.
                    tokio::task::yield_now().await;
                    self.entry.close(Outcome::Cut);
                    return Some(Err(io::Error::other("cut by the scenario")));
                }
                State::Opening => {
                    self.state = State::Speaking;
                    self.encoder.open(&mut out);
                }
                State::Speaking => match self.fault_due() {
                    Some(fault) => self.play(fault, &mut out).await,
                    None => self.speak(&mut out).await,
                },
            }
            if !out.is_empty() {
                return Some(Ok(out.into()));
            }
        }
    }

    /// The fault when all tokens before it have been sent.
    fn fault_due(&self) -> Option<Fault> {
        let fault = self.reply.plan.fault.as_ref()?;
        (self.sent == self.stop_at()).then(|| fault.clone())
    }

    /// Tokens to send before the fault, or all.
    fn stop_at(&self) -> u64 {
        let fault = self.reply.plan.fault.as_ref();
        fault.map_or(self.total, after_tokens).min(self.total)
    }

    async fn play(&mut self, fault: Fault, out: &mut Vec<u8>) {
        match fault {
            Fault::Hang { pause: Some(pause), .. } => {
                self.reply.plan.fault = None;
                self.start += pause.0;
                sleep(pause.0).await;
                if self.sent == self.total && self.total > 0 {
                    self.finish(out);
                }
            }
            Fault::Hang { pause: None, .. } => {
                sleep(MAX_HANG).await;
                self.state = State::Breaking;
            }
            Fault::Cut { .. } => self.state = State::Breaking,
            Fault::Truncate { .. } => self.end(Outcome::Cut),
            Fault::Garbage { .. } => {
                out.extend_from_slice(GARBAGE);
                self.end(Outcome::Garbled);
            }
            Fault::StreamError { status, .. } => {
                let message = wire::usual_message(status).to_owned();
                self.encoder.error(out, &Refusal { status, message, param: None });
                self.end(Outcome::Error);
            }
            // These replace the answer and never come here.
            Fault::Error { .. } | Fault::WrongContentType { .. } | Fault::Empty => self.end(Outcome::Cut),
        }
    }

    async fn speak(&mut self, out: &mut Vec<u8>) {
        let stop_at = self.stop_at();
        let pace = &self.reply.pace;
        let due = self.start + pace.due(self.sent);
        let last = self.start + pace.whole(stop_at);
        let spaced = (self.last_chunk + pace.chunk_interval).min(last);
        let at = if self.sent == 0 { due } else { due.max(spaced) };
        if at > Instant::now() {
            sleep_until(at).await;
        }
        let now = Instant::now();
        let due = pace.tokens_due(now - self.start, stop_at);
        // Rounding must not make a timer fire for nothing.
        self.write(due.max(self.sent + 1).min(stop_at), out);
        self.last_chunk = now;
        self.entry.sent(self.sent);
        if self.sent == self.total && self.reply.plan.fault.is_none() {
            self.finish(out);
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.encoder.finish(out, self.reply.stop, self.reply.usage);
        self.entry.sent(self.reply.usage.completion);
        self.end(Outcome::Completed);
    }

    fn end(&mut self, outcome: Outcome) {
        self.entry.close(outcome);
        self.state = State::Done;
    }

    /// Appends the events up to `target` tokens.
    fn write(&mut self, target: u64, out: &mut Vec<u8>) {
        while self.sent < target {
            let segment = &self.reply.segments[self.segment];
            let tokens = segment.tokens();
            let most = match segment {
                crate::reply::Segment::Text(_) => TEXT_EVENT,
                // A quarter, so that arguments come in pieces however fast the answer is.
                crate::reply::Segment::Call { .. } => (tokens / 4).clamp(1, TEXT_EVENT),
            };
            let take = (target - self.sent).min(tokens - self.sent_in_segment).min(most);
            if self.sent_in_segment == 0 {
                self.encoder.begin(out, segment);
            }
            let piece = segment.slice(self.sent_in_segment, self.sent_in_segment + take);
            if !piece.is_empty() {
                self.encoder.delta(out, segment, piece);
            }
            self.sent += take;
            self.sent_in_segment += take;
            if self.sent_in_segment == tokens {
                self.encoder.end(out);
                self.segment += 1;
                self.sent_in_segment = 0;
            }
        }
    }
}

/// Tokens to send before a fault.
pub(crate) fn after_tokens(fault: &Fault) -> u64 {
    match fault {
        Fault::StreamError { after_tokens, .. }
        | Fault::Cut { after_tokens }
        | Fault::Truncate { after_tokens }
        | Fault::Hang { after_tokens, .. }
        | Fault::Garbage { after_tokens } => *after_tokens,
        Fault::Error { .. } | Fault::WrongContentType { .. } | Fault::Empty => 0,
    }
}

/// Sends `pieces` and then closes the entry with `outcome`; `broken` breaks the connection after
/// them. The entry counts as left by the client when the body is dropped before.
pub(crate) fn plain_body(
    pieces: impl Iterator<Item = Bytes> + Send + 'static,
    mut entry: Open,
    outcome: Outcome,
    broken: bool,
) -> Body {
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() && !broken {
        entry.close(outcome);
        return Body::empty();
    }
    let state = (pieces, entry, broken);
    Body::from_stream(stream::unfold(state, move |(mut pieces, mut entry, broken)| async move {
        match pieces.next() {
            Some(piece) => {
                if pieces.peek().is_none() && !broken {
                    entry.close(outcome);
                }
                Some((Ok(piece), (pieces, entry, broken)))
            }
            None if broken => {
                tokio::task::yield_now().await;
                entry.close(Outcome::Cut);
                Some((Err(io::Error::other("cut by the scenario")), (pieces, entry, false)))
            }
            None => None,
        }
    }))
}
