//! The two shapes that are measured: single tasks, and 1 -> 10 -> 1.

use super::Mode;
use super::amqp::{Link, Pipeline};
use crate::cpu::{Processes, Used};
use anyhow::Context;
use futures::StreamExt;
use lapin::options::BasicAckOptions;
use redis::aio::MultiplexedConnection;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

// As little as a task can do: record a result, count.
const SCRIPT: &str = "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) return redis.call('INCR', KEYS[2])";
// Scripts in flight, unacked messages, unconfirmed publishes.
const SCRIPTS: usize = 128;
pub(super) const PREFETCH: u16 = 500;
pub(super) const WINDOW: usize = 2_000;
const WIDTH: usize = 10;

/// Single tasks.
#[derive(Clone, Debug)]
pub struct Single {
    /// Tasks per second, publish to ack.
    pub per_second: f64,
    /// CPU seconds for all tasks together.
    pub cpu: Used,
}

/// Runs of 1 -> 10 -> 1 tasks.
#[derive(Clone, Debug)]
pub struct FanOut {
    /// One run at a time: milliseconds for each, sorted.
    pub alone_ms: Vec<f64>,
    /// All runs at once.
    pub runs_per_second: f64,
    /// CPU seconds of the runs at once.
    pub cpu: Used,
}

pub(super) struct Store {
    connection: MultiplexedConnection,
    sha: String,
    key: String,
}

impl Store {
    pub(super) async fn open(url: &str, key: &str) -> anyhow::Result<Self> {
        let connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
        let mut store = Self { connection, sha: String::new(), key: key.to_owned() };
        store.sha = store.load(SCRIPT).await?;
        Ok(store)
    }

    /// Makes a script known; returns its name.
    pub(super) async fn load(&self, script: &str) -> redis::RedisResult<String> {
        self.send(redis::cmd("SCRIPT").arg("LOAD").arg(script)).await
    }

    pub(super) async fn send<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> redis::RedisResult<T> {
        command.query_async(&mut self.connection.clone()).await
    }

    /// The key of this measurement with that name.
    pub(super) fn name(&self, name: &str) -> String {
        format!("{{{}}}:{name}", self.key)
    }

    async fn step(&self, hash: &str, field: u64, value: &[u8]) -> redis::RedisResult<u64> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.sha).arg(2).arg(self.name(hash)).arg(self.name(&format!("{hash}:n")));
        self.send(command.arg(field).arg(value)).await
    }

    pub(super) async fn clean(mut self) -> redis::RedisResult<()> {
        let pattern = self.name("*");
        let mut cursor = 0u64;
        loop {
            let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(&pattern)
                .arg("COUNT")
                .arg(5_000)
                .query_async(&mut self.connection)
                .await?;
            if !keys.is_empty() {
                redis::cmd("UNLINK").arg(keys).query_async::<()>(&mut self.connection).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}

/// `tasks` messages of 256 bytes through one queue, a script for each.
///
/// # Errors
/// When the broker or the store fails.
pub async fn single(amqp: &str, redis: &str, mode: Mode, tasks: usize) -> anyhow::Result<Single> {
    let queue = format!("floor-{}-single", std::process::id());
    let store = Store::open(redis, &queue).await?;
    let (out, inward) = (Link::open(amqp).await?, Link::open(amqp).await?);
    out.declare(&queue, mode).await?;
    let mut pipeline = Pipeline::new(&out, mode, WINDOW, true).await?;
    let consumer = inward.consume(&queue, PREFETCH).await?;

    let (processes, before) = measured();
    let start = Instant::now();
    let publish = async {
        for _ in 0..tasks {
            pipeline.publish(&queue, vec![b'.'; 256]).await?;
        }
        pipeline.settle().await?;
        anyhow::Ok(())
    };
    let work = async {
        let done = consumer
            .map(|message| async {
                let message = message?;
                store.step("results", message.delivery_tag, &message.data).await?;
                anyhow::Ok(message.delivery_tag)
            })
            // In order, so that one ack covers many.
            .buffered(SCRIPTS)
            .ready_chunks(SCRIPTS);
        let mut done = std::pin::pin!(done);
        let mut left = tasks;
        while left > 0 {
            let tags = done.next().await.context("the consumer ended")?;
            left -= tags.len();
            if let Some(last) = tags.into_iter().last() {
                inward.channel.basic_ack(last?, BasicAckOptions { multiple: true }).await?;
            }
        }
        anyhow::Ok(())
    };
    futures::try_join!(publish, work)?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu = processes.since(&before);
    out.delete(&queue).await?;
    store.clean().await?;
    Ok(Single { per_second: tasks as f64 / seconds, cpu })
}

/// Runs of 1 -> 10 -> 1 messages with a script each: `alone` of them one at a time, then `at_once` together.
///
/// # Errors
/// When the broker or the store fails.
pub async fn fan_out(
    amqp: &str,
    redis: &str,
    mode: Mode,
    alone: usize,
    at_once: usize,
) -> anyhow::Result<FanOut> {
    let queue = format!("floor-{}-fan", std::process::id());
    let store = Store::open(redis, &queue).await?;
    let (out, inward) = (Link::open(amqp).await?, Link::open(amqp).await?);
    out.declare(&queue, mode).await?;
    let pipeline = Pipeline::new(&out, mode, WINDOW, true).await?;
    let consumer = inward.consume(&queue, PREFETCH).await?;
    let (publish, messages) = mpsc::channel(10_000);
    let (watch, watched) = mpsc::channel(at_once + 1);
    let publisher = tokio::spawn(publisher(pipeline, queue.clone(), messages));
    let worker = worker(&store, consumer, &inward, publish.clone(), watched);

    let drive = async {
        let run = async |number: usize| {
            let (done, end) = oneshot::channel();
            watch.send((number, done)).await?;
            publish.send(format!("{number} s 0")).await?;
            anyhow::Ok(end)
        };
        let mut alone_ms = Vec::new();
        for number in 0..alone {
            let start = Instant::now();
            run(number).await?.await?;
            alone_ms.push(start.elapsed().as_secs_f64() * 1e3);
        }
        alone_ms.sort_by(f64::total_cmp);
        let (processes, before) = measured();
        let start = Instant::now();
        let mut ends = Vec::new();
        for number in alone..alone + at_once {
            ends.push(run(number).await?);
        }
        for end in ends {
            end.await?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let cpu = processes.since(&before);
        anyhow::Ok(FanOut { alone_ms, runs_per_second: at_once as f64 / seconds, cpu })
    };
    let result = tokio::select! {
        result = drive => result?,
        stopped = worker => anyhow::bail!("the worker stopped: {stopped:?}"),
        () = tokio::time::sleep(Duration::from_secs(120)) => anyhow::bail!("not done within 120 s"),
    };
    publisher.abort();
    out.delete(&queue).await?;
    store.clean().await?;
    Ok(result)
}

async fn publisher(
    mut pipeline: Pipeline,
    queue: String,
    mut messages: mpsc::Receiver<String>,
) -> anyhow::Result<()> {
    let mut batch = Vec::new();
    while messages.recv_many(&mut batch, 500).await > 0 {
        for message in batch.drain(..) {
            let mut body = message.into_bytes();
            body.resize(256, b' ');
            pipeline.publish(&queue, body).await?;
        }
        if messages.is_empty() {
            pipeline.settle().await?;
        }
    }
    Ok(())
}

// A message says: run, step (s, m or j), number in the step.
async fn worker(
    store: &Store,
    consumer: lapin::Consumer,
    link: &Link,
    publish: mpsc::Sender<String>,
    mut watched: mpsc::Receiver<(usize, oneshot::Sender<()>)>,
) -> anyhow::Result<()> {
    let mut waiting: HashMap<usize, oneshot::Sender<()>> = HashMap::new();
    let done = consumer
        .map(|message| async {
            let message = message?;
            let text = String::from_utf8_lossy(&message.data);
            let mut words = text.split_ascii_whitespace();
            let run = words.next().context("no run")?.to_owned();
            let step = words.next().context("no step")?.to_owned();
            let number: u64 = words.next().context("no number")?.parse()?;
            let count = store.step(&format!("{run}:{step}"), number, b"result").await?;
            match step.as_str() {
                "s" => {
                    for number in 0..WIDTH {
                        publish.send(format!("{run} m {number}")).await?;
                    }
                }
                "m" if count == WIDTH as u64 => publish.send(format!("{run} j 0")).await?,
                _ => {}
            }
            let ended: Option<usize> = if step == "j" { Some(run.parse()?) } else { None };
            anyhow::Ok((message.delivery_tag, ended))
        })
        .buffered(SCRIPTS)
        .ready_chunks(SCRIPTS);
    let mut done = std::pin::pin!(done);
    loop {
        let finished = done.next().await.context("the consumer ended")?;
        let mut last = None;
        for one in finished {
            let (tag, ended) = one?;
            last = Some(tag);
            let Some(run) = ended else { continue };
            while !waiting.contains_key(&run) {
                let (number, end) = watched.recv().await.context("nobody waits")?;
                waiting.insert(number, end);
            }
            if let Some(end) = waiting.remove(&run) {
                let _ = end.send(());
            }
        }
        if let Some(tag) = last {
            link.channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
        }
    }
}

/// This process and the servers, and what they have used by now.
pub(super) fn measured() -> (Processes, Used) {
    let processes = Processes::with_servers();
    let before = processes.used();
    (processes, before)
}
