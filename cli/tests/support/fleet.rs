//! Coordinators and workers as processes on RabbitMQ and Redis.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use lapin::{Connection, ConnectionProperties, options::QueueDeclareOptions, types::FieldTable};
use redis::AsyncCommands;
use tokio::process::Command;
use trireme_test_servers::{free_port, rabbitmq, redis as shared_redis, unique};

use super::{
    SOON,
    api::Api,
    process::{Process, finish_with, trireme},
};

/// The queues of the standard pools.
const QUEUES: [&str; 4] = ["llm.normal", "llm.high", "tool.normal", "tool.high"];

/// Where a fleet lives. Its processes are the test's own.
#[derive(Clone)]
pub struct Fleet {
    /// RabbitMQ.
    pub amqp: String,
    /// Redis.
    pub redis: String,
    /// Put before every key and queue.
    pub prefix: String,
    /// Providers and tools, if any.
    pub config: Option<PathBuf>,
    /// The API key that its coordinators want and its clients have; without one they want none.
    pub key: Option<String>,
}

/// A coordinator or a worker.
pub struct Member {
    /// It.
    pub process: Process,
    /// Its HTTP side: the API of a coordinator, health and metrics of a worker.
    pub api: Api,
}

impl Fleet {
    /// A fleet of its own on the servers that tests share.
    pub async fn shared(config: Option<PathBuf>) -> Self {
        let servers = tokio::task::spawn_blocking(|| (rabbitmq(), shared_redis()));
        let (amqp, redis) = servers.await.unwrap();
        Self { amqp, redis, prefix: unique("fleet"), config, key: None }
    }

    fn command(&self, args: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = trireme(args);
        command.env("TRIREME__AMQP__URL", &self.amqp).env("TRIREME__REDIS__URL", &self.redis);
        command.env("TRIREME__REDIS__PREFIX", &self.prefix);
        if let Some(config) = &self.config {
            command.env("TRIREME_CONFIG", config);
        }
        if self.key.is_some() {
            command.env("TRIREME__COORDINATOR__ACCESS", "keys");
        }
        command.envs(env.iter().copied());
        command
    }

    /// Starts a coordinator on `port` without waiting for anything.
    pub fn spawn_coordinator(&self, name: &str, port: u16, env: &[(&str, &str)]) -> Member {
        let address = SocketAddr::from(([127, 0, 0, 1], port)).to_string();
        let command = self.command(&["coordinator", "--listen", &address], env);
        let api = Api::with_key(format!("http://{address}"), self.key.as_deref());
        Member { process: Process::start(name, command), api }
    }

    /// Starts a worker with health on `port` without waiting for anything.
    pub fn spawn_worker(&self, name: &str, port: u16, env: &[(&str, &str)]) -> Member {
        let address = SocketAddr::from(([127, 0, 0, 1], port)).to_string();
        let command = self.command(&["worker", "--pools", "llm=64,tool=64", "--listen", &address], env);
        Member { process: Process::start(name, command), api: Api::new(format!("http://{address}")) }
    }

    /// A coordinator that is ready.
    pub async fn coordinator(&self, name: &str) -> Member {
        let member = self.spawn_coordinator(name, free_port().unwrap(), &[]);
        member.ready().await
    }

    /// A worker that is ready.
    pub async fn worker(&self, name: &str, env: &[(&str, &str)]) -> Member {
        let member = self.spawn_worker(name, free_port().unwrap(), env);
        member.ready().await
    }

    /// Makes an API key, directly in the store.
    pub async fn make_key(&self, more: &[&str]) -> String {
        let args = [&["keys", "create", "--store", "--name", "test"], more].concat();
        let made = finish_with(self.command(&args, &[]), b"").await;
        made.expect(0, &[]).out.trim().to_owned()
    }

    /// Entries of the due index.
    pub async fn due(&self) -> Vec<String> {
        let mut redis = self.connection().await;
        redis.zrange(format!("{{{}:0}}:due", self.prefix), 0, -1).await.unwrap()
    }

    async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.redis.as_str()).unwrap();
        // the library's own 500 ms say more about the machine than about the fleet
        let patient = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(SOON))
            .set_response_timeout(Some(SOON));
        client.get_multiplexed_async_connection_with_config(&patient).await.unwrap()
    }

    /// Hints that wait in queues.
    pub async fn queued(&self) -> u32 {
        let amqp = Connection::connect(&self.amqp, ConnectionProperties::default()).await.unwrap();
        let mut waiting = 0;
        // asking for a queue that is not there closes the channel; a dropped one would lend its number to the next
        let mut channels = Vec::new();
        for queue in QUEUES {
            let channel = amqp.create_channel().await.unwrap();
            channels.push(channel.clone());
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let name = format!("{}.q.{queue}", self.prefix);
            let asked = channel.queue_declare(name.as_str().into(), passive, FieldTable::default()).await;
            waiting += asked.map_or(0, |queue| queue.message_count());
        }
        amqp.close(0, "done".into()).await.unwrap();
        waiting
    }

    /// Deletes all its keys and queues.
    pub async fn clean(&self) {
        let mut redis = self.connection().await;
        let pattern = format!("{{{}:*", self.prefix);
        let mut scan = redis.clone();
        let mut keys = scan.scan_match::<_, String>(pattern).await.unwrap();
        let mut found = Vec::new();
        while let Some(key) = keys.next_item().await {
            found.push(key.unwrap());
        }
        for key in found {
            let _: () = redis.unlink(key).await.unwrap();
        }
        let amqp = Connection::connect(&self.amqp, ConnectionProperties::default()).await.unwrap();
        let channel = amqp.create_channel().await.unwrap();
        for queue in QUEUES {
            let name = format!("{}.q.{queue}", self.prefix);
            let _ = channel.queue_delete(name.as_str().into(), Default::default()).await.unwrap();
        }
        amqp.close(0, "done".into()).await.unwrap();
    }
}

impl Member {
    /// Waits until it says that it is ready.
    pub async fn ready(mut self) -> Self {
        let end = std::time::Instant::now() + SOON;
        loop {
            if self.api.get("/readyz").await.is_ok_and(|(status, _)| status == 200) {
                return self;
            }
            let gone = self.process.gone();
            let name = &self.process.name;
            assert!(gone.is_none(), "{name} ended with {gone:?}: {}", self.process.output());
            assert!(std::time::Instant::now() < end, "{name} is not ready: {}", self.process.output());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGTERM; it has to end with exit code 0.
    pub async fn stop(mut self) {
        self.process.stop(SOON).await;
    }
}
