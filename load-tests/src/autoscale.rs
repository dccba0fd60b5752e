//! A step of load on a real fleet whose workers are started and stopped as KEDA would from our own metrics.
//!
//! What is asked: within how many seconds of the step do tasks start in time again, and is any task lost, or run twice,
//! while workers come and go? The number of workers follows the published formula ([`scaler`]), with the targets and the
//! speed of the chart's values; the clock of scaling down is sped up, for it is a matter of minutes there.

mod load;
mod pods;
mod scaler;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::bail;
use prometheus::Registry;
use serde_json::json;
use trireme_backend::Backend;
use trireme_coordinator::Sweeper;
use trireme_test_servers::{PrivateRabbit, PrivateRedis};

use load::{Load, Started};
use pods::Pods;
pub use pods::{WorkerArgs, work};
use scaler::{Behavior, Scaler};

/// The pool that is scaled.
const POOL: &str = "tool";
/// First part of queues and keys.
const PREFIX: &str = "autoscale";
/// Pause between two decisions: the HPA's `--horizontal-pod-autoscaler-sync-period`.
const SYNC: Duration = Duration::from_secs(15);
/// Queue latency of 99 % of the tasks that the alert rules hold a fleet to.
const SLO_MS: f64 = 1000.0;
/// Tasks are looked at by this many seconds of their start together.
const WINDOW: f64 = 5.0;

/// What is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Runs a second before and after the step
    #[arg(long, default_value_t = 20.0)]
    base: f64,
    /// How many times more the step brings
    #[arg(long, default_value_t = 10.0)]
    factor: f64,
    /// Seconds before the step, of the step, and after it
    #[arg(long, value_delimiter = ',', default_values_t = [20, 75, 60])]
    phases: Vec<u64>,
    /// What a task takes, in ms
    #[arg(long, default_value_t = 200)]
    work_ms: u64,
    /// Slots of a worker; scaling aims at 80 % of them, as the chart does
    #[arg(long, default_value_t = 8)]
    slots: usize,
    /// Most workers
    #[arg(long, default_value_t = 20)]
    most: usize,
    /// Divides the time of the HPA: its pause between decisions and its windows
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Divides the time of scaling down in addition
    #[arg(long, default_value_t = 20.0)]
    down_speed: f64,
    /// Also append the figures as a JSON line to this file
    #[arg(long)]
    out: Option<std::path::PathBuf>,
}

/// Runs the step and prints what came of it.
///
/// # Errors
/// Servers that can't be started; a task that was lost or ran twice; queue latency that did not come back below 1 s
/// within the step.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let [before, step, after] = args.phases[..] else { bail!("--phases takes three numbers of seconds") };
    if args.base <= 0.0 || args.factor < 1.0 || args.slots == 0 || args.most == 0 || args.speed < 1.0 {
        bail!("--base, --slots and --most must be above 0, --factor and --speed at least 1");
    }
    let (rabbit, redis) = (PrivateRabbit::start()?, PrivateRedis::start(&[("appendonly", "yes")])?);
    let registry = Registry::new();
    let cluster = pods::connect(&rabbit.url(), &redis.url()).await?;
    cluster.observe(&registry, &[POOL.to_owned()])?;
    let backend: Arc<dyn Backend> = Arc::new(cluster);
    let shutdown = tokio_util::sync::CancellationToken::new();
    let metrics = trireme_coordinator::Metrics::register(&registry)?;
    let sweeper = Sweeper::new(backend.clone(), Duration::from_millis(100), metrics);
    let sweeping = tokio::spawn(sweeper.run(shutdown.clone()));

    let mut pods = Pods::new(rabbit.url(), redis.url(), args.slots);
    pods.set(1).await?;
    let begin = Instant::now();
    let phases = [(before, args.base), (step, args.base * args.factor), (after, args.base)];
    let load = tokio::spawn(Load::new(backend.clone(), args.work_ms)?.run(phases.to_vec()));
    let mut scaler = Scaler::new(Behavior::chart(args.speed, args.down_speed), args.slots, args.most);
    let mut replicas: Vec<(f64, usize)> = vec![(0.0, 1)];
    let mut ticks = tokio::time::interval(SYNC.div_f64(args.speed));
    loop {
        ticks.tick().await;
        if load.is_finished() {
            break;
        }
        let waiting = pods::sum(&trireme_telemetry::encode(&registry), "trireme_ready_tasks", POOL);
        let total = waiting + pods.metric("trireme_slots_used", POOL).await;
        let at = begin.elapsed().as_secs_f64();
        let wanted = scaler.replicas(at, total, pods.count());
        if wanted != pods.count() {
            println!(
                "{at:6.1} s  {total:5.0} tasks waiting or worked on: {} -> {wanted} workers",
                pods.count()
            );
            pods.set(wanted).await?;
            replicas.push((at, wanted));
        }
    }
    let started = load.await??;
    pods.set(0).await?;
    pods.gone().await?;
    shutdown.cancel();
    sweeping.await?;
    backend.close().await;
    report(&args, &started, &replicas, before as f64, (before + step) as f64)
}

fn report(
    args: &Args,
    started: &[Started],
    replicas: &[(f64, usize)],
    step: f64,
    end: f64,
) -> anyhow::Result<()> {
    println!("\n  from s   tasks   p50 ms   p99 ms");
    let mut late_until = step;
    for (at, mut waits) in load::windows(started, WINDOW) {
        waits.sort_by(f64::total_cmp);
        let at_share = |share: f64| waits[((waits.len() - 1) as f64 * share).round() as usize];
        println!("{at:8.0} {:7} {:8.0} {:8.0}", waits.len(), at_share(0.5), at_share(0.99));
        if at >= step && at < end && at_share(0.99) > SLO_MS {
            late_until = at + WINDOW;
        }
    }
    let twice = started.iter().filter(|task| task.attempt != 1).count();
    let lost = started.iter().filter(|task| !task.succeeded).count();
    let most = replicas.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let last = replicas.last().map_or(0, |(_, count)| *count);
    let line = json!({
        "part": "autoscale", "runs": started.len(), "lost": lost, "twice": twice,
        "back_within_s": late_until - step, "most_workers": most, "last_workers": last, "base_per_s": args.base,
        "step_per_s": args.base * args.factor, "slo_p99_ms": SLO_MS,
    });
    println!("\n{line}");
    if let Some(path) = &args.out {
        use std::io::Write;
        let mut out = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(out, "{line}")?;
    }
    if lost + twice > 0 {
        bail!("{lost} runs did not succeed, {twice} tasks started more than once");
    }
    if late_until >= end {
        bail!("tasks still started late at the end of the step");
    }
    Ok(())
}
