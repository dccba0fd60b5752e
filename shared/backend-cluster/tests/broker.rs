//! The broker half against a real RabbitMQ: the shared one, and private ones where a test kills it.
#![allow(clippy::unwrap_used)]

use lapin::options::{BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trireme_backend_cluster::broker::{
    Broker, Config, Consumer, Delivery, Error, Hint, Priority, QueueType, State,
};
use trireme_test_servers::{PrivateRabbit, free_port, rabbitmq, unique};

const LIMIT: Duration = Duration::from_secs(60);
const POOL: &str = "llm";

struct Bench {
    broker: Broker,
    shutdown: CancellationToken,
    url: String,
}

impl Bench {
    async fn new(adapt: impl FnOnce(&mut Config)) -> Self {
        let url = tokio::task::spawn_blocking(rabbitmq).await.unwrap();
        Self::at(url, adapt)
    }

    fn at(url: String, adapt: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(url.clone(), unique("test-broker"));
        adapt(&mut config);
        let shutdown = CancellationToken::new();
        let broker = Broker::start(config, shutdown.clone()).unwrap();
        Self { broker, shutdown, url }
    }

    fn publish(&self, priority: Priority, names: impl IntoIterator<Item = usize>) {
        let hints = names.into_iter().map(|n| Hint::new(0, "run", n.to_string(), 1));
        self.broker.publish(POOL, priority, hints);
    }

    fn consume(&self, slots: u16) -> Consumer {
        self.broker.consume(&[(POOL.to_owned(), slots)])
    }

    fn queue(&self) -> String {
        self.broker.queue(POOL, Priority::Normal)
    }

    // A connection beside ours, to do what others may do to our queues.
    async fn other(&self) -> (Connection, Channel) {
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        (connection, channel)
    }

    // Messages that no consumer holds.
    async fn waiting(&self) -> u32 {
        let (_connection, channel) = self.other().await;
        let queue = self.queue();
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        let answer =
            channel.queue_declare(queue.as_str().into(), passive, FieldTable::default()).await.unwrap();
        answer.message_count()
    }

    async fn end(self) {
        self.broker.delete_queues(&[POOL.to_owned()]).await.unwrap();
        self.shutdown.cancel();
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {LIMIT:?}: {what}"),
    }
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    within(what, async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn state(states: watch::Receiver<State>, wanted: impl FnMut(&State) -> bool) -> State {
    let mut following = states.clone();
    match tokio::time::timeout(LIMIT, following.wait_for(wanted)).await {
        Ok(reached) => reached.unwrap().clone(),
        Err(_) => panic!("not within {LIMIT:?}; the state is {:?}", *states.borrow()),
    }
}

async fn take(consumer: &Consumer, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    within("deliveries", async {
        while taken.len() < count {
            let more = consumer.recv_many(count - taken.len()).await;
            assert!(!more.is_empty(), "the consumer ended");
            taken.extend(more);
        }
    })
    .await;
    taken
}

fn number(delivery: &Delivery) -> usize {
    delivery.hint.task.parse().unwrap()
}

#[tokio::test]
async fn every_hint_of_10000_is_delivered_once_and_acked() {
    for queue_type in [QueueType::Classic, QueueType::Quorum] {
        let bench = Bench::new(|config| config.queue_type = queue_type).await;
        let consumer = bench.consume(500);
        bench.publish(Priority::Normal, 0..10_000);
        let mut seen = BTreeSet::new();
        while seen.len() < 10_000 {
            // Acked from the newest to the oldest, so that every batch has gaps.
            for delivery in take(&consumer, 100).await.into_iter().rev() {
                assert!(seen.insert(number(&delivery)), "delivered twice");
                delivery.ack.ack();
            }
        }
        within("confirms", bench.broker.flushed()).await;
        assert!(consumer.close(LIMIT).await);
        let counters = bench.broker.counters();
        assert_eq!((counters.confirmed, counters.acked, counters.redelivered), (10_000, 10_000, 0));
        assert_eq!((counters.dropped, counters.reconnects, counters.backlog), (0, 0, 0));
        assert_eq!(bench.waiting().await, 0);
        bench.end().await;
    }
}

#[tokio::test]
async fn high_priority_is_taken_first() {
    let bench = Bench::new(|_| ()).await;
    bench.publish(Priority::Normal, 0..50);
    bench.publish(Priority::High, 50..100);
    let consumer = bench.consume(50);
    eventually("100 deliveries", || bench.broker.counters().delivered == 100).await;
    let order: Vec<_> = take(&consumer, 100).await.iter().map(|delivery| delivery.priority).collect();
    assert_eq!(order, [[Priority::High; 50], [Priority::Normal; 50]].concat());
    drop(consumer);
    bench.end().await;
}

#[tokio::test]
async fn what_a_lost_consumer_did_not_ack_comes_again() {
    let bench = Bench::new(|_| ()).await;
    bench.publish(Priority::Normal, 0..10);
    let first = bench.consume(10);
    let mut taken = take(&first, 10).await;
    for delivery in taken.drain(..4) {
        delivery.ack.ack();
    }
    eventually("4 acks", || bench.broker.counters().acked == 4).await;
    // Dropped with six in hand.
    drop(first);
    let second = bench.consume(10);
    let again = take(&second, 6).await;
    assert!(again.iter().all(|delivery| delivery.redelivered));
    assert_eq!(again.iter().map(number).collect::<Vec<_>>(), (4..10).collect::<Vec<_>>());
    // Acks of the lost channel must not reach the new one, where the numbers mean other messages.
    taken.into_iter().for_each(|delivery| delivery.ack.ack());
    again.into_iter().for_each(|delivery| delivery.ack.ack());
    assert!(second.close(LIMIT).await);
    assert_eq!(bench.broker.counters().stale_acks, 6);
    assert_eq!(bench.broker.counters().acked, 10);
    assert_eq!(bench.waiting().await, 0);
    bench.end().await;
}

#[tokio::test]
async fn garbage_is_acked_and_counted() {
    let bench = Bench::new(|_| ()).await;
    bench.broker.declare(&[POOL.to_owned()]).await.unwrap();
    let (_connection, channel) = bench.other().await;
    let queue = bench.queue();
    let large = vec![b'x'; 100_000];
    let garbage: [&[u8]; 5] = [b"", b"{", b"\xff\xfe", br#"{"v":9,"new":1}"#, &large];
    for message in garbage {
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default();
        channel.basic_publish("".into(), queue.as_str().into(), options, message, properties).await.unwrap();
    }
    let consumer = bench.consume(2);
    eventually("garbage", || bench.broker.counters().decode_errors == 5).await;
    bench.publish(Priority::Normal, [7]);
    let good = take(&consumer, 1).await.pop().unwrap();
    assert_eq!(number(&good), 7);
    good.ack.ack();
    assert!(consumer.close(LIMIT).await);
    assert_eq!(bench.broker.counters().acked, 6);
    assert_eq!(bench.waiting().await, 0);
    bench.end().await;
}

#[tokio::test]
async fn a_queue_deleted_under_us_is_declared_again_and_nothing_is_lost() {
    let bench = Bench::new(|_| ()).await;
    bench.publish(Priority::Normal, [0]);
    within("first confirm", bench.broker.flushed()).await;
    let (_connection, channel) = bench.other().await;
    channel.queue_delete(bench.queue().as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    bench.publish(Priority::Normal, 1..101);
    within("confirms", bench.broker.flushed()).await;
    assert!(bench.broker.counters().returned >= 1);
    let consumer = bench.consume(200);
    let seen: BTreeSet<_> = take(&consumer, 100).await.iter().map(number).collect();
    assert_eq!(seen, (1..101).collect());
    // Deleted under a consumer: the broker cancels it, and it comes back by itself.
    let before = bench.broker.counters().reconnects;
    channel.queue_delete(bench.queue().as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    eventually("reconnect", || bench.broker.counters().reconnects > before).await;
    bench.publish(Priority::Normal, [101]);
    assert_eq!(number(&take(&consumer, 1).await[0]), 101);
    drop(consumer);
    bench.end().await;
}

#[tokio::test]
async fn a_queue_of_another_type_is_a_clear_error() {
    let bench = Bench::new(|config| config.queue_type = QueueType::Quorum).await;
    let (_connection, channel) = bench.other().await;
    let queue = bench.queue();
    let durable = QueueDeclareOptions::durable();
    channel.queue_declare(queue.as_str().into(), durable, FieldTable::default()).await.unwrap();
    let error = bench.broker.declare(&[POOL.to_owned()]).await.unwrap_err();
    assert!(matches!(&error, Error::QueueMismatch { queue: named, .. } if *named == queue), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("rabbitmqctl delete_queue {queue}")), "{text}");
    // The same text is what readiness shows.
    bench.publish(Priority::Normal, [1]);
    state(bench.broker.state(), |state| *state == State::Lost(text.clone())).await;
    let consumer = bench.consume(1);
    state(consumer.state(), |state| *state == State::Lost(text.clone())).await;
    drop(consumer);
    bench.end().await;
}

#[tokio::test]
async fn without_a_broker_publishing_never_waits_and_the_backlog_is_bounded() {
    let nobody = format!("amqp://guest:guest@127.0.0.1:{}/%2f", free_port().unwrap());
    let bench = Bench::at(nobody, |config| config.backlog = 100);
    bench.publish(Priority::Normal, 0..150);
    let counters = bench.broker.counters();
    assert_eq!((counters.dropped, counters.backlog), (50, 100));
    state(bench.broker.state(), |state| matches!(state, State::Lost(_))).await;
    bench.shutdown.cancel();
    state(bench.broker.state(), |state| *state == State::Closed).await;
}

#[tokio::test]
async fn a_stopped_consumer_gives_back_what_was_not_taken_and_acks_what_was() {
    let bench = Bench::new(|_| ()).await;
    bench.publish(Priority::Normal, 0..10);
    let consumer = bench.consume(10);
    eventually("10 deliveries", || bench.broker.counters().delivered == 10).await;
    let mut taken = take(&consumer, 4).await;
    let kept = taken.pop().unwrap();
    consumer.stop();
    assert!(within("end", consumer.recv()).await.is_none());
    bench.publish(Priority::Normal, [10]);
    within("confirm", bench.broker.flushed()).await;
    // Acked after the stop, one even after close has begun to wait for it.
    taken.into_iter().for_each(|delivery| delivery.ack.ack());
    let close = tokio::spawn(consumer.close(LIMIT));
    tokio::task::yield_now().await;
    kept.ack.ack();
    assert!(within("close", close).await.unwrap());
    assert_eq!(bench.broker.counters().acked, 4);
    assert_eq!(bench.waiting().await, 7);

    // One that is never acked does not hold the close for longer than its grace.
    let consumer = bench.consume(10);
    let held = take(&consumer, 7).await;
    assert!(!within("close", consumer.close(Duration::ZERO)).await);
    assert_eq!(bench.waiting().await, 7);
    drop(held);
    bench.end().await;
}

#[tokio::test]
async fn shutdown_sends_what_waits() {
    let bench = Bench::new(|_| ()).await;
    bench.publish(Priority::Normal, 0..5_000);
    bench.shutdown.cancel();
    state(bench.broker.state(), |state| *state == State::Closed).await;
    assert_eq!(bench.broker.counters().confirmed, 5_000);
    assert_eq!(bench.waiting().await, 5_000);
    bench.end().await;
}

/// A persistent hint that was confirmed is on disk. Hints published while the broker is away wait in memory, and
/// those without an answer are sent again: together nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn persistent_hints_survive_a_killed_broker() {
    killed_mid_traffic(true, 0..3_000).await;
}

/// Transient hints that the broker held may be lost, by design; what waits with us goes through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_hints_go_through_after_the_broker_was_killed() {
    killed_mid_traffic(false, 2_000..3_000).await;
}

// Publishes 0..2000, acks about half, kills the broker, publishes 2000..3000, restarts it, and takes until all of
// `expected` have come. In no order: a consumer that loses its connection again gives back what it was sent, which
// then comes behind what others were sent meanwhile.
async fn killed_mid_traffic(persistent: bool, expected: Range<usize>) {
    let mut rabbit = tokio::task::spawn_blocking(|| PrivateRabbit::start().unwrap()).await.unwrap();
    let bench = Bench::at(rabbit.url(), |config| config.persistent = persistent);
    let consumer = bench.consume(100);
    let mut missing: BTreeSet<usize> = expected.collect();
    bench.publish(Priority::Normal, 0..1_000);
    for _ in 0..9 {
        for delivery in take(&consumer, 100).await {
            missing.remove(&number(&delivery));
            delivery.ack.ack();
        }
    }
    // In our hands over the kill: their acks come too late, so that they must come again.
    let held = take(&consumer, 10).await;
    // Some of these are confirmed, some on their way, some still waiting when the broker dies.
    bench.publish(Priority::Normal, 1_000..2_000);
    eventually("some confirms", || bench.broker.counters().confirmed > 1_050).await;
    let rabbit = tokio::task::spawn_blocking(move || {
        rabbit.kill9();
        rabbit
    });
    let mut rabbit = rabbit.await.unwrap();
    state(consumer.state(), |state| matches!(state, State::Lost(_))).await;
    state(bench.broker.state(), |state| matches!(state, State::Lost(_))).await;
    bench.publish(Priority::Normal, 2_000..3_000);
    held.into_iter().for_each(|delivery| delivery.ack.ack());
    assert_eq!(bench.broker.counters().stale_acks, 10);

    let rabbit = tokio::task::spawn_blocking(move || {
        rabbit.restart().unwrap();
        rabbit
    });
    let _rabbit = rabbit.await.unwrap();
    state(bench.broker.state(), |state| *state == State::Ready).await;
    state(consumer.state(), |state| *state == State::Ready).await;
    within("confirms", bench.broker.flushed()).await;
    let end = tokio::time::Instant::now() + LIMIT;
    while !missing.is_empty() {
        match tokio::time::timeout_at(end, consumer.recv()).await {
            Ok(delivery) => {
                let delivery = delivery.unwrap();
                missing.remove(&number(&delivery));
                delivery.ack.ack();
            }
            Err(_) => panic!("did not come: {missing:?}; {:?}", bench.broker.counters()),
        }
    }
    assert!(consumer.close(LIMIT).await);
    assert_eq!(bench.broker.counters().dropped, 0);
    bench.shutdown.cancel();
}
