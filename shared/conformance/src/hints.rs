//! How workers learn of ready tasks, and of attempts that need not go on.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use trireme_backend::{Deliveries, Delivery};
use trireme_model::{Complete, Completed, OnMiss, Priority, RunId, limits::REPUBLISH_MS};

use crate::stage::{Stage, id, need, soon};

async fn next(deliveries: &mut Deliveries) -> Delivery {
    soon(deliveries.next()).await.expect("consuming ended")
}

/// Nothing comes. A wait can't prove that, but a backend that sends too much is mostly caught.
async fn silent(deliveries: &mut Deliveries) {
    let came = tokio::time::timeout(Duration::from_millis(50), deliveries.next()).await;
    assert!(came.is_err(), "{came:?} came");
}

/// `count` tasks that are ready at once, and one that waits for them.
async fn fan(stage: &Stage, count: usize) -> (RunId, BTreeSet<String>) {
    let names: Vec<String> = (0..count).map(|at| format!("t{at}")).collect();
    let draw = names.iter().fold(stage.draw(), |draw, name| draw.tool(name, &[]));
    let draw = draw.tool("end", &names.iter().map(String::as_str).collect::<Vec<_>>());
    (stage.submit(draw).await, names.into_iter().collect())
}

pub(crate) async fn reach_a_consumer_that_comes_later(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[])).await;
    let mut deliveries = stage.backend().consume(vec![(stage.pool(), 4)]).await.unwrap();
    let delivery = next(&mut deliveries).await;
    assert_eq!((&delivery.run, &delivery.task, &delivery.pool), (&run, &id("a"), &stage.pool()));
    assert!(!delivery.redelivered);
    stage.does(&run, "a", json!(1)).await;
    delivery.ack.done();
    silent(&mut deliveries).await;
}

pub(crate) async fn no_more_unacked_than_slots(stage: Stage) {
    let (_, names) = fan(&stage, 5).await;
    let mut deliveries = stage.backend().consume(vec![(stage.pool(), 2)]).await.unwrap();
    let mut seen = BTreeSet::new();
    let (first, second) = (next(&mut deliveries).await, next(&mut deliveries).await);
    silent(&mut deliveries).await;
    for delivery in [first, second] {
        seen.insert(delivery.task.to_string());
        delivery.ack.done();
    }
    while seen.len() < 5 {
        let delivery = next(&mut deliveries).await;
        seen.insert(delivery.task.to_string());
        delivery.ack.done();
    }
    assert_eq!(seen, names);
}

pub(crate) async fn unacked_ones_come_again(stage: Stage) {
    let (_, names) = fan(&stage, 3).await;
    let mut deliveries = stage.backend().consume(vec![(stage.pool(), 2)]).await.unwrap();
    drop(next(&mut deliveries).await);
    next(&mut deliveries).await.ack.done();
    let taken = next(&mut deliveries).await;
    deliveries.stop();
    drop(taken);
    let mut other = stage.backend().consume(vec![(stage.pool(), 8)]).await.unwrap();
    let mut again = BTreeSet::new();
    for _ in 0..2 {
        let delivery = next(&mut other).await;
        again.insert(delivery.task.to_string());
        delivery.ack.done();
    }
    assert!(again.len() == 2 && again.is_subset(&names), "{again:?}");
    silent(&mut other).await;
    assert!(deliveries.next().await.is_none(), "a stopped consumer gets nothing");
}

pub(crate) async fn say_their_priority(stage: Stage) {
    let draw = stage.draw().tool("a", &[]).tool("b", &[]).with(|task| task.exec.priority = Priority::High);
    stage.submit(draw.tool("end", &["a", "b"])).await;
    let mut deliveries = stage.backend().consume(vec![(stage.pool(), 1)]).await.unwrap();
    let (first, second) = (next(&mut deliveries).await, next(&mut deliveries).await);
    let mut got = [first, second].map(|delivery| (delivery.task.to_string(), delivery.priority));
    got.sort();
    assert_eq!(got, [("a".into(), Priority::Normal), ("b".into(), Priority::High)]);
}

pub(crate) async fn none_for_the_successor_handed_over(stage: Stage) {
    let draw = stage.draw().tool("a", &[]).tool("b", &["a"]).tool("c", &["a"]).tool("end", &["b", "c"]);
    let run = stage.submit(draw).await;
    let mut deliveries = stage.backend().consume(vec![(stage.pool(), 8)]).await.unwrap();
    let hint = next(&mut deliveries).await;
    let a = stage.take(&run, "a").await;
    let complete = Complete { next: stage.next(), ..stage.completion(&a, json!(1)) };
    let answer = stage.backend().complete(complete).await.unwrap();
    hint.ack.done();
    let Completed::Recorded { next: Some(given) } = answer else { panic!("no successor: {answer:?}") };
    let published = next(&mut deliveries).await;
    assert_ne!(published.task, given.task);
    silent(&mut deliveries).await;
}

pub(crate) async fn unclaimed_ones_are_published_again(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[])).await;
    let mut deliveries = stage.backend().consume(vec![(stage.pool(), 8)]).await.unwrap();
    next(&mut deliveries).await.ack.done();
    stage.after(REPUBLISH_MS, async || stage.task(&run, "a").await.republished == 1).await;
    assert_eq!(next(&mut deliveries).await.task, id("a"));
}

pub(crate) async fn losers_are_aborted(stage: Stage) {
    let mut aborts = stage.backend().aborts();
    let draw = stage.draw().tool("a", &[]).tool("b", &[]).join("j", &["a", "b"], need(1, OnMiss::Fail));
    let run = stage.submit(draw.tool("end", &["j"])).await;
    stage.take(&run, "a").await;
    stage.does(&run, "b", json!("b")).await;
    let told = soon(async {
        loop {
            let abort = aborts.recv().await.unwrap();
            if abort.run == run {
                return abort;
            }
        }
    });
    assert_eq!(told.await.task, Some(id("a")));
}
