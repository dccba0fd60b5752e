//! One connection with one channel, and a deadline around everything that is asked of it.

use super::Config;
use futures::StreamExt;
use futures::stream::BoxStream;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Why the broker cannot be used, or not as asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be parsed: a mistake in the configuration, no use trying again.
    #[error("amqp url is not valid: {0}")]
    Url(String),
    /// A queue's name is over 255 bytes: shorten the prefix or the pool's name.
    #[error("queue name {0} is over 255 bytes")]
    QueueName(String),
    /// The queue exists and was declared otherwise: an operator must decide.
    #[error(
        "queue {queue} exists with other arguments than queue type {wanted}: set the queue type it was made \
         with, or delete it (rabbitmqctl delete_queue {queue}; hints in it are published again by the sweep); \
         the broker says: {answer}"
    )]
    QueueMismatch {
        /// The queue.
        queue: String,
        /// The type that was asked for.
        wanted: &'static str,
        /// The broker's words.
        answer: String,
    },
    /// The broker answered with an error, or the connection broke: try again.
    #[error("rabbitmq: {0}")]
    Amqp(lapin::Error),
    /// The broker did not answer in time: try again.
    #[error("rabbitmq did not answer within {1:?}: {0}")]
    NoAnswer(&'static str, Duration),
    /// The connection, channel or consumer ended without an error: try again.
    #[error("rabbitmq ended the {0}")]
    Ended(&'static str),
}

impl From<lapin::Error> for Error {
    fn from(error: lapin::Error) -> Self {
        Self::Amqp(error)
    }
}

/// Whether a connection is of use at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet connected for the first time.
    Connecting,
    /// Connected; a consumer: consuming.
    Ready,
    /// Not usable, and why; it is tried again until it works.
    Lost(String),
    /// Ended on request.
    Closed,
}

/// What a connection reports unasked.
pub(super) enum Report {
    /// The broker stopped (or went on) reading what we publish.
    Blocked(Option<String>),
    Lost(Error),
}

pub(crate) struct Link {
    pub(crate) channel: Channel,
    connection: Connection,
    // Never locked: only there so that a shared `Link` may cross threads.
    events: Mutex<BoxStream<'static, Event>>,
    deadline: Duration,
}

impl Link {
    pub(crate) async fn open(config: &Config, role: &str) -> Result<Self, Error> {
        let uri = parse(config)?;
        let deadline = config.connect_timeout;
        let properties =
            ConnectionProperties::default().with_connection_name(format!("{}.{role}", config.prefix).into());
        let runtime = lapin::runtime::default_runtime()?;
        let connect = Connection::connect_uri_with_config(uri, properties, config.tls.amqp(), runtime);
        let connection = within(deadline, "connect", connect).await?;
        let events = Mutex::new(connection.events_listener().boxed());
        let channel = within(deadline, "open channel", connection.create_channel()).await?;
        Ok(Self { channel, connection, events, deadline })
    }

    /// A new channel in place of one that the broker has closed.
    pub(crate) async fn open_channel(&mut self) -> Result<(), Error> {
        self.channel = within(self.deadline, "open channel", self.connection.create_channel()).await?;
        Ok(())
    }

    /// Asks the broker something, within the deadline for requests.
    pub(crate) async fn ask<T>(
        &self,
        what: &'static str,
        request: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, Error> {
        within(self.deadline, what, request).await
    }

    /// Waits until the connection has something to say.
    pub(super) async fn report(&mut self) -> Report {
        let events = self.events.get_mut().unwrap_or_else(PoisonError::into_inner);
        loop {
            match events.next().await {
                Some(Event::Error(error)) => return Report::Lost(error.into()),
                Some(Event::ConnectionBlocked(reason)) => return Report::Blocked(Some(reason)),
                Some(Event::ConnectionUnblocked) => return Report::Blocked(None),
                Some(_) => {}
                None => return Report::Lost(Error::Ended("connection")),
            }
        }
    }

    /// Closes in order. The broker has seen all acks sent before when this returns in time.
    pub(crate) async fn close(self) {
        let done = self.ask("close channel", self.channel.close(200, "done".into())).await;
        let done = match done {
            Ok(()) => self.ask("close connection", self.connection.close(200, "done".into())).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tracing::debug!(%error, "rabbitmq connection did not close in order");
        }
    }
}

/// Largest frame, in bytes, unless the address says another one (`?frame_max=`). lapin keeps room for 64 frames in
/// either direction, which is 16 MiB with RabbitMQ's default of 128 KiB; a hint has some 200 bytes.
const FRAME_MAX: u32 = 16 * 1024;
/// The smallest that AMQP 0-9-1 allows, in bytes.
const FRAME_MIN: u32 = 4096;
/// The largest: RabbitMQ's default. lapin makes its room at once, so that what is asked for is taken.
const FRAME_MOST: u32 = 128 * 1024;

/// The address with our heartbeat, time limit and frame size in it.
pub(super) fn parse(config: &Config) -> Result<AMQPUri, Error> {
    parameters(&config.url)?;
    let mut uri: AMQPUri = config.url.parse().map_err(Error::Url)?;
    let heartbeat = u16::try_from(config.heartbeat.as_secs()).unwrap_or(u16::MAX).max(1);
    uri.query.heartbeat = Some(heartbeat);
    let frame = uri.query.frame_max.unwrap_or(FRAME_MAX);
    uri.query.frame_max = Some(frame);
    uri.query.connection_timeout = u64::try_from(config.connect_timeout.as_millis()).ok();
    Ok(uri)
}

/// Whether the parameters of an address are ones that we take, each once and with a number that can be right.
fn parameters(url: &str) -> Result<(), Error> {
    let Some((_, query)) = url.split_once('?') else { return Ok(()) };
    let mut seen = false;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let fits = value.parse().is_ok_and(|bytes: u32| (FRAME_MIN..=FRAME_MOST).contains(&bytes));
        match name {
            "frame_max" if seen => return Err(Error::Url("frame_max is given twice".to_owned())),
            "frame_max" if fits => seen = true,
            "frame_max" => {
                let wrong = format!("frame_max={value}: use bytes from {FRAME_MIN} to {FRAME_MOST}");
                return Err(Error::Url(wrong));
            }
            // EXTERNAL, with a certificate of our own
            "auth_mechanism" => {}
            _ => {
                let known = "known are frame_max and auth_mechanism";
                return Err(Error::Url(format!("parameter {name:?} is unknown; {known}")));
            }
        }
    }
    Ok(())
}

pub(super) async fn within<T>(
    limit: Duration,
    what: &'static str,
    request: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::NoAnswer(what, limit)),
    }
}

/// Pauses between attempts: random below a bound that doubles from 100 ms, so that a fleet that lost its broker
/// does not come back in one moment.
pub(super) struct Pause {
    bound: Duration,
    most: Duration,
}

impl Pause {
    const FIRST: Duration = Duration::from_millis(100);

    pub(super) fn new(most: Duration) -> Self {
        Self { bound: Self::FIRST.min(most), most }
    }

    pub(super) fn reset(&mut self) {
        self.bound = Self::FIRST.min(self.most);
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause = self.bound.mul_f64(rand::random());
        self.bound = (self.bound * 2).min(self.most);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_below_a_doubling_bound() {
        let most = Duration::from_secs(5);
        let mut pause = Pause::new(most);
        for bound in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            assert!(pause.next() <= Duration::from_millis(bound));
        }
        pause.reset();
        assert!(pause.next() <= Pause::FIRST);
    }

    #[test]
    fn takes_heartbeat_and_limit_from_the_config_and_frames_from_the_address() {
        let uri = parse(&Config::new("amqp://guest:guest@localhost:5672/%2f", "t")).unwrap();
        assert_eq!(uri.query.heartbeat, Some(10));
        assert_eq!(uri.query.connection_timeout, Some(5_000));
        assert_eq!(uri.query.frame_max, Some(FRAME_MAX));
        let given = parse(&Config::new("amqp://localhost?frame_max=8192", "t")).unwrap();
        assert_eq!(given.query.frame_max, Some(8192));
        for wrong in
            ["http://x", "amqp://h?frame_max=4095", "amqp://h?frame_max=4294967295", "amqp://h?frame_max=x"]
        {
            assert!(matches!(parse(&Config::new(wrong, "t")), Err(Error::Url(_))), "{wrong}");
        }
        for (wrong, says) in [
            ("amqp://h?frame_max=-1", "frame_max=-1: use bytes from 4096 to 131072"),
            ("amqp://h?frame_max=8192&frame_max=9000", "twice"),
            ("amqp://h?framemax=8192", "\"framemax\" is unknown"),
            ("amqp://h?channel_max=1", "\"channel_max\" is unknown"),
        ] {
            let error = parse(&Config::new(wrong, "t")).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
