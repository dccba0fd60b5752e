//! Runs suites under systems, one after the other, so that none takes CPU from another.

use std::{
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args as Arguments;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trireme_simulator::Simulator;

use super::{
    Outcome, engine, faults, langgraph,
    product::{Kind, Product, Style, spec},
    report::{self, Measured},
    sequential::Sequential,
    suite::{ITEMS, Item, NAMES, Suite},
    summary,
};
use crate::cpu::seconds_of;

/// Items of each suite in a quick look.
const QUICK: usize = 12;
/// Longest that one part of a suite may take: the slowest, (d) one run at a time on two backends, takes six minutes.
const PART_LIMIT: Duration = Duration::from_secs(30 * 60);

/// What is measured.
#[derive(Debug, Clone, Arguments)]
pub struct Args {
    /// Measures the engine's own share of the time instead, under each of `--loads`
    #[arg(long)]
    pub engine: bool,
    /// Measures the cluster under faults instead, against itself without them
    #[arg(long)]
    pub faults: bool,
    /// Measures all three parts
    #[arg(long)]
    pub all: bool,
    /// embedded, cluster or both: the product's backends
    #[arg(long, default_value = "embedded")]
    pub backend: String,
    /// sequential, langgraph, trireme
    #[arg(long, value_delimiter = ',', default_value = "sequential,langgraph,trireme")]
    pub systems: Vec<String>,
    /// Only these suites, of a to f
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Items of each suite [default: 100]
    #[arg(long)]
    pub items: Option<usize>,
    /// 12 items of each suite
    #[arg(long, conflicts_with = "items")]
    pub quick: bool,
    /// Items at a time (LangGraph: at most 8); the printed CPU share tells whether that is too many
    #[arg(long, default_value_t = 16)]
    pub concurrency: usize,
    /// Runs at a time under which the engine's own share is measured
    #[arg(long, value_delimiter = ',', default_value = "1,200")]
    pub loads: Vec<usize>,
    /// Workers that are killed in each suite, spread evenly over its items
    #[arg(long, default_value_t = 4)]
    pub kills: usize,
    /// Divides all latencies, for a quick look
    #[arg(long, default_value_t = 1.0)]
    pub speed: f64,
    /// Decides goals, facts, latencies and faults
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// react or plan for the product, instead of the suite's own
    #[arg(long)]
    pub strategy: Option<String>,
    /// The product asks for answers by a schema, without reasoning
    #[arg(long)]
    pub terse: bool,
    /// Also append every figure as a JSON line to this file
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// Measures and prints.
///
/// # Errors
/// Unknown suites and systems, a system that does not start, an `out` that cannot be written, a part of a suite that takes
/// longer than [`PART_LIMIT`]; and at the end, when everything is printed, any answer that is wrong or differs, and faults
/// that hit no run.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let unknown = |name: &&String| !NAMES.contains(&name.as_str());
    if let Some(name) = args.only.iter().find(unknown) {
        bail!("--only {name}: use some of {}", NAMES.join(","));
    }
    let items = args.items.unwrap_or(if args.quick { QUICK } else { ITEMS });
    if args.speed <= 0.0 || items == 0 || args.concurrency == 0 || args.loads.contains(&0) {
        bail!("--speed, --items, --concurrency and --loads must be over 0");
    }
    let (backends, systems) = (backends(&args)?, systems(&args)?);
    let mut all = Vec::new();
    for name in NAMES.iter().filter(|name| args.only.is_empty() || args.only.iter().any(|only| only == *name))
    {
        let suite = Suite::generate(name, items, args.seed, args.speed).context("a suite")?;
        let simulator =
            Simulator::start(suite.scenario(args.seed, args.speed), "127.0.0.1:0".parse()?).await?;
        let bench = Bench { suite: &suite, simulator: &simulator, args: &args };
        if args.all || !(args.engine || args.faults) {
            all.extend(in_time(name, bench.compare(&systems)).await?);
        }
        if args.all || args.engine {
            all.extend(in_time(name, bench.engine(&backends)).await?);
        }
        if args.all || args.faults {
            all.extend(in_time(name, bench.faults()).await?);
        }
        simulator.shutdown().await;
    }
    print!("{}", summary::tables(&all));
    let problems = summary::problems(&all);
    if !problems.is_empty() {
        bail!("this must not be:\n  {}", problems.join("\n  "));
    }
    Ok(())
}

/// What one part of a suite measured, unless it never ends.
async fn in_time<T>(suite: &str, part: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let ended = tokio::time::timeout(PART_LIMIT, part).await;
    ended.with_context(|| format!("suite ({suite}) took longer than {PART_LIMIT:?}"))?
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    Sequential,
    LangGraph,
    Product(Kind, &'static str),
}

impl System {
    fn name(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::LangGraph => "langgraph",
            Self::Product(_, name) => name,
        }
    }
}

fn backends(args: &Args) -> anyhow::Result<Vec<(Kind, &'static str)>> {
    let (embedded, cluster) = ((Kind::Embedded, "embedded"), (Kind::Cluster, "cluster"));
    match args.backend.as_str() {
        "embedded" => Ok(vec![embedded]),
        "cluster" => Ok(vec![cluster]),
        "both" => Ok(vec![embedded, cluster]),
        other => bail!("--backend {other}: use embedded, cluster or both"),
    }
}

fn systems(args: &Args) -> anyhow::Result<Vec<System>> {
    let mut systems = Vec::new();
    for name in &args.systems {
        match name.as_str() {
            "sequential" => systems.push(System::Sequential),
            "langgraph" => systems.push(System::LangGraph),
            "trireme" => {
                let product = |(kind, name)| System::Product(kind, name);
                systems.extend(backends(args)?.into_iter().map(product));
            }
            other => bail!("--systems {other}: use sequential, langgraph or trireme"),
        }
    }
    Ok(systems)
}

/// One suite at its simulator.
struct Bench<'a> {
    suite: &'a Suite,
    simulator: &'a Simulator,
    args: &'a Args,
}

impl Bench<'_> {
    /// The systems against each other.
    async fn compare(&self, systems: &[System]) -> anyhow::Result<Vec<Value>> {
        let mut measured = Vec::new();
        for system in systems {
            measured.push(self.measure(*system).await?);
        }
        let text = report::text(self.suite, &measured, &self.how(), self.args.seed);
        self.publish(&text, report::lines(self.suite, &measured, self.args.seed))
    }

    async fn engine(&self, backends: &[(Kind, &'static str)]) -> anyhow::Result<Vec<Value>> {
        let mut levels = Vec::new();
        for backend in backends {
            let (style, loads) = (self.style(), &self.args.loads);
            levels.extend(engine::measure(*backend, self.suite, self.simulator, style, loads).await?);
        }
        self.publish(&engine::text(self.suite, &levels), engine::lines(self.suite, &levels))
    }

    async fn faults(&self) -> anyhow::Result<Vec<Value>> {
        let clean = System::Product(Kind::Processes(None), "clean");
        let faulty = System::Product(Kind::Processes(Some(self.args.seed)), "faults");
        let both = [self.measure(clean).await?, self.measure(faulty).await?];
        let text = faults::text(self.suite, &both, &self.how(), self.args.seed);
        self.publish(&text, faults::lines(self.suite, &both, self.args.seed))
    }

    /// Prints `text` and appends `lines`, with how they came about, to the file; gives them back.
    fn publish(&self, text: &str, mut lines: Vec<Value>) -> anyhow::Result<Vec<Value>> {
        print!("{text}");
        std::io::stdout().flush()?;
        let Some(path) = &self.args.out else { return Ok(lines) };
        let mut out = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        for line in &mut lines {
            line["seed"] = json!(self.args.seed);
            line["speed"] = json!(self.args.speed);
            if line.get("at_once").is_none() {
                line["at_once"] = json!(self.args.concurrency);
            }
            writeln!(out, "{line}")?;
        }
        Ok(lines)
    }

    fn how(&self) -> String {
        let at_once = format!("{} at a time", self.args.concurrency);
        match self.args.speed {
            1.0 => at_once,
            speed => format!("{at_once}, latencies {speed} times shorter"),
        }
    }

    fn style(&self) -> Style<'_> {
        let strategy = self.args.strategy.as_deref().unwrap_or(self.suite.strategy);
        Style { strategy, terse: self.args.terse, speed: self.args.speed }
    }

    async fn measure(&self, system: System) -> anyhow::Result<Measured> {
        let base = self.simulator.base_url();
        // The same calls draw the same latencies for each, and nobody finds another's prompts in the cache.
        let warm = || self.simulator.reset();
        let mut done = match system {
            System::Sequential => {
                let agent = Sequential::new(&base, self.suite).await?;
                if let Some(item) = &self.suite.warm_up {
                    agent.run(item).await;
                }
                warm();
                let (start, before) = (Instant::now(), seconds_of(std::process::id()));
                let outcomes = self.each(async |item| agent.run(item).await).await;
                let used = seconds_of(std::process::id()) - before;
                measured(outcomes, used, start)?
            }
            System::LangGraph => {
                let (mut start, mut before) = (Instant::now(), 0.0);
                let warm = || {
                    warm();
                    (start, before) = (Instant::now(), seconds_of(std::process::id()));
                };
                let (outcomes, peer) = langgraph::run(&base, self.suite, self.args.concurrency, warm).await?;
                measured(outcomes, seconds_of(std::process::id()) - before + peer, start)?
            }
            System::Product(kind, _) => self.product(kind, warm).await?,
        };
        system.name().clone_into(&mut done.system);
        done.stats = self.simulator.ledger().stats();
        Ok(done)
    }

    /// Pursues each item, as many at a time as asked for; the next begins when any ends. In the order of the items.
    async fn each(&self, pursue: impl AsyncFn(&Item) -> Outcome) -> Vec<Outcome> {
        let pursue = &pursue;
        let items = self.suite.items.iter().enumerate();
        let runs = stream::iter(items).map(|(at, item)| async move { (at, pursue(item).await) });
        let mut outcomes: Vec<_> = runs.buffer_unordered(self.args.concurrency).collect().await;
        outcomes.sort_by_key(|(at, _)| *at);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    async fn product(&self, kind: Kind, warm: impl FnOnce()) -> anyhow::Result<Measured> {
        let product = Product::start(kind, &self.simulator.base_url(), self.suite).await?;
        if let Some(item) = &self.suite.warm_up {
            product.run(&item.id, &spec(self.suite, item, self.style())).await;
        }
        warm();
        let (start, before, stop) = (Instant::now(), product.cpu_seconds(), CancellationToken::new());
        let begun = watch::Sender::new(0);
        let nemesis = match (kind, &product.workers) {
            (Kind::Processes(Some(seed)), Some(workers)) => {
                let (workers, stop, begun) = (workers.clone(), stop.clone(), begun.subscribe());
                let (marks, speed) = (marks(self.suite.items.len(), self.args.kills), self.args.speed);
                Some(tokio::spawn(async move { workers.kill((&marks, speed), begun, seed, stop).await }))
            }
            _ => None,
        };
        let pursue = async |item: &Item| {
            begun.send_modify(|begun| *begun += 1);
            product.run(&item.id, &spec(self.suite, item, self.style())).await
        };
        let outcomes = self.each(pursue).await;
        let mut done = measured(outcomes, product.cpu_seconds() - before, start)?;
        stop.cancel();
        if let Some(nemesis) = nemesis {
            nemesis.await??;
        }
        done.kills = product.workers.as_ref().map_or(0, |workers| workers.kills());
        for item in &self.suite.items {
            done.runs.push(product.state(&item.id).await?.context("the run is gone")?);
        }
        product.stop().await?;
        Ok(done)
    }
}

/// After how many begun items each of `kills` workers is killed: evenly over all of them, and with work under way.
fn marks(items: usize, kills: usize) -> Vec<usize> {
    let kills = kills.min(items);
    (1..=kills).map(|kill| (items * kill / (kills + 1)).max(1)).collect()
}

/// What has just been measured, from `start` until now.
fn measured(outcomes: Vec<Outcome>, used: f64, start: Instant) -> anyhow::Result<Measured> {
    let cores = std::thread::available_parallelism()?.get() as f64;
    Ok(Measured {
        system: String::new(),
        outcomes,
        stats: Default::default(),
        cpu_share: used / start.elapsed().as_secs_f64() / cores,
        runs: Vec::new(),
        kills: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kill_falls_into_the_items() {
        assert_eq!(marks(100, 4), [20, 40, 60, 80]);
        assert_eq!(marks(2, 4), [1, 1]);
        assert_eq!(marks(12, 0), [0; 0]);
    }
}
