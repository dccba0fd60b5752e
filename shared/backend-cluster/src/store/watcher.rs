//! One pub/sub connection per process: which watched runs have grown, which attempts need not go on.
//!
//! Announcements are hints as well: after every (re)connect all watches are woken, for something may have been
//! missed, and a lost abort costs no more than the work until the next renewal.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use trireme_backend::Abort;
use trireme_model::RunId;

use super::link::Link;
use crate::keys::{Keys, split_member};

/// Aborts that a slow receiver may be behind.
const ABORTS: usize = 4_096;
/// How often the connection is tried: a half-open one would otherwise stay silent for ever.
const PING: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// Who watches what in this process.
#[derive(Debug)]
pub(crate) struct Watches {
    runs: Mutex<HashMap<RunId, watch::Sender<u64>>>,
    pub(crate) aborts: broadcast::Sender<Abort>,
    connected: watch::Sender<u64>,
}

impl Watches {
    pub(crate) fn new() -> Self {
        Self { runs: Mutex::default(), aborts: broadcast::channel(ABORTS).0, connected: watch::channel(0).0 }
    }

    /// A receiver that moves with every announcement of `run`.
    pub(crate) fn subscribe(&self, run: &RunId) -> watch::Receiver<u64> {
        self.lock().entry(run.clone()).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    pub(crate) fn watches(&self, run: &RunId) -> bool {
        self.lock().contains_key(run)
    }

    /// How often the connection was made; in tests, to know that announcements arrive.
    pub(crate) fn connections(&self) -> watch::Receiver<u64> {
        self.connected.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, watch::Sender<u64>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, run: &RunId) {
        let mut runs = self.lock();
        let Some(sender) = runs.get(run) else { return };
        if sender.receiver_count() == 0 {
            runs.remove(run);
        } else {
            sender.send_modify(|count| *count += 1);
        }
    }

    fn wake_all(&self) {
        let mut runs = self.lock();
        runs.retain(|_, sender| sender.receiver_count() > 0);
        for sender in runs.values() {
            sender.send_modify(|count| *count += 1);
        }
    }

    fn hear(&self, abort: bool, text: &str) {
        for (run, task) in text.split(' ').filter_map(split_member) {
            if abort {
                // without receivers there is nobody to tell
                let _ = self.aborts.send(Abort { run, task });
            } else {
                self.wake(&run);
            }
        }
    }
}

/// Listens until `stop`.
pub(crate) async fn listen(
    link: Arc<Link>,
    shards: Vec<Keys>,
    watches: Arc<Watches>,
    stop: CancellationToken,
) {
    let mut pause = FIRST_PAUSE;
    while !stop.is_cancelled() {
        let before = *watches.connected.borrow();
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = session(&link, &shards, &watches) => ended,
        };
        tracing::warn!(error = %ended, "announcements from redis are interrupted; trying again");
        if *watches.connected.borrow() != before {
            pause = FIRST_PAUSE;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Listens until the connection is lost; says why.
async fn session(link: &Link, shards: &[Keys], watches: &Watches) -> String {
    let limit = link.timeout();
    let connect = async {
        let mut connection = link.client().get_async_pubsub().await?;
        for keys in shards {
            connection.subscribe(&[&keys.watch, &keys.abort]).await?;
        }
        Ok::<_, redis::RedisError>(connection)
    };
    let (mut sink, mut messages) = match tokio::time::timeout(limit, connect).await {
        Ok(Ok(connection)) => connection.split(),
        Ok(Err(error)) => return error.to_string(),
        Err(_) => return format!("no answer within {limit:?}"),
    };
    watches.wake_all();
    watches.connected.send_modify(|count| *count += 1);
    let mut ping = tokio::time::interval(PING);
    loop {
        tokio::select! {
            message = messages.next() => {
                let Some(message) = message else { return "the connection was closed".into() };
                let channel = message.get_channel_name();
                let abort = shards.iter().any(|keys| keys.abort == channel);
                watches.hear(abort, &String::from_utf8_lossy(message.get_payload_bytes()));
            }
            _ = ping.tick() => {
                match tokio::time::timeout(limit, sink.ping::<redis::Value>()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return error.to_string(),
                    Err(_) => return format!("no answer within {limit:?}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_reach_those_who_watch_and_leave_no_trace_of_others() {
        let watches = Watches::new();
        let (a, b) = (RunId::new("a").unwrap(), RunId::new("b").unwrap());
        let mut of_a = watches.subscribe(&a);
        drop(watches.subscribe(&b));
        let mut aborts = watches.aborts.subscribe();
        of_a.mark_unchanged();
        watches.hear(false, "b a c");
        watches.hear(true, "a a:each/3");
        assert!(of_a.has_changed().unwrap() && !watches.watches(&b));
        assert_eq!(aborts.try_recv().unwrap(), Abort { run: a.clone(), task: None });
        assert_eq!(aborts.try_recv().unwrap().task.unwrap().as_str(), "each/3");
    }
}
