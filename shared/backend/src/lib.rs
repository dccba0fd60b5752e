//! What a backend is: a store with one atomic step per transition, and hints that bring workers to tasks.
//!
//! Two backends exist: `backend-embedded` (one process, no services) and `backend-cluster` (RabbitMQ and
//! Redis). Workers and coordinators know only this crate; one conformance suite holds both to it.
//!
//! Publishing is part of a backend: whichever operation makes tasks ready publishes their hints at once,
//! without waiting for the broker. A hint that gets lost is published again by [`Backend::sweep`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod around;
mod crash;
pub mod ending;
mod error;
mod hints;
mod read;
mod size;
mod value;

pub use access::{Access, ApiKey, MAX_KEYS, Quota, Scope};
pub use around::Around;
pub use crash::{CRASH_POINTS, VARIABLE as CRASH_VARIABLE, crash_point};
pub use ending::{Ending, Endings, Mark, Part};
pub use error::Error;
pub use hints::{Abort, Ack, Deliveries, Delivery, Via};
pub use read::{
    Backlog, DeadPage, DeadQuery, Delta, Events, Health, ListQuery, Page, PausedPool, Recorded, Swept, Watch,
};
pub use size::{check_complete, check_extend};
pub use value::{Values, output};

use async_trait::async_trait;
use trireme_model::{
    Caller, Cancelled, Claim, Claimed, Complete, Completed, Deleted, Extend, Extended, Fail, Failed, Renew,
    Renewed, Replayed, Run, RunId, Submit, Submitted, TaskId, view::RunSummary,
};

/// A store and its hints. Cheap to share behind an `Arc`.
///
/// Every operation is one atomic step, safe to repeat after [`Error::Unavailable`]: the same call gets the
/// same answer. When an operation returns, its effect is durable as far as the store's configuration goes.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Accepts a run and publishes the hints of its first tasks.
    async fn submit(&self, submit: Submit) -> Result<Submitted, Error>;
    /// Takes ownership of a ready task for a lease of [`LEASE_MS`](trireme_model::limits::LEASE_MS).
    async fn claim(&self, claim: Claim) -> Result<Claimed, Error>;
    /// Renews leases; one answer per entry, in order.
    async fn renew(&self, renewals: Vec<Renew>) -> Result<Vec<Renewed>, Error>;
    /// Adds children to a running map, or tasks to an agent.
    async fn extend(&self, extend: Extend) -> Result<Extended, Error>;
    /// Records an attempt's outcome and publishes what became ready, but for the `next` it hands back.
    async fn complete(&self, complete: Complete) -> Result<Completed, Error>;
    /// Records an attempt's failure.
    async fn fail(&self, fail: Fail) -> Result<Failed, Error>;
    /// Ends a run.
    async fn cancel(&self, run: &RunId) -> Result<Cancelled, Error>;
    /// Forgets an ended run before its time.
    async fn delete(&self, run: &RunId) -> Result<Deleted, Error>;
    /// Starts the run that goes on from what a failed one recorded; a repeat means the same run. It stays with the
    /// failed one's tenant and counts for the caller's key. Where it is answered [`Replayed::Exists`], that run may
    /// have ended or be forgotten by now.
    async fn replay(&self, run: &RunId, caller: &Caller) -> Result<Replayed, Error>;
    /// Looks at a bounded number of entries of the due index whose time has come. Call it again at once
    /// when it says that there is more.
    async fn sweep(&self) -> Result<Swept, Error>;
    /// Appends token deltas to the logs of their runs; those of runs that have ended are dropped.
    async fn append(&self, deltas: Vec<Delta>) -> Result<(), Error>;

    /// The whole state of a run.
    async fn run(&self, run: &RunId) -> Result<Option<Run>, Error>;
    /// The head of a run's state.
    async fn summary(&self, run: &RunId) -> Result<Option<RunSummary>, Error>;
    /// What tasks have recorded: one entry per id, `None` while there is nothing.
    async fn recorded(&self, run: &RunId, tasks: &[TaskId]) -> Result<Vec<Option<Recorded>>, Error>;
    /// Events of a run from sequence number `from` (0 is the first), at most `limit`. `None`: no such run.
    async fn events(&self, run: &RunId, from: u64, limit: usize) -> Result<Option<Events>, Error>;
    /// Runs of a tenant, newest first; those of others cost nothing.
    async fn list(&self, query: ListQuery) -> Result<Page, Error>;
    /// Runs with a sampled trace that have ended and of which nobody has told yet, a bounded number of them. Among
    /// all who ask, at most one at a time gets any; they come again, to whoever asks, unless [`mark_ended`](Self::mark_ended)
    /// follows within half a minute. So each comes at least once, and after a crash maybe twice.
    async fn ended(&self) -> Result<Endings, Error> {
        Ok(Endings::default())
    }
    /// The runs of a batch of [`ended`](Self::ended) are told of.
    async fn mark_ended(&self, _mark: Mark) -> Result<(), Error> {
        Ok(())
    }
    /// Tasks in quarantine whose runs were not replayed, newest first.
    async fn dead_letters(&self, query: DeadQuery) -> Result<DeadPage, Error>;
    /// Pauses a pool, or resumes it, for all workers; says whether that is a change. Of a paused pool nothing starts;
    /// what runs goes on. At most 64 may be paused.
    async fn pause(&self, pool: &str, paused: bool) -> Result<bool, Error>;
    /// The paused pools by name.
    async fn paused(&self) -> Result<Vec<PausedPool>, Error>;
    /// Announces every growth of the run's log from now on.
    async fn watch(&self, run: &RunId) -> Result<Watch, Error>;

    /// API keys and their rates.
    fn access(&self) -> &dyn Access;

    /// Starts consuming hints. `pools` gives each pool's number of slots: no more than that many hints of a
    /// pool and priority are delivered without being acked.
    async fn consume(&self, pools: Vec<(String, usize)>) -> Result<Deliveries, Error>;
    /// Attempts that need not go on. A slow receiver misses some: renewing tells it as well.
    fn aborts(&self) -> tokio::sync::broadcast::Receiver<Abort>;
    /// What waits, without asking the store: `None` where it was not looked at within the last half minute.
    fn backlog(&self) -> Option<Backlog>;
    /// Whether store and broker answer.
    async fn health(&self) -> Health;
    /// Publishes what is still unpublished and closes connections; bounded by a few seconds.
    async fn close(&self);
}
