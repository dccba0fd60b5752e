//! RabbitMQ or Redis absent at the start, and lost while runs are in flight.

use std::time::Duration;

use serde_json::json;
use trireme_test_servers::{PrivateRabbit, PrivateRedis, free_port};

use crate::support::{SOON, eventually, fleet::Fleet};

/// A run that is at work for about two seconds.
const SPEC: &str = "\
tasks:
  a: {tool: {name: sleep, args: {ms: 1000}}}
  b: {tool: {name: sleep, args: {ms: 1000}}, after: [a]}
output: done
";
/// A server that comes back is noticed within the longest pause between attempts, and some.
const NOTICED: Duration = Duration::from_secs(40);

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_may_be_absent_and_may_go_away() {
    let mut redis = blocking(|| PrivateRedis::start(&[]).unwrap()).await;
    let mut fleet = Fleet::shared(None).await;
    fleet.redis = redis.url();
    redis.kill9();
    let mut coordinator = fleet.spawn_coordinator("c", free_port().unwrap(), &[]);
    let mut worker = fleet.spawn_worker("w", free_port().unwrap(), &[]);
    for member in [&mut coordinator, &mut worker] {
        let line = member.process.line("waiting for RabbitMQ and Redis").await;
        assert!(line.contains("retry_in_ms") && line.contains("redis"), "{line}");
        let reason = member.api.readiness(503, SOON).await;
        assert!(reason.contains("redis is unavailable"), "{reason}");
        assert_eq!(member.api.get("/healthz").await.unwrap().0, 200);
    }
    let mut redis = blocking(move || redis.restart().map(|()| redis).unwrap()).await;
    for member in [&coordinator, &worker] {
        member.api.readiness(200, NOTICED).await;
    }

    let runs = [coordinator.api.submit(SPEC).await, coordinator.api.submit(SPEC).await];
    eventually("a task runs", SOON, || async {
        (coordinator.api.run(&runs[1]).await["tasks"][0]["status"] == "running").then_some(())
    })
    .await;
    redis.kill9();
    for member in [&coordinator, &worker] {
        member.api.readiness(503, SOON).await;
    }
    let (status, refused) = coordinator.api.post("/v1/runs", SPEC, None).await.unwrap();
    assert_eq!(status, 503, "{refused}");
    let redis = blocking(move || redis.restart().map(|()| redis).unwrap()).await;
    for member in [&coordinator, &worker] {
        member.api.readiness(200, NOTICED).await;
    }
    for id in runs {
        let run = coordinator.api.ended(&id, NOTICED).await;
        assert_eq!((&run["status"], &run["output"]), (&json!("succeeded"), &json!("done")), "{run}");
    }
    coordinator.stop().await;
    worker.stop().await;
    fleet.clean().await;
    drop(redis);
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_may_be_absent_and_may_go_away() {
    let mut rabbit = blocking(|| PrivateRabbit::start().unwrap()).await;
    let mut fleet = Fleet::shared(None).await;
    fleet.amqp = rabbit.url();
    rabbit.kill9();
    let coordinator = fleet.spawn_coordinator("c", free_port().unwrap(), &[]);
    let worker = fleet.spawn_worker("w", free_port().unwrap(), &[]);
    for member in [&coordinator, &worker] {
        member.api.readiness(503, SOON).await;
        assert_eq!(member.api.get("/healthz").await.unwrap().0, 200);
        eventually("the log names RabbitMQ", SOON, || async {
            let output = member.process.output().to_lowercase();
            (output.contains("rabbitmq") || output.contains("broker") || output.contains("amqp"))
                .then_some(())
        })
        .await;
    }
    // runs are accepted without it, and wait
    let early = coordinator.api.submit(SPEC).await;
    let mut rabbit = blocking(move || rabbit.restart().map(|()| rabbit).unwrap()).await;
    for member in [&coordinator, &worker] {
        member.api.readiness(200, NOTICED).await;
    }
    assert_eq!(coordinator.api.ended(&early, NOTICED).await["status"], "succeeded");

    let runs = [coordinator.api.submit(SPEC).await, coordinator.api.submit(SPEC).await];
    eventually("a task runs", SOON, || async {
        (coordinator.api.run(&runs[1]).await["tasks"][0]["status"] == "running").then_some(())
    })
    .await;
    rabbit.kill9();
    for member in [&coordinator, &worker] {
        member.api.readiness(503, SOON).await;
    }
    let meanwhile = coordinator.api.submit(SPEC).await;
    let rabbit = blocking(move || rabbit.restart().map(|()| rabbit).unwrap()).await;
    for member in [&coordinator, &worker] {
        member.api.readiness(200, NOTICED).await;
    }
    for id in runs.into_iter().chain([meanwhile]) {
        let run = coordinator.api.ended(&id, NOTICED).await;
        assert_eq!((&run["status"], &run["output"]), (&json!("succeeded"), &json!("done")), "{run}");
    }
    coordinator.stop().await;
    worker.stop().await;
    fleet.clean().await;
    drop(rabbit);
}
