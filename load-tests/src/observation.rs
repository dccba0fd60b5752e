//! What observing costs: W1 and W4 on a fleet that is scraped and traced, against one that is not, in turns.
//!
//! Observed means: runs are traced as the product does unless told otherwise (`--ratio 1`: every one of them), spans
//! are sent to a collector in a process of its own that takes all and keeps nothing, the ends of runs are told of, the
//! store is sampled for the coordinator's gauges, and both processes are scraped every second. Counting as such is
//! always on. The collector's CPU time is not counted, but it shares the cores.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use axum::{Router, body::Bytes, extract::DefaultBodyLimit, routing::post};
use serde_json::{Value, json};
use trireme_telemetry::{Traces, traces};

use crate::{
    bench,
    fleet::{Cloud, Fleet},
    meter::p50_p99,
};

/// Bytes of one export.
const MAX_BODY: usize = 64 << 20;
/// How often an observed process is scraped.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);

/// How many rounds, and on which fleet.
#[derive(clap::Args)]
pub struct Args {
    /// Rounds of each workload, with and without
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Worker processes
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Share of the runs that are traced, 0 to 1; default as the product's: all, but no more than 50 a second
    #[arg(long)]
    ratio: Option<f64>,
}

/// A collector's process; it ends when its standard input closes.
struct Sink {
    endpoint: String,
    _child: Child,
}

/// Takes what an OTLP exporter sends and forgets it; prints its address.
pub async fn sink() -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let take = |body: Bytes| async move { drop(body) };
    let router = Router::new().route("/v1/traces", post(take)).layer(DefaultBodyLimit::max(MAX_BODY));
    let (mut input, mut nowhere) = (tokio::io::stdin(), tokio::io::sink());
    tokio::select! {
        served = axum::serve(listener, router) => served?,
        _ = tokio::io::copy(&mut input, &mut nowhere) => {}
    }
    Ok(())
}

fn start_sink() -> anyhow::Result<Sink> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut child = command.arg("sink").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut endpoint = String::new();
    BufReader::new(child.stdout.take().context("the sink's address")?).read_line(&mut endpoint)?;
    Ok(Sink { endpoint: endpoint.trim().to_owned(), _child: child })
}

/// Spans of this process, or of a worker, go to `endpoint`.
pub fn traces(
    endpoint: &str,
    ratio: Option<f64>,
    service: &'static str,
    registry: &prometheus::Registry,
) -> anyhow::Result<Traces> {
    let otlp = traces::Otlp { endpoint: Some(endpoint.to_owned()), ratio, ..traces::Otlp::default() };
    Ok(Traces::start(&traces::Config { content: false, otlp }, service, registry)?)
}

/// Scrapes `address` for as long as the process lives; gives how many spans it has sent and lost.
async fn scrape(http: &reqwest::Client, address: SocketAddr) -> anyhow::Result<String> {
    Ok(http.get(format!("http://{address}/metrics")).send().await?.text().await?)
}

/// Measures, and prints a line of JSON per workload.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let sink = start_sink()?;
    let cloud = Cloud { workers: args.workers, appendfsync: "everysec".into(), queue_type: None, otlp: None };
    let plain = Fleet::cluster(&cloud, None).await?;
    let observed = Cloud { otlp: Some((sink.endpoint.clone(), args.ratio)), ..cloud };
    let observed = Fleet::cluster(&observed, None).await?;
    let http = reqwest::Client::new();
    let addresses = observed.ops.clone();
    let scraping = tokio::spawn({
        let http = http.clone();
        async move {
            loop {
                for address in &addresses {
                    // a worker that starts is not there yet
                    let _ = scrape(&http, *address).await;
                }
                tokio::time::sleep(SCRAPE_EVERY).await;
            }
        }
    });
    for workload in ["W1", "W4"] {
        // each once before: connections, caches, the allocator
        for fleet in [&plain, &observed] {
            measure(workload, fleet).await?;
        }
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for round in 0..args.rounds {
            let turns = if round % 2 == 0 { [false, true] } else { [true, false] };
            for on in turns {
                let (fleet, figures) = if on { (&observed, &mut with) } else { (&plain, &mut without) };
                figures.push(measure(workload, fleet).await?);
            }
        }
        report(workload, &without, &with);
    }
    for address in &observed.ops {
        for line in scrape(&http, *address)
            .await?
            .lines()
            .filter(|line| line.starts_with("trireme_trace_spans_total"))
        {
            println!("{address} {line}");
        }
    }
    scraping.abort();
    plain.stop().await?;
    observed.stop().await
}

/// Speed, and CPU seconds per 1,000 tasks in all and by process, of one round.
type Round = (f64, BTreeMap<String, f64>);

/// What [`Round`] calls the sum of all processes.
const ALL: &str = "all";

async fn measure(workload: &str, fleet: &Fleet) -> anyhow::Result<Round> {
    let figures = if workload == "W1" { bench::w1(fleet).await? } else { bench::w4(fleet).await? };
    let of = |names: &[&str]| figures.iter().find(|(name, _)| names.contains(name)).map(|(_, value)| value);
    let number = |names: &[&str]| of(names).and_then(Value::as_f64);
    let speed = number(&["tasks_per_s", "runs_per_s"]).context("a speed")?;
    let each = of(&["cpu_by_process"]).and_then(Value::as_object).context("CPU seconds by process")?;
    let each = each.iter().filter_map(|(name, value)| Some((name.clone(), value.as_f64()?)));
    let all = (ALL.to_owned(), number(&["cpu_s_per_1000"]).context("CPU seconds")?);
    Ok((speed, each.chain([all]).collect()))
}

fn report(workload: &str, without: &[Round], with: &[Round]) {
    let speed = |rounds: &[Round]| p50_p99(rounds.iter().map(|round| round.0).collect()).0;
    let cpu = |rounds: &[Round], name: &str| {
        p50_p99(rounds.iter().filter_map(|round| round.1.get(name).copied()).collect()).0
    };
    let percent = |more: f64, less: f64| ((more / less - 1.0) * 1000.0).round() / 10.0;
    let (off, on) = (speed(without), speed(with));
    let (cpu_off, cpu_on) = (cpu(without, ALL), cpu(with, ALL));
    let names = without.first().into_iter().flat_map(|round| round.1.keys()).filter(|name| *name != ALL);
    let each: Value =
        names.map(|name| (name.clone(), json!([cpu(without, name), cpu(with, name)]))).collect();
    let line: Value = json!({
        "workload": workload, "rounds": without.len(),
        "per_s_off": off, "per_s_on": on, "slower_percent": percent(off, on),
        "cpu_s_per_1000_off": cpu_off, "cpu_s_per_1000_on": cpu_on, "cpu_percent": percent(cpu_on, cpu_off),
        "cpu_s_per_1000_off_and_on": each,
    });
    println!("{line}");
}
