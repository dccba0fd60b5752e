//! [`Backend`] from the store and the broker.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use prometheus::Registry;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use trireme_backend::{
    Abort, Access, Ack, Backend, Backlog, DeadPage, DeadQuery, Deliveries, Delivery, Delta, Endings, Error,
    Events, Health, ListQuery, Mark, Page, PausedPool, Recorded, Swept, Via, Watch,
};
use trireme_model::{
    Caller, Cancelled, Claim, Claimed, Complete, Completed, Deleted, Extend, Extended, Fail, Failed, Hint,
    Ms, Priority, Renew, Renewed, Replayed, Run, RunId, Submit, Submitted, TaskId, view::RunSummary,
};
use trireme_telemetry::Traces;

use crate::{
    Tls,
    broker::{self, Broker, Consumer, QueueType},
    metrics::{Gauges, Metrics, Publishes as PublishMetrics, observer},
    spans::{Known, Publishes},
    store::{self, Store},
};

/// Hints taken from a consumer at once.
const AT_ONCE: usize = 64;
/// How long the acks of a stopped consumer may take: longer than any worker's grace period.
const ACKS: Duration = Duration::from_secs(900);
/// How long `close` waits for hints to be confirmed.
const FLUSH: Duration = Duration::from_secs(3);

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
    /// What kind of queues hold hints: see `docs/decisions/hint-queues.md`.
    pub queue_type: QueueType,
    /// What the process is to the others: `coordinator` or `worker`, one word. Default: none, it does not announce
    /// itself.
    pub role: Option<&'static str>,
    /// Where spans go. Default: nowhere.
    pub traces: Traces,
    /// Certificates for `amqps://`.
    pub amqp_tls: Tls,
    /// Certificates for `rediss://`.
    pub redis_tls: Tls,
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
    metrics: Metrics,
    traces: Traces,
    known: Arc<Known>,
    prefix: String,
    /// Of the consumer that was started last.
    consuming: Mutex<Option<watch::Receiver<broker::State>>>,
    /// Of a process that looks at the deployment as a whole.
    gauges: OnceLock<Arc<Gauges>>,
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
            role: None,
            traces: Traces::default(),
            amqp_tls: Tls::default(),
            redis_tls: Tls::default(),
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
        let metrics = Metrics::new(store::SCRIPTS).map_err(unmeasurable)?;
        let shutdown = CancellationToken::new();
        let mut broker = broker::Config::new(&config.amqp_url, &config.prefix);
        broker.queue_type = config.queue_type;
        broker.tls = config.amqp_tls;
        broker.confirm_seconds = Some(metrics.confirm());
        let broker =
            Broker::start(broker, shutdown.clone()).map_err(|error| Error::Unusable(error.to_string()))?;
        let known = Arc::<Known>::default();
        let publisher = Publisher {
            broker: broker.clone(),
            shards: config.shards,
            prefix: config.prefix.clone(),
            traces: config.traces.clone(),
            known: known.clone(),
        };
        let sink: store::Sink = Arc::new(move |emitted| publisher.publish(emitted.hints));
        let (traces, prefix) = (config.traces, config.prefix.clone());
        let spoken = store::Spoken::here()?;
        let member = config.role.map(|role| store::Member::here(role, spoken));
        let store = store::Config {
            url: config.redis_url,
            prefix: config.prefix,
            shards: config.shards,
            connections: config.redis_connections,
            timeout: config.redis_timeout,
            tls: config.redis_tls,
            member,
            metrics: Some(metrics.clone()),
            clock: config.clock.0,
        };
        let store = match Store::connect(store, sink).await {
            Ok(store) => store,
            Err(error) => {
                shutdown.cancel();
                return Err(error);
            }
        };
        Ok(Self(Arc::new(Inner {
            store,
            broker,
            metrics,
            traces,
            known,
            prefix,
            consuming: Mutex::default(),
            gauges: OnceLock::new(),
            shutdown,
        })))
    }

    /// Registers what this process measures of RabbitMQ and Redis; fails where the registry has it already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        self.0.metrics.register(registry)?;
        registry.register(Box::new(PublishMetrics::new(self.0.broker.clone())?))
    }

    /// Registers what is told of the deployment as a whole, and keeps it up to date until the cluster is closed:
    /// for coordinators. `pools` have series from the start, others when they are seen.
    pub fn observe(&self, registry: &Registry, pools: &[String]) -> Result<(), prometheus::Error> {
        let gauges = Arc::new(Gauges::register(registry, pools)?);
        let (store, broker) = (self.0.store.clone(), self.0.broker.clone());
        // the first one is asked for the backlog; another registry only shows more
        let _ = self.0.gauges.set(gauges.clone());
        tokio::spawn(observer::observe(store, broker, gauges, self.0.shutdown.child_token()));
        Ok(())
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

fn unmeasurable(error: prometheus::Error) -> Error {
    Error::Unusable(format!("metrics: {error}"))
}

/// What a connection's state means to whoever asks for health.
fn usable(state: &broker::State) -> Result<(), String> {
    match state {
        broker::State::Ready => Ok(()),
        broker::State::Connecting => Err("rabbitmq: not yet connected".to_owned()),
        broker::State::Lost(reason) => Err(reason.clone()),
        broker::State::Closed => Err("rabbitmq: closed".to_owned()),
    }
}

/// What publishing hints takes.
struct Publisher {
    broker: Broker,
    shards: u16,
    prefix: String,
    traces: Traces,
    known: Arc<Known>,
}

impl Publisher {
    /// Hands hints to the broker's task. If we crash before it has sent them, the sweep publishes them.
    fn publish(&self, hints: Vec<Hint>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as Ms);
        let mut queues: HashMap<(String, Priority), Vec<broker::Hint>> = HashMap::new();
        let mut spans = self.traces.is_on().then(Publishes::default);
        for hint in hints {
            let shard = hint.run.shard(self.shards);
            let mut message = broker::Hint::new(shard, hint.run.as_str(), hint.task.as_str(), now);
            if let Some(spans) = &mut spans {
                let queue = broker::queue_text(&self.prefix, &hint.pool, priority(hint.priority));
                message.trace = spans.context(&self.traces, &self.known, &hint.run, &queue);
            }
            queues.entry((hint.pool, hint.priority)).or_default().push(message);
        }
        for ((pool, of), messages) in queues {
            self.broker.publish(&pool, priority(of), messages);
        }
        if let Some(spans) = spans {
            spans.end();
        }
    }
}

fn priority(priority: Priority) -> broker::Priority {
    match priority {
        Priority::High => broker::Priority::High,
        Priority::Normal => broker::Priority::Normal,
    }
}

/// Hands deliveries on until `stop`, then lets the acks of what was handed on go out.
async fn forward(
    consumer: Consumer,
    sender: mpsc::Sender<Delivery>,
    stop: CancellationToken,
    shutdown: CancellationToken,
    traced: Option<String>,
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
            let Some(delivery) = delivery_of(delivery, traced.as_deref()) else { continue };
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

/// `traced` is the prefix of queues, where anybody wants to know of them.
fn delivery_of(delivery: broker::Delivery, traced: Option<&str>) -> Option<Delivery> {
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
        via: traced
            .map(|prefix| Via { queue: broker::queue_text(prefix, &pool, priority), trace: hint.trace }),
        ack: Ack::new(move || ack.ack()),
    })
}

#[async_trait]
impl Backend for Cluster {
    async fn submit(&self, submit: Submit) -> Result<Submitted, Error> {
        if self.0.traces.is_on() {
            self.0.known.note(&submit.run, submit.trace);
        }
        self.0.store.submit(submit).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        let claimed = self.0.store.claim(claim).await?;
        if let (true, Claimed::Run(assignment)) = (self.0.traces.is_on(), &claimed) {
            self.0.known.note(&assignment.run, assignment.trace);
        }
        Ok(claimed)
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

    async fn delete(&self, run: &RunId) -> Result<Deleted, Error> {
        self.0.store.delete(run).await
    }

    async fn replay(&self, run: &RunId, caller: &Caller) -> Result<Replayed, Error> {
        self.0.store.replay(run, caller).await
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

    async fn ended(&self) -> Result<Endings, Error> {
        self.0.store.ended().await
    }

    async fn mark_ended(&self, mark: Mark) -> Result<(), Error> {
        self.0.store.mark_ended(mark).await
    }

    async fn dead_letters(&self, query: DeadQuery) -> Result<DeadPage, Error> {
        self.0.store.dead_letters(query).await
    }

    async fn pause(&self, pool: &str, paused: bool) -> Result<bool, Error> {
        self.0.store.pause(pool, paused).await
    }

    async fn paused(&self) -> Result<Vec<PausedPool>, Error> {
        self.0.store.paused().await
    }

    async fn watch(&self, run: &RunId) -> Result<Watch, Error> {
        self.0.store.watch(run).await
    }

    fn access(&self) -> &dyn Access {
        &self.0.store
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
        *self.0.consuming.lock().unwrap_or_else(PoisonError::into_inner) = Some(consumer.state());
        let traced = self.0.traces.is_on().then(|| self.0.prefix.clone());
        tokio::spawn(forward(consumer, sender, stop.clone(), self.0.shutdown.clone(), traced));
        Ok(Deliveries::new(receiver, stop))
    }

    fn aborts(&self) -> broadcast::Receiver<Abort> {
        self.0.store.aborts()
    }

    fn backlog(&self) -> Option<Backlog> {
        self.0.gauges.get()?.backlog()
    }

    async fn health(&self) -> Health {
        let store = self.0.store.health().await.map_err(|error| error.to_string());
        let consuming = self.0.consuming.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let broker = usable(&self.0.broker.state().borrow());
        // a worker that publishes and does not consume is of no use
        let broker = broker.and_then(|()| consuming.map_or(Ok(()), |state| usable(&state.borrow())));
        Health { store, broker }
    }

    async fn close(&self) {
        // what stays unpublished is in the due index
        let _ = tokio::time::timeout(FLUSH, self.0.broker.flushed()).await;
        self.0.shutdown.cancel();
        self.0.store.close().await;
    }
}
