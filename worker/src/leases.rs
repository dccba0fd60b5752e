//! The attempts this worker holds: one batch renews all their leases, and a word from the store stops them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use trireme_backend::{Abort, Backend};
use trireme_model::{Assignment, Renew, Renewed, RunId, TaskId, Token, limits};

use crate::metrics::Metrics;

/// Renewals sent in one call.
const RENEW_CHUNK: usize = 500;

/// Why an attempt must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Nobody needs its result.
    Cancelled,
    /// Its lease ran out, or may have: somebody else may hold the task.
    Lost,
    /// The worker shuts down.
    Released,
}

/// One attempt's hold on its task; dropping it ends the renewals.
pub(crate) struct Lease {
    leases: Arc<Leases>,
    run: RunId,
    task: TaskId,
    token: Token,
    stop: CancellationToken,
}

struct Held {
    token: Token,
    stop: CancellationToken,
    why: Option<Stop>,
    /// The lease holds until this time at least, by our own clock, counted from before the call was sent.
    safe_until: Instant,
}

/// All leases of a worker.
#[derive(Default)]
pub(crate) struct Leases {
    held: Mutex<HashMap<RunId, HashMap<TaskId, Held>>>,
}

fn lease() -> Duration {
    Duration::from_millis(limits::LEASE_MS)
}

impl Lease {
    /// Resolves when the attempt must stop.
    pub(crate) async fn stopped(&self) -> Stop {
        self.stop.cancelled().await;
        self.why()
    }

    /// Stops what the attempt has started, when the attempt must stop.
    pub(crate) fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    fn why(&self) -> Stop {
        let held = self.leases.lock();
        let why = held.get(&self.run).and_then(|tasks| tasks.get(&self.task)).and_then(|held| held.why);
        why.unwrap_or(Stop::Lost)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut held = self.leases.lock();
        let Some(tasks) = held.get_mut(&self.run) else { return };
        // a later attempt of the same task may have taken the place already
        if tasks.get(&self.task).is_some_and(|held| held.token == self.token) {
            tasks.remove(&self.task);
        }
        if tasks.is_empty() {
            held.remove(&self.run);
        }
    }
}

impl Leases {
    /// Holds `assignment`, whose claim was sent at `claimed`.
    pub(crate) fn hold(self: &Arc<Self>, assignment: &Assignment, claimed: Instant) -> Lease {
        let stop = CancellationToken::new();
        let held = Held {
            token: assignment.token.clone(),
            stop: stop.clone(),
            why: None,
            safe_until: claimed + lease(),
        };
        self.lock().entry(assignment.run.clone()).or_default().insert(assignment.task.clone(), held);
        Lease {
            leases: self.clone(),
            run: assignment.run.clone(),
            task: assignment.task.clone(),
            token: assignment.token.clone(),
            stop,
        }
    }

    /// Stops the attempts that `abort` concerns.
    pub(crate) fn abort(&self, abort: &Abort) {
        let mut held = self.lock();
        let Some(tasks) = held.get_mut(&abort.run) else { return };
        for (task, held) in tasks.iter_mut() {
            if abort.concerns(&abort.run, task) {
                held.end(Stop::Cancelled);
            }
        }
    }

    /// Hands back everything that is still held.
    pub(crate) fn release_all(&self) {
        for held in self.lock().values_mut().flat_map(HashMap::values_mut) {
            held.end(Stop::Released);
        }
    }

    /// Renews all leases until `shutdown`; every three seconds, in batches.
    pub(crate) async fn renew_forever(
        &self,
        backend: Arc<dyn Backend>,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) {
        let mut ticks = interval(Duration::from_millis(limits::RENEW_EVERY_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            let renewals = self.renewals();
            for chunk in renewals.chunks(RENEW_CHUNK) {
                let sent = Instant::now();
                match backend.renew(chunk.to_vec()).await {
                    Ok(answers) => {
                        for (renewal, answer) in chunk.iter().zip(answers) {
                            self.renewed(renewal, answer, sent, &metrics);
                        }
                    }
                    Err(error) => tracing::warn!(%error, leases = chunk.len(), "leases could not be renewed"),
                }
            }
            self.fence(&metrics);
        }
    }

    fn renewals(&self) -> Vec<Renew> {
        let held = self.lock();
        let each =
            held.iter().flat_map(|(run, tasks)| tasks.iter().map(move |(task, held)| (run, task, held)));
        each.filter(|(_, _, held)| held.why.is_none())
            .map(|(run, task, held)| Renew {
                run: run.clone(),
                task: task.clone(),
                token: held.token.clone(),
            })
            .collect()
    }

    fn renewed(&self, renewal: &Renew, answer: Renewed, sent: Instant, metrics: &Metrics) {
        let mut held = self.lock();
        let Some(held) = held.get_mut(&renewal.run).and_then(|tasks| tasks.get_mut(&renewal.task)) else {
            return;
        };
        // the attempt may have ended, and another begun, while the call was under way
        if held.token != renewal.token {
            return;
        }
        match answer {
            Renewed::Held => held.safe_until = sent + lease(),
            Renewed::Cancelled => held.end(Stop::Cancelled),
            Renewed::Lost => {
                metrics.leases_lost.inc();
                held.end(Stop::Lost);
            }
        }
    }

    /// Stops attempts whose lease may have run out while the store could not be reached.
    fn fence(&self, metrics: &Metrics) {
        let now = Instant::now();
        for held in self.lock().values_mut().flat_map(HashMap::values_mut) {
            if held.why.is_none() && held.safe_until <= now {
                metrics.leases_lost.inc();
                held.end(Stop::Lost);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, HashMap<TaskId, Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn end(&mut self, why: Stop) {
        self.why.get_or_insert(why);
        self.stop.cancel();
    }
}
