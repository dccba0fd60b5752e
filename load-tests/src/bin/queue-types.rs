//! Which queue type and delivery mode for hints? Measures speed, latency, CPU and loss of each.
//!
//! `cargo run --release -p load-tests --bin queue-types`: a few minutes; the results and the decision are in
//! `docs/decisions/hint-queues.md`. Uses the RabbitMQ and Redis that answer on loopback (or private ones), and
//! private RabbitMQs that it kills.

use anyhow::Context;
use clap::Parser;
use futures::StreamExt;
use lapin::options::BasicAckOptions;
use load_tests::cpu::{Processes, Used};
use load_tests::floor::amqp::{Link, Pipeline, age, stamped};
use load_tests::floor::{Mode, PERSISTENT, QUORUM, TRANSIENT, fan_out, single};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use trireme_backend_cluster::broker::{Broker, Config, Hint, Priority, QueueType};
use trireme_test_servers::{PrivateRabbit, rabbitmq, redis, unique};

const SIZE: usize = 256;

#[derive(Parser)]
struct Arguments {
    /// Messages in each throughput measurement.
    #[arg(long, default_value_t = 20_000)]
    messages: usize,
    /// Rounds; all modes are measured in each, so that a slow moment of the machine hits all.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Kills and restarts per mode, in private brokers; 0 leaves the loss out.
    #[arg(long, default_value_t = 3)]
    kills: usize,
    /// Leaves out everything but the loss.
    #[arg(long)]
    only_loss: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if !arguments.only_loss {
        let (amqp, store) = tokio::task::spawn_blocking(|| (rabbitmq(), redis())).await?;
        for round in 1..=arguments.rounds {
            println!("## round {round}");
            speed(&amqp, &store, arguments.messages).await?;
        }
    }
    for kill in 1..=arguments.kills {
        println!("## loss {kill}");
        for mode in [TRANSIENT, PERSISTENT, QUORUM] {
            for hard in [true, false] {
                let text = match loss(mode, hard).await {
                    Ok(text) => text,
                    Err(error) => format!("not usable: {error:#}"),
                };
                println!("{:22} {:9} {text}", mode.name, if hard { "kill -9" } else { "restart" });
            }
        }
    }
    Ok(())
}

async fn speed(amqp: &str, store: &str, messages: usize) -> anyhow::Result<()> {
    for mode in Mode::ALL {
        through(amqp, mode, messages, Variant::default()).await?;
        latency(amqp, mode).await?;
    }
    let variants = [
        Variant { name: "acks one by one", multiple: false, ..Variant::default() },
        Variant { name: "no confirms", confirms: false, ..Variant::default() },
        Variant { name: "window 100", window: 100, ..Variant::default() },
        Variant { name: "window 1 (each awaited)", window: 1, ..Variant::default() },
    ];
    for variant in variants {
        let some = if variant.window == 1 { messages / 10 } else { messages };
        through(amqp, TRANSIENT, some, variant).await?;
    }
    for queue_type in [QueueType::Classic, QueueType::Quorum] {
        ours(amqp, queue_type, messages).await?;
    }
    for mode in [TRANSIENT, QUORUM] {
        let floor = single(amqp, store, mode, messages).await?;
        report("floor with script", mode.name, messages, floor.per_second, &floor.cpu);
        let floor = fan_out(amqp, store, mode, 100, 1_000).await?;
        let at = |part: f64| floor.alone_ms[(floor.alone_ms.len() as f64 * part) as usize];
        println!(
            "{:24} {:22} 1->10->1 alone: p50 {:.2} ms, p99 {:.2} ms",
            "floor fan-out",
            mode.name,
            at(0.5),
            at(0.99)
        );
        report("floor fan-out, 1,000 runs", mode.name, 12_000, floor.runs_per_second, &floor.cpu);
    }
    Ok(())
}

struct Variant {
    name: &'static str,
    multiple: bool,
    confirms: bool,
    window: usize,
}

impl Default for Variant {
    fn default() -> Self {
        Self { name: "lapin, best", multiple: true, confirms: true, window: 2_000 }
    }
}

// Publish, consume, ack, all at once.
async fn through(amqp: &str, mode: Mode, messages: usize, variant: Variant) -> anyhow::Result<()> {
    let queue = unique("queue-types");
    let (out, inward) = (Link::open(amqp).await?, Link::open(amqp).await?);
    out.declare(&queue, mode).await?;
    let mut pipeline = Pipeline::new(&out, mode, variant.window, variant.confirms).await?;
    let mut consumer = inward.consume(&queue, 500).await?.ready_chunks(128);
    let processes = Processes::with_servers();
    let before = processes.used();
    let start = Instant::now();
    let publish = async {
        for _ in 0..messages {
            pipeline.publish(&queue, stamped(SIZE)).await?;
        }
        pipeline.settle().await?;
        anyhow::Ok(())
    };
    let work = async {
        let mut left = messages;
        while left > 0 {
            let arrived = consumer.next().await.context("the consumer ended")?;
            left -= arrived.len();
            let tags = arrived.into_iter().map(|message| message.map(|message| message.delivery_tag));
            let tags: Vec<u64> = tags.collect::<Result<_, _>>()?;
            let tags = if variant.multiple { tags.into_iter().last().into_iter().collect() } else { tags };
            let options = BasicAckOptions { multiple: variant.multiple };
            futures::future::try_join_all(tags.into_iter().map(|tag| inward.channel.basic_ack(tag, options)))
                .await?;
        }
        anyhow::Ok(())
    };
    futures::try_join!(publish, work)?;
    let seconds = start.elapsed().as_secs_f64();
    report(variant.name, mode.name, messages, messages as f64 / seconds, &processes.since(&before));
    out.delete(&queue).await?;
    Ok(())
}

// 100 messages a second: publish to delivery, and publish to confirm.
async fn latency(amqp: &str, mode: Mode) -> anyhow::Result<()> {
    let queue = unique("queue-types");
    let (out, inward) = (Link::open(amqp).await?, Link::open(amqp).await?);
    out.declare(&queue, mode).await?;
    let mut pipeline = Pipeline::new(&out, mode, 1_000, true).await?;
    let mut consumer = inward.consume(&queue, 500).await?;
    let (mut delivered, mut confirmed) = (Vec::new(), Vec::new());
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..300 {
        tick.tick().await;
        let start = Instant::now();
        pipeline.publish(&queue, stamped(SIZE)).await?;
        let receive = async {
            let message = consumer.next().await.context("the consumer ended")??;
            delivered.push(age(&message.data));
            inward.channel.basic_ack(message.delivery_tag, BasicAckOptions::default()).await?;
            anyhow::Ok(())
        };
        let confirm = async {
            pipeline.settle().await?;
            confirmed.push(u64::try_from(start.elapsed().as_micros())?);
            anyhow::Ok(())
        };
        futures::try_join!(receive, confirm)?;
    }
    delivered.sort_unstable();
    confirmed.sort_unstable();
    let at = |times: &[u64], part: f64| times[(times.len() as f64 * part) as usize] as f64 / 1e3;
    println!(
        "{:24} {:22} delivery p50 {:.2} p99 {:.2} ms, confirm p50 {:.2} p99 {:.2} ms",
        "latency at 100/s",
        mode.name,
        at(&delivered, 0.5),
        at(&delivered, 0.99),
        at(&confirmed, 0.5),
        at(&confirmed, 0.99)
    );
    out.delete(&queue).await?;
    Ok(())
}

// The same through our own handle.
async fn ours(amqp: &str, queue_type: QueueType, messages: usize) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let config = Config { queue_type, ..Config::new(amqp, unique("queue-types")) };
    let broker = Broker::start(config, shutdown.clone())?;
    let pools = ["llm".to_owned()];
    broker.declare(&pools).await?;
    let consumer = broker.consume(&[("llm".to_owned(), 500)]);
    let processes = Processes::with_servers();
    let before = processes.used();
    let start = Instant::now();
    broker.publish(
        "llm",
        Priority::Normal,
        (0..messages).map(|n| Hint::new(0, "r".repeat(200), n.to_string(), 0)),
    );
    let mut left = messages;
    while left > 0 {
        let taken = consumer.recv_many(128).await;
        left -= taken.len();
        taken.into_iter().for_each(|delivery| delivery.ack.ack());
    }
    broker.flushed().await;
    consumer.close(Duration::from_secs(10)).await;
    let seconds = start.elapsed().as_secs_f64();
    report("our handle", queue_type.name(), messages, messages as f64 / seconds, &processes.since(&before));
    broker.delete_queues(&pools).await?;
    shutdown.cancel();
    Ok(())
}

fn report(what: &str, mode: &str, tasks: usize, per_second: f64, cpu: &Used) {
    let per_1000 = |program| cpu.of(program) * 1e3 / tasks as f64;
    println!(
        "{what:24} {mode:22} {per_second:8.0}/s  cpu s per 1,000: client {:.3}  broker {:.3}  redis {:.3}  all {:.3}",
        per_1000("client"),
        per_1000("rabbitmq"),
        per_1000("redis"),
        cpu.total() * 1e3 / tasks as f64
    );
}

// 5,000 confirmed messages wait in the queue while others pass through it; then the broker goes down. What is
// left of the 5,000, and how long after the restart can the queue be used?
async fn loss(mode: Mode, hard: bool) -> anyhow::Result<String> {
    const KEPT: usize = 5_000;
    let mut rabbit = tokio::task::spawn_blocking(PrivateRabbit::start).await??;
    let url = rabbit.url();
    {
        let out = Link::open(&url).await?;
        out.declare("kept", mode).await?;
        out.declare("passed", mode).await?;
        let mut pipeline = Pipeline::new(&out, mode, 2_000, true).await?;
        for _ in 0..KEPT {
            pipeline.publish("kept", stamped(SIZE)).await?;
        }
        pipeline.settle().await?;
        // Traffic at the moment of death.
        let inward = Link::open(&url).await?;
        let mut consumer = inward.consume("passed", 100).await?;
        let traffic = async {
            loop {
                for _ in 0..20 {
                    pipeline.publish("passed", stamped(SIZE)).await?;
                }
                for _ in 0..20 {
                    let message = consumer.next().await.context("ended")??;
                    inward.channel.basic_ack(message.delivery_tag, BasicAckOptions::default()).await?;
                }
            }
            #[allow(unreachable_code)]
            anyhow::Ok(())
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), traffic).await;
        // Unacked and half-way messages at the moment of death too.
        for _ in 0..500 {
            pipeline.publish("passed", stamped(SIZE)).await?;
        }
        rabbit = tokio::task::spawn_blocking(move || {
            if hard {
                rabbit.kill9()
            } else {
                rabbit.stop()?
            }
            anyhow::Ok(rabbit)
        })
        .await??;
    }
    let rabbit = tokio::task::spawn_blocking(move || {
        rabbit.restart()?;
        anyhow::Ok(rabbit)
    })
    .await??;
    let start = Instant::now();
    let mut kept = 0;
    for queue in ["kept", "passed"] {
        let usable = tokio::time::timeout(Duration::from_secs(30), usable(&url, mode, queue)).await;
        let count = usable.with_context(|| format!("{queue}: no delivery 30 s after the restart"))??;
        if queue == "kept" {
            kept = count;
        }
    }
    drop(rabbit);
    Ok(format!(
        "{} of {KEPT} confirmed messages lost, usable {:.1} s after the restart",
        KEPT.saturating_sub(kept),
        start.elapsed().as_secs_f64()
    ))
}

// Puts an end mark behind what is there and reads up to it.
async fn usable(url: &str, mode: Mode, queue: &str) -> anyhow::Result<usize> {
    let link = Link::open(url).await?;
    link.declare(queue, mode).await?;
    let mut pipeline = Pipeline::new(&link, mode, 10, true).await?;
    pipeline.publish(queue, b"end".to_vec()).await?;
    pipeline.settle().await?;
    let mut consumer = link.consume(queue, 500).await?;
    let mut count = 0;
    while let Some(message) = consumer.next().await {
        let message = message?;
        link.channel.basic_ack(message.delivery_tag, BasicAckOptions::default()).await?;
        if message.data == b"end" {
            return Ok(count);
        }
        count += 1;
    }
    anyhow::bail!("the consumer ended")
}
