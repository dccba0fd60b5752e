//! How many no-op tasks a second the store takes through its trait: `cargo run --release --example
//! embedded-bench`. Two consumers each take hints, claim, complete and ack.

use std::{sync::Arc, time::Instant};

use anyhow::{Context, Result};
use trireme_backend::Backend;
use trireme_backend_embedded::Embedded;
use trireme_model::{
    Budget, Caller, Claim, Claimed, Complete, Exec, Graph, Kind, Next, Outcome, Payload, Priority, RunId,
    Submit, TaskId, TaskSpec, Usage,
};

fn exec(pool: &str) -> Exec {
    Exec {
        kind: Kind::Tool,
        pool: pool.into(),
        priority: Priority::Normal,
        timeout: Some(60_000),
        max_attempts: 3,
        backoff: 100,
        paid: false,
        fallback: None,
    }
}

/// `source -> width tasks -> sink`, or one task for a width of 0.
fn graph(width: usize) -> Result<Graph> {
    let task = |id: &str, inputs: Vec<TaskId>| -> Result<TaskSpec> {
        let body = Payload::of(&"x".repeat(256));
        let (id, label, exec) = (TaskId::new(id)?, String::new(), exec("tool"));
        Ok(TaskSpec { id, label, exec, inputs, policy: None, children: None, body })
    };
    if width == 0 {
        return Ok(Graph::new(vec![task("only", Vec::new())?])?);
    }
    let source = TaskId::new("source")?;
    let mut tasks = vec![task("source", Vec::new())?];
    let middle = (0..width).map(|at| TaskId::new(format!("t{at}"))).collect::<Result<Vec<_>, _>>()?;
    for id in &middle {
        tasks.push(task(id.as_str(), vec![source.clone()])?);
    }
    tasks.push(task("sink", middle)?);
    Ok(Graph::new(tasks)?)
}

async fn submit(store: &Embedded, prefix: &str, runs: usize, width: usize) -> Result<()> {
    let graph = graph(width)?;
    for at in 0..runs {
        let submit = Submit {
            run: RunId::new(format!("{prefix}-{at}"))?,
            caller: Caller::default(),
            name: "bench".into(),
            fingerprint: "f".into(),
            graph: graph.clone(),
            input: Payload::of(&()),
            deadline: None,
            budget: Budget::default(),
            keep: Default::default(),
            trace: None,
        };
        store.submit(submit).await?;
    }
    Ok(())
}

/// Claims and completes until `tasks` are done; successors go on at once when `chain`.
async fn work(store: Embedded, worker: usize, done: Arc<tokio::sync::Semaphore>, chain: bool) -> Result<()> {
    let mut deliveries = store.consume(vec![("tool".into(), 1000)]).await?;
    let result = Payload::of(&"y".repeat(256));
    let mut claims = 0_u64;
    while let Some(delivery) = deliveries.next().await {
        claims += 1;
        let claim = Claim {
            run: delivery.run,
            task: delivery.task,
            claim: format!("{worker}-{claims}"),
            has_input: true,
        };
        let Claimed::Run(assignment) = store.claim(claim).await? else { continue };
        let mut current = Some(assignment);
        while let Some(assignment) = current.take() {
            claims += 1;
            let next =
                chain.then(|| Next { claim: format!("{worker}-{claims}"), pools: vec!["tool".into()] });
            let complete = Complete {
                run: assignment.run,
                task: assignment.task,
                token: assignment.token,
                outcome: Outcome::Result(result.clone()),
                tasks: Vec::new(),
                first_token: None,
                usage: Usage::default(),
                next,
            };
            if let trireme_model::Completed::Recorded { next } = store.complete(complete).await? {
                current = next;
            }
            done.add_permits(1);
        }
        delivery.ack.done();
    }
    Ok(())
}

async fn measure(name: &str, runs: usize, width: usize, chain: bool) -> Result<()> {
    let store = Embedded::default();
    let tasks = runs * if width == 0 { 1 } else { width + 2 };
    let started = Instant::now();
    submit(&store, name, runs, width).await?;
    let submitted = started.elapsed();
    let done = Arc::new(tokio::sync::Semaphore::new(0));
    let started = Instant::now();
    let workers: Vec<_> =
        (0..2).map(|worker| tokio::spawn(work(store.clone(), worker, done.clone(), chain))).collect();
    done.acquire_many(u32::try_from(tasks)?).await.context("workers ended")?.forget();
    let took = started.elapsed();
    workers.iter().for_each(tokio::task::JoinHandle::abort);
    println!(
        "{name}: {tasks} tasks, submit {:.0} runs/s, {:.0} tasks/s",
        runs as f64 / submitted.as_secs_f64(),
        tasks as f64 / took.as_secs_f64()
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    measure("single", 100_000, 0, false).await?;
    measure("fan-10", 10_000, 10, false).await?;
    measure("fan-10-next", 10_000, 10, true).await?;
    measure("fan-9998", 10, 9_998, true).await
}
