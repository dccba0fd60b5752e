//! What the store costs: CPU of Redis per task, and round trips, by the shapes that matter.
//!
//! `cargo run --release -p trireme-backend-cluster --example store-bench [-- redis-url]`; without a URL it starts a
//! private Redis with an append-only file (`appendfsync everysec`). Prints a line per shape.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use trireme_backend_cluster::store::{Config, Emitted, Store};
use trireme_model::{
    Budget, Caller, Claim, Claimed, Complete, Completed, Exec, Graph, Hint, JoinPolicy, Kind, Need, Next,
    OnMiss, Outcome, Payload, Priority, RunId, Submit, TaskId, TaskSpec, Token, Usage,
};

const CALLERS: usize = 64;

fn id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

fn spec(name: &str, kind: Kind, inputs: &[&str]) -> TaskSpec {
    let exec = Exec {
        kind,
        pool: "tool".into(),
        priority: Priority::Normal,
        timeout: Some(60_000),
        max_attempts: 3,
        backoff: 500,
        paid: false,
        fallback: None,
    };
    let policy =
        (kind == Kind::Join).then_some(JoinPolicy { need: Need::All, within: None, on_miss: OnMiss::Fail });
    let body = Payload::from_json(format!("{{\"pad\":\"{}\"}}", "x".repeat(200)));
    TaskSpec {
        id: id(name),
        label: String::new(),
        exec,
        inputs: inputs.iter().map(|name| id(name)).collect(),
        policy,
        children: None,
        body,
    }
}

fn wide(width: usize) -> Graph {
    let names: Vec<String> = (0..width).map(|at| format!("t{at}")).collect();
    let mut tasks: Vec<TaskSpec> = names.iter().map(|name| spec(name, Kind::Tool, &[])).collect();
    if width > 1 {
        tasks.push(spec("join", Kind::Join, &names.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    Graph::new(tasks).unwrap()
}

fn chain(length: usize) -> Graph {
    let names: Vec<String> = (0..length).map(|at| format!("hop-{at}")).collect();
    let mut tasks = vec![spec(&names[0], Kind::Tool, &[])];
    tasks.extend(names.windows(2).map(|pair| spec(&pair[1], Kind::Tool, &[&pair[0]])));
    Graph::new(tasks).unwrap()
}

fn fan(width: usize) -> Graph {
    let names: Vec<String> = (0..width).map(|at| format!("leaf-{at}")).collect();
    let mut tasks = vec![spec("source", Kind::Tool, &[])];
    tasks.extend(names.iter().map(|name| spec(name, Kind::Tool, &["source"])));
    let inputs: Vec<&str> = names.iter().map(String::as_str).collect();
    tasks.push(spec("join", Kind::Join, &inputs));
    Graph::new(tasks).unwrap()
}

fn result() -> Payload {
    Payload::from_json(format!("\"{}\"", "r".repeat(254)))
}

struct Bench {
    store: Store,
    hints: Arc<Mutex<Vec<Hint>>>,
    pid: Option<u32>,
    runs: u64,
}

struct Sample {
    cpu: Option<f64>,
    at: Instant,
}

impl Bench {
    async fn submit(&mut self, graph: &Graph, count: usize) {
        let mut submits = Vec::new();
        for _ in 0..count {
            self.runs += 1;
            submits.push(Submit {
                run: RunId::new(format!("run-{}", self.runs)).unwrap(),
                caller: Caller::default(),
                name: String::new(),
                fingerprint: "f".repeat(64),
                graph: graph.clone(),
                input: Payload::from_json("{}"),
                deadline: Some(600_000),
                budget: Budget::default(),
                keep: Default::default(),
                trace: None,
            });
        }
        self.each(submits, |store, submit| async move {
            store.submit(submit).await.unwrap();
        })
        .await;
    }

    /// Runs `work` on all items, as many at once as a busy worker would.
    async fn each<T, F, R>(&self, items: Vec<T>, work: F)
    where
        T: Send + 'static,
        F: Fn(Store, T) -> R + Clone + Send + 'static,
        R: Future<Output = ()> + Send,
    {
        let items = Arc::new(Mutex::new(items));
        let callers = (0..CALLERS).map(|_| {
            let (store, items, work) = (self.store.clone(), items.clone(), work.clone());
            tokio::spawn(async move {
                loop {
                    let Some(item) = items.lock().unwrap().pop() else { return };
                    work(store.clone(), item).await;
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
    }

    fn sample(&self) -> Sample {
        let cpu = self.pid.and_then(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
            Some((fields[11].parse::<f64>().ok()? + fields[12].parse::<f64>().ok()?) / 100.0)
        });
        Sample { cpu, at: Instant::now() }
    }

    fn report(&self, what: &str, before: &Sample, tasks: usize) {
        let after = self.sample();
        let per = |seconds: f64| seconds * 1e6 / tasks as f64;
        let cpu = before.cpu.zip(after.cpu).map_or("?".into(), |(a, b)| format!("{:.1}", per(b - a)));
        let wall = per((after.at - before.at).as_secs_f64());
        println!("{what:<44} redis cpu {cpu:>6} us   wall {wall:>7.1} us   ({tasks} times)");
    }

    /// Claims everything there are hints for, then completes it.
    async fn claim_all(&self, count: usize) {
        let all = std::mem::take(&mut *self.hints.lock().unwrap());
        let held: Arc<Mutex<Vec<(RunId, TaskId, Token)>>> = Arc::default();
        let keep = held.clone();
        let before = self.sample();
        self.each(all, move |store, hint| {
            let keep = keep.clone();
            async move {
                let (token, _) = claim(&store, &hint.run, &hint.task).await.unwrap();
                keep.lock().unwrap().push((hint.run, hint.task, token));
            }
        })
        .await;
        self.report("claim", &before, count);
        let held = std::mem::take(&mut *held.lock().unwrap());
        let before = self.sample();
        self.each(held, |store, (run, task, token)| async move {
            complete(&store, &run, &task, token, None).await;
        })
        .await;
        self.report("complete", &before, count);
    }

    /// Claims and completes everything there are hints for until there are no more.
    async fn work(&self) -> usize {
        let mut done = 0;
        loop {
            let hints = std::mem::take(&mut *self.hints.lock().unwrap());
            if hints.is_empty() {
                return done;
            }
            done += hints.len();
            self.each(hints, |store, hint| async move {
                let Some((token, _)) = claim(&store, &hint.run, &hint.task).await else { return };
                complete(&store, &hint.run, &hint.task, token, None).await;
            })
            .await;
        }
    }
}

async fn claim(store: &Store, run: &RunId, task: &TaskId) -> Option<(Token, Payload)> {
    let claim = Claim { run: run.clone(), task: task.clone(), claim: unique(), has_input: false };
    match store.claim(claim).await.unwrap() {
        Claimed::Run(assignment) => Some((assignment.token, assignment.body)),
        _ => None,
    }
}

async fn complete(
    store: &Store,
    run: &RunId,
    task: &TaskId,
    token: Token,
    next: Option<Next>,
) -> Option<(TaskId, Token)> {
    let usage = Usage { calls: 1, ..Usage::default() };
    let outcome = Outcome::Result(result());
    let (run, task, tasks) = (run.clone(), task.clone(), Vec::new());
    let complete = Complete { run, task, token, outcome, tasks, first_token: None, usage, next };
    match store.complete(complete).await.unwrap() {
        Completed::Recorded { next: Some(next) } => Some((next.task, next.token)),
        _ => None,
    }
}

fn unique() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

#[tokio::main]
async fn main() {
    let given = std::env::args().nth(1);
    let private = given.is_none().then(|| trireme_test_servers::PrivateRedis::start(&[]).unwrap());
    let url = given.unwrap_or_else(|| private.as_ref().unwrap().url());
    let hints: Arc<Mutex<Vec<Hint>>> = Arc::default();
    let sink = hints.clone();
    let prefix = format!("store-bench-{}", std::process::id());
    let sink = Arc::new(move |emitted: Emitted| sink.lock().unwrap().extend(emitted.hints));
    let store = Store::connect(Config::new(&url, &prefix), sink).await.unwrap();
    let pid = private.as_ref().map(trireme_test_servers::PrivateRedis::pid);
    let mut bench = Bench { store, hints, pid, runs: 0 };
    let scale = std::env::var("SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1);

    for round in 0..2 {
        println!("round {round}");
        for (width, name) in [(1, "one task"), (100, "100 tasks")] {
            let runs = 10_000 * scale / width;
            let before = bench.sample();
            bench.submit(&wide(width), runs).await;
            bench.report(&format!("submit of a run of {name}, per task"), &before, runs * width);
            bench.claim_all(runs * width).await;
        }

        let runs = 1_000 * scale;
        let before = bench.sample();
        bench.submit(&fan(10), runs).await;
        bench.report("submit of 1 -> 10 -> join", &before, runs);
        let before = bench.sample();
        let tasks = bench.work().await;
        bench.report("claim + complete in 1 -> 10 -> join, per task", &before, tasks);

        let hops = 200;
        bench.submit(&chain(hops), 20).await;
        let starts = std::mem::take(&mut *bench.hints.lock().unwrap());
        let before = bench.sample();
        let mut times: Vec<Duration> = Vec::new();
        for hint in starts {
            let (token, _) = claim(&bench.store, &hint.run, &hint.task).await.unwrap();
            let mut at = Some((hint.task, token));
            while let Some((task, token)) = at.take() {
                let start = Instant::now();
                let next = Next { claim: unique(), pools: vec!["tool".into()] };
                at = complete(&bench.store, &hint.run, &task, token, Some(next)).await;
                times.push(start.elapsed());
            }
        }
        bench.report("hop: complete + claim of the next, alone", &before, times.len());
        times.sort();
        println!("{:<44} p50 {:?} p99 {:?}", "", times[times.len() / 2], times[times.len() * 99 / 100]);
    }
    bench.store.close().await;
    println!("left in redis: keys {prefix}");
}
