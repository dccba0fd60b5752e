//! Benchmarks: each against a baseline in the same run, with the command that repeats it.
//!
//! `cargo run --release -p load-tests -- bench` measures everything; `--only W2,W3` a part. `bench agents` measures
//! agents against other agents, `bench autoscale` a step of load on a fleet that is scaled by our metrics.

mod bench;
mod fleet;
mod idle;
mod meter;
mod observation;
mod pause;
mod workload;

use std::io::Write;

use anyhow::bail;
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    bench::Figures,
    fleet::{Cloud, Fleet},
};

/// Many small allocations on many threads: measurably faster than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "load-tests", about = "Benchmarks of Trireme")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// W1 to W6 and the raw floor
    Bench(Box<Bench>),
    /// A worker process of a measured fleet (started by `bench`)
    #[command(hide = true)]
    Worker(Worker),
    /// A worker process of `bench agents --faults`
    #[command(hide = true)]
    AgentWorker(load_tests::agents::WorkerArgs),
    /// A worker process of `bench autoscale`
    #[command(hide = true)]
    ScaledWorker(load_tests::autoscale::WorkerArgs),
    /// The collector of `bench observation`
    #[command(hide = true)]
    Sink,
    /// The simulated model of W6 (started by `bench`)
    #[command(hide = true)]
    Simulator,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
struct Bench {
    #[command(subcommand)]
    part: Option<Part>,
    /// embedded, cluster, or both
    #[arg(long, default_value = "both")]
    backend: String,
    /// Only these workloads
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Worker processes of the cluster
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Redis' appendfsync: everysec or always
    #[arg(long, default_value = "everysec")]
    appendfsync: String,
    /// Queue type of hints: classic or quorum; default as the product's
    #[arg(long)]
    queue_type: Option<String>,
    /// Also append every figure as a JSON line to this file
    #[arg(long)]
    out: Option<std::path::PathBuf>,
}

#[derive(Subcommand)]
enum Part {
    /// Agents: the product, a sequential agent and LangGraph's on the same goals
    Agents(load_tests::agents::Args),
    /// A step of load on a fleet that is scaled as KEDA would
    Autoscale(load_tests::autoscale::Args),
    /// W1 and W4 with metrics and traces against without
    Observation(observation::Args),
    /// A coordinator and a worker with nothing to do: memory and CPU
    Idle(idle::Idle),
}

#[derive(Args)]
struct Worker {
    #[arg(long)]
    amqp: String,
    #[arg(long)]
    redis: String,
    #[arg(long)]
    simulator: Option<String>,
    #[arg(long)]
    queue_type: Option<String>,
    /// A collector, for spans
    #[arg(long)]
    otlp: Option<String>,
    /// Where to be scraped
    #[arg(long)]
    listen: Option<std::net::SocketAddr>,
}

fn main() -> anyhow::Result<()> {
    // ring is the one provider of the process; a second install would be refused and changes nothing
    let _ = rustls::crypto::ring::default_provider().install_default();
    trireme_simulator::raise_open_files()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        match Cli::parse().command {
            Command::Bench(args) => bench(*args).await,
            // on threads of the runtime, as the product's own main does
            Command::Worker(args) => tokio::spawn(worker(args)).await?,
            Command::AgentWorker(args) => tokio::spawn(load_tests::agents::work(args)).await?,
            Command::ScaledWorker(args) => tokio::spawn(load_tests::autoscale::work(args)).await?,
            Command::Simulator => simulator().await,
            Command::Sink => observation::sink().await,
        }
    })
}

async fn worker(args: Worker) -> anyhow::Result<()> {
    let registry = prometheus::Registry::new();
    let traces = match &args.otlp {
        Some(endpoint) => observation::traces(endpoint, None, "trireme-worker", &registry)?,
        None => Default::default(),
    };
    let backend = fleet::connect(&args.amqp, &args.redis, args.queue_type.as_deref(), traces.clone()).await?;
    backend.register(&registry)?;
    let backend: std::sync::Arc<dyn trireme_backend::Backend> = std::sync::Arc::new(backend);
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        let term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        if let Ok(mut term) = term {
            term.recv().await;
        }
        token.cancel();
    });
    if let Some(listen) = args.listen {
        let ready = || std::future::ready(Ok(()));
        let ops = trireme_telemetry::OpsServer::bind(listen, registry.clone(), || Ok(()), ready).await?;
        tokio::spawn(ops.run(shutdown.clone()));
    }
    fleet::work(backend.clone(), args.simulator.as_deref(), &registry, traces.clone(), shutdown).await?;
    backend.close().await;
    traces.close(std::time::Duration::from_secs(3)).await;
    Ok(())
}

/// Serves a model that answers within one second, streamed, and prints its base URL.
async fn simulator() -> anyhow::Result<()> {
    let scenario = trireme_simulator::Scenario::parse(include_str!("second.yaml"))?;
    let simulator = trireme_simulator::Simulator::start(scenario, "127.0.0.1:0".parse()?).await?;
    println!("{}", simulator.base_url());
    std::io::stdout().flush()?;
    tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await?;
    simulator.shutdown().await;
    Ok(())
}

/// The simulator's process; it ends when its standard input closes.
struct SimulatorProcess {
    base: String,
    _child: std::process::Child,
}

fn start_simulator() -> anyhow::Result<SimulatorProcess> {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };
    let mut child = Command::new(std::env::current_exe()?)
        .arg("simulator")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut base = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut base)?;
    }
    Ok(SimulatorProcess { base: base.trim().to_owned(), _child: child })
}

async fn bench(args: Bench) -> anyhow::Result<()> {
    match args.part {
        Some(Part::Agents(args)) => load_tests::agents::run(args).await,
        Some(Part::Autoscale(args)) => load_tests::autoscale::run(args).await,
        Some(Part::Observation(args)) => observation::run(args).await,
        Some(Part::Idle(args)) => idle::run(args).await,
        None => tokio::spawn(workloads(args)).await?,
    }
}

async fn workloads(args: Bench) -> anyhow::Result<()> {
    let simulator = start_simulator()?;
    let mut out = match &args.out {
        Some(path) => Some(std::fs::OpenOptions::new().create(true).append(true).open(path)?),
        None => None,
    };
    let backends: &[&str] = match args.backend.as_str() {
        "both" => &["embedded", "cluster"],
        "embedded" => &["embedded"],
        "cluster" => &["cluster"],
        other => bail!("--backend {other}: use embedded, cluster or both"),
    };
    for name in backends {
        let fleet = if *name == "embedded" {
            Fleet::embedded(Some(simulator.base.clone())).await?
        } else {
            let cloud = Cloud {
                workers: args.workers,
                appendfsync: args.appendfsync.clone(),
                queue_type: args.queue_type.clone(),
                otlp: None,
            };
            Fleet::cluster(&cloud, Some(&simulator.base)).await?
        };
        println!(
            "\n{name}{}",
            if *name == "cluster" { format!(", appendfsync {}", args.appendfsync) } else { String::new() }
        );
        let wanted = |workload: &str| {
            args.only.is_empty() || args.only.iter().any(|only| only.eq_ignore_ascii_case(workload))
        };
        let mut report = |workload: &str, figures: Figures| -> anyhow::Result<()> {
            let mut line = serde_json::Map::from_iter([
                ("workload".to_owned(), json!(workload)),
                ("backend".to_owned(), json!(name)),
                ("appendfsync".to_owned(), json!(args.appendfsync)),
            ]);
            let text: Vec<String> = figures.iter().map(|(name, value)| format!("{name} {value}")).collect();
            println!("{workload:6} {}", text.join("  "));
            line.extend(figures.into_iter().map(|(name, value)| (name.to_owned(), value)));
            let line = Value::Object(line).to_string();
            println!("{line}");
            if let Some(out) = &mut out {
                writeln!(out, "{line}")?;
            }
            Ok(())
        };
        if let (Some((amqp, redis)), true) = (&fleet.urls, wanted("floor")) {
            for mode in [load_tests::floor::TRANSIENT, load_tests::floor::QUORUM] {
                report("floor", bench::floor(amqp, redis, mode).await?)?;
            }
            let hints = load_tests::floor::TRANSIENT;
            report("least", bench::least(amqp, redis, hints).await?)?;
        }
        for workload in ["W1", "W2", "W3", "W4", "W5", "W6"].into_iter().filter(|workload| wanted(workload)) {
            let figures = match workload {
                "W1" => bench::w1(&fleet).await?,
                "W2" => bench::w2(&fleet).await?,
                "W3" => bench::w3(&fleet).await?,
                "W4" => bench::w4(&fleet).await?,
                "W5" => bench::w5(&fleet).await?,
                _ => bench::w6(&fleet, &simulator.base).await?,
            };
            report(workload, figures)?;
        }
        fleet.stop().await?;
    }
    Ok(())
}
