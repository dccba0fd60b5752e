//! Backends around another one, for tests and benches: they change what they have to and pass on the rest.

use async_trait::async_trait;
use tokio::sync::broadcast;
use trireme_model::{
    Caller, Cancelled, Claim, Claimed, Complete, Completed, Deleted, Extend, Extended, Fail, Failed, Renew,
    Renewed, Replayed, Run, RunId, Submit, Submitted, TaskId, view::RunSummary,
};

use crate::{
    Abort, Access, Backend, Backlog, DeadPage, DeadQuery, Deliveries, Delta, Endings, Error, Events, Health,
    ListQuery, Mark, Page, PausedPool, Recorded, Swept, Watch,
};

macro_rules! around {
    ($($name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        /// A backend around another one. What it does not say itself is passed on; whatever implements this is a
        /// [`Backend`].
        #[async_trait]
        pub trait Around: Send + Sync + 'static {
            /// The one that it stands around.
            fn inner(&self) -> &dyn Backend;
            $(
                #[allow(missing_docs)]
                async fn $name(&self, $($arg: $type),*) -> $answer {
                    self.inner().$name($($arg),*).await
                }
            )*
            /// As [`Backend::backlog`].
            fn backlog(&self) -> Option<Backlog> {
                self.inner().backlog()
            }
            /// As [`Backend::aborts`].
            fn aborts(&self) -> broadcast::Receiver<Abort> {
                self.inner().aborts()
            }
            /// As [`Backend::access`].
            fn access(&self) -> &dyn Access {
                self.inner().access()
            }
        }

        #[async_trait]
        impl<T: Around> Backend for T {
            $(
                async fn $name(&self, $($arg: $type),*) -> $answer {
                    Around::$name(self, $($arg),*).await
                }
            )*
            fn backlog(&self) -> Option<Backlog> {
                Around::backlog(self)
            }
            fn aborts(&self) -> broadcast::Receiver<Abort> {
                Around::aborts(self)
            }
            fn access(&self) -> &dyn Access {
                Around::access(self)
            }
        }
    };
}

around! {
    submit(submit: Submit) -> Result<Submitted, Error>;
    claim(claim: Claim) -> Result<Claimed, Error>;
    renew(renewals: Vec<Renew>) -> Result<Vec<Renewed>, Error>;
    extend(extend: Extend) -> Result<Extended, Error>;
    complete(complete: Complete) -> Result<Completed, Error>;
    fail(fail: Fail) -> Result<Failed, Error>;
    cancel(run: &RunId) -> Result<Cancelled, Error>;
    pause(pool: &str, paused: bool) -> Result<bool, Error>;
    paused() -> Result<Vec<PausedPool>, Error>;
    delete(run: &RunId) -> Result<Deleted, Error>;
    replay(run: &RunId, caller: &Caller) -> Result<Replayed, Error>;
    dead_letters(query: DeadQuery) -> Result<DeadPage, Error>;
    sweep() -> Result<Swept, Error>;
    append(deltas: Vec<Delta>) -> Result<(), Error>;
    run(run: &RunId) -> Result<Option<Run>, Error>;
    summary(run: &RunId) -> Result<Option<RunSummary>, Error>;
    recorded(run: &RunId, tasks: &[TaskId]) -> Result<Vec<Option<Recorded>>, Error>;
    events(run: &RunId, from: u64, limit: usize) -> Result<Option<Events>, Error>;
    list(query: ListQuery) -> Result<Page, Error>;
    ended() -> Result<Endings, Error>;
    mark_ended(mark: Mark) -> Result<(), Error>;
    watch(run: &RunId) -> Result<Watch, Error>;
    consume(pools: Vec<(String, usize)>) -> Result<Deliveries, Error>;
    health() -> Health;
    close() -> ();
}
