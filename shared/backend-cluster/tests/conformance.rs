//! The cluster backend does what every backend must do: once on a clock of the tests', each story with a
//! prefix of its own, and once on the server's clock, all stories in one deployment.
#![allow(clippy::unwrap_used)]

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use redis::AsyncCommands;
use trireme_backend::Backend;
use trireme_backend_cluster::{Cluster, Config};
use trireme_conformance::{Clean, Subject, exercise};
use trireme_test_servers::{rabbitmq, redis as redis_server, unique};

struct Servers {
    rabbit: String,
    redis: String,
}

async fn servers() -> Servers {
    tokio::task::spawn_blocking(|| Servers { rabbit: rabbitmq(), redis: redis_server() }).await.unwrap()
}

impl Servers {
    fn config(&self, prefix: &str) -> Config {
        let config = Config::new(self.rabbit.clone(), self.redis.clone());
        Config { prefix: prefix.into(), shards: 3, redis_connections: 3, ..config }
    }
}

/// Deletes every key of a deployment.
async fn delete_keys(url: &str, prefix: &str) {
    let mut link = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = link.keys(format!("{{{prefix}:*")).await.unwrap();
    for chunk in keys.chunks(500) {
        let _: () = link.unlink(chunk).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_on_a_clock_of_its_own() {
    let servers = servers().await;
    exercise(async |_| {
        let prefix = unique("conform");
        let time = Arc::new(AtomicU64::new(1_700_000_000_000));
        let (clock, hand) = (time.clone(), time);
        let mut config = servers.config(&prefix);
        config.clock.0 = Some(Arc::new(move || clock.load(SeqCst)));
        let backend = Arc::new(Cluster::connect(config).await.unwrap());
        let (cluster, url) = (backend.clone(), servers.redis.clone());
        Subject {
            backend,
            advance: Some(Arc::new(move |by| {
                hand.fetch_add(by, SeqCst);
            })),
            clean: Some(Arc::new(move |pool| {
                let (cluster, url, prefix) = (cluster.clone(), url.clone(), prefix.clone());
                Box::pin(async move {
                    // closed first: a publisher declares again what is missing
                    cluster.close().await;
                    cluster.broker().delete_queues(&[pool]).await.unwrap();
                    delete_keys(&url, &prefix).await;
                })
            })),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_on_the_clock_of_the_server() {
    let servers = servers().await;
    let prefix = unique("conform");
    let cluster = Arc::new(Cluster::connect(servers.config(&prefix)).await.unwrap());
    let pools: Arc<Mutex<Vec<String>>> = Arc::default();
    exercise(async |_| {
        let pools = pools.clone();
        // noted here and deleted at the end: hints of other stories are still on their way
        let clean: Clean = Arc::new(move |pool| {
            pools.lock().unwrap().push(pool);
            Box::pin(async {})
        });
        Subject { backend: cluster.clone(), advance: None, clean: Some(clean) }
    })
    .await;
    cluster.close().await;
    let pools = std::mem::take(&mut *pools.lock().unwrap());
    cluster.broker().delete_queues(&pools).await.unwrap();
    delete_keys(&servers.redis, &prefix).await;
}
