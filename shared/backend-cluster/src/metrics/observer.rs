//! Looks at the deployment every few seconds, for the gauges that every coordinator tells alike.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::Gauges;
use crate::{
    broker::{Broker, Inspector},
    store::{Sampler, Store},
};

/// Pause between two looks: half of the shortest scrape interval in use, so that no scrape sees the same twice.
const EVERY: Duration = Duration::from_secs(5);
/// A look that takes longer is given up; the gauges keep what they told.
const LIMIT: Duration = Duration::from_secs(15);

/// Looks until `shutdown`. Errors only make gauges old: who can't reach the services is found out elsewhere.
pub(crate) async fn observe(store: Store, broker: Broker, gauges: Arc<Gauges>, shutdown: CancellationToken) {
    let (mut sampler, mut inspector) = (Sampler::new(store), Inspector::new(broker));
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let look = async {
            sampler.look(&gauges).await.map_err(|error| error.to_string())?;
            inspector.look(&gauges).await.map_err(|error| error.to_string())
        };
        let looked = tokio::select! {
            () = shutdown.cancelled() => return,
            looked = timeout(LIMIT, look) => looked.unwrap_or_else(|_| Err("no answer in time".into())),
        };
        match looked {
            Ok(()) => failing = false,
            Err(error) => {
                if !failing {
                    tracing::warn!(error, "the metrics of store and broker are not up to date");
                }
                failing = true;
            }
        }
    }
}
