//! W1 to W6: what they do, and what is read off them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use load_tests::{cpu::Used, floor::Mode};
use serde_json::{Value, json};
use tokio::time::sleep_until;
use trireme_backend::Backend;
use trireme_llm::{ChatRequest, Limits, Message};
use trireme_model::{RunId, RunStatus, Submit};

use crate::{
    fleet::Fleet,
    meter::{memory, ms, p50_p99},
    pause::pause,
    workload,
};

/// Submits under way at once.
const SUBMITS_AT_ONCE: usize = 32;
/// A run that takes longer than this failed.
const RUN_LIMIT: Duration = Duration::from_secs(120);

/// One workload's figures: a name and JSON fields in the order of the table.
pub type Figures = Vec<(&'static str, Value)>;

/// An id for a run, unique also where a workload is measured again.
fn run_id(workload: &str, at: usize) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{workload}-{}-{at}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed))
}

/// Waits for a run's end and checks that it is a good one.
async fn ended(backend: &Arc<dyn Backend>, run: &RunId) -> anyhow::Result<()> {
    let limit = tokio::time::Instant::now() + RUN_LIMIT;
    let mut watch = backend.watch(run).await?;
    loop {
        match backend.summary(run).await?.context("the run is gone")?.status {
            RunStatus::Running => {}
            RunStatus::Succeeded => return Ok(()),
            other => bail!("run {run} ended as {other:?}"),
        }
        tokio::select! {
            () = watch.changed() => {}
            () = sleep_until(limit) => bail!("run {run} did not end within {RUN_LIMIT:?}"),
        }
    }
}

/// Submits `runs` as fast as the backend takes them and waits for all.
async fn all_at_once(fleet: &Fleet, runs: Vec<Submit>) -> anyhow::Result<Duration> {
    use futures::{StreamExt, TryStreamExt, stream};
    let ids: Vec<RunId> = runs.iter().map(|submit| submit.run.clone()).collect();
    let start = Instant::now();
    let submit = |submit| fleet.backend.submit(Submit { trace: fleet.traces.begin(None), ..submit });
    let submits = stream::iter(runs).map(submit);
    submits.buffer_unordered(SUBMITS_AT_ONCE).try_for_each(|_| async { Ok(()) }).await?;
    for id in &ids {
        ended(&fleet.backend, id).await?;
    }
    Ok(start.elapsed())
}

/// CPU seconds per 1,000 tasks, in all and by process.
fn cpu_figures(fleet: &Fleet, before: &Used, tasks: usize) -> Figures {
    cpu_of(&fleet.processes.since(before), tasks)
}

fn cpu_of(each: &Used, tasks: usize) -> Figures {
    let per_thousand = |seconds: f64| round(seconds * 1000.0 / tasks as f64, 4);
    let by_process: serde_json::Map<String, Value> =
        each.each().map(|(name, seconds)| (name.to_owned(), json!(per_thousand(seconds)))).collect();
    vec![("cpu_s_per_1000", json!(per_thousand(each.total()))), ("cpu_by_process", Value::Object(by_process))]
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// The raw floor: as many messages and scripts as W1 and W4 have tasks, nothing else.
pub async fn floor(amqp: &str, redis: &str, mode: Mode) -> anyhow::Result<Figures> {
    load_tests::floor::single(amqp, redis, mode, 5_000).await?;
    let single = load_tests::floor::single(amqp, redis, mode, 20_000).await?;
    let mut figures: Figures =
        vec![("queues", json!(mode.name)), ("tasks_per_s", json!(single.per_second.round()))];
    figures.extend(cpu_of(&single.cpu, 20_000));
    let fan_out = load_tests::floor::fan_out(amqp, redis, mode, 100, 1000).await?;
    let (p50, _) = p50_p99(fan_out.alone_ms);
    figures.push(("fan_out_p50_ms", json!(round(p50, 2))));
    figures.push(("runs_per_s", json!(fan_out.runs_per_second.round())));
    Ok(figures)
}

/// The least that W1 can cost with what the protocol keeps: its messages, reads and writes.
pub async fn least(amqp: &str, redis: &str, mode: Mode) -> anyhow::Result<Figures> {
    load_tests::floor::steps(amqp, redis, mode, 50).await?;
    let least = load_tests::floor::steps(amqp, redis, mode, 200).await?;
    let mut figures: Figures = vec![("tasks_per_s", json!(least.per_second.round()))];
    figures.extend(cpu_of(&least.cpu, 20_000));
    Ok(figures)
}

/// W1: 20,000 no-op tasks of 256 bytes in 200 runs of 100; a quarter as many before them, so that no process is
/// measured while it gets its memory.
pub async fn w1(fleet: &Fleet) -> anyhow::Result<Figures> {
    let (runs, width) = (200, 100);
    let compiled = workload::independent(width)?;
    let warm = (0..runs / 4).map(|at| workload::submit(&compiled, &run_id("w1-warm", at)));
    all_at_once(fleet, warm.collect::<Result<Vec<_>, _>>()?).await?;
    let submits = (0..runs).map(|at| workload::submit(&compiled, &run_id("w1", at)));
    let submits = submits.collect::<Result<Vec<_>, _>>()?;
    let before = fleet.processes.used();
    let took = all_at_once(fleet, submits).await?;
    let tasks = runs * width;
    let mut figures: Figures = vec![("tasks_per_s", json!((tasks as f64 / took.as_secs_f64()).round()))];
    figures.extend(cpu_figures(fleet, &before, tasks));
    Ok(figures)
}

/// Runs `compiled` `times` times, one at a time; the wall time of each in ms.
async fn one_at_a_time(
    fleet: &Fleet,
    compiled: &trireme_spec::Compiled,
    name: &str,
    times: usize,
) -> anyhow::Result<Vec<f64>> {
    let mut walls = Vec::with_capacity(times);
    for at in 0..times {
        let submit = workload::submit(compiled, &run_id(name, at))?;
        let run = submit.run.clone();
        let start = Instant::now();
        fleet.backend.submit(submit).await?;
        ended(&fleet.backend, &run).await?;
        walls.push(ms(start.elapsed()));
    }
    Ok(walls)
}

/// W2: source, ten tasks of 50 ms, join; 100 runs, one at a time.
pub async fn w2(fleet: &Fleet) -> anyhow::Result<Figures> {
    let compiled = workload::fan_out(50)?;
    one_at_a_time(fleet, &compiled, "w2-warm", 5).await?;
    let (p50, p99) = p50_p99(one_at_a_time(fleet, &compiled, "w2", 100).await?);
    Ok(vec![
        ("p50_ms", json!(round(p50, 2))),
        ("p99_ms", json!(round(p99, 2))),
        ("overhead_ms", json!(round(p50 - 50.0, 2))),
        ("bare_sleeps_p50_ms", json!(round(bare_sleeps().await, 2))),
    ])
}

/// What ten sleeps of 50 ms at once, as the tasks make them, take without anything around them.
async fn bare_sleeps() -> f64 {
    let mut walls = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        futures::future::join_all((0..10).map(|_| pause(Duration::from_millis(50)))).await;
        walls.push(ms(start.elapsed()));
    }
    p50_p99(walls).0
}

/// W3: a chain of 10 no-ops; per hop, the first task and the submit left out by taking a chain of 1 off.
pub async fn w3(fleet: &Fleet) -> anyhow::Result<Figures> {
    let (long, short) = (workload::chain(11)?, workload::chain(1)?);
    one_at_a_time(fleet, &long, "w3-warm", 5).await?;
    let (long, _) = p50_p99(one_at_a_time(fleet, &long, "w3-long", 100).await?);
    let (short, _) = p50_p99(one_at_a_time(fleet, &short, "w3-short", 100).await?);
    Ok(vec![
        ("hop_ms", json!(round((long - short) / 10.0, 3))),
        ("chain_ms", json!(round(long, 2))),
        ("single_ms", json!(round(short, 2))),
    ])
}

/// W4: 1,000 runs of 1 -> 10 no-ops -> join at once.
pub async fn w4(fleet: &Fleet) -> anyhow::Result<Figures> {
    let compiled = workload::fan_out(0)?;
    let submits = (0..1000).map(|at| workload::submit(&compiled, &run_id("w4", at)));
    let submits = submits.collect::<Result<Vec<_>, _>>()?;
    let before = fleet.processes.used();
    let took = all_at_once(fleet, submits).await?;
    let mut figures: Figures = vec![("runs_per_s", json!((1000.0 / took.as_secs_f64()).round()))];
    // source, ten tasks and the join, as in the figures of other systems
    figures.extend(cpu_figures(fleet, &before, 12_000));
    Ok(figures)
}

/// W5: W2 as an open loop of 50 runs a second for 20 s.
pub async fn w5(fleet: &Fleet) -> anyhow::Result<Figures> {
    let compiled = workload::fan_out(50)?;
    let start = tokio::time::Instant::now() + Duration::from_millis(50);
    let mut runs = Vec::new();
    for at in 0..1000_u32 {
        let submit = workload::submit(&compiled, &run_id("w5", at as usize))?;
        let backend = fleet.backend.clone();
        runs.push(tokio::spawn(async move {
            // measured from when it was due, so that a slow system can't hide behind late submits
            let due = start + Duration::from_millis(20) * at;
            sleep_until(due).await;
            let run = submit.run.clone();
            backend.submit(submit).await?;
            ended(&backend, &run).await?;
            anyhow::Ok(ms(due.elapsed()))
        }));
    }
    let mut walls = Vec::new();
    for run in runs {
        walls.push(run.await??);
    }
    let (p50, p99) = p50_p99(walls);
    Ok(vec![
        ("p50_ms", json!(round(p50, 2))),
        ("p99_ms", json!(round(p99, 2))),
        ("over_p50_ms", json!(round(p50 - 50.0, 2))),
        ("over_p99_ms", json!(round(p99 - 50.0, 2))),
    ])
}

/// The same calls as in W6, by the same client without the engine: how long each takes, in ms.
async fn bare_calls(simulator: &str, calls: usize) -> anyhow::Result<Vec<f64>> {
    let providers = crate::fleet::providers(Some(simulator))?;
    let call = |at: usize| {
        let providers = providers.clone();
        async move {
            let request = ChatRequest {
                model: "sim/second".into(),
                messages: vec![Message::User { content: format!("Question {at}") }],
                ..ChatRequest::default()
            };
            let start = Instant::now();
            providers.chat(&request, Limits::default(), |_| {}).await?;
            anyhow::Ok(ms(start.elapsed()))
        }
    };
    let calls: Vec<_> = (0..calls).map(|at| tokio::spawn(call(at))).collect();
    let mut took = Vec::with_capacity(calls.len());
    for call in calls {
        took.push(call.await??);
    }
    Ok(took)
}

/// W6: 2,000 streamed calls of 1 s in flight at once; what the engine adds to each, over the same calls made
/// without it just before.
pub async fn w6(fleet: &Fleet, simulator: &str) -> anyhow::Result<Figures> {
    // opening 2,000 connections is not what is measured: both sides do it once before
    bare_calls(simulator, 2000).await?;
    let (bare_p50, bare_p99) = p50_p99(bare_calls(simulator, 2000).await?);
    w6_calls(fleet, "w6-warm").await?;
    let pid = fleet.worker_pid();
    let cpu = load_tests::cpu::seconds_of(pid);
    let calls = w6_calls(fleet, "w6").await?;
    let cpu = load_tests::cpu::seconds_of(pid) - cpu;
    let (p50, p99) = p50_p99(calls);
    let (rss, peak) = memory(pid);
    Ok(vec![
        ("added_p50_ms", json!(round(p50 - bare_p50, 1))),
        ("added_p99_ms", json!(round(p99 - bare_p99, 1))),
        ("bare_p50_ms", json!(round(bare_p50, 1))),
        ("bare_p99_ms", json!(round(bare_p99, 1))),
        ("worker_rss_mib", json!(round(rss, 1))),
        ("worker_peak_mib", json!(round(peak, 1))),
        ("worker_cpu_s", json!(round(cpu, 2))),
    ])
}

/// 2,000 calls as tasks: how long each took from its claim to its recorded result, in ms.
async fn w6_calls(fleet: &Fleet, name: &str) -> anyhow::Result<Vec<f64>> {
    let compiled = workload::calls(100)?;
    let submits = (0..20).map(|at| workload::submit(&compiled, &run_id(name, at)));
    let submits = submits.collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<RunId> = submits.iter().map(|submit| submit.run.clone()).collect();
    all_at_once(fleet, submits).await?;
    let mut took = Vec::new();
    for id in &ids {
        let view = fleet.backend.run(id).await?.context("the run is gone")?.view();
        took.extend(
            view.tasks
                .iter()
                .filter(|task| task.pool == "llm")
                .filter_map(|task| task.run_ms)
                .map(|ms| ms as f64),
        );
    }
    Ok(took)
}
