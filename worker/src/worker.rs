//! The claim loop, and its end: drain, hand back, go.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::FutureExt;
use tokio::{
    sync::broadcast::error::RecvError,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use trireme_backend::{Backend, Deliveries, Values};
use trireme_telemetry::Traces;

use crate::{
    attempt::Shared, config::Config, deltas::Deltas, executors::Executors, inputs::Inputs, leases::Leases,
    metrics::Metrics, persist::Pauses, pulse::Pulse, queue::Queue, slots::Slots,
};

/// How long attempts that are handed back may take to say so.
const RELEASE_GRACE: Duration = Duration::from_secs(5);
/// How long attempts that were left to their leases may take to notice; one in a loop of its own never does.
const ABANDON_GRACE: Duration = Duration::from_secs(1);
/// How often the claim loop moves at least, so that one that stands still can be told from one without work.
const BEAT: Duration = Duration::from_secs(1);

/// Executes tasks until it is told to stop.
pub struct Worker {
    config: Config,
    shared: Arc<Shared>,
    queue: Queue,
    pulse: Pulse,
}

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration can't be used.
    #[error("worker.{0}")]
    Config(String),
    /// The backend refuses to work.
    #[error(transparent)]
    Backend(#[from] trireme_backend::Error),
}

impl Worker {
    /// A worker on `backend` that executes tasks by `executors`; its spans go to `traces`.
    pub fn new(
        config: Config,
        backend: Arc<dyn Backend>,
        executors: Executors,
        metrics: Metrics,
        traces: Traces,
    ) -> Result<Self, Error> {
        config.check().map_err(Error::Config)?;
        metrics.begin(config.pools.iter().map(|pool| pool.name.as_str()));
        let grace = config.drain() + RELEASE_GRACE;
        metrics.drain_grace.set(i64::try_from(grace.as_secs()).unwrap_or(i64::MAX));
        executors.begin(&metrics);
        let slots = Arc::new(Slots::new(&config, &metrics));
        let queue = Queue::new(slots.clone());
        let shared = Shared {
            executors,
            leases: Arc::new(Leases::new(backend.clone(), metrics.clone())),
            deltas: Deltas::new(backend.clone()),
            inputs: Inputs::new(config.cache_bytes / 4),
            values: Values::new(backend.clone(), config.cache_bytes),
            slots,
            limits: config.limits(),
            draining: CancellationToken::new(),
            abandon: CancellationToken::new(),
            claims: Default::default(),
            name: uuid::Uuid::now_v7().simple().to_string(),
            metrics,
            traces,
            backend,
        };
        Ok(Self { config, shared: Arc::new(shared), queue, pulse: Pulse::new() })
    }

    /// Tells of this worker's health, also while it runs.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Works until `shutdown`. Then stops consuming, lets attempts finish within the drain time, hands the
    /// rest back, and returns. A broker that can't be reached is asked again until it can.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let stop_duties = CancellationToken::new();
        // also when this future is dropped
        let _stop_duties = stop_duties.clone().drop_guard();
        let duties = self.spawn_duties(&stop_duties);
        let attempts = TaskTracker::new();
        let Some(mut deliveries) = consume(&self.shared, &self.config, &self.pulse, &shutdown).await? else {
            return Ok(());
        };
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.pulse.beat();
            while let Some((delivery, slot)) = self.queue.pop() {
                // boxed: what is spawned is copied several times on its way, and this is large
                attempts.spawn(Box::pin(self.shared.clone().serve(delivery, slot)));
            }
            tokio::select! {
                delivery = deliveries.next() => match delivery {
                    Some(delivery) => {
                        self.queue.push(delivery);
                        // the rest of those that came together: each would be a turn of the loop
                        while let Some(Some(delivery)) = deliveries.next().now_or_never() {
                            self.queue.push(delivery);
                        }
                    }
                    None => match consume(&self.shared, &self.config, &self.pulse, &shutdown).await? {
                        Some(again) => deliveries = again,
                        None => break,
                    },
                },
                // most deliveries find a slot at once: nobody waits for one then
                () = self.shared.slots.freed(), if !self.queue.is_empty() => {}
                _ = beats.tick() => {}
                () = shutdown.cancelled() => break,
            }
        }
        self.drain(deliveries, attempts).await;
        stop_duties.cancel();
        duties.close();
        duties.wait().await;
        Ok(())
    }

    /// Stops consuming, waits for the attempts, hands back what is left.
    async fn drain(self, mut deliveries: Deliveries, attempts: TaskTracker) {
        let Self { config, shared, queue, pulse } = self;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        shared.metrics.drain_started.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        pulse.drains();
        shared.draining.cancel();
        deliveries.stop();
        // unclaimed deliveries go back to the broker unacked
        drop(queue);
        attempts.close();
        tracing::info!(attempts = attempts.len(), drain_ms = config.drain_ms, "draining");
        if tokio::time::timeout(config.drain(), attempts.wait()).await.is_err() {
            tracing::info!(attempts = attempts.len(), "handing back");
            shared.leases.release_all();
            if tokio::time::timeout(RELEASE_GRACE, attempts.wait()).await.is_err() {
                // what is left can't reach the store: its leases run out
                tracing::warn!(attempts = attempts.len(), "leaving attempts to their leases");
                shared.abandon.cancel();
                if tokio::time::timeout(ABANDON_GRACE, attempts.wait()).await.is_err() {
                    tracing::error!(attempts = attempts.len(), "attempts do not end");
                }
            }
        }
        drop(deliveries);
        tracing::info!("stopped");
    }

    /// Renewals, fencing, streamed text and aborts, until `stop`.
    fn spawn_duties(&self, stop: &CancellationToken) -> TaskTracker {
        let duties = TaskTracker::new();
        let (shared, token) = (self.shared.clone(), stop.clone());
        duties.spawn(async move { shared.leases.renew_forever(token).await });
        let (shared, token) = (self.shared.clone(), stop.clone());
        duties.spawn(async move { shared.leases.fence_forever(token).await });
        let (shared, token) = (self.shared.clone(), stop.clone());
        let every = Duration::from_millis(self.config.delta_ms.max(1));
        duties.spawn(async move { shared.deltas.flush_forever(every, token).await });
        let (shared, token) = (self.shared.clone(), stop.clone());
        // before anything is claimed, so that no abort of it is missed
        let mut aborts = self.shared.backend.aborts();
        duties.spawn(async move {
            loop {
                tokio::select! {
                    abort = aborts.recv() => match abort {
                        Ok(abort) => shared.leases.abort(&abort),
                        // renewing tells about those that were missed
                        Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => return,
                    },
                    () = token.cancelled() => return,
                }
            }
        });
        duties
    }
}

/// Starts consuming, however long that takes. `None` when told to stop meanwhile.
async fn consume(
    shared: &Shared,
    config: &Config,
    pulse: &Pulse,
    shutdown: &CancellationToken,
) -> Result<Option<Deliveries>, Error> {
    let mut pauses = Pauses::new();
    pulse.consumes(false);
    loop {
        pulse.beat();
        let pools = config.pools.iter().map(|pool| (pool.name.clone(), pool.slots)).collect();
        let error = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(None),
            consumed = shared.backend.consume(pools) => match consumed {
                Ok(deliveries) => {
                    pulse.consumes(true);
                    return Ok(Some(deliveries));
                }
                Err(error) if !error.is_retryable() => return Err(error.into()),
                Err(error) => error,
            },
        };
        tracing::warn!(%error, "no hints can be consumed; trying again");
        tokio::select! {
            () = sleep(pauses.next()) => {}
            () = shutdown.cancelled() => return Ok(None),
        }
    }
}
