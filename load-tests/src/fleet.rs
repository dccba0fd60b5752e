//! What the workloads run on: the embedded backend with a worker in this process, or a private RabbitMQ and
//! Redis with workers in processes of their own.

use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio_util::sync::CancellationToken;
use trireme_backend::Backend;
use trireme_backend_cluster::Cluster;
use trireme_backend_embedded::Embedded;
use trireme_coordinator::{Sweeper, Teller};
use trireme_llm::Providers;
use trireme_telemetry::{OpsServer, Traces};
use trireme_test_servers::{PrivateRabbit, PrivateRedis, free_port};
use trireme_tool::Tools;
use trireme_worker::{Config, Executors, Metrics, Pool, Worker};

use load_tests::cpu::Processes;

use crate::pause::Pause;

/// Slots per pool and worker.
const SLOTS: usize = 4096;

/// A backend with workers.
pub struct Fleet {
    /// The driver's handle.
    pub backend: Arc<dyn Backend>,
    /// Every process that does part of the work.
    pub processes: Processes,
    /// The raw floor is measured on the same servers.
    pub urls: Option<(String, String)>,
    /// Where spans of the driver go.
    pub traces: Traces,
    /// Where the processes are scraped, of a fleet that is observed.
    pub ops: Vec<std::net::SocketAddr>,
    shutdown: CancellationToken,
    workers: Vec<Child>,
    local: Vec<tokio::task::JoinHandle<()>>,
    _servers: Option<(PrivateRabbit, PrivateRedis)>,
}

/// How the cluster is set up.
#[derive(Debug, Clone)]
pub struct Cloud {
    /// Worker processes.
    pub workers: usize,
    /// Redis' `appendfsync`.
    pub appendfsync: String,
    /// `classic` or `quorum`.
    pub queue_type: Option<String>,
    /// Observed: where spans go, and of which share of the runs.
    pub otlp: Option<(String, Option<f64>)>,
}

/// The simulated model at the base URL `simulator`.
pub fn providers(simulator: Option<&str>) -> anyhow::Result<Providers> {
    let mut llm = trireme_llm::Config::default();
    if let Some(base) = simulator {
        let provider =
            serde_json::json!({"api": "openai", "base_url": format!("{base}/v1"), "api_key": "simulated"});
        llm.providers.insert("sim".into(), serde_json::from_value(provider)?);
    }
    Ok(Providers::new(llm)?)
}

/// What a measuring worker executes tasks with.
async fn executors(simulator: Option<&str>) -> anyhow::Result<Executors> {
    let tools = Tools::builder().builtin().register(Arc::new(Pause::new())).build().await?;
    Ok(Executors::new(providers(simulator)?, tools))
}

fn worker_config() -> Config {
    let pool = |name: &str| Pool { name: name.into(), slots: SLOTS };
    Config { pools: vec![pool("llm"), pool("tool")], drain_ms: 1000, ..Config::default() }
}

/// The cluster backend on these servers.
pub async fn connect(
    amqp: &str,
    redis: &str,
    queue_type: Option<&str>,
    traces: Traces,
) -> anyhow::Result<Cluster> {
    let mut config = trireme_backend_cluster::Config::new(amqp, redis);
    config.prefix = "bench".into();
    config.traces = traces;
    if let Some(queue_type) = queue_type {
        config.queue_type = serde_json::from_value(queue_type.into()).context("queue type")?;
    }
    Ok(Cluster::connect(config).await?)
}

/// Runs a worker until the process is told to stop.
pub async fn work(
    backend: Arc<dyn Backend>,
    simulator: Option<&str>,
    registry: &prometheus::Registry,
    traces: Traces,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let metrics = Metrics::new(registry)?;
    let worker = Worker::new(worker_config(), backend, executors(simulator).await?, metrics, traces)?;
    Ok(worker.run(shutdown).await?)
}

impl Fleet {
    /// Everything in this process.
    pub async fn embedded(simulator: Option<String>) -> anyhow::Result<Self> {
        let backend: Arc<dyn Backend> = Arc::new(Embedded::new(Default::default()));
        let shutdown = CancellationToken::new();
        let (worker_backend, token) = (backend.clone(), shutdown.clone());
        let worker = tokio::spawn(async move {
            if let Err(error) =
                work(worker_backend, simulator.as_deref(), &Default::default(), Traces::default(), token)
                    .await
            {
                eprintln!("worker: {error:#}");
            }
        });
        let processes = Processes(vec![("bench".into(), std::process::id())]);
        let sweeper = sweep(backend.clone(), shutdown.clone())?;
        Ok(Self {
            backend,
            processes,
            urls: None,
            traces: Traces::default(),
            ops: Vec::new(),
            shutdown,
            workers: Vec::new(),
            local: vec![worker, sweeper],
            _servers: None,
        })
    }

    /// Private servers and `cloud.workers` worker processes.
    pub async fn cluster(cloud: &Cloud, simulator: Option<&str>) -> anyhow::Result<Self> {
        let rabbit = PrivateRabbit::start()?;
        let redis = PrivateRedis::start(&[("appendonly", "yes"), ("appendfsync", &cloud.appendfsync)])?;
        let (amqp_url, redis_url) = (rabbit.url(), redis.url());
        let (shutdown, registry) = (CancellationToken::new(), prometheus::Registry::new());
        let (mut traces, mut ops) = (Traces::default(), Vec::new());
        if let Some((endpoint, ratio)) = &cloud.otlp {
            traces = crate::observation::traces(endpoint, *ratio, "trireme-coordinator", &registry)?;
        }
        let backend = connect(&amqp_url, &redis_url, cloud.queue_type.as_deref(), traces.clone()).await?;
        backend.register(&registry)?;
        if cloud.otlp.is_some() {
            backend.observe(&registry, &["llm".to_owned(), "tool".to_owned()])?;
            let (listen, ready) = (([127, 0, 0, 1], 0).into(), || std::future::ready(Ok(())));
            let server = OpsServer::bind(listen, registry.clone(), || Ok(()), ready).await?;
            ops.push(server.addr());
            tokio::spawn(server.run(shutdown.clone()));
        }
        let backend: Arc<dyn Backend> = Arc::new(backend);
        let mut processes = vec![("bench".to_owned(), std::process::id()), ("redis".to_owned(), redis.pid())];
        processes.push(("rabbitmq".to_owned(), rabbit.pid().context("the broker's process")?));
        let mut workers = Vec::new();
        for at in 0..cloud.workers {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["worker", "--amqp", &amqp_url, "--redis", &redis_url]);
            if let Some(simulator) = simulator {
                command.args(["--simulator", simulator]);
            }
            if let Some(queue_type) = &cloud.queue_type {
                command.args(["--queue-type", queue_type]);
            }
            if let Some((endpoint, _)) = &cloud.otlp {
                let listen = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()?));
                command.args(["--otlp", endpoint, "--listen", &listen.to_string()]);
                ops.push(listen);
            }
            let child = command.stdin(Stdio::null()).spawn()?;
            processes.push((format!("worker{at}"), child.id()));
            workers.push(child);
        }
        let telling = Teller::new(backend.clone(), traces.clone()).run(shutdown.clone());
        let local = vec![sweep(backend.clone(), shutdown.clone())?, tokio::spawn(telling)];
        Ok(Self {
            backend,
            processes: Processes(processes),
            urls: Some((amqp_url, redis_url)),
            traces,
            ops,
            shutdown,
            workers,
            local,
            _servers: Some((rabbit, redis)),
        })
    }

    /// The process in which tasks are executed.
    pub fn worker_pid(&self) -> u32 {
        self.workers.first().map_or_else(std::process::id, Child::id)
    }

    /// Stops workers and servers.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        for worker in &self.workers {
            trireme_test_servers::process::signal(worker.id(), "TERM")?;
        }
        for worker in &mut self.workers {
            let status = worker.wait()?;
            if !status.success() {
                bail!("a worker ended with {status}");
            }
        }
        for part in self.local.drain(..) {
            tokio::time::timeout(Duration::from_secs(10), part).await??;
        }
        self.backend.close().await;
        self.traces.close(Duration::from_secs(3)).await;
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // already ended after a regular stop
            let _ = worker.kill();
        }
    }
}

fn sweep(
    backend: Arc<dyn Backend>,
    shutdown: CancellationToken,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let metrics = trireme_coordinator::Metrics::register(&prometheus::Registry::new())?;
    let sweeper = Sweeper::new(backend, Duration::from_millis(100), metrics);
    Ok(tokio::spawn(sweeper.run(shutdown)))
}
