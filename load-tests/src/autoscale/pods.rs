//! Worker processes that come and go, and the metrics that they export.

use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
};

use anyhow::{Context, bail};
use prometheus::Registry;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use trireme_backend::Backend;
use trireme_backend_cluster::Cluster;
use trireme_telemetry::OpsServer;
use trireme_tool::Tools;
use trireme_worker::{Config, Executors, Metrics, Pool, Worker};

use super::{POOL, PREFIX};

/// What a worker process is told.
#[derive(Debug, Clone, clap::Args)]
pub struct WorkerArgs {
    /// RabbitMQ
    #[arg(long)]
    amqp: String,
    /// Redis
    #[arg(long)]
    redis: String,
    /// Tasks at once
    #[arg(long)]
    slots: usize,
}

/// The workers there are.
pub(super) struct Pods {
    args: WorkerArgs,
    running: Vec<Pod>,
    /// Told to stop, and maybe still draining.
    leaving: Vec<Pod>,
}

struct Pod {
    process: Child,
    /// Where its metrics are.
    address: String,
}

/// The cluster backend on these servers.
pub(super) async fn connect(amqp: &str, redis: &str) -> anyhow::Result<Cluster> {
    let mut config = trireme_backend_cluster::Config::new(amqp, redis);
    config.prefix = PREFIX.into();
    Ok(Cluster::connect(config).await?)
}

/// Works until SIGTERM, then drains; prints the address of its metrics first.
///
/// # Errors
/// Servers that can't be used.
pub async fn work(args: WorkerArgs) -> anyhow::Result<()> {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry)?;
    let backend: Arc<dyn Backend> = Arc::new(connect(&args.amqp, &args.redis).await?);
    let config = Config {
        pools: vec![Pool { name: POOL.into(), slots: args.slots }],
        drain_ms: 10_000,
        ..Config::default()
    };
    let providers = trireme_llm::Providers::new(trireme_llm::Config::default())?;
    let executors = Executors::new(providers, Tools::builder().builtin().build().await?);
    let worker = Worker::new(config, backend.clone(), executors, metrics, Default::default())?;
    let ops = OpsServer::bind(([127, 0, 0, 1], 0).into(), registry, || Ok(()), || async { Ok(()) }).await?;
    println!("{}", ops.addr());
    let (stop_ops, stop) = (CancellationToken::new(), CancellationToken::new());
    let serving = tokio::spawn(ops.run(stop_ops.clone()));
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let told = stop.clone();
    tokio::spawn(async move {
        term.recv().await;
        told.cancel();
    });
    worker.run(stop).await?;
    stop_ops.cancel();
    serving.await??;
    backend.close().await;
    Ok(())
}

impl Pods {
    pub(super) fn new(amqp: String, redis: String, slots: usize) -> Self {
        Self { args: WorkerArgs { amqp, redis, slots }, running: Vec::new(), leaving: Vec::new() }
    }

    /// How many there are that were not told to stop.
    pub(super) fn count(&self) -> usize {
        self.running.len()
    }

    /// Starts or stops as many as are missing or too many; those told to stop drain on their own.
    pub(super) async fn set(&mut self, count: usize) -> anyhow::Result<()> {
        let missing = count.saturating_sub(self.running.len());
        let starting = (0..missing).map(|_| self.start()).collect::<anyhow::Result<Vec<_>>>()?;
        for process in starting {
            let pod = tokio::task::spawn_blocking(move || process.announced()).await??;
            self.running.push(pod);
        }
        for pod in self.running.split_off(count) {
            trireme_test_servers::process::signal(pod.process.id(), "TERM")?;
            self.leaving.push(pod);
        }
        Ok(())
    }

    fn start(&self) -> anyhow::Result<Starting> {
        let WorkerArgs { amqp, redis, slots } = &self.args;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["scaled-worker", "--amqp", amqp, "--redis", redis, "--slots", &slots.to_string()]);
        let process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        Ok(Starting(Some(process)))
    }

    /// The sum of a gauge's series of `pool` over the running workers; one that does not answer counts as idle.
    pub(super) async fn metric(&self, name: &str, pool: &str) -> f64 {
        let scrapes = self.running.iter().map(|pod| scrape(&pod.address));
        let texts = futures::future::join_all(scrapes).await;
        texts.into_iter().flatten().map(|text| sum(&text, name, pool)).sum()
    }

    /// Waits until all that were told to stop have gone, and checks that they ended well.
    pub(super) async fn gone(&mut self) -> anyhow::Result<()> {
        for mut pod in self.leaving.drain(..) {
            let status = tokio::task::spawn_blocking(move || pod.process.wait()).await??;
            if !status.success() {
                bail!("a worker ended with {status}");
            }
        }
        Ok(())
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        for pod in self.running.iter_mut().chain(&mut self.leaving) {
            // gone already after a regular end
            let _ = pod.process.kill();
        }
    }
}

/// A process that has not yet said where its metrics are; killed where that never comes.
struct Starting(Option<Child>);

impl Starting {
    fn announced(mut self) -> anyhow::Result<Pod> {
        use std::io::BufRead;
        let mut process = self.0.take().context("started once")?;
        let mut address = String::new();
        if let Some(stdout) = process.stdout.take() {
            std::io::BufReader::new(stdout).read_line(&mut address)?;
        }
        if address.trim().is_empty() {
            let _ = process.kill();
            bail!("a worker did not start: {}", process.wait()?);
        }
        Ok(Pod { process, address: address.trim().to_owned() })
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(process) = &mut self.0 {
            let _ = process.kill();
        }
    }
}

async fn scrape(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    Some(text)
}

/// The sum of the series of `name` with `pool` among their labels.
pub(super) fn sum(metrics: &str, name: &str, pool: &str) -> f64 {
    let label = format!("pool=\"{pool}\"");
    let of = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, labels) = series.split_once('{')?;
        (found == name && labels.contains(&label)).then(|| value.trim().parse::<f64>().ok())?
    };
    metrics.lines().filter_map(of).sum()
}

#[cfg(test)]
mod tests {
    #[test]
    fn sums_the_series_of_one_pool() {
        let text = "# HELP trireme_ready_tasks x\n\
            trireme_ready_tasks{pool=\"tool\",priority=\"high\"} 3\n\
            trireme_ready_tasks{pool=\"tool\",priority=\"normal\"} 4\n\
            trireme_ready_tasks{pool=\"llm\",priority=\"normal\"} 50\n\
            trireme_ready_tasks_other{pool=\"tool\"} 9\n";
        assert_eq!(super::sum(text, "trireme_ready_tasks", "tool"), 7.0);
        assert_eq!(super::sum(text, "trireme_open_joins", "tool"), 0.0);
    }
}
