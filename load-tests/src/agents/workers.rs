//! Worker processes of the cluster, which may be killed, and what one of them does.

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use prometheus::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trireme_backend::Backend;
use trireme_telemetry::Traces;
use trireme_worker::{Config, Executors, Metrics, Pool, Worker};

use super::{faults, product, statistics::Random, suite::Suite};
use crate::cpu::seconds_of;

/// Worker processes: one that dies takes a third of the work with it.
const COUNT: usize = 3;
/// Slots of each pool: more than 200 runs of suite (b) have calls at once, so that nothing waits for a slot.
const SLOTS: usize = 2048;

/// Longest time from the item that a kill falls into to the kill: shorter than any item takes.
const MOMENT: Duration = Duration::from_millis(800);

/// What a worker process is told.
#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    /// RabbitMQ
    #[arg(long)]
    amqp: String,
    /// Redis
    #[arg(long)]
    redis: String,
    /// Base URL of the simulated models and tools
    #[arg(long)]
    simulator: String,
    /// Whose tools to offer
    #[arg(long)]
    suite: String,
    /// Duplicates and reorders what passes between worker and backend, by this seed
    #[arg(long)]
    faults: Option<u64>,
}

/// The processes of one fleet.
pub(super) struct Workers {
    args: WorkerArgs,
    children: Mutex<Vec<Child>>,
    kills: AtomicUsize,
    /// CPU seconds of those that were killed.
    spent: Mutex<f64>,
}

/// The cluster backend on these servers.
pub(super) async fn connect(amqp: &str, redis: &str) -> anyhow::Result<trireme_backend_cluster::Cluster> {
    let mut config = trireme_backend_cluster::Config::new(amqp, redis);
    config.prefix = "agents".into();
    Ok(trireme_backend_cluster::Cluster::connect(config).await?)
}

/// A worker on `backend` with the tools of `suite`.
pub(super) async fn worker(
    backend: Arc<dyn Backend>,
    simulator: &str,
    suite: &Suite,
    registry: &Registry,
) -> anyhow::Result<Worker> {
    let executors = Executors::new(product::providers(simulator)?, product::tools(simulator, suite).await?);
    let pool = |name: &str| Pool { name: name.into(), slots: SLOTS };
    let config = Config { pools: vec![pool("llm"), pool("tool")], drain_ms: 1000, ..Config::default() };
    Ok(Worker::new(config, backend, executors, Metrics::new(registry)?, Traces::default())?)
}

/// Works until standard input ends: a worker does not outlive who started it.
///
/// # Errors
/// Servers that can't be used, an unknown suite.
pub async fn work(args: WorkerArgs) -> anyhow::Result<()> {
    let suite = Suite::generate(&args.suite, 0, 0, 1.0).context("an unknown suite")?;
    let cluster = connect(&args.amqp, &args.redis).await?;
    let backend: Arc<dyn Backend> = match args.faults {
        Some(seed) => Arc::new(faults::Tap::of_cluster(cluster, seed)),
        None => Arc::new(cluster),
    };
    let worker = worker(backend.clone(), &args.simulator, &suite, &Registry::new()).await?;
    let shutdown = CancellationToken::new();
    let told = shutdown.clone();
    tokio::spawn(async move {
        // whatever ends it, the parent is gone or wants us gone
        let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await;
        told.cancel();
    });
    worker.run(shutdown).await?;
    backend.close().await;
    Ok(())
}

impl Workers {
    /// Starts [`COUNT`] processes.
    pub(super) fn start(
        urls: (String, String),
        simulator: &str,
        suite: &str,
        faults: Option<u64>,
    ) -> anyhow::Result<Self> {
        let (amqp, redis) = urls;
        let args = WorkerArgs { amqp, redis, simulator: simulator.into(), suite: suite.into(), faults };
        let workers =
            Self { args, children: Mutex::default(), kills: AtomicUsize::new(0), spent: Mutex::default() };
        for at in 0..COUNT {
            let child = workers.spawn(at as u64)?;
            workers.children().push(child);
        }
        Ok(workers)
    }

    fn spawn(&self, number: u64) -> anyhow::Result<Child> {
        let args = &self.args;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["agent-worker", "--amqp", &args.amqp, "--redis", &args.redis]);
        command.args(["--simulator", &args.simulator, "--suite", &args.suite]);
        if let Some(seed) = args.faults {
            command.args(["--faults", &(seed ^ number).to_string()]);
        }
        Ok(command.stdin(Stdio::piped()).spawn()?)
    }

    fn children(&self) -> std::sync::MutexGuard<'_, Vec<Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills a random process with SIGKILL and starts another one each time that as many items have begun as the next of
    /// `marks` says, a random moment later, when their calls are under way (`speed` times as fast); ends at `stop`.
    pub(super) async fn kill(
        &self,
        (marks, speed): (&[usize], f64),
        mut begun: watch::Receiver<usize>,
        seed: u64,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut random = Random::new(seed);
        for mark in marks {
            let moment = MOMENT.mul_f64(random.unit() / speed);
            let due = async {
                // the sender outlives the items
                let _ = begun.wait_for(|begun| begun >= mark).await;
                tokio::time::sleep(moment).await;
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = due => {}
            }
            let kills = self.kills.fetch_add(1, Ordering::Relaxed) + 1;
            let next = self.spawn((COUNT + kills) as u64)?;
            let mut killed = {
                let mut children = self.children();
                let victim = random.below(COUNT as u64) as usize;
                std::mem::replace(&mut children[victim], next)
            };
            *self.spent.lock().unwrap_or_else(PoisonError::into_inner) += seconds_of(killed.id());
            killed.kill()?;
            killed.wait()?;
        }
        Ok(())
    }

    /// Processes killed so far.
    pub(super) fn kills(&self) -> usize {
        self.kills.load(Ordering::Relaxed)
    }

    /// CPU seconds used so far, by those that were killed as well.
    pub(super) fn cpu_seconds(&self) -> f64 {
        let spent = *self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent + self.children().iter().map(|child| seconds_of(child.id())).sum::<f64>()
    }

    /// Lets them end what they are at and waits until they are gone.
    pub(super) fn stop(&self) -> anyhow::Result<()> {
        let mut children = std::mem::take(&mut *self.children());
        for child in &mut children {
            drop(child.stdin.take());
        }
        for child in &mut children {
            let status = child.wait()?;
            if !status.success() {
                bail!("a worker ended with {status}");
            }
        }
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in self.children().iter_mut() {
            // after a regular stop there are none
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
