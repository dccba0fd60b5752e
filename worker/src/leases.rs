//! The attempts this worker holds: one batch renews all their leases, and a word from the store stops them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ahash::HashMap;
use futures::future::join_all;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use trireme_backend::{Abort, Backend};
use trireme_model::{Assignment, Renew, Renewed, RunId, TaskId, Token, limits};

use crate::metrics::Metrics;

/// Renewals sent in one call.
const RENEW_CHUNK: usize = 500;
/// A renewal without an answer by then has failed; the next round repeats it.
const RENEW_LIMIT: Duration = Duration::from_millis(limits::RENEW_EVERY_MS);
/// How often leases are looked at, at least. Shorter than any lease, so that the soonest end is known in time.
const FENCE_EVERY: Duration = Duration::from_secs(1);

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
pub(crate) struct Leases {
    backend: Arc<dyn Backend>,
    metrics: Metrics,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    held: HashMap<RunId, HashMap<TaskId, Held>>,
    /// The worker hands back what it holds, and whatever it is still given.
    releasing: bool,
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
        let table = self.leases.lock();
        let held = table.held.get(&self.run).and_then(|tasks| tasks.get(&self.task));
        // a later attempt of the task has the place: this one was lost
        held.filter(|held| held.token == self.token).and_then(|held| held.why).unwrap_or(Stop::Lost)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let held = &mut self.leases.lock().held;
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
    pub(crate) fn new(backend: Arc<dyn Backend>, metrics: Metrics) -> Self {
        Self { backend, metrics, table: Mutex::default() }
    }

    /// Holds `assignment`, whose claim was sent at `claimed`.
    pub(crate) fn hold(self: &Arc<Self>, assignment: &Assignment, claimed: Instant) -> Lease {
        let stop = CancellationToken::new();
        let mut held = Held {
            token: assignment.token.clone(),
            stop: stop.clone(),
            why: None,
            safe_until: claimed + lease(),
        };
        let mut table = self.lock();
        if table.releasing {
            held.end(Stop::Released);
        }
        let tasks = table.held.entry(assignment.run.clone()).or_default();
        if let Some(mut earlier) = tasks.insert(assignment.task.clone(), held) {
            // the store gave the task away, so the earlier attempt's lease has run out
            earlier.end(Stop::Lost);
        }
        Lease {
            leases: self.clone(),
            run: assignment.run.clone(),
            task: assignment.task.clone(),
            token: assignment.token.clone(),
            stop,
        }
    }

    /// Renews one lease now. For a claim that had to be repeated: how much of its lease is left is unknown.
    pub(crate) async fn confirm(&self, lease: &Lease) {
        let (run, task, token) = (lease.run.clone(), lease.task.clone(), lease.token.clone());
        self.renew(&[Renew { run, task, token }]).await;
    }

    /// Stops the attempts that `abort` concerns.
    pub(crate) fn abort(&self, abort: &Abort) {
        let held = &mut self.lock().held;
        let Some(tasks) = held.get_mut(&abort.run) else { return };
        for (task, held) in tasks.iter_mut() {
            if abort.concerns(&abort.run, task) {
                held.end(Stop::Cancelled);
            }
        }
    }

    /// Hands back everything that is still held.
    pub(crate) fn release_all(&self) {
        let mut table = self.lock();
        table.releasing = true;
        for held in table.held.values_mut().flat_map(HashMap::values_mut) {
            held.end(Stop::Released);
        }
    }

    /// Renews all leases until `shutdown`; every three seconds, in batches.
    pub(crate) async fn renew_forever(&self, shutdown: CancellationToken) {
        let mut ticks = interval(Duration::from_millis(limits::RENEW_EVERY_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while tick(&mut ticks, &shutdown).await {
            let renewals = self.renewals();
            join_all(renewals.chunks(RENEW_CHUNK).map(|chunk| self.renew(chunk))).await;
        }
    }

    /// Stops attempts whose lease may have run out, until `shutdown`. Apart from the renewals, because a
    /// store that does not answer must not keep an attempt alive.
    pub(crate) async fn fence_forever(&self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let soonest = self.fence();
            let look = soonest.min(Instant::now() + FENCE_EVERY);
            tokio::select! {
                () = sleep_until(look) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    async fn renew(&self, renewals: &[Renew]) {
        let sent = Instant::now();
        let answers = match timeout(RENEW_LIMIT, self.backend.renew(renewals.to_vec())).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => {
                return tracing::warn!(%error, leases = renewals.len(), "leases could not be renewed");
            }
            Err(_) => return tracing::warn!(leases = renewals.len(), "no answer to a renewal of leases"),
        };
        for (renewal, answer) in renewals.iter().zip(answers) {
            self.renewed(renewal, answer, sent);
        }
    }

    fn renewals(&self) -> Vec<Renew> {
        let table = self.lock();
        let each = table
            .held
            .iter()
            .flat_map(|(run, tasks)| tasks.iter().map(move |(task, held)| (run, task, held)));
        each.filter(|(_, _, held)| held.why.is_none())
            .map(|(run, task, held)| Renew {
                run: run.clone(),
                task: task.clone(),
                token: held.token.clone(),
            })
            .collect()
    }

    fn renewed(&self, renewal: &Renew, answer: Renewed, sent: Instant) {
        let mut table = self.lock();
        let Some(held) = table.held.get_mut(&renewal.run).and_then(|tasks| tasks.get_mut(&renewal.task))
        else {
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
                self.metrics.leases_lost.inc();
                held.end(Stop::Lost);
            }
        }
    }

    /// Stops attempts whose lease may have run out. Gives back when the next one does.
    fn fence(&self) -> Instant {
        let now = Instant::now();
        let mut soonest = now + lease();
        for held in self.lock().held.values_mut().flat_map(HashMap::values_mut) {
            if held.why.is_some() {
                continue;
            }
            if held.safe_until <= now {
                self.metrics.leases_lost.inc();
                held.end(Stop::Lost);
            } else {
                soonest = soonest.min(held.safe_until);
            }
        }
        soonest
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn end(&mut self, why: Stop) {
        self.why.get_or_insert(why);
        self.stop.cancel();
    }
}

/// Waits for the next tick; `false` when it is time to stop.
async fn tick(ticks: &mut Interval, shutdown: &CancellationToken) -> bool {
    tokio::select! {
        _ = ticks.tick() => true,
        () = shutdown.cancelled() => false,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use prometheus::Registry;
    use trireme_backend_embedded::Embedded;
    use trireme_model::{Kind, Payload, Priority};

    use super::*;

    fn leases() -> Arc<Leases> {
        let metrics = Metrics::new(&Registry::new()).unwrap();
        Arc::new(Leases::new(Arc::new(Embedded::default()), metrics))
    }

    fn assignment(attempt: u32) -> Assignment {
        Assignment {
            run: RunId::new("r").unwrap(),
            task: TaskId::new("a").unwrap(),
            kind: Kind::Tool,
            pool: "tool".into(),
            priority: Priority::Normal,
            token: Token::new("epoch", attempt, "claim"),
            attempt,
            max_attempts: 3,
            now: 0,
            deadline: 0,
            ready_at: 0,
            body: Payload::default(),
            arg: None,
            inputs: Vec::new(),
            owner: None,
            left: None,
            input: None,
            trace: None,
        }
    }

    #[test]
    fn what_is_claimed_after_the_release_is_released_too() {
        let leases = leases();
        let early = leases.hold(&assignment(1), Instant::now());
        assert_eq!(early.stopped().now_or_never(), None);
        leases.release_all();
        assert_eq!(early.stopped().now_or_never(), Some(Stop::Released));
        drop(early);
        let late = leases.hold(&assignment(2), Instant::now());
        assert_eq!(late.stopped().now_or_never(), Some(Stop::Released));
    }

    #[test]
    fn a_later_attempt_takes_the_place_and_the_end_of_the_earlier_leaves_it_alone() {
        let leases = leases();
        let early = leases.hold(&assignment(1), Instant::now());
        let late = leases.hold(&assignment(2), Instant::now());
        assert_eq!(early.stopped().now_or_never(), Some(Stop::Lost));
        drop(early);
        assert_eq!(leases.renewals().len(), 1);
        assert!(!late.token().is_cancelled());
    }
}
