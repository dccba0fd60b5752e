//! The cheapest use of lapin that was found.

use super::Mode;
use futures::FutureExt;
use futures::future::BoxFuture;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

/// A connection with one channel.
pub struct Link {
    /// The channel.
    pub channel: Channel,
    _connection: Connection,
}

impl Link {
    /// Opens it.
    ///
    /// # Errors
    /// When the broker does not answer as expected.
    pub async fn open(url: &str) -> lapin::Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        Ok(Self { channel, _connection: connection })
    }

    /// Declares a queue of that mode.
    ///
    /// # Errors
    /// When the broker refuses it.
    pub async fn declare(&self, queue: &str, mode: Mode) -> lapin::Result<u32> {
        let options = QueueDeclareOptions::durable();
        Ok(self.channel.queue_declare(queue.into(), options, mode.arguments()).await?.message_count())
    }

    /// Deletes a queue.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn delete(&self, queue: &str) -> lapin::Result<u32> {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await
    }

    /// Starts a consumer.
    ///
    /// # Errors
    /// When the broker refuses it.
    pub async fn consume(&self, queue: &str, prefetch: u16) -> lapin::Result<Consumer> {
        self.channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        self.channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await
    }
}

/// Publishes with many confirms in flight: every publish is polled once, which sends it, and only the oldest is
/// waited for.
pub struct Pipeline {
    channel: Channel,
    properties: BasicProperties,
    sent: VecDeque<BoxFuture<'static, lapin::Result<Confirmation>>>,
    window: usize,
}

impl Pipeline {
    /// On a channel of its own; `confirms` off measures what confirms cost.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn new(link: &Link, mode: Mode, window: usize, confirms: bool) -> lapin::Result<Self> {
        if confirms {
            link.channel.confirm_select(ConfirmSelectOptions::default()).await?;
        }
        let properties = BasicProperties::default().with_delivery_mode(if mode.persistent { 2 } else { 1 });
        Ok(Self { channel: link.channel.clone(), properties, sent: VecDeque::new(), window })
    }

    /// Sends one message; waits only where the window is full.
    ///
    /// # Errors
    /// When the channel failed.
    pub async fn publish(&mut self, queue: &str, body: Vec<u8>) -> lapin::Result<()> {
        while self.sent.len() >= self.window {
            self.settle_oldest().await?;
        }
        let (channel, properties, queue) = (self.channel.clone(), self.properties.clone(), queue.into());
        let mut answer = async move {
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            channel.basic_publish("".into(), queue, options, &body, properties).await?.await
        }
        .boxed();
        match (&mut answer).now_or_never() {
            Some(early) => drop(early?),
            None => self.sent.push_back(answer),
        }
        Ok(())
    }

    /// Waits until every message is confirmed.
    ///
    /// # Errors
    /// When the channel failed.
    pub async fn settle(&mut self) -> lapin::Result<()> {
        while !self.sent.is_empty() {
            self.settle_oldest().await?;
        }
        Ok(())
    }

    async fn settle_oldest(&mut self) -> lapin::Result<()> {
        if let Some(oldest) = self.sent.pop_front() {
            oldest.await?;
        }
        while let Some(answer) = self.sent.front_mut().and_then(|next| next.now_or_never()) {
            self.sent.pop_front();
            answer?;
        }
        Ok(())
    }
}

/// A message of `size` bytes that begins with its time of birth in microseconds.
pub fn stamped(size: usize) -> Vec<u8> {
    let mut body = micros().to_le_bytes().to_vec();
    body.resize(size.max(8), b'.');
    body
}

/// Microseconds since a stamped message was made.
pub fn age(body: &[u8]) -> u64 {
    let born = body.get(..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    micros().saturating_sub(born)
}

fn micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
