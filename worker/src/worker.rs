//! The claim loop, and its end: drain, hand back, go.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Notify, broadcast::error::RecvError};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use trireme_backend::{Backend, Deliveries, Values};

use crate::{
    attempt::Shared, config::Config, deltas::Deltas, executors::Executors, inputs::Inputs, leases::Leases,
    metrics::Metrics, queue::Queue,
};

/// How long attempts that are handed back may take to say so.
const RELEASE_GRACE: Duration = Duration::from_secs(5);
/// How often the slots in use are written to the metrics.
const GAUGE_EVERY: Duration = Duration::from_secs(1);

/// Executes tasks until it is told to stop.
pub struct Worker {
    config: Config,
    shared: Arc<Shared>,
    queue: Queue,
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
    /// A worker on `backend` that executes tasks by `executors`.
    pub fn new(
        config: Config,
        backend: Arc<dyn Backend>,
        executors: Executors,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        config.check().map_err(Error::Config)?;
        for pool in &config.pools {
            metrics.slots.with_label_values(&[&pool.name]).set(i64::try_from(pool.slots).unwrap_or(i64::MAX));
        }
        let queue = Queue::new(&config);
        let shared = Shared {
            executors,
            leases: Arc::new(Leases::default()),
            deltas: Deltas::new(backend.clone()),
            inputs: Inputs::new(config.cache_bytes / 4),
            values: Values::new(backend.clone(), config.cache_bytes),
            slots: queue.slots(),
            draining: CancellationToken::new(),
            abandon: CancellationToken::new(),
            claims: Default::default(),
            name: uuid::Uuid::now_v7().simple().to_string(),
            metrics,
            backend,
        };
        Ok(Self { config, shared: Arc::new(shared), queue })
    }

    /// Works until `shutdown`. Then stops consuming, lets attempts finish within the drain time, hands the
    /// rest back, and returns.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let stop_duties = CancellationToken::new();
        let duties = self.spawn_duties(&stop_duties);
        let attempts = TaskTracker::new();
        let freed = Arc::new(Notify::new());
        let mut deliveries = consume(&self.shared, &self.config).await?;
        loop {
            while let Some((delivery, slot)) = self.queue.pop() {
                let (shared, freed) = (self.shared.clone(), freed.clone());
                attempts.spawn(async move {
                    shared.serve(delivery, slot).await;
                    freed.notify_one();
                });
            }
            tokio::select! {
                delivery = deliveries.next() => match delivery {
                    Some(delivery) => self.queue.push(delivery),
                    None if shutdown.is_cancelled() => break,
                    None => deliveries = consume(&self.shared, &self.config).await?,
                },
                () = freed.notified() => {}
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
        let Self { config, shared, queue } = self;
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
                attempts.wait().await;
            }
        }
        drop(deliveries);
    }

    /// Renewals, streamed text, aborts and gauges, until `stop`.
    fn spawn_duties(&self, stop: &CancellationToken) -> TaskTracker {
        let duties = TaskTracker::new();
        let (shared, token) = (self.shared.clone(), stop.clone());
        duties.spawn(async move {
            shared.leases.renew_forever(shared.backend.clone(), shared.metrics.clone(), token).await;
        });
        let (shared, token) = (self.shared.clone(), stop.clone());
        let every = Duration::from_millis(self.config.delta_ms.max(1));
        duties.spawn(async move { shared.deltas.flush_forever(every, token).await });
        let (shared, token) = (self.shared.clone(), stop.clone());
        duties.spawn(async move {
            let mut aborts = shared.backend.aborts();
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
        let (shared, token, config) = (self.shared.clone(), stop.clone(), self.config.clone());
        duties.spawn(async move {
            let mut ticks = tokio::time::interval(GAUGE_EVERY);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = token.cancelled() => return,
                }
                for (pool, used) in shared.slots.used(&config) {
                    let used = i64::try_from(used).unwrap_or(i64::MAX);
                    shared.metrics.slots_used.with_label_values(&[&pool]).set(used);
                }
            }
        });
        duties
    }
}

async fn consume(shared: &Shared, config: &Config) -> Result<Deliveries, Error> {
    let pools = config.pools.iter().map(|pool| (pool.name.clone(), pool.slots)).collect();
    Ok(shared.backend.consume(pools).await?)
}
