//! The store refuses what it has no room for, and forgets what it need not keep.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use trireme_backend::{Backend, Deliveries, Delivery, Delta, Error};
use trireme_backend_embedded::{Clock, Config, Embedded, Hand};
use trireme_model::{
    Budget, Exec, Graph, Kind, Payload, Priority, RunId, Submit, Submitted, TaskId, TaskSpec,
    limits::{REPUBLISH_MS, RETENTION_MS},
};

fn store(config: Config) -> (Embedded, Hand) {
    let (clock, hand) = Clock::manual(1_000);
    (Embedded::new(Config { clock, ..config }), hand)
}

async fn sweep(store: &Embedded) {
    for _ in 0..1_000 {
        if !store.sweep().await.unwrap().more {
            return;
        }
    }
    panic!("sweeping never ends");
}

/// The next delivery, which must come without delay.
async fn next(deliveries: &mut Deliveries) -> Delivery {
    let next = tokio::time::timeout(Duration::from_secs(20), deliveries.next());
    next.await.expect("no delivery came").expect("consuming ended")
}

fn request(run: &str, input: &str) -> Submit {
    let exec = Exec {
        kind: Kind::Tool,
        pool: "tool".into(),
        priority: Priority::Normal,
        timeout: None,
        max_attempts: 1,
        backoff: 1,
        paid: false,
        fallback: None,
    };
    let id = TaskId::new("a").unwrap();
    let task = TaskSpec { id, exec, inputs: Vec::new(), policy: None, children: None, body: Payload::of(&0) };
    Submit {
        run: RunId::new(run).unwrap(),
        name: String::new(),
        fingerprint: "f".into(),
        graph: Graph::new(vec![task]).unwrap(),
        input: Payload::of(input),
        deadline: None,
        budget: Budget::default(),
    }
}

#[tokio::test]
async fn a_full_store_refuses_runs_until_old_ones_are_purged() {
    let (store, hand) = store(Config { max_runs: 2, ..Config::default() });
    for run in ["one", "two"] {
        assert_eq!(store.submit(request(run, "")).await.unwrap(), Submitted::Created);
    }
    let refused = store.submit(request("three", "")).await;
    assert!(matches!(refused, Err(Error::Full(_))), "{refused:?}");
    assert_eq!(store.submit(request("one", "")).await.unwrap(), Submitted::Exists, "a repeat is answered");
    store.cancel(&RunId::new("one").unwrap()).await.unwrap();
    hand.advance(RETENTION_MS);
    sweep(&store).await;
    assert_eq!(store.run(&RunId::new("one").unwrap()).await.unwrap(), None);
    assert_eq!(store.submit(request("three", "")).await.unwrap(), Submitted::Created);
}

#[tokio::test]
async fn bytes_are_bounded_and_come_back() {
    let (store, hand) = store(Config { max_bytes: 100, ..Config::default() });
    let one = RunId::new("one").unwrap();
    store.submit(request("one", &"x".repeat(50))).await.unwrap();
    let delta =
        || Delta { run: one.clone(), task: TaskId::new("a").unwrap(), attempt: 1, text: "y".repeat(60) };
    store.append(vec![delta(), delta()]).await.unwrap();
    let log = store.events(&one, 0, 10).await.unwrap().unwrap();
    assert_eq!(log.length, 2, "the second delta found no room");
    assert!(matches!(store.submit(request("two", "")).await, Err(Error::Full(_))));
    store.cancel(&one).await.unwrap();
    hand.advance(RETENTION_MS);
    sweep(&store).await;
    assert_eq!(store.due_len(), 0, "nothing is left behind");
    assert_eq!(store.submit(request("two", "")).await.unwrap(), Submitted::Created);
}

#[tokio::test]
async fn a_hint_that_found_no_room_is_published_again() {
    let (store, hand) = store(Config { max_hints: 1, ..Config::default() });
    for run in ["one", "two"] {
        store.submit(request(run, "")).await.unwrap();
    }
    let mut deliveries = store.consume(vec![("tool".into(), 10)]).await.unwrap();
    let first = next(&mut deliveries).await;
    hand.advance(REPUBLISH_MS);
    assert_eq!(store.sweep().await.unwrap().hints, 2);
    let mut again = [next(&mut deliveries).await.run, next(&mut deliveries).await.run];
    again.sort();
    assert_eq!(again.map(|run| run.to_string()), ["one", "two"]);
    assert_eq!(first.run.as_str(), "one");
}

#[tokio::test]
async fn two_consumers_share_a_pool() {
    let (store, _hand) = store(Config::default());
    let mut one = store.consume(vec![("tool".into(), 1)]).await.unwrap();
    let mut two = store.consume(vec![("tool".into(), 1)]).await.unwrap();
    for run in ["r1", "r2", "r3"] {
        store.submit(request(run, "")).await.unwrap();
    }
    let first = next(&mut one).await;
    let second = next(&mut two).await;
    assert_ne!(first.run, second.run);
    second.ack.done();
    assert_eq!(next(&mut two).await.run.as_str(), "r3", "the place freed by an ack is filled at once");
}
