//! What may happen between a worker and the backend: every hint comes twice, hints and results overtake each other.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use trireme_backend::{Around, Backend, Deliveries, Delivery, Error};
use trireme_backend_cluster::{Cluster, broker};
use trireme_model::{Complete, Completed, Ms, Priority};

use crate::agents::statistics::Random;

/// A hint is handed on after a random time up to this: the hints of one step, published within a millisecond, come in
/// any order.
const HINT: Duration = Duration::from_millis(20);
/// A result is recorded after a random time up to this: searches that end within it of each other, as every second pair of
/// neighbours among eight does, may be recorded the other way round.
const RESULT: Duration = Duration::from_millis(50);
/// The publication time of a copy, which tells it from what it is a copy of; it is for metrics only.
const COPY: Ms = 0;
/// Deliveries between the backend and the worker; those held back are bounded by the backend's prefetch.
const CHANNEL: usize = 1024;

/// Publishes a delivery's hint once more.
type Again = Arc<dyn Fn(&Delivery) + Send + Sync>;

/// A backend with faults.
pub(in crate::agents) struct Tap {
    inner: Arc<dyn Backend>,
    again: Again,
    random: Arc<Mutex<Random>>,
}

impl Tap {
    /// Copies go through the broker: whichever worker is next gets them.
    pub(in crate::agents) fn of_cluster(cluster: Cluster, seed: u64) -> Self {
        let broker = cluster.broker().clone();
        let again = move |delivery: &Delivery| {
            let priority = match delivery.priority {
                Priority::High => broker::Priority::High,
                Priority::Normal => broker::Priority::Normal,
            };
            // of one shard, as the bench's cluster has
            let hint = broker::Hint::new(0, delivery.run.as_str(), delivery.task.as_str(), COPY);
            broker.publish(&delivery.pool, priority, [hint]);
        };
        Self::new(Arc::new(cluster), Arc::new(again), seed)
    }

    fn new(inner: Arc<dyn Backend>, again: Again, seed: u64) -> Self {
        Self { inner, again, random: Arc::new(Mutex::new(Random::new(seed))) }
    }
}

fn some_of(random: &Mutex<Random>, most: Duration) -> Duration {
    most.mul_f64(random.lock().unwrap_or_else(PoisonError::into_inner).unit())
}

#[async_trait]
impl Around for Tap {
    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    async fn complete(&self, complete: Complete) -> Result<Completed, Error> {
        tokio::time::sleep(some_of(&self.random, RESULT)).await;
        self.inner.complete(complete).await
    }

    async fn consume(&self, pools: Vec<(String, usize)>) -> Result<Deliveries, Error> {
        let mut from = self.inner.consume(pools).await?;
        let (sender, receiver) = mpsc::channel(CHANNEL);
        let stop = CancellationToken::new();
        let (stopped, again, random) = (stop.clone(), self.again.clone(), self.random.clone());
        tokio::spawn(async move {
            loop {
                let delivery = tokio::select! {
                    () = stopped.cancelled() => return from.stop(),
                    delivery = from.next() => delivery,
                };
                let Some(delivery) = delivery else { return };
                if delivery.published != COPY {
                    again(&delivery);
                }
                let (sender, held) = (sender.clone(), some_of(&random, HINT));
                tokio::spawn(async move {
                    tokio::time::sleep(held).await;
                    // a closed end drops it unacked, as a broker's connection would
                    drop(sender.send(delivery).await);
                });
            }
        });
        Ok(Deliveries::new(receiver, stop))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trireme_backend_embedded::Embedded;
    use trireme_model::RunId;

    use super::*;

    #[tokio::test]
    async fn every_hint_is_published_once_more_and_they_come_in_another_order() {
        let (copies, mut copied) = mpsc::unbounded_channel();
        let again = move |delivery: &Delivery| copies.send(delivery.task.to_string()).unwrap();
        let inner: Arc<dyn Backend> = Arc::new(Embedded::new(Default::default()));
        let tap = Tap::new(inner, Arc::new(again), 1);
        let names: Vec<String> = (0..40).map(|at| format!("t{at:02}")).collect();
        let tasks: serde_json::Map<_, _> =
            names.iter().map(|name| (name.clone(), json!({"tool": {"name": "noop"}}))).collect();
        let spec = json!({"tasks": tasks}).to_string();
        let compiled = trireme_spec::compile(&spec, &[], &trireme_spec::Permissive).unwrap();
        let mut deliveries = Backend::consume(&tap, vec![("tool".to_owned(), 100)]).await.unwrap();
        Backend::submit(&tap, compiled.submit(RunId::new("r").unwrap(), "r")).await.unwrap();
        let (mut came, mut again) = (Vec::new(), Vec::new());
        for _ in &names {
            came.push(deliveries.next().await.unwrap().task.to_string());
            // published before what it is a copy of is handed on
            again.push(copied.try_recv().unwrap());
        }
        assert_ne!(names, came);
        came.sort();
        again.sort();
        assert_eq!((&names, &names), (&came, &again));
    }
}
