//! One delivery from claim to ack, and the chain of successors that may follow it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use trireme_backend::{Backend, Delivery, Error, Values};
use trireme_model::{Assignment, Claim, Claimed, Complete, Completed, Fail, Next, Outcome, Payload, Usage};

use crate::{
    deltas::Deltas,
    executors::Executors,
    inputs::Inputs,
    leases::{Lease, Leases, Stop},
    metrics::Metrics,
    outcome::{Ended, Failure},
    queue::{Slot, Slots},
};

/// First and longest wait between repeats of a call that the store did not answer.
const REPEAT_AFTER: Duration = Duration::from_millis(50);
const REPEAT_CAP: Duration = Duration::from_secs(2);

/// What all attempts of a worker share.
pub(crate) struct Shared {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) executors: Executors,
    pub(crate) leases: Arc<Leases>,
    pub(crate) deltas: Deltas,
    pub(crate) inputs: Inputs,
    pub(crate) values: Values,
    pub(crate) slots: Slots,
    pub(crate) metrics: Metrics,
    /// Set when the worker shuts down: no successor is taken any more.
    pub(crate) draining: CancellationToken,
    /// Set when even handing back has taken too long.
    pub(crate) abandon: CancellationToken,
    /// Numbers this worker's claims.
    pub(crate) claims: AtomicU64,
    /// Unique to this process.
    pub(crate) name: String,
}

/// An attempt's chain link: what to execute, in which slot, claimed when.
struct Link {
    assignment: Assignment,
    slot: Slot,
    claimed: Instant,
}

impl Shared {
    /// Serves one delivery: claims its task, executes it and its successors, acks.
    pub(crate) async fn serve(&self, delivery: Delivery, slot: Slot) {
        if delivery.redelivered {
            self.metrics.redelivered.inc();
        }
        let claim = Claim {
            run: delivery.run.clone(),
            task: delivery.task.clone(),
            claim: self.claim_id(),
            has_input: self.inputs.get(&delivery.run).is_some(),
        };
        let claimed = Instant::now();
        let answer = match self.persist("claim", || self.backend.claim(claim.clone())).await {
            Ok(Some(answer)) => answer,
            // shutting down: the delivery stays unacked and comes again elsewhere
            Ok(None) => return,
            Err(error) => {
                tracing::error!(run = %delivery.run, task = %delivery.task, %error, "claim refused");
                return delivery.ack.done();
            }
        };
        let assignment = match answer {
            Claimed::Run(assignment) => assignment,
            other => {
                // every answer but `Run` is durable: there is nothing to do for this hint
                self.metrics.idle_hints.with_label_values(&[name(&other)]).inc();
                return delivery.ack.done();
            }
        };
        let queued = epoch_ms().saturating_sub(delivery.published);
        self.metrics.queue_latency.with_label_values(&[&delivery.pool]).observe(queued as f64 / 1000.0);
        let link = Link { assignment: *assignment, slot, claimed };
        let mut next = self.attempt(link).await;
        // the outcome is durable, or the lease will run out: the hint has served
        delivery.ack.done();
        while let Some(link) = next {
            self.metrics.continued.with_label_values(&[&link.assignment.pool]).inc();
            next = self.attempt(link).await;
        }
    }

    /// Executes one attempt and records how it ended. Gives back the successor that came with the answer.
    async fn attempt(&self, link: Link) -> Option<Link> {
        let Link { assignment, slot, claimed } = link;
        if let Some(input) = &assignment.input {
            self.inputs.insert(&assignment.run, input);
        }
        let lease = self.leases.hold(&assignment, claimed);
        let started = Instant::now();
        let ended = self.execute(&assignment, &lease, claimed).await;
        let kind = kind_name(&assignment);
        let outcome = match &ended {
            Ok(Ended::Failed(failure)) => failure.code,
            Ok(_) => "succeeded",
            Err(Stop::Cancelled) => "cancelled",
            Err(Stop::Lost) => "lost",
            Err(Stop::Released) => "released",
        };
        self.metrics.attempts.with_label_values(&[&assignment.pool, kind, outcome]).inc();
        let took = started.elapsed().as_secs_f64();
        self.metrics.attempt_duration.with_label_values(&[&assignment.pool, kind]).observe(took);
        let next = match ended {
            Ok(Ended::Result { value, usage }) => {
                self.complete(&assignment, Outcome::Result(value), usage, slot).await
            }
            Ok(Ended::Expanded) => {
                self.complete(&assignment, Outcome::Expanded, Usage::default(), slot).await
            }
            Ok(Ended::Failed(failure)) => {
                self.fail(&assignment, failure).await;
                None
            }
            Err(Stop::Released) => {
                self.fail(&assignment, Failure::released()).await;
                None
            }
            Err(Stop::Cancelled | Stop::Lost) => None,
        };
        drop(lease);
        next
    }

    /// Runs the executor until it ends, the task's time is up, or the lease says stop.
    async fn execute(&self, assignment: &Assignment, lease: &Lease, claimed: Instant) -> Result<Ended, Stop> {
        // the store's clock gave the deadline; by ours it is as far away as it was at the claim
        let limit = Duration::from_millis(assignment.deadline.saturating_sub(assignment.now));
        let deadline = (assignment.deadline != 0).then(|| claimed + limit);
        let timeout = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            biased;
            stop = lease.stopped() => Err(stop),
            ended = self.executors.execute(self, assignment, deadline, lease.token()) => Ok(ended),
            () = timeout => Ok(Ended::Failed(Failure::permanent("timeout", "the task's time limit passed"))),
        };
        self.deltas.finish(assignment).await;
        ended
    }

    async fn complete(
        &self,
        assignment: &Assignment,
        outcome: Outcome,
        usage: Usage,
        slot: Slot,
    ) -> Option<Link> {
        // slots of other pools are held while the store looks for a successor, so that it may be of any
        let others = if self.draining.is_cancelled() { None } else { Some(self.slots.others(&slot)) };
        let next = others.as_ref().map(|others| Next {
            claim: self.claim_id(),
            pools: std::iter::once(&slot.pool).chain(others.iter().map(|(pool, _)| pool)).cloned().collect(),
        });
        let result = match &outcome {
            Outcome::Result(value) => Some(value.clone()),
            Outcome::Expanded => None,
        };
        let complete = Complete {
            run: assignment.run.clone(),
            task: assignment.task.clone(),
            token: assignment.token.clone(),
            outcome,
            usage,
            next,
        };
        let claimed = Instant::now();
        match self.persist("complete", || self.backend.complete(complete.clone())).await {
            Ok(Some(Completed::Recorded { next })) => {
                if let Some(value) = &result {
                    self.values.remember(&assignment.run, &assignment.task, value);
                }
                let assignment = *next?;
                let slot = slot.moved_to(&assignment.pool, others.unwrap_or_default())?;
                return Some(Link { assignment, slot, claimed });
            }
            Ok(Some(Completed::Stale)) => self.metrics.stale.inc(),
            Ok(Some(Completed::Cancelled | Completed::Gone) | None) => {}
            Err(error) => {
                let failure = Failure { usage, ..Failure::permanent("result_refused", error.to_string()) };
                self.fail(assignment, failure).await;
            }
        }
        None
    }

    async fn fail(&self, assignment: &Assignment, failure: Failure) {
        tracing::debug!(
            run = %assignment.run, task = %assignment.task, attempt = assignment.attempt,
            code = failure.code, error = failure.message, "attempt failed"
        );
        let fail = Fail {
            run: assignment.run.clone(),
            task: assignment.task.clone(),
            token: assignment.token.clone(),
            class: failure.class,
            error: failure.payload(),
            retry_after: failure.retry_after,
            jitter: rand::random_range(0..1000),
            usage: failure.usage,
        };
        if let Err(error) = self.persist("fail", || self.backend.fail(fail.clone())).await {
            tracing::error!(run = %assignment.run, task = %assignment.task, %error, "failure not recorded");
        }
    }

    /// Repeats a call until the store answers: it may have taken effect without an answer, and the same call
    /// gets the same answer. `None` when the worker gives up because it must end.
    async fn persist<T, F>(&self, what: &'static str, mut call: impl FnMut() -> F) -> Result<Option<T>, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut wait = REPEAT_AFTER;
        loop {
            let error = match call().await {
                Ok(answer) => return Ok(Some(answer)),
                Err(error) if !error.is_retryable() => return Err(error),
                Err(error) => error,
            };
            tracing::warn!(what, %error, "repeating");
            // full jitter, so that workers do not come back all at once
            let pause = rand::random_range(Duration::ZERO..=wait);
            wait = (wait * 2).min(REPEAT_CAP);
            let give_up = async {
                if what == "claim" {
                    self.draining.cancelled().await;
                } else {
                    self.abandon.cancelled().await;
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = give_up => return Ok(None),
            }
        }
    }

    fn claim_id(&self) -> String {
        format!("{}-{}", self.name, self.claims.fetch_add(1, Ordering::Relaxed))
    }

    /// The run's input: from the claim, from memory, or from the store.
    pub(crate) async fn input(&self, assignment: &Assignment) -> Result<Payload, Error> {
        if let Some(input) = assignment.input.clone().or_else(|| self.inputs.get(&assignment.run)) {
            return Ok(input);
        }
        let run = self.backend.run(&assignment.run).await?;
        let input = run.map(|run| run.input).unwrap_or_default();
        self.inputs.insert(&assignment.run, &input);
        Ok(input)
    }
}

fn name(claimed: &Claimed) -> &'static str {
    match claimed {
        Claimed::Run(_) => "run",
        Claimed::Busy => "busy",
        Claimed::Done => "done",
        Claimed::NotReady => "not_ready",
        Claimed::Cancelled => "cancelled",
        Claimed::Gone => "gone",
    }
}

fn kind_name(assignment: &Assignment) -> &'static str {
    use trireme_model::Kind;
    match assignment.kind {
        Kind::Llm => "llm",
        Kind::Tool => "tool",
        Kind::Join => "join",
        Kind::Map => "map",
        Kind::Agent => "agent",
    }
}

/// Now, in ms since the Unix epoch; for measuring, never for deciding.
fn epoch_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
