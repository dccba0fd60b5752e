//! Hints on RabbitMQ: "task T of run R is ready, somebody look".
//!
//! A hint may be lost, doubled, reordered or stale (invariant 1): the store's sweep publishes again what was not
//! done. So nothing here may block the caller, and nothing here decides anything. What this module does owe is
//! that a broker that answers is used at once and cheaply, and that one that does not is noticed, waited for and
//! used again without anybody's help:
//!
//! - [`Broker::publish`] puts hints on a bounded list in memory; one task sends them, with confirms in flight by
//!   the thousand, and sends again what was refused, returned or unconfirmed when its connection was lost.
//! - [`Broker::consume`] gives a [`Consumer`], high priority first; its acks are collected and sent by its task.
//! - Both have their own connections: an ack must not wait behind a publish that a memory alarm blocks.
//! - lapin's own recovery is off. It may leave a confirm or an ack unresolved for ever, so that every await on it
//!   here has a deadline, and after any error the whole connection is dropped and opened anew.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod acks;
mod backlog;
mod consumer;
mod counters;
mod hint;
mod inspector;
mod link;
mod publisher;
pub(crate) mod topology;
mod traceparent;

pub use consumer::{Ack, Consumer, Delivery};
pub use counters::Snapshot;
pub use hint::{Hint, HintError, MAX_HINT_BYTES};
pub use link::{Error, State};
pub use topology::{Priority, QueueType};

pub(crate) use inspector::Inspector;
pub(crate) use link::Link;
pub(crate) use topology::queue_text;

use backlog::{Backlog, Outgoing};
use counters::Counters;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How to reach RabbitMQ and what to keep there.
#[derive(Clone, Debug)]
pub struct Config {
    /// `amqp://user:password@host:port/vhost`, or `amqps://`. The vhost `/` is written `%2f`.
    pub url: String,
    /// First part of every queue's name: `{prefix}.q.{pool}.{priority}`.
    pub prefix: String,
    /// What queues are declared as. Default: see `docs/decisions/hint-queues.md`.
    pub queue_type: QueueType,
    /// Whether a classic queue writes hints to disk; quorum queues always do. Default: no.
    pub persistent: bool,
    /// Deadline for opening a connection and for every request on it. Default 5 s.
    pub connect_timeout: Duration,
    /// How long a publish may stay unconfirmed, or an ack unsent, before the connection is given up. Default 10 s.
    pub confirm_timeout: Duration,
    /// Hints that may wait in memory; above it new ones are dropped and counted. Default 100,000.
    pub backlog: usize,
    /// Hints that may be sent and unconfirmed at once, at least 1. Default 2,000.
    pub window: usize,
    /// AMQP heartbeat, in whole seconds. A dead peer is noticed within twice this time. Default 10 s.
    pub heartbeat: Duration,
    /// Most time between two attempts to connect; the actual pause is random below it. Default 5 s.
    pub max_pause: Duration,
    /// Certificates for `amqps://`.
    pub tls: crate::Tls,
    /// Where the seconds from sending to confirm are measured. Default: nowhere.
    pub confirm_seconds: Option<prometheus::Histogram>,
}

impl Config {
    /// The defaults for a broker at `url` and queues below `prefix`.
    pub fn new(url: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: prefix.into(),
            queue_type: QueueType::default(),
            persistent: false,
            connect_timeout: Duration::from_secs(5),
            confirm_timeout: Duration::from_secs(10),
            backlog: 100_000,
            window: 2_000,
            heartbeat: Duration::from_secs(10),
            max_pause: Duration::from_secs(5),
            tls: crate::Tls::default(),
            confirm_seconds: None,
        }
    }
}

/// A handle to the broker; clones share one publisher. Its task ends with the token given to [`Broker::start`].
#[derive(Clone, Debug)]
pub struct Broker {
    config: Arc<Config>,
    counters: Arc<Counters>,
    backlog: Arc<Backlog>,
    state: watch::Receiver<State>,
}

impl Broker {
    /// Starts the publisher's task and returns at once; the broker need not be there yet.
    ///
    /// When `shutdown` is cancelled, the task still sends what it has, for at most `confirm_timeout`, and ends.
    ///
    /// # Errors
    /// [`Error::Url`] when the address cannot be parsed.
    pub fn start(config: Config, shutdown: CancellationToken) -> Result<Self, Error> {
        link::parse(&config)?;
        let config = Arc::new(config);
        let counters = Arc::new(Counters::default());
        let backlog = Arc::new(Backlog::new(config.backlog));
        let (sender, state) = watch::channel(State::Connecting);
        let publisher = publisher::Publisher::new(config.clone(), counters.clone(), backlog.clone(), sender);
        tokio::spawn(publisher.run(shutdown));
        Ok(Self { config, counters, backlog, state })
    }

    /// Hands hints to the publisher's task, and never waits. Over the backlog's bound, and where a pool's or an
    /// id's name is too long for a message, hints are dropped and counted: the sweep publishes them later.
    pub fn publish(&self, pool: &str, priority: Priority, hints: impl IntoIterator<Item = Hint>) {
        let Ok(queue) = topology::queue_name(&self.config.prefix, pool, priority) else {
            return self.drop_unsendable(pool, hints.into_iter().count());
        };
        let mut unsendable = 0;
        let outgoing: Vec<_> = hints
            .into_iter()
            .filter_map(|hint| match hint.encode() {
                Ok(body) => Some(Outgoing { queue: queue.clone(), body, trace: hint.trace }),
                Err(_) => {
                    unsendable += 1;
                    None
                }
            })
            .collect();
        let dropped = self.backlog.push(outgoing);
        self.counters.dropped.add(dropped);
        if unsendable > 0 {
            self.drop_unsendable(pool, unsendable);
        }
    }

    /// Starts consuming the queues, both priorities, of the given pools; `slots` is how many unacked hints the
    /// broker may hand over for each of a pool's two queues (1 to 65,535; a pool with 0 is left out).
    ///
    /// It connects in the background and goes on after every loss until it is closed or dropped.
    pub fn consume(&self, pools: &[(String, u16)]) -> Consumer {
        Consumer::start(self.config.clone(), self.counters.clone(), pools)
    }

    /// Declares the queues of these pools now, to find out early whether the broker can be used.
    ///
    /// # Errors
    /// [`Error::QueueMismatch`] when a queue exists with other arguments, else why the broker was not reached.
    pub async fn declare(&self, pools: &[String]) -> Result<(), Error> {
        let link = link::Link::open(&self.config, "declare").await?;
        for pool in pools {
            for priority in Priority::ALL {
                let queue = topology::queue_name(&self.config.prefix, pool, priority)?;
                topology::declare(&link, &self.config, &queue).await?;
            }
        }
        link.close().await;
        Ok(())
    }

    /// Deletes the queues of these pools and all in them: for tests, and for taking a deployment down.
    ///
    /// # Errors
    /// Why the broker was not reached. A queue that does not exist is no error.
    pub async fn delete_queues(&self, pools: &[String]) -> Result<(), Error> {
        let link = link::Link::open(&self.config, "delete").await?;
        for pool in pools {
            for priority in Priority::ALL {
                let queue = topology::queue_name(&self.config.prefix, pool, priority)?;
                topology::delete(&link, queue).await?;
            }
        }
        link.close().await;
        Ok(())
    }

    /// Name of the queue of a pool and priority.
    pub fn queue(&self, pool: &str, priority: Priority) -> String {
        topology::queue_text(&self.config.prefix, pool, priority)
    }

    /// State of the publisher's connection, for readiness.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// What has happened since the start, over the publisher and all consumers of this handle.
    pub fn counters(&self) -> Snapshot {
        let mut snapshot = self.counters.snapshot();
        snapshot.backlog = self.backlog.unsettled() as u64;
        snapshot
    }

    /// Waits until every hint handed over so far is confirmed by the broker (or was dropped).
    pub async fn flushed(&self) {
        self.backlog.settled().await;
    }

    fn drop_unsendable(&self, pool: &str, count: usize) {
        self.counters.dropped.add(count);
        tracing::warn!(pool, count, "hints cannot be put into a message: a name or an id is too long");
    }
}
