//! [`Backend`] from the store and the broker.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use trireme_backend::{
    Abort, Ack, Backend, Deliveries, Delivery, Delta, Error, Events, Health, ListQuery, Page, Recorded,
    Swept, Watch,
};
use trireme_model::{
    Cancelled, Claim, Claimed, Complete, Completed, Extend, Extended, Fail, Failed, Hint, Ms, Priority,
    Renew, Renewed, Run, RunId, Submit, Submitted, TaskId, view::RunSummary,
};

use crate::{
    broker::{self, Broker, Consumer},
    store::{self, Store},
};

/// Hints taken from a consumer at once.
const AT_ONCE: usize = 64;
/// How long the acks of a stopped consumer may take: longer than any worker's grace period.
const ACKS: Duration = Duration::from_secs(900);
/// How long `close` waits for hints to be confirmed.
const FLUSH: Duration = Duration::from_secs(3);

/// What kind of queues hold hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueType {
    /// What the broker module prefers: see `docs/decisions/hint-queues.md`.
    #[default]
    Default,
    /// One copy, on one node.
    Classic,
    /// Replicated, always on disk.
    Quorum,
}

/// How to reach the services and what to keep there.
#[derive(Debug, Clone)]
pub struct Config {
    /// `amqp://user:password@host:port/vhost`, or `amqps://`.
    pub amqp_url: String,
    /// `redis://[user:password@]host:port[/db]`, or `rediss://`.
    pub redis_url: String,
    /// First part of every key and queue: deployments with different ones share servers without meeting.
    pub prefix: String,
    /// How many shards the runs are divided into, 1 to 1024. Fixed at the store's first start.
    pub shards: u16,
    /// Connections to Redis, at least 2.
    pub redis_connections: usize,
    /// Deadline of a call to Redis.
    pub redis_timeout: Duration,
    /// What kind of queues hold hints.
    pub queue_type: QueueType,
    /// The time in place of the server's. For tests only: production leaves it `None`.
    #[doc(hidden)]
    pub clock: TestClock,
}

/// Nothing in production; in tests, the time in place of the server's.
#[doc(hidden)]
#[derive(Clone, Default)]
pub struct TestClock(pub Option<store::Clock>);

/// The store and the broker of a deployment. Clones share both.
#[derive(Debug, Clone)]
pub struct Cluster(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    broker: Broker,
    shutdown: CancellationToken,
}

impl std::fmt::Debug for TestClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "TestClock(set)" } else { "TestClock(unset)" })
    }
}

impl Config {
    /// The defaults for these servers.
    pub fn new(amqp_url: impl Into<String>, redis_url: impl Into<String>) -> Self {
        Self {
            amqp_url: amqp_url.into(),
            redis_url: redis_url.into(),
            prefix: "trireme".into(),
            shards: 1,
            redis_connections: 8,
            redis_timeout: Duration::from_secs(5),
            queue_type: QueueType::default(),
            clock: TestClock::default(),
        }
    }
}

impl Cluster {
    /// Connects to the store, and to the broker in the background: hints wait until it is there.
    ///
    /// # Errors
    /// As [`Store::connect`]; [`Error::Unusable`] when the address of RabbitMQ can't be parsed.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let shutdown = CancellationToken::new();
        let mut broker = broker::Config::new(&config.amqp_url, &config.prefix);
        match config.queue_type {
            QueueType::Default => {}
            QueueType::Classic => broker.queue_type = broker::QueueType::Classic,
            QueueType::Quorum => broker.queue_type = broker::QueueType::Quorum,
        }
        let broker =
            Broker::start(broker, shutdown.clone()).map_err(|error| Error::Unusable(error.to_string()))?;
        let publisher = broker.clone();
        let shards = config.shards;
        let sink: store::Sink = Arc::new(move |emitted| publish(&publisher, shards, emitted.hints));
        let store = store::Config {
            url: config.redis_url,
            prefix: config.prefix,
            shards,
            connections: config.redis_connections,
            timeout: config.redis_timeout,
            clock: config.clock.0,
        };
        let store = match Store::connect(store, sink).await {
            Ok(store) => store,
            Err(error) => {
                shutdown.cancel();
                return Err(error);
            }
        };
        Ok(Self(Arc::new(Inner { store, broker, shutdown })))
    }

    /// The store alone.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The broker alone, for metrics and for taking a deployment down.
    pub fn broker(&self) -> &Broker {
        &self.0.broker
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Hands hints to the broker's task. If we crash before it has sent them, the sweep publishes them.
fn publish(broker: &Broker, shards: u16, hints: Vec<Hint>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as Ms);
    let mut queues: HashMap<(String, Priority), Vec<broker::Hint>> = HashMap::new();
    for hint in hints {
        let message = broker::Hint::new(hint.run.shard(shards), hint.run.as_str(), hint.task.as_str(), now);
        queues.entry((hint.pool, hint.priority)).or_default().push(message);
    }
    for ((pool, priority), messages) in queues {
        let priority = match priority {
            Priority::High => broker::Priority::High,
            Priority::Normal => broker::Priority::Normal,
        };
        broker.publish(&pool, priority, messages);
    }
}

/// Hands deliveries on until `stop`, then lets the acks of what was handed on go out.
async fn forward(
    consumer: Consumer,
    sender: mpsc::Sender<Delivery>,
    stop: CancellationToken,
    shutdown: CancellationToken,
) {
    loop {
        let taken = tokio::select! {
            () = stop.cancelled() => break,
            () = shutdown.cancelled() => break,
            taken = consumer.recv_many(AT_ONCE) => taken,
        };
        if taken.is_empty() {
            break;
        }
        for delivery in taken {
            let Some(delivery) = delivery_of(delivery) else { continue };
            tokio::select! {
                () = stop.cancelled() => break,
                sent = sender.send(delivery) => if sent.is_err() { break },
            }
        }
    }
    drop(sender);
    consumer.stop();
    tokio::select! {
        _ = consumer.close(ACKS) => {}
        () = async { shutdown.cancelled().await; tokio::time::sleep(FLUSH).await } => {}
    }
}

fn delivery_of(delivery: broker::Delivery) -> Option<Delivery> {
    let broker::Delivery { hint, pool, priority, redelivered, ack } = delivery;
    let (Ok(run), Ok(task)) = (RunId::new(&hint.run), TaskId::new(&hint.task)) else {
        // no task can have such ids: nobody wrote this hint who owns one
        tracing::warn!(run = hint.run, task = hint.task, "a hint names what can't exist");
        ack.ack();
        return None;
    };
    Some(Delivery {
        run,
        task,
        pool: pool.to_string(),
        priority: match priority {
            broker::Priority::High => Priority::High,
            broker::Priority::Normal => Priority::Normal,
        },
        published: hint.published_ms,
        redelivered,
        ack: Ack::new(move || ack.ack()),
    })
}

#[async_trait]
impl Backend for Cluster {
    async fn submit(&self, submit: Submit) -> Result<Submitted, Error> {
        self.0.store.submit(submit).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        self.0.store.claim(claim).await
    }

    async fn renew(&self, renewals: Vec<Renew>) -> Result<Vec<Renewed>, Error> {
        self.0.store.renew(renewals).await
    }

    async fn extend(&self, extend: Extend) -> Result<Extended, Error> {
        self.0.store.extend(extend).await
    }

    async fn complete(&self, complete: Complete) -> Result<Completed, Error> {
        self.0.store.complete(complete).await
    }

    async fn fail(&self, fail: Fail) -> Result<Failed, Error> {
        self.0.store.fail(fail).await
    }

    async fn cancel(&self, run: &RunId) -> Result<Cancelled, Error> {
        self.0.store.cancel(run).await
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        self.0.store.sweep().await
    }

    async fn append(&self, deltas: Vec<Delta>) -> Result<(), Error> {
        self.0.store.append(deltas).await
    }

    async fn run(&self, run: &RunId) -> Result<Option<Run>, Error> {
        self.0.store.run(run).await
    }

    async fn summary(&self, run: &RunId) -> Result<Option<RunSummary>, Error> {
        self.0.store.summary(run).await
    }

    async fn recorded(&self, run: &RunId, tasks: &[TaskId]) -> Result<Vec<Option<Recorded>>, Error> {
        self.0.store.recorded(run, tasks).await
    }

    async fn events(&self, run: &RunId, from: u64, limit: usize) -> Result<Option<Events>, Error> {
        self.0.store.events(run, from, limit).await
    }

    async fn list(&self, query: ListQuery) -> Result<Page, Error> {
        self.0.store.list(query).await
    }

    async fn watch(&self, run: &RunId) -> Result<Watch, Error> {
        self.0.store.watch(run).await
    }

    async fn consume(&self, pools: Vec<(String, usize)>) -> Result<Deliveries, Error> {
        let pools: Vec<(String, u16)> = pools
            .into_iter()
            .filter(|(_, slots)| *slots > 0)
            .map(|(pool, slots)| (pool, u16::try_from(slots).unwrap_or(u16::MAX)))
            .collect();
        let stop = CancellationToken::new();
        // what the broker hands over is bounded by the slots; this only decouples two tasks
        let (sender, receiver) = mpsc::channel(AT_ONCE);
        let consumer = self.0.broker.consume(&pools);
        tokio::spawn(forward(consumer, sender, stop.clone(), self.0.shutdown.clone()));
        Ok(Deliveries::new(receiver, stop))
    }

    fn aborts(&self) -> broadcast::Receiver<Abort> {
        self.0.store.aborts()
    }

    async fn health(&self) -> Health {
        let store = self.0.store.health().await.map_err(|error| error.to_string());
        let broker = match &*self.0.broker.state().borrow() {
            broker::State::Ready => Ok(()),
            broker::State::Connecting => Err("not yet connected".to_owned()),
            broker::State::Lost(reason) => Err(reason.clone()),
            broker::State::Closed => Err("closed".to_owned()),
        };
        Health { store, broker }
    }

    async fn close(&self) {
        // what stays unpublished is in the due index
        let _ = tokio::time::timeout(FLUSH, self.0.broker.flushed()).await;
        self.0.shutdown.cancel();
        self.0.store.close().await;
    }
}
