//! How much of a run's time is the engine's own ([`OwnTime`]), with one run at a time and with many.
//!
//! Under load, runs begin evenly over the time of one run, then one as soon as another ends, three times as many as run at
//! once. Only the middle third counts: while it runs, no less than the load is under way.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use trireme_simulator::Simulator;

use super::{
    own_time::OwnTime,
    product::{Kind, Product, Style, spec},
    report::{table, thousandths},
    statistics::{median, quantile},
    suite::Suite,
};
use crate::cpu::of_machine;

/// Runs one after the other. Their 99th percentile is the slowest of them.
const ALONE: usize = 20;
/// Longest time over which the runs of a load begin.
const RAMP: Duration = Duration::from_secs(30);

/// The product under one load.
pub(super) struct Level {
    backend: &'static str,
    /// Runs that are to be under way at once.
    at_once: usize,
    /// From the start to the end of each run that counts, by the client's clock.
    walls: Vec<f64>,
    /// Of the same runs.
    own: Vec<OwnTime>,
    /// Runs, counted or not, whose answer is not the known one.
    wrong: usize,
    /// CPU seconds of all processes over those that the machine had.
    cpu_share: f64,
    /// The same of all processes of the machine: near 1, tasks wait for the CPU, and their waits say little of the engine.
    machine_share: f64,
}

/// Measures `suite` on a backend under each load.
pub(super) async fn measure(
    (kind, backend): (Kind, &'static str),
    suite: &Suite,
    simulator: &Simulator,
    style: Style<'_>,
    loads: &[usize],
) -> anyhow::Result<Vec<Level>> {
    let product = Product::start(kind, &simulator.base_url(), suite).await?;
    let item = suite.warm_up.as_ref().context("an item to warm up with")?;
    let warm = product.run(&item.id, &spec(suite, item, style)).await;
    let mut levels = Vec::with_capacity(loads.len());
    for at_once in loads {
        simulator.reset();
        levels.push(level(&product, backend, suite, style, *at_once, warm.wall.min(RAMP)).await?);
    }
    product.stop().await?;
    Ok(levels)
}

async fn level(
    product: &Product,
    backend: &'static str,
    suite: &Suite,
    style: Style<'_>,
    at_once: usize,
    ramp: Duration,
) -> anyhow::Result<Level> {
    // with a load of one there is nothing to wait for
    let (total, counted) = if at_once == 1 { (ALONE, 0..ALONE) } else { (3 * at_once, at_once..2 * at_once) };
    let (start, before, machine) = (Instant::now(), product.cpu_seconds(), of_machine());
    let begin = tokio::time::Instant::now();
    let runs = stream::iter(0..total).map(|at| {
        let item = &suite.items[at % suite.items.len()];
        let id = format!("{}-of-{at_once}-{at}", item.id);
        async move {
            if at < at_once {
                tokio::time::sleep_until(begin + ramp.mul_f64(at as f64 / at_once as f64)).await;
            }
            let outcome = product.run(&id, &spec(suite, item, style)).await;
            let right = outcome.answer.as_ref().is_ok_and(|answer| item.known.is(answer));
            (at, id, outcome.wall.as_secs_f64(), right)
        }
    });
    let outcomes: Vec<_> = runs.buffer_unordered(at_once).collect().await;
    let used = product.cpu_seconds() - before;
    let (busy, had) = of_machine();
    let cores = std::thread::available_parallelism()?.get() as f64;
    let mut level = Level {
        backend,
        at_once,
        walls: Vec::new(),
        own: Vec::new(),
        wrong: outcomes.iter().filter(|(.., right)| !right).count(),
        cpu_share: used / start.elapsed().as_secs_f64() / cores,
        machine_share: (busy - machine.0) / (had - machine.1),
    };
    for (_, id, wall, _) in outcomes.into_iter().filter(|(at, ..)| counted.contains(at)) {
        let run = product.state(&id).await?.context("the run is gone")?;
        if run.status.terminal() {
            level.walls.push(wall);
            level.own.push(OwnTime::of(&run));
        }
    }
    Ok(level)
}

/// A table of all levels of one suite.
pub(super) fn text(suite: &Suite, levels: &[Level]) -> String {
    let header = [
        "engine's own time",
        "at once",
        "runs",
        "median s",
        "share",
        "p99",
        "queue ms",
        "dispatch ms",
        "join ms",
        "window ms",
        "wrong",
        "CPU",
        "machine's",
    ];
    let row = |level: &Level| {
        let [share, most] = level.percent();
        vec![
            level.backend.to_owned(),
            level.at_once.to_string(),
            level.own.len().to_string(),
            format!("{:.3}", median(&level.walls)),
            format!("{share:.2} %"),
            format!("{most:.2} %"),
            format!("{:.1}", level.mean(|own| own.queue)),
            format!("{:.1}", level.mean(|own| own.dispatch)),
            format!("{:.1}", level.mean(|own| own.join)),
            format!("{:.1}", level.mean(|own| own.window)),
            level.wrong.to_string(),
            format!("{:.0} %", level.cpu_share * 100.0),
            format!("{:.0} %", level.machine_share * 100.0),
        ]
    };
    let rows: Vec<_> = levels.iter().map(row).collect();
    format!("\n({}) {}\n{}", suite.name, suite.title, table(&header.map(str::to_owned), &rows))
}

/// The same as JSON lines; shares in percent, times in ms and for each run in the mean.
pub(super) fn lines(suite: &Suite, levels: &[Level]) -> Vec<Value> {
    let line = |level: &Level| {
        let [share, most] = level.percent().map(thousandths);
        json!({
            "part": "engine", "suite": suite.name, "title": suite.title, "system": level.backend,
            "at_once": level.at_once, "runs": level.own.len(), "median_s": thousandths(median(&level.walls)),
            "share_percent": share, "share_percent_p99": most,
            "queue_ms": thousandths(level.mean(|own| own.queue)),
            "dispatch_ms": thousandths(level.mean(|own| own.dispatch)),
            "join_ms": thousandths(level.mean(|own| own.join)),
            "window_ms": thousandths(level.mean(|own| own.window)),
            "wrong": level.wrong, "cpu_share": thousandths(level.cpu_share),
            "machine_share": thousandths(level.machine_share),
        })
    };
    levels.iter().map(line).collect()
}

impl Level {
    /// Median and 99th percentile of the share of a run's time.
    fn percent(&self) -> [f64; 2] {
        let shares: Vec<f64> = self.own.iter().map(OwnTime::percent).collect();
        [median(&shares), quantile(&shares, 0.99)]
    }

    fn mean(&self, of: impl Fn(&OwnTime) -> u64) -> f64 {
        self.own.iter().map(of).sum::<u64>() as f64 / self.own.len() as f64
    }
}
