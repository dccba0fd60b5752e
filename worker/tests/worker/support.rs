//! The stage on which the stories play: store, simulator, tools, and any number of workers.

mod probe;
mod tap;

use std::{
    sync::{
        Arc, Once,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus::Registry;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trireme_backend::Backend;
use trireme_backend_embedded::{Clock, Config as StoreConfig, Embedded, Hand};
use trireme_llm::Providers;
use trireme_model::{Event, Payload, Run, RunId, TaskId, TaskStatus, What};
use trireme_simulator::{Scenario, Simulator};
use trireme_spec::{Permissive, compile};
use trireme_telemetry::Traces;
use trireme_tool::Tools;
use trireme_worker::{Config, Executors, Metrics, Pool, Worker};

pub use probe::Probe;
pub use tap::{Call, Tap};

/// Far longer than any story takes: a story that stands still fails with what it was waiting for.
const LIMIT: Duration = Duration::from_secs(120);

pub struct Stage {
    pub store: Embedded,
    pub hand: Hand,
    pub tap: Arc<Tap>,
    pub probe: Arc<Probe>,
    simulator: Option<Simulator>,
    runs: AtomicU64,
    sweeping: CancellationToken,
}

/// A worker at work.
pub struct Hired {
    pub metrics: Metrics,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), trireme_worker::Error>>,
}

/// `pools` of so many slots each.
pub fn config(pools: &[(&str, usize)]) -> Config {
    let pool = |(name, slots): &(&str, usize)| Pool { name: (*name).into(), slots: *slots };
    Config { pools: pools.iter().map(pool).collect(), ..Config::default() }
}

pub fn task(id: &str) -> TaskId {
    TaskId::new(id).unwrap()
}

/// Waits for `wanted`, but not for ever.
pub async fn within<T>(what: &str, wanted: impl Future<Output = T>) -> T {
    let Ok(got) = tokio::time::timeout(LIMIT, wanted).await else { panic!("waited in vain for {what}") };
    got
}

impl Stage {
    /// A store on real time that is swept, and no simulator.
    pub async fn new() -> Self {
        let stage = Self::unswept(Clock::system(), Clock::manual(0).1);
        stage.sweep_often();
        stage
    }

    /// A store whose time stands still until `hand` moves it, and which is swept by [`Stage::sweep`] alone.
    pub fn manual() -> Self {
        let (clock, hand) = Clock::manual(1_000_000);
        Self::unswept(clock, hand)
    }

    /// On real time, and nothing is swept: what happens is the worker's doing.
    pub fn unswept_system() -> Self {
        Self::unswept(Clock::system(), Clock::manual(0).1)
    }

    fn unswept(clock: Clock, hand: Hand) -> Self {
        let store = Embedded::new(StoreConfig { clock, ..StoreConfig::default() });
        Self {
            tap: Arc::new(Tap::new(store.clone())),
            store,
            hand,
            probe: Arc::new(Probe::new()),
            simulator: None,
            runs: AtomicU64::new(0),
            sweeping: CancellationToken::new(),
        }
    }

    fn sweep_often(&self) {
        let store = self.store.clone();
        let token = self.sweeping.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            while !token.is_cancelled() {
                ticks.tick().await;
                store.sweep().await.unwrap();
            }
        });
    }

    /// Adds a simulator.
    pub async fn simulating(mut self, scenario: &str) -> Self {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let scenario = Scenario::parse(scenario).unwrap();
        self.simulator = Some(Simulator::start(scenario, address).await.unwrap());
        self
    }

    pub fn simulator(&self) -> &Simulator {
        self.simulator.as_ref().unwrap()
    }

    /// Looks at everything that is due.
    pub async fn sweep(&self) {
        while self.store.sweep().await.unwrap().more {}
    }

    /// Starts a worker.
    pub async fn hire(&self, config: Config) -> Hired {
        static TLS: Once = Once::new();
        TLS.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let base = self.simulator.as_ref().map_or("http://127.0.0.1:9".into(), Simulator::base_url);
        let llm = json!({
            "providers": {"sim": {"base_url": format!("{base}/v1"), "api_key": "k"},
                          "claude": {"api": "anthropic", "base_url": base, "api_key": "k"}},
            "models": {"priced": {"model": "sim/m", "prices": {"input": 1.0, "output": 2.0}}},
        });
        let remote = |name: &str, effect: &str, resource: Option<&str>| {
            let mut tool = json!({
                "url": format!("{base}/tools/{name}"), "query": {"q": "{{ args.q }}"}, "effect": effect,
                "args": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]},
            });
            if let Some(resource) = resource {
                tool["resource"] = json!(resource);
            }
            tool
        };
        let tool = json!({"tools": {
            "remote": remote("remote", "read", None),
            // changes the world
            "change": remote("change", "write", None),
            // one call at a time
            "locked": remote("locked", "read", Some("the only one")),
            "rewrite": remote("rewrite", "write", Some("the only one")),
        }, "limits": {"output_bytes": 10_000_000}});
        let tools = Tools::builder().builtin().config(serde_json::from_value(tool).unwrap());
        let tools = tools.register(self.probe.clone()).build().await.unwrap();
        let providers = Providers::new(serde_json::from_value(llm).unwrap()).unwrap();
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let executors = Executors::new(providers, tools);
        let worker =
            Worker::new(config, self.tap.clone(), executors, metrics.clone(), Traces::default()).unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(worker.run(shutdown.clone()));
        Hired { metrics, shutdown, running }
    }

    /// Accepts a run of `spec`.
    pub async fn submit(&self, spec: &str) -> RunId {
        let run = RunId::new(format!("run-{}", self.runs.fetch_add(1, Ordering::Relaxed))).unwrap();
        let compiled = compile(spec, &[], &Permissive).unwrap();
        self.store.submit(compiled.submit(run.clone(), "f")).await.unwrap();
        run
    }

    pub async fn run(&self, run: &RunId) -> Run {
        self.store.run(run).await.unwrap().unwrap()
    }

    /// The run once `wanted` holds.
    pub async fn until(&self, run: &RunId, what: &str, wanted: impl Fn(&Run) -> bool) -> Run {
        let mut watch = self.store.watch(run).await.unwrap();
        within(what, async {
            loop {
                let now = self.run(run).await;
                if wanted(&now) {
                    return now;
                }
                watch.changed().await;
            }
        })
        .await
    }

    /// The run at its end.
    pub async fn ended(&self, run: &RunId) -> Run {
        self.until(run, "the end of the run", |run| run.status.terminal()).await
    }

    /// The output of a run that succeeds.
    pub async fn output(&self, run: &RunId) -> serde_json::Value {
        let ended = self.ended(run).await;
        assert!(ended.failure.is_none(), "{:?}", ended.failure);
        let backend: Arc<dyn Backend> = Arc::new(self.store.clone());
        let output = trireme_backend::output(&backend, run, ended.output()).await.unwrap();
        output.map(|output| output.parse().unwrap()).unwrap()
    }

    /// The error of `id` once it has failed.
    pub async fn failed(&self, run: &RunId, id: &str) -> serde_json::Value {
        let failed = |run: &Run| run.tasks[&task(id)].status == TaskStatus::Failed;
        let run = self.until(run, "the failure of the task", failed).await;
        run.tasks[&task(id)].error.as_ref().map(Payload::parse).unwrap().unwrap()
    }

    pub async fn events(&self, run: &RunId) -> Vec<Event> {
        let events = self.store.events(run, 0, usize::MAX).await.unwrap().unwrap();
        events.events.into_iter().map(|(_, event)| event).collect()
    }

    /// The streamed text of `id`: attempt and text of each piece.
    pub async fn deltas(&self, run: &RunId, id: &str) -> Vec<(u32, String)> {
        let pieces = self.events(run).await.into_iter().filter_map(|event| match event.what {
            What::TaskDelta { task, attempt, text } if task.as_str() == id => Some((attempt, text)),
            _ => None,
        });
        pieces.collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.sweeping.cancel();
    }
}

impl Hired {
    /// Asks it to stop.
    pub fn ask_to_stop(&self) {
        self.shutdown.cancel();
    }

    /// Waits until it has stopped; asks it to.
    pub async fn stop(self) -> Metrics {
        self.shutdown.cancel();
        within("the worker's end", self.running).await.unwrap().unwrap();
        self.metrics
    }
}
