//! Streamed text on its way to the runs' logs: collected per attempt, written together at most once per
//! interval however many calls stream.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ahash::{HashMap, HashSet};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use trireme_backend::{Backend, Delta};
use trireme_model::{Assignment, RunId, TaskId};

type Key = (RunId, TaskId, u32);

/// How long the end of an attempt waits for its text to be written: a store that hangs must not hold it up.
const FINISH_LIMIT: Duration = Duration::from_secs(2);

/// Text waiting to be written, over all attempts. Past it, text is left out of the log (never of a result).
const MAX_WAITING_BYTES: usize = 16 << 20;

/// The text that waits to be written.
pub(crate) struct Deltas {
    backend: Arc<dyn Backend>,
    waiting: Mutex<Waiting>,
    /// Something waits: a worker on which nobody streams does not wake up for it.
    pushed: Notify,
    /// Held while text is written, so that an attempt's text stays in order.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Waiting {
    texts: HashMap<Key, String>,
    /// Attempts that have streamed and not ended.
    streaming: HashSet<Key>,
    bytes: usize,
}

impl Deltas {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        let (waiting, pushed, writing) = Default::default();
        Self { backend, waiting, pushed, writing }
    }

    /// Adds `text` to what `assignment` has streamed.
    pub(crate) fn push(&self, assignment: &Assignment, text: &str) {
        let mut waiting = self.lock();
        if waiting.bytes + text.len() > MAX_WAITING_BYTES {
            return;
        }
        let key = key(assignment);
        waiting.bytes += text.len();
        if !waiting.streaming.contains(&key) {
            waiting.streaming.insert(key.clone());
        }
        if waiting.texts.is_empty() {
            self.pushed.notify_one();
        }
        waiting.texts.entry(key).or_default().push_str(text);
    }

    /// Writes what `assignment` has left, so that its text stands before its end in the log.
    pub(crate) async fn finish(&self, assignment: &Assignment) {
        let key = key(assignment);
        // most attempts do not stream: they must not wait for those that do
        if !self.lock().streaming.remove(&key) {
            return;
        }
        let written = timeout(FINISH_LIMIT, async {
            let _writing = self.writing.lock().await;
            if let Some(text) = self.take(&key) {
                self.write(vec![(key.clone(), text)]).await;
            }
        });
        if written.await.is_err() {
            tracing::debug!(run = %assignment.run, task = %assignment.task, "streamed text was left out");
            self.take(&key);
        }
    }

    fn take(&self, key: &Key) -> Option<String> {
        let mut waiting = self.lock();
        let text = waiting.texts.remove(key);
        waiting.bytes -= text.as_ref().map_or(0, String::len);
        text
    }

    /// Writes what waits, at most once per `every`, until `shutdown`.
    pub(crate) async fn flush_forever(&self, every: Duration, shutdown: CancellationToken) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = async { self.pushed.notified().await; ticks.tick().await; } => {}
                () = shutdown.cancelled() => return,
            }
            let _writing = self.writing.lock().await;
            let texts = {
                let mut waiting = self.lock();
                waiting.bytes = 0;
                std::mem::take(&mut waiting.texts)
            };
            if !texts.is_empty() {
                self.write(texts.into_iter().collect()).await;
            }
        }
    }

    async fn write(&self, texts: Vec<(Key, String)>) {
        let deltas = texts.into_iter().map(|((run, task, attempt), text)| Delta { run, task, attempt, text });
        // streamed text is a courtesy: the result is recorded whole, so a failed write loses nothing
        if let Err(error) = self.backend.append(deltas.collect()).await {
            tracing::debug!(%error, "streamed text was not written");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(assignment: &Assignment) -> Key {
    (assignment.run.clone(), assignment.task.clone(), assignment.attempt)
}
