//! What was received and how it ended: the oracle that tests compare the system under test with.
//!
//! A call is entered when its body has been read and closed exactly once: by the answer's last
//! byte being handed to the connection, by a fault, or by the drop of its [`Open`] entry, which is
//! how a client that went away shows.

mod entry;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

pub(crate) use entry::{Open, Received};

/// Calls kept; the oldest give way.
pub const MAX_CALLS: usize = 1_000_000;

/// Which interface a call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Chat completions.
    OpenAi,
    /// Messages.
    Anthropic,
    /// An HTTP tool.
    Tool,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not yet.
    InFlight,
    /// Answered in full.
    Completed,
    /// The client went away before the end.
    ClientDisconnected,
    /// Answered with an error, as status or inside the stream.
    Error,
    /// Ended early by a fault or by the simulator's own end.
    Cut,
    /// Answered with bytes that are no answer.
    Garbled,
}

/// One call received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// From 1, without gaps, never reused.
    pub id: u64,
    /// Arrival in Unix milliseconds.
    pub at_ms: u64,
    /// Arrival in microseconds since the simulator started, monotonic.
    pub at_us: u64,
    /// Which interface.
    pub kind: Kind,
    /// Model or tool; empty when the request named none.
    pub target: String,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// First 16 bytes of the body's SHA-256, hexadecimal; of the query when there is no body.
    pub body_hash: String,
    /// Hash of the content that answers and draws depend on, hexadecimal.
    pub content_hash: String,
    /// How often this content was asked, this call included.
    pub occurrence: u64,
    /// Name of the rule that answered.
    pub rule: String,
    /// Header `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// Header `X-Trireme-Run`.
    pub run: Option<String>,
    /// Header `X-Trireme-Task`.
    pub task: Option<String>,
    /// OpenAI's `prompt_cache_key`.
    pub cache_key: Option<String>,
    /// Tokens billed for the request; none for a refused one.
    pub prompt_tokens: u64,
    /// Of them read from the prompt cache.
    pub cached_tokens: u64,
    /// Tokens billed for the answer: those that were sent.
    pub completion_tokens: u64,
    /// HTTP status; 0 while nothing was sent.
    pub status: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// The fault that was played, by its name in the scenario.
    pub fault: Option<String>,
    /// End in Unix milliseconds.
    pub ended_at_ms: Option<u64>,
    /// End in microseconds since the simulator started.
    pub ended_at_us: Option<u64>,
}

/// Counts since the last reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Calls received.
    pub received: u64,
    /// Of them to chat completions.
    pub openai: u64,
    /// Of them to Messages.
    pub anthropic: u64,
    /// Of them to tools.
    pub tool: u64,
    /// Calls open now.
    pub in_flight: u64,
    /// The most calls open at once.
    pub max_in_flight: u64,
    /// Ended: answered in full.
    pub completed: u64,
    /// Ended: client went away.
    pub client_disconnected: u64,
    /// Ended: answered with an error.
    pub errors: u64,
    /// Ended: cut.
    pub cut: u64,
    /// Ended: garbage, wrong content type or empty body.
    pub garbled: u64,
    /// Tokens billed for requests.
    pub prompt_tokens: u64,
    /// Of them read from the prompt cache.
    pub cached_tokens: u64,
    /// Tokens billed for answers.
    pub completion_tokens: u64,
    /// Id of the newest call, 0 before the first.
    pub last_id: u64,
}

/// Handle to the record of calls; cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    book: Mutex<Book>,
    /// Woken at each change; `wait_for` listens.
    changed: Notify,
    /// The simulator is ending: calls that are dropped now were not left by their clients.
    closing: AtomicBool,
}

#[derive(Debug, Default)]
struct Book {
    /// Ids are consecutive, so a call is found by its distance from the front.
    calls: VecDeque<Call>,
    stats: Stats,
    /// Calls up to this id do not count in `stats` any more.
    reset_at: u64,
}

// === impl Ledger ===

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                started: Instant::now(),
                book: Mutex::default(),
                changed: Notify::new(),
                closing: AtomicBool::new(false),
            }),
        }
    }

    /// All calls that are kept, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.since(0, usize::MAX)
    }

    /// At most `limit` calls with an id over `id`, oldest first.
    pub fn since(&self, id: u64, limit: usize) -> Vec<Call> {
        let book = self.book();
        let first = book.calls.front().map_or(0, |call| call.id);
        let skip = usize::try_from((id + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        book.calls.iter().skip(skip).take(limit).cloned().collect()
    }

    /// Counts since the last reset.
    pub fn stats(&self) -> Stats {
        self.book().stats.clone()
    }

    /// Forgets all calls and counts. Calls in flight stay counted as such; ids go on.
    pub fn clear(&self) {
        let mut book = self.book();
        book.calls.clear();
        book.reset_at = book.stats.last_id;
        let in_flight = book.stats.in_flight;
        book.stats =
            Stats { in_flight, max_in_flight: in_flight, last_id: book.stats.last_id, ..Stats::default() };
        drop(book);
        self.shared.changed.notify_waiters();
    }

    /// Waits until the counts satisfy `wanted`, looking again at each change.
    pub async fn wait_for(&self, mut wanted: impl FnMut(&Stats) -> bool) -> Stats {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // Listen before looking, so that a change between the two is not missed.
            changed.as_mut().enable();
            let stats = self.stats();
            if wanted(&stats) {
                return stats;
            }
            changed.await;
        }
    }

    pub(crate) fn close(&self) {
        self.shared.closing.store(true, Ordering::SeqCst);
    }

    fn closing(&self) -> bool {
        self.shared.closing.load(Ordering::SeqCst)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // The book is valid between any two statements, so a panic elsewhere does not spoil it.
        self.shared.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn micros(&self) -> u64 {
        self.shared.started.elapsed().as_micros() as u64
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}

#[cfg(test)]
mod tests;
