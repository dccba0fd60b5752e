//! The store refuses what it has no room for, and forgets what it need not keep.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use trireme_backend::{Backend, Deliveries, Delivery, Delta, Error};
use trireme_backend_embedded::{Clock, Config, Embedded, Hand};
use trireme_model::{
    Added, Budget, Caller, Claim, Claimed, Complete, Exec, Extend, Extended, Graph, Kind, More, Outcome,
    Payload, Priority, RunId, RunStatus, Submit, Submitted, TaskId, TaskSpec, Trace, Usage,
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
    let (label, body) = (String::new(), Payload::of(&0));
    let task = TaskSpec { id, label, exec, inputs: Vec::new(), policy: None, children: None, body };
    Submit {
        run: RunId::new(run).unwrap(),
        caller: Caller::default(),
        name: String::new(),
        fingerprint: "f".into(),
        graph: Graph::new(vec![task]).unwrap(),
        input: Payload::of(input),
        deadline: None,
        budget: Budget::default(),
        keep: Default::default(),
        trace: None,
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

#[tokio::test]
async fn what_attempts_add_is_bounded_and_comes_back() {
    let (store, hand) = store(Config { max_bytes: 1_000, ..Config::default() });
    let one = RunId::new("one").unwrap();
    let mut agent = request("one", "").graph.tasks()[0].clone();
    agent.exec.kind = Kind::Agent;
    let graph = Graph::new(vec![agent.clone()]).unwrap();
    store.submit(Submit { graph, ..request("one", "") }).await.unwrap();
    let claim = Claim { run: one.clone(), task: agent.id.clone(), claim: "c".into(), has_input: true };
    let Claimed::Run(attempt) = store.claim(claim).await.unwrap() else { panic!("it is ready") };
    let add = |task: &str, bytes: usize| {
        let mut spec = request("one", "").graph.tasks()[0].clone();
        (spec.id, spec.body) = (TaskId::new(task).unwrap(), Payload::of(&"x".repeat(bytes)));
        Added { spec, vital: false, resource: None }
    };
    let extend = |tasks| {
        let (run, task, token) = (one.clone(), agent.id.clone(), attempt.token.clone());
        store.extend(Extend { run, task, token, more: More::Tasks(tasks) })
    };
    // a repeat is not kept again
    for new in [1, 0, 0] {
        assert_eq!(extend(vec![add("a/1", 500)]).await.unwrap(), Extended::Added(new));
    }
    assert_eq!(extend(vec![add("a/2", 100)]).await.unwrap(), Extended::Added(1));
    let complete = Complete {
        run: one.clone(),
        task: agent.id.clone(),
        token: attempt.token.clone(),
        outcome: Outcome::Expanded,
        tasks: vec![add("a/1", 500), add("a/3", 400)],
        first_token: None,
        usage: Usage::default(),
        next: None,
    };
    assert!(store.submit(request("two", "")).await.is_ok(), "there is room for so much");
    store.complete(complete).await.unwrap();
    assert!(matches!(extend(vec![add("a/4", 1)]).await, Err(Error::Full(_))));
    assert!(matches!(store.submit(request("three", "")).await, Err(Error::Full(_))));
    store.cancel(&one).await.unwrap();
    hand.advance(RETENTION_MS);
    sweep(&store).await;
    store.submit(request("three", &"x".repeat(900))).await.unwrap();
}

/// A command that ends with its run looks once more for what to tell of, and then never again.
#[test]
fn whoever_has_seen_a_run_end_finds_it_among_the_ended() {
    use futures::executor::block_on;
    let (store, _) = store(Config::default());
    let trace = Some(Trace { id: 1, parent: 2, sampled: true });
    for at in 0..2_000 {
        let run = RunId::new(format!("r{at}")).unwrap();
        block_on(store.submit(Submit { trace, ..request(run.as_str(), "") })).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| block_on(store.cancel(&run)).unwrap());
            while block_on(store.run(&run)).unwrap().unwrap().status == RunStatus::Running {
                std::hint::spin_loop();
            }
            let ended = block_on(store.ended()).unwrap();
            assert_eq!(ended.runs.iter().map(|ending| &ending.run).collect::<Vec<_>>(), [&run]);
        });
    }
}
