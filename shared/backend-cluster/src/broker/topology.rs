//! Names and kinds of queues. Hints go through the default exchange: a queue's name is its routing key.

use super::Config;
use super::link::{Error, Link};
use lapin::ErrorKind;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde::{Deserialize, Serialize};

/// What kind of queue holds hints. Changing it for an existing queue needs the queue deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueType {
    /// One copy, on one node.
    #[default]
    Classic,
    /// Replicated by Raft over the cluster's nodes, always on disk.
    Quorum,
}

impl QueueType {
    /// The name that RabbitMQ and our configuration use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }
}

impl std::str::FromStr for QueueType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "classic" => Ok(Self::Classic),
            "quorum" => Ok(Self::Quorum),
            other => Err(format!("queue type {other} is not classic or quorum")),
        }
    }
}

/// Which of a pool's two queues. Separate queues, because quorum queues know no priorities before RabbitMQ 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Priority {
    /// Taken first where both wait at a consumer.
    High,
    /// Everything else.
    Normal,
}

impl Priority {
    /// Both, the first to be taken first.
    pub const ALL: [Self; 2] = [Self::High, Self::Normal];

    /// Its part of a queue's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
        }
    }
}

/// How often a quorum queue hands a hint out before it drops it. RabbitMQ 4 sets 20 by itself, and a restarting
/// fleet returns its hints without having looked at them; the sweep repeats a dropped one in any case.
const DELIVERY_LIMIT: i64 = 1_000;

pub(crate) fn queue_text(prefix: &str, pool: &str, priority: Priority) -> String {
    format!("{prefix}.q.{pool}.{}", priority.name())
}

pub(crate) fn queue_name(prefix: &str, pool: &str, priority: Priority) -> Result<ShortString, Error> {
    let text = queue_text(prefix, pool, priority);
    ShortString::try_new(text.clone()).map_err(|_| Error::QueueName(text))
}

/// Declares a durable queue of the configured type. Durable in any case: RabbitMQ 4 refuses queues that are not.
pub(crate) async fn declare(link: &Link, config: &Config, queue: &ShortString) -> Result<(), Error> {
    let wanted = config.queue_type.name();
    let mut arguments = FieldTable::default();
    // Always named: a vhost may have another default.
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(wanted.into()));
    if config.queue_type == QueueType::Quorum {
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
    }
    let request = link.channel.queue_declare(queue.clone(), QueueDeclareOptions::durable(), arguments);
    match link.ask("declare queue", request).await {
        Ok(_) => Ok(()),
        Err(Error::Amqp(error)) => Err(mismatch(&error, queue, wanted).unwrap_or(Error::Amqp(error))),
        Err(error) => Err(error),
    }
}

/// Messages ready and consumers of a queue; `None` where there is no such queue.
pub(crate) async fn ask(link: &mut Link, queue: ShortString) -> Result<Option<(u32, u32)>, Error> {
    const NOT_FOUND: u16 = 404;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let request = link.channel.queue_declare(queue, passive, FieldTable::default());
    match link.ask("ask for queue", request).await {
        Ok(queue) => Ok(Some((queue.message_count(), queue.consumer_count()))),
        Err(Error::Amqp(error)) if says(&error, NOT_FOUND) => {
            // the broker has closed the channel with its answer
            link.open_channel().await?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn says(error: &lapin::Error, code: u16) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(amqp) if amqp.get_id() == code)
}

pub(crate) async fn delete(link: &Link, queue: ShortString) -> Result<(), Error> {
    let request = link.channel.queue_delete(queue, QueueDeleteOptions::default());
    link.ask("delete queue", request).await?;
    Ok(())
}

fn mismatch(error: &lapin::Error, queue: &ShortString, wanted: &'static str) -> Option<Error> {
    const PRECONDITION_FAILED: u16 = 406;
    match error.kind() {
        ErrorKind::ProtocolError(amqp) if amqp.get_id() == PRECONDITION_FAILED => {
            Some(Error::QueueMismatch {
                queue: queue.to_string(),
                wanted,
                answer: amqp.get_message().to_string(),
            })
        }
        _ => None,
    }
}
