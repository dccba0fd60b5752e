//! `trireme doctor` on good servers and on spoilt ones.

use serde_json::Value;
use trireme_backend_cluster::broker;
use trireme_test_servers::{PrivateRabbit, PrivateRedis, free_port, unique};

use crate::support::process::{Ended, finish_with, trireme};

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Asks the doctor about a deployment of its own on these servers.
async fn ask(amqp: &str, redis: &str, prefix: &str, more: &[(&str, &str)]) -> (Ended, Value) {
    let mut command = trireme(&["doctor", "--json"]);
    command.env("TRIREME__AMQP__URL", amqp).env("TRIREME__REDIS__URL", redis);
    command.env("TRIREME__REDIS__PREFIX", prefix).envs(more.iter().copied());
    let finished = finish_with(command, b"").await;
    let found: Value = serde_json::from_str(finished.out.trim())
        .unwrap_or_else(|_| panic!("{}{}", finished.out, finished.err));
    (finished, found)
}

/// Verdict and text of a check.
fn of(found: &Value, check: &str) -> (String, String) {
    let checks = found["checks"].as_array().unwrap();
    let finding = checks.iter().find(|finding| finding["check"] == check);
    let finding = finding.unwrap_or_else(|| panic!("no {check} in {found:#}"));
    (finding["verdict"].as_str().unwrap().to_owned(), finding["text"].as_str().unwrap().to_owned())
}

#[track_caller]
fn fails(found: &Value, check: &str, cure: &str) {
    let (verdict, text) = of(found, check);
    assert_eq!(verdict, "fail", "{check}: {text}");
    assert!(text.contains(cure), "{check}: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_deployment_has_nothing_that_fails() {
    let redis =
        blocking(|| PrivateRedis::start(&[("maxmemory", "200mb"), ("appendfsync", "always")]).unwrap()).await;
    let amqp = trireme_test_servers::rabbitmq();
    let (finished, found) = ask(&amqp, &redis.url(), &unique("doctor"), &[]).await;
    finished.expect(0, &[]);
    for check in [
        "redis.connection",
        "redis.version",
        "redis.policy",
        "redis.memory",
        "redis.durability",
        "redis.scripts",
        "clock",
        "store.layout",
        "rabbitmq.connection",
        "rabbitmq.version",
        "rabbitmq.permissions",
        "queue llm.high",
    ] {
        assert_eq!(of(&found, check).0, "ok", "{check}: {}", of(&found, check).1);
    }
    // nobody works here
    assert_eq!(of(&found, "pool llm").0, "warn");
    assert_eq!(found["verdict"], "warn");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_loses_runs_is_named() {
    let options = [("maxmemory", "50mb"), ("maxmemory-policy", "allkeys-lru"), ("appendonly", "no")];
    let redis = blocking(move || PrivateRedis::start(&options).unwrap()).await;
    let (finished, found) =
        ask(&trireme_test_servers::rabbitmq(), &redis.url(), &unique("doctor"), &[]).await;
    finished.expect(1, &["checks fail"]);
    fails(&found, "redis.policy", "CONFIG SET maxmemory-policy noeviction");
    fails(&found, "redis.durability", "appendonly yes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_another_type_and_another_number_of_shards_are_named() {
    let (amqp, redis, prefix) =
        (trireme_test_servers::rabbitmq(), trireme_test_servers::redis(), unique("doctor"));
    let config =
        broker::Config { queue_type: broker::QueueType::Quorum, ..broker::Config::new(&amqp, &prefix) };
    let shutdown = tokio_util::sync::CancellationToken::new();
    let made = broker::Broker::start(config, shutdown.clone()).unwrap();
    made.declare(&["llm".into()]).await.unwrap();
    let mut connection =
        redis::Client::open(redis.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let meta = format!("{{{prefix}:0}}:meta");
    let pairs = [("epoch", "e"), ("server", "s"), ("shards", "4"), ("version", "2"), ("paused", "llm tool")];
    let _: () = redis::cmd("HSET").arg(&meta).arg(&pairs).query_async(&mut connection).await.unwrap();
    let (finished, found) = ask(&amqp, &redis, &prefix, &[("TRIREME__AMQP__QUEUE_TYPE", "classic")]).await;
    finished.expect(1, &["checks fail"]);
    fails(&found, "queue llm.high", "set the queue type it was made with, or delete it");
    fails(&found, "queue llm.normal", "other arguments");
    fails(&found, "store.layout", "set redis.shards to 4");
    assert_eq!(of(&found, "store.epoch").0, "warn");
    for pool in ["llm", "tool"] {
        let (verdict, text) = of(&found, &format!("paused {pool}"));
        assert!(verdict == "warn" && text.contains(&format!("pools resume {pool}")), "{verdict} {text}");
    }
    // the queue is as it was
    made.declare(&["llm".into()]).await.unwrap();
    made.delete_queues(&["llm".into()]).await.unwrap();
    let _: () = redis::cmd("DEL").arg(&meta).query_async(&mut connection).await.unwrap();
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_servers_and_missing_permissions_are_named() {
    let nowhere = format!("127.0.0.1:{}", free_port().unwrap());
    let (finished, found) =
        ask(&format!("amqp://{nowhere}/%2f"), &format!("redis://{nowhere}"), &unique("doctor"), &[]).await;
    finished.expect(1, &["checks fail"]);
    fails(&found, "redis.connection", "can't be reached");
    fails(&found, "rabbitmq.connection", "can't be reached");

    let redis = blocking(|| PrivateRedis::start(&[]).unwrap()).await;
    let mut connection =
        redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let user = ["SETUSER", "poor", "on", ">secret", "~*", "&*", "+@all", "-script", "-evalsha"];
    let _: () = redis::cmd("ACL").arg(&user).query_async(&mut connection).await.unwrap();
    let poor = redis.url().replace("redis://", "redis://poor:secret@");
    let wrong = redis.url().replace("redis://", "redis://poor:guess@");
    let rabbit = blocking(|| PrivateRabbit::start().unwrap()).await;
    let url = rabbit.url();
    let rabbit = blocking(move || {
        rabbit.ctl(&["add_user", "poor", "secret"]).unwrap();
        rabbit.ctl(&["set_permissions", "poor", "^$", ".*", ".*"]).unwrap();
        rabbit
    })
    .await;
    let (_, at) = url.split_once('@').unwrap();
    let prefix = unique("doctor");
    let (finished, found) = ask(&format!("amqp://poor:secret@{at}"), &poor, &prefix, &[]).await;
    finished.expect(1, &["checks fail"]);
    fails(&found, "redis.scripts", "+script|load");
    fails(&found, "rabbitmq.permissions", "may not declare");
    let (_, found) = ask(&format!("amqp://poor:guess@{at}"), &wrong, &prefix, &[]).await;
    fails(&found, "redis.connection", "refuses the user or password");
    fails(&found, "rabbitmq.connection", "refuses the user or password");
    drop(rabbit);
}
