//! A backend that fails when the test says so.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use async_trait::async_trait;
use tokio::sync::Notify;
use trireme_backend::{
    Abort, Access, ApiKey, Backend, Backlog, DeadPage, DeadQuery, Deliveries, Delta, Error, Events, Health,
    ListQuery, Page, PausedPool, Recorded, Swept, Watch,
};
use trireme_backend_embedded::Embedded;
use trireme_model::{
    Admitted, Caller, Cancelled, Claim, Claimed, Complete, Completed, Deleted, Extend, Extended, Fail,
    Failed, KeyId, Rate, Renew, Renewed, Replayed, Run, RunId, Submit, Submitted, TaskId, view::RunSummary,
};

pub struct Faulty {
    inner: Arc<Embedded>,
    /// What every operation answers instead of working.
    pub error: Mutex<Option<Error>>,
    /// Every operation panics.
    pub panics: AtomicBool,
    /// Events claim to be of this epoch.
    pub epoch: Mutex<Option<String>>,
    /// Reads of events so far, failed ones included.
    pub reads: AtomicU64,
    /// Told with every read of events.
    pub read: Notify,
    /// Told with every sweep.
    pub swept: Notify,
}

impl Faulty {
    pub fn new(inner: Arc<Embedded>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            error: Mutex::default(),
            panics: AtomicBool::new(false),
            epoch: Mutex::default(),
            reads: AtomicU64::new(0),
            read: Notify::new(),
            swept: Notify::new(),
        })
    }

    pub fn fail(&self, error: Option<Error>) {
        *self.error.lock().unwrap() = error;
    }

    pub fn down() -> Option<Error> {
        Some(Error::Unavailable { service: "redis", reason: "connection refused".into() })
    }

    fn check(&self) -> Result<&Embedded, Error> {
        assert!(!self.panics.load(SeqCst), "as the test asked for");
        match self.error.lock().unwrap().clone() {
            Some(error) => Err(error),
            None => Ok(&self.inner),
        }
    }
}

#[async_trait]
impl Backend for Faulty {
    async fn submit(&self, submit: Submit) -> Result<Submitted, Error> {
        self.check()?.submit(submit).await
    }
    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        self.check()?.claim(claim).await
    }
    async fn renew(&self, renewals: Vec<Renew>) -> Result<Vec<Renewed>, Error> {
        self.check()?.renew(renewals).await
    }
    async fn extend(&self, extend: Extend) -> Result<Extended, Error> {
        self.check()?.extend(extend).await
    }
    async fn complete(&self, complete: Complete) -> Result<Completed, Error> {
        self.check()?.complete(complete).await
    }
    async fn fail(&self, fail: Fail) -> Result<Failed, Error> {
        self.check()?.fail(fail).await
    }
    async fn cancel(&self, run: &RunId) -> Result<Cancelled, Error> {
        self.check()?.cancel(run).await
    }
    async fn delete(&self, run: &RunId) -> Result<Deleted, Error> {
        self.check()?.delete(run).await
    }
    async fn replay(&self, run: &RunId, caller: &Caller) -> Result<Replayed, Error> {
        self.check()?.replay(run, caller).await
    }
    async fn dead_letters(&self, query: DeadQuery) -> Result<DeadPage, Error> {
        self.check()?.dead_letters(query).await
    }
    async fn pause(&self, pool: &str, paused: bool) -> Result<bool, Error> {
        self.check()?.pause(pool, paused).await
    }
    async fn paused(&self) -> Result<Vec<PausedPool>, Error> {
        self.check()?.paused().await
    }
    async fn sweep(&self) -> Result<Swept, Error> {
        self.swept.notify_one();
        self.check()?.sweep().await
    }
    async fn append(&self, deltas: Vec<Delta>) -> Result<(), Error> {
        self.check()?.append(deltas).await
    }
    async fn run(&self, run: &RunId) -> Result<Option<Run>, Error> {
        self.check()?.run(run).await
    }
    async fn summary(&self, run: &RunId) -> Result<Option<RunSummary>, Error> {
        self.check()?.summary(run).await
    }
    async fn recorded(&self, run: &RunId, tasks: &[TaskId]) -> Result<Vec<Option<Recorded>>, Error> {
        self.check()?.recorded(run, tasks).await
    }
    async fn events(&self, run: &RunId, from: u64, limit: usize) -> Result<Option<Events>, Error> {
        self.reads.fetch_add(1, SeqCst);
        self.read.notify_one();
        let mut events = self.check()?.events(run, from, limit).await?;
        if let (Some(events), Some(epoch)) = (&mut events, self.epoch.lock().unwrap().clone()) {
            events.epoch = epoch;
        }
        Ok(events)
    }
    async fn list(&self, query: ListQuery) -> Result<Page, Error> {
        self.check()?.list(query).await
    }
    async fn watch(&self, run: &RunId) -> Result<Watch, Error> {
        self.check()?.watch(run).await
    }
    fn access(&self) -> &dyn Access {
        self
    }
    async fn consume(&self, pools: Vec<(String, usize)>) -> Result<Deliveries, Error> {
        self.inner.consume(pools).await
    }
    fn aborts(&self) -> tokio::sync::broadcast::Receiver<Abort> {
        self.inner.aborts()
    }
    fn backlog(&self) -> Option<Backlog> {
        self.inner.backlog()
    }
    async fn health(&self) -> Health {
        match self.check() {
            Ok(inner) => inner.health().await,
            Err(error) => Health { store: Err(error.to_string()), broker: Ok(()) },
        }
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}

#[async_trait]
impl Access for Faulty {
    async fn put_key(&self, key: ApiKey) -> Result<(), Error> {
        self.check()?.access().put_key(key).await
    }
    async fn key(&self, id: &KeyId) -> Result<Option<ApiKey>, Error> {
        self.check()?.access().key(id).await
    }
    async fn keys(&self) -> Result<Vec<ApiKey>, Error> {
        self.check()?.access().keys().await
    }
    async fn drop_key(&self, id: &KeyId) -> Result<bool, Error> {
        self.check()?.access().drop_key(id).await
    }
    async fn admit(&self, id: &KeyId, rate: Rate) -> Result<Admitted, Error> {
        self.check()?.access().admit(id, rate).await
    }
}
