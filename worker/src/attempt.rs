//! One delivery from claim to ack, and the chain of successors that may follow it.

use std::{
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::FutureExt;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use trireme_backend::{Ack, Backend, Delivery, Error, Values};
use trireme_llm::Limits;
use trireme_model::{
    Added, Assignment, Claim, Claimed, Complete, Completed, Fail, Failed, FailureClass, Next, Outcome,
    Payload, Priority, Trace, Usage, limits::MAX_ADDED,
};
use trireme_telemetry::{About, Traces};

use crate::{
    deltas::Deltas,
    executors::{Executors, Job},
    inputs::Inputs,
    leases::{Lease, Leases, Stop},
    metrics::{Metrics, Retry},
    outcome::{Ended, Failure, Spent},
    persist::Sent,
    slots::{Slot, Slots},
    spans::{Cause, Spans},
};

/// Executors keep their task's deadline themselves and then say what it cost; this much later they are cut.
const CUT_AFTER: Duration = Duration::from_millis(5);

/// A hint is acked after this long even if its task goes on: the lease holds the task, and RabbitMQ closes the
/// channel of a consumer that keeps a delivery for 30 minutes (its default `consumer_timeout`).
const HOLD_HINT: Duration = Duration::from_secs(300);

/// What all attempts of a worker share.
pub(crate) struct Shared {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) executors: Executors,
    pub(crate) leases: Arc<Leases>,
    pub(crate) deltas: Deltas,
    pub(crate) inputs: Inputs,
    pub(crate) values: Values,
    pub(crate) slots: Arc<Slots>,
    pub(crate) metrics: Metrics,
    pub(crate) traces: Traces,
    /// Of one model call.
    pub(crate) limits: Limits,
    /// Set when the worker shuts down: no successor is taken any more.
    pub(crate) draining: CancellationToken,
    /// Set when even handing back has taken too long.
    pub(crate) abandon: CancellationToken,
    /// Numbers this worker's claims.
    pub(crate) claims: AtomicU64,
    /// Unique to this process.
    pub(crate) name: String,
}

/// An attempt's chain link: what to execute, in which slot, and when the claim was sent.
struct Link {
    assignment: Assignment,
    slot: Slot,
    sent: Sent,
    /// Of the hint that began the chain.
    priority: Priority,
    /// Of its run.
    trace: Option<Trace>,
    cause: Cause,
}

impl Shared {
    /// Serves one delivery: claims its task, executes it and its successors, acks.
    pub(crate) async fn serve(self: Arc<Self>, mut delivery: Delivery, slot: Slot) {
        if delivery.redelivered {
            self.metrics.redelivered.inc();
        }
        let known = self.inputs.trace(&delivery.run);
        let claim = Claim {
            run: delivery.run.clone(),
            task: delivery.task.clone(),
            claim: self.claim_id(),
            has_input: known.is_some(),
        };
        let (answer, sent) = match self.persist("claim", || self.backend.claim(claim.clone())).await {
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
        self.metrics.pool(&delivery.pool).queue(delivery.priority).observe(queued as f64 / 1000.0);
        let trace = known.unwrap_or(assignment.trace);
        let cause = Cause::of(&mut delivery);
        let link = Link { assignment: *assignment, slot, sent, priority: delivery.priority, trace, cause };
        let hint = Mutex::new(Some(delivery.ack));
        // nothing can panic while the lock is held
        let served = || hint.lock().unwrap_or_else(PoisonError::into_inner).take().map(Ack::done);
        let mut chain = pin!(async {
            let mut next = Some(link);
            while let Some(link) = next {
                next = self.attempt(link).await;
                let Some(link) = &next else { break };
                // The hint has served, but its place with the broker stands for the slot: while the slot is in
                // use, the next hint would only wait here, and maybe another worker idles.
                if link.slot.pool() != delivery.pool {
                    served();
                }
                self.metrics.pool(&link.assignment.pool).continued.inc();
            }
        });
        tokio::select! {
            biased;
            () = &mut chain => {}
            () = tokio::time::sleep(HOLD_HINT) => {
                served();
                chain.await;
            }
        }
        // given up without knowing whether the outcome is durable: the hint comes again elsewhere
        if !self.abandon.is_cancelled() {
            served();
        }
    }

    /// Executes one attempt and records how it ended. Gives back the successor that came with the answer.
    async fn attempt(&self, link: Link) -> Option<Link> {
        let spans =
            Spans::begin(&self.traces, link.trace.as_ref(), &link.assignment, link.priority, &link.cause);
        let Assignment { run, task, attempt, .. } = &link.assignment;
        let about = About {
            run: Some(run.clone()),
            task: Some(task.clone()),
            attempt: *attempt,
            span: spans.as_ref().map(Spans::ids),
        };
        // boxed: a future is copied on its way into another one, and this one is by far the largest
        about.scope(Box::pin(self.run(link, spans))).await
    }

    async fn run(&self, link: Link, spans: Option<Spans>) -> Option<Link> {
        let Link { assignment, slot, sent, priority, trace, .. } = link;
        let metrics = self.metrics.pool(&assignment.pool);
        let waited = assignment.now.saturating_sub(assignment.ready_at);
        metrics.start(priority).observe(waited as f64 / 1000.0);
        if let Some(input) = &assignment.input {
            self.inputs.insert(&assignment.run, input, assignment.trace);
        }
        let lease = self.leases.hold(&assignment, sent.first);
        if sent.repeated() {
            self.leases.confirm(&lease).await;
        }
        let started = Instant::now();
        tracing::debug!(pool = %assignment.pool, waited_ms = waited, "attempt begins");
        let spent = Spent::new(sent.last);
        let ended = self.execute(&assignment, &lease, sent, &spent, spans.as_ref()).await;
        if let Some(spans) = spans {
            spans.end(&ended);
        }
        let kind = metrics.kind(assignment.kind);
        match &ended {
            Ok(Ended::Done { .. }) => kind.succeeded.inc(),
            other => {
                let labels = [&*assignment.pool, kind_name(&assignment), outcome(other)];
                self.metrics.attempts.with_label_values(&labels).inc();
            }
        }
        let took = started.elapsed();
        kind.duration.observe(took.as_secs_f64());
        tracing::debug!(outcome = outcome(&ended), took_ms = took.as_millis() as u64, "attempt ends");
        let next = match ended {
            Ok(Ended::Done { outcome, tasks }) => {
                let next = self.complete(&assignment, outcome, tasks, &spent, slot).await;
                next.map(|(assignment, slot, sent)| {
                    // of the same run
                    Link { assignment, slot, sent, priority, trace, cause: Cause::none() }
                })
            }
            Ok(Ended::Failed(failure)) => {
                self.fail(&assignment, failure, &spent).await;
                None
            }
            Err(Stop::Released) => {
                self.fail(&assignment, Failure::released(), &spent).await;
                None
            }
            Err(Stop::Cancelled) => {
                self.book(&assignment, spent.get()).await;
                None
            }
            Ok(Ended::Queued) | Err(Stop::Lost) => None,
        };
        drop(lease);
        next
    }

    /// Runs the executor until it ends, the task's time is up, or the lease says stop.
    async fn execute(
        &self,
        assignment: &Assignment,
        lease: &Lease,
        sent: Sent,
        spent: &Spent,
        spans: Option<&Spans>,
    ) -> Result<Ended, Stop> {
        // the store's clock gave the deadline; by ours it is as far away as it was at the claim
        let limit = Duration::from_millis(assignment.deadline.saturating_sub(assignment.now));
        let deadline = (assignment.deadline != 0).then(|| sent.last + limit);
        let cut = async {
            match deadline {
                Some(deadline) => sleep_until(deadline + CUT_AFTER).await,
                None => std::future::pending().await,
            }
        };
        let job = Job {
            shared: self,
            assignment,
            started: Instant::now(),
            deadline,
            stop: lease.token(),
            spans,
            spent,
        };
        // nothing that a panic could leave half changed outlives the attempt
        let executing = AssertUnwindSafe(self.executors.execute(&job)).catch_unwind();
        let ended = tokio::select! {
            biased;
            stop = lease.stopped() => Err(stop),
            ended = executing => Ok(ended.unwrap_or_else(|panic| Ended::Failed(Failure::panicked(&*panic)))),
            () = cut => Ok(Ended::Failed(Failure::timeout())),
        };
        self.deltas.finish(assignment).await;
        let late = deadline.is_some_and(|deadline| deadline <= Instant::now());
        match ended {
            // there is no time for another attempt
            Ok(Ended::Failed(failure)) if late && failure.class != FailureClass::Permanent => {
                Ok(Ended::Failed(Failure::timeout()))
            }
            ended => ended,
        }
    }

    async fn complete(
        &self,
        assignment: &Assignment,
        outcome: Outcome,
        tasks: Vec<Added>,
        spent: &Spent,
        slot: Slot,
    ) -> Option<(Assignment, Slot, Sent)> {
        // slots of other pools are held while the store looks for a successor, so that it may be of any
        let others = if self.draining.is_cancelled() { None } else { Some(self.slots.others(&slot)) };
        let next = others.as_ref().map(|others| Next {
            claim: self.claim_id(),
            pools: std::iter::once(slot.pool())
                .chain(others.iter().map(|place| place.pool()))
                .map(str::to_owned)
                .collect(),
        });
        let result = match &outcome {
            Outcome::Result(value) | Outcome::Answer { value, .. } => Some(value.clone()),
            Outcome::Expanded => None,
        };
        let complete = Complete {
            run: assignment.run.clone(),
            task: assignment.task.clone(),
            token: assignment.token.clone(),
            outcome,
            tasks,
            first_token: spent.first_token_ms(),
            usage: spent.get(),
            next,
        };
        let (answer, sent) = match self.persist("complete", || self.backend.complete(complete.clone())).await
        {
            Ok(Some(answered)) => answered,
            Ok(None) => return None,
            Err(error) => {
                drop(others);
                self.fail(assignment, Failure::refused(&error), spent).await;
                return None;
            }
        };
        match answer {
            Completed::Recorded { next } => {
                if let Some(value) = &result {
                    self.values.remember(&assignment.run, &assignment.task, value);
                }
                let assignment = *next?;
                let slot = self.slots.moved(slot, &assignment.pool, others.unwrap_or_default())?;
                return Some((assignment, slot, sent));
            }
            Completed::Refused => {
                drop(others);
                let failure = {
                    let text = format!(
                        "the run does not take the tasks that come next; {MAX_ADDED} in all are the limit"
                    );
                    Failure::permanent("tasks_refused", text)
                };
                self.fail(assignment, failure, spent).await;
            }
            Completed::Stale => self.metrics.stale.inc(),
            Completed::Cancelled | Completed::Gone => {}
        }
        None
    }

    async fn fail(&self, assignment: &Assignment, failure: Failure, spent: &Spent) {
        tracing::debug!(
            run = %assignment.run, task = %assignment.task, attempt = assignment.attempt,
            code = failure.code, error = failure.message, "attempt failed"
        );
        let class = failure.class;
        let fail = fail(assignment, failure, spent.get());
        let answered = self.persist("fail", || self.backend.fail(fail.clone())).await;
        // also of a repeated call there is one answer, so that nothing counts twice
        match answered {
            Ok(Some((Failed::Retrying(at), sent))) => {
                self.retried(assignment, class);
                if let (FailureClass::RateLimited, Some(by)) = (class, spent.limited_by()) {
                    // the store's clock gave the time; by it this much has passed since the claim
                    let wait = at.saturating_sub(assignment.now) as f64 / 1000.0;
                    let passed = sent.last.duration_since(spent.since()).as_secs_f64();
                    by.limit_wait.observe((wait - passed).max(0.0));
                }
            }
            Ok(Some((Failed::Released, _))) => self.retried(assignment, class),
            Ok(Some((Failed::Stale, _))) => self.metrics.stale.inc(),
            Ok(_) => {}
            Err(error) => {
                tracing::error!(run = %assignment.run, task = %assignment.task, %error, "failure not recorded");
            }
        }
    }

    fn retried(&self, assignment: &Assignment, class: FailureClass) {
        if let Some(why) = Retry::after(class) {
            self.metrics.pool(&assignment.pool).kind(assignment.kind).retried(why).inc();
        }
    }

    /// Tells the store what an attempt cost that nobody needs any more. If somebody does need it after all,
    /// it is handed back.
    async fn book(&self, assignment: &Assignment, usage: Usage) {
        if usage == Usage::default() {
            return;
        }
        // one try: only the sum of what was wasted would be too small
        if let Err(error) = self.backend.fail(fail(assignment, Failure::released(), usage)).await {
            tracing::debug!(run = %assignment.run, task = %assignment.task, %error, "cost not recorded");
        }
    }

    fn claim_id(&self) -> String {
        let number = self.claims.fetch_add(1, Ordering::Relaxed);
        [&*self.name, "-", &number.to_string()].concat()
    }

    /// The run's input: from the claim, from memory, or from the store.
    pub(crate) async fn input(&self, assignment: &Assignment) -> Result<Payload, Error> {
        if let Some(input) = assignment.input.clone().or_else(|| self.inputs.get(&assignment.run)) {
            return Ok(input);
        }
        let run = self.read(|| self.backend.run(&assignment.run)).await?;
        let input = run.as_ref().map(|run| run.input.clone()).unwrap_or_default();
        let trace = run.and_then(|run| run.trace);
        self.inputs.insert(&assignment.run, &input, trace);
        Ok(input)
    }
}

fn fail(assignment: &Assignment, failure: Failure, usage: Usage) -> Fail {
    Fail {
        run: assignment.run.clone(),
        task: assignment.task.clone(),
        token: assignment.token.clone(),
        class: failure.class,
        error: failure.payload(),
        retry_after: failure.retry_after,
        jitter: rand::random_range(0..1000),
        usage,
    }
}

/// What an attempt that did not succeed counts as.
fn outcome(ended: &Result<Ended, Stop>) -> &'static str {
    match ended {
        Ok(Ended::Failed(failure)) => failure.code,
        Ok(Ended::Done { .. }) => "succeeded",
        Ok(Ended::Queued) => "queued",
        Err(Stop::Cancelled) => "cancelled",
        Err(Stop::Lost) => "lost",
        Err(Stop::Released) => "released",
    }
}

fn name(claimed: &Claimed) -> &'static str {
    match claimed {
        Claimed::Run(_) => "run",
        Claimed::Busy => "busy",
        Claimed::Done => "done",
        Claimed::NotReady => "not_ready",
        Claimed::Cancelled => "cancelled",
        Claimed::Paused => "paused",
        Claimed::Gone => "gone",
    }
}

pub(crate) fn kind_name(assignment: &Assignment) -> &'static str {
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
