//! What a backend is: a store with one atomic step per transition, and hints that bring workers to tasks.
//!
//! Two backends exist: `backend-embedded` (one process, no services) and `backend-cluster` (RabbitMQ and
//! Redis). Workers and coordinators know only this crate; one conformance suite holds both to it.
//!
//! Publishing is part of a backend: whichever operation makes tasks ready publishes their hints at once,
//! without waiting for the broker. A hint that gets lost is published again by [`Backend::sweep`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod crash;
mod error;
mod hints;
mod read;
mod value;

pub use crash::{CRASH_POINTS, VARIABLE as CRASH_VARIABLE, crash_point};
pub use error::Error;
pub use hints::{Abort, Ack, Deliveries, Delivery};
pub use read::{Delta, Events, Health, ListQuery, Page, Recorded, Swept, Watch};
pub use value::{Values, output};

use async_trait::async_trait;
use trireme_model::{
    Cancelled, Claim, Claimed, Complete, Completed, Extend, Extended, Fail, Failed, Renew, Renewed, Run,
    RunId, Submit, Submitted, TaskId, view::RunSummary,
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
    /// Adds children to a running map.
    async fn extend(&self, extend: Extend) -> Result<Extended, Error>;
    /// Records an attempt's outcome and publishes what became ready, but for the `next` it hands back.
    async fn complete(&self, complete: Complete) -> Result<Completed, Error>;
    /// Records an attempt's failure.
    async fn fail(&self, fail: Fail) -> Result<Failed, Error>;
    /// Ends a run.
    async fn cancel(&self, run: &RunId) -> Result<Cancelled, Error>;
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
    /// Runs, newest first.
    async fn list(&self, query: ListQuery) -> Result<Page, Error>;
    /// Announces every growth of the run's log from now on.
    async fn watch(&self, run: &RunId) -> Result<Watch, Error>;

    /// Starts consuming hints. `pools` gives each pool's number of slots: no more than that many hints of a
    /// pool and priority are delivered without being acked.
    async fn consume(&self, pools: Vec<(String, usize)>) -> Result<Deliveries, Error>;
    /// Attempts that need not go on. A slow receiver misses some: renewing tells it as well.
    fn aborts(&self) -> tokio::sync::broadcast::Receiver<Abort>;
    /// Whether store and broker answer.
    async fn health(&self) -> Health;
    /// Publishes what is still unpublished and closes connections; bounded by a few seconds.
    async fn close(&self);
}
