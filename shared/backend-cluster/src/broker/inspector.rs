//! What waits in queues and who consumes them, asked on a connection of its own: asking for a queue that does not
//! exist closes the channel.

use trireme_model as model;

use super::Broker;
use super::link::{Error, Link};
use super::topology::{self, Priority};
use crate::metrics::Gauges;

/// Asks the broker about queues; connects when first asked and after every loss.
pub(crate) struct Inspector {
    broker: Broker,
    link: Option<Link>,
}

impl Inspector {
    pub(crate) fn new(broker: Broker) -> Self {
        Self { broker, link: None }
    }

    /// Tells `gauges` of the queues of all pools it knows. A queue that is not there has no message and no consumer.
    pub(crate) async fn look(&mut self, gauges: &Gauges) -> Result<(), Error> {
        let mut link = match self.link.take() {
            Some(link) => link,
            None => Link::open(&self.broker.config, "inspect").await?,
        };
        for pool in gauges.pools() {
            for priority in Priority::ALL {
                let queue = topology::queue_name(&self.broker.config.prefix, &pool, priority)?;
                let (messages, consumers) = topology::ask(&mut link, queue).await?.unwrap_or_default();
                let priority = match priority {
                    Priority::High => model::Priority::High,
                    Priority::Normal => model::Priority::Normal,
                };
                gauges.queue(&pool, priority, messages, consumers);
            }
        }
        self.link = Some(link);
        Ok(())
    }
}
