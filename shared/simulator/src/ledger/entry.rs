//! The open entry of one call, held by whatever is answering it.

use super::{Call, Kind, Ledger, MAX_CALLS, Outcome, unix_ms};

/// What is known of a call when it arrives.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) target: String,
    pub(crate) stream: bool,
    pub(crate) body_hash: String,
    pub(crate) content_hash: String,
    pub(crate) occurrence: u64,
    pub(crate) rule: String,
    pub(crate) fault: Option<String>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) run: Option<String>,
    pub(crate) task: Option<String>,
    pub(crate) cache_key: Option<String>,
    pub(crate) prompt_tokens: u64,
    pub(crate) cached_tokens: u64,
}

/// An open call. Dropping it unclosed records that the client went away.
#[derive(Debug)]
pub(crate) struct Open {
    ledger: Ledger,
    id: u64,
    status: u16,
    completion_tokens: u64,
    closed: bool,
}

// === impl Ledger ===

impl Ledger {
    pub(crate) fn open(&self, kind: Kind, received: Received) -> Open {
        let at_us = self.micros();
        let mut book = self.book();
        let id = book.stats.last_id + 1;
        let stats = &mut book.stats;
        stats.last_id = id;
        stats.received += 1;
        match kind {
            Kind::OpenAi => stats.openai += 1,
            Kind::Anthropic => stats.anthropic += 1,
            Kind::Tool => stats.tool += 1,
        }
        stats.in_flight += 1;
        stats.max_in_flight = stats.max_in_flight.max(stats.in_flight);
        stats.prompt_tokens += received.prompt_tokens;
        stats.cached_tokens += received.cached_tokens;
        if book.calls.len() == MAX_CALLS {
            book.calls.pop_front();
        }
        book.calls.push_back(Call {
            id,
            at_ms: unix_ms(),
            at_us,
            kind,
            target: received.target,
            stream: received.stream,
            body_hash: received.body_hash,
            content_hash: received.content_hash,
            occurrence: received.occurrence,
            rule: received.rule,
            idempotency_key: received.idempotency_key,
            run: received.run,
            task: received.task,
            cache_key: received.cache_key,
            prompt_tokens: received.prompt_tokens,
            cached_tokens: received.cached_tokens,
            completion_tokens: 0,
            status: 0,
            outcome: Outcome::InFlight,
            fault: received.fault,
            ended_at_ms: None,
            ended_at_us: None,
        });
        drop(book);
        self.shared.changed.notify_waiters();
        Open { ledger: self.clone(), id, status: 0, completion_tokens: 0, closed: false }
    }
}

// === impl Open ===

impl Open {
    /// The status line is about to be sent.
    pub(crate) fn status(&mut self, status: u16) {
        self.status = status;
    }

    /// So many tokens of the answer have been sent.
    pub(crate) fn sent(&mut self, tokens: u64) {
        self.completion_tokens = tokens;
    }

    /// Records how the call ended; only the first time counts.
    pub(crate) fn close(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let ended_at_us = self.ledger.micros();
        let mut book = self.ledger.book();
        book.stats.in_flight = book.stats.in_flight.saturating_sub(1);
        if self.id > book.reset_at {
            let stats = &mut book.stats;
            stats.completion_tokens += self.completion_tokens;
            match outcome {
                Outcome::InFlight => {}
                Outcome::Completed => stats.completed += 1,
                Outcome::ClientDisconnected => stats.client_disconnected += 1,
                Outcome::Error => stats.errors += 1,
                Outcome::Cut => stats.cut += 1,
                Outcome::Garbled => stats.garbled += 1,
            }
        }
        let first = book.calls.front().map_or(u64::MAX, |call| call.id);
        let index = self.id.checked_sub(first).and_then(|i| usize::try_from(i).ok());
        if let Some(call) = index.and_then(|index| book.calls.get_mut(index)) {
            call.completion_tokens = self.completion_tokens;
            call.status = self.status;
            call.outcome = outcome;
            call.ended_at_ms = Some(unix_ms());
            call.ended_at_us = Some(ended_at_us);
        }
        drop(book);
        self.ledger.shared.changed.notify_waiters();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let outcome = if self.ledger.closing() { Outcome::Cut } else { Outcome::ClientDisconnected };
        self.close(outcome);
    }
}
