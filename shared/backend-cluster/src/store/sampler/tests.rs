use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use prometheus::Registry;
use trireme_model::{
    Budget, Caller, Claim, Claimed, Complete, Exec, Graph, JoinPolicy, Kind, Need, OnMiss, Outcome, Payload,
    Priority, RunId, Submit, TaskId, TaskSpec, Usage,
    limits::{LEASE_MS, RETENTION_MS},
};

use super::{Sampler, Store};
use crate::{
    metrics::Gauges,
    store::{Config, Emitted},
};

/// A store whose clock a test moves, and what is told of it.
struct Stage {
    store: Store,
    sampler: Sampler,
    now: Arc<AtomicU64>,
    registry: Registry,
    gauges: Gauges,
}

fn id(name: &str) -> TaskId {
    TaskId::new(name).unwrap()
}

fn task(name: &str, pool: &str, inputs: &[&str]) -> TaskSpec {
    let join = !inputs.is_empty();
    TaskSpec {
        id: id(name),
        label: String::new(),
        exec: Exec {
            kind: if join { Kind::Join } else { Kind::Tool },
            pool: pool.into(),
            priority: Priority::Normal,
            timeout: None,
            max_attempts: 3,
            backoff: 1,
            paid: false,
            fallback: None,
        },
        inputs: inputs.iter().map(|input| id(input)).collect(),
        policy: join.then_some(JoinPolicy { need: Need::All, within: None, on_miss: OnMiss::Fail }),
        children: None,
        body: Payload::from_json("{}"),
    }
}

impl Stage {
    async fn new() -> Self {
        let now = Arc::new(AtomicU64::new(1_700_000_000_000));
        let clock = now.clone();
        let config = Config {
            clock: Some(Arc::new(move || clock.load(Relaxed))),
            ..Config::new(trireme_test_servers::redis(), trireme_test_servers::unique("sampler"))
        };
        let store = Store::connect(config, Arc::new(|_: Emitted| ())).await.unwrap();
        let registry = Registry::new();
        let gauges = Gauges::register(&registry, &["llm".to_owned()]).unwrap();
        let mut stage = Self { sampler: Sampler::new(store.clone()), store, now, registry, gauges };
        stage.look().await;
        stage
    }

    fn pass(&self, ms: u64) {
        self.now.fetch_add(ms, Relaxed);
    }

    async fn look(&mut self) {
        self.sampler.look(&self.gauges).await.unwrap();
    }

    /// A run of `tasks` and a join of those that nothing follows.
    async fn submit(&self, run: &str, mut tasks: Vec<TaskSpec>) -> RunId {
        let run = RunId::new(run).unwrap();
        let used: Vec<TaskId> = tasks.iter().flat_map(|task| task.inputs.clone()).collect();
        let loose: Vec<TaskId> =
            tasks.iter().map(|task| task.id.clone()).filter(|id| !used.contains(id)).collect();
        let loose: Vec<&str> = loose.iter().map(TaskId::as_str).collect();
        tasks.push(task("end", "llm", &loose));
        let submit = Submit {
            run: run.clone(),
            caller: Caller::default(),
            name: String::new(),
            fingerprint: "f".into(),
            graph: Graph::new(tasks).unwrap(),
            input: Payload::from_json("{}"),
            deadline: None,
            budget: Budget::default(),
            keep: Default::default(),
            trace: None,
        };
        self.store.submit(submit).await.unwrap();
        run
    }

    async fn many(&self, run: &str, pool: &str, count: usize) {
        self.submit(run, (0..count).map(|at| task(&format!("t{at}"), pool, &[])).collect()).await;
    }

    async fn claim(&self, run: &RunId, task: &str, claim: &str) -> trireme_model::Token {
        let claim = Claim { run: run.clone(), task: id(task), claim: claim.into(), has_input: true };
        match self.store.claim(claim).await.unwrap() {
            Claimed::Run(assignment) => assignment.token,
            other => panic!("{other:?}"),
        }
    }

    fn value(&self, series: &str) -> f64 {
        let text = trireme_telemetry::encode(&self.registry);
        let line =
            text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("{text}"));
        line.trim().parse().unwrap()
    }

    fn of_pool(&self, name: &str, pool: &str) -> f64 {
        self.value(&format!(r#"trireme_{name}{{pool="{pool}",priority="normal"}}"#))
    }

    async fn clean(self) {
        let keys = self.store.0.shards[0].shard.keys.clone();
        let pattern = keys.due.replace(":due", ":*");
        let found = self.store.0.link.query(redis::cmd("KEYS").arg(pattern)).await.unwrap();
        let found = crate::store::read::list("keys", found).unwrap();
        let mut unlink = redis::cmd("UNLINK");
        for key in found {
            unlink.arg(super::bulk("a key", key).unwrap().to_vec());
        }
        self.store.0.link.query(&unlink).await.unwrap();
        self.store.close().await;
    }
}

#[tokio::test]
async fn little_is_counted_and_much_is_estimated() {
    let mut stage = Stage::new().await;
    assert_eq!(stage.of_pool("ready_tasks", "llm"), 0.0);
    stage.many("few", "tool", 40).await;
    stage.pass(2_000);
    stage.look().await;
    assert_eq!(stage.of_pool("ready_tasks", "tool"), 40.0);
    assert_eq!(stage.of_pool("oldest_ready_task_age_seconds", "tool"), 2.0);
    for (run, pool) in [("a", "llm"), ("b", "tool"), ("c", "llm")] {
        stage.many(run, pool, 2_000).await;
    }
    stage.look().await;
    let (llm, tool) = (stage.of_pool("ready_tasks", "llm"), stage.of_pool("ready_tasks", "tool"));
    assert!((3_900.0..4_100.0).contains(&llm), "{llm} of 4,000");
    assert!((1_950.0..2_130.0).contains(&tool), "{tool} of 2,040");
    stage.clean().await;
}

#[tokio::test]
async fn one_old_task_is_found_among_thousands() {
    let mut stage = Stage::new().await;
    stage.many("alone", "lonely", 1).await;
    stage.pass(1);
    for run in ["a", "b"] {
        stage.many(run, "llm", 4_000).await;
    }
    // all hints are published again, its own first, which is where this process meets it
    stage.pass(11_000);
    while stage.store.sweep().await.unwrap().more {}
    stage.look().await;
    assert_eq!(stage.of_pool("oldest_ready_task_age_seconds", "lonely"), 11.001);
    // no sweep meets it now: it is remembered
    stage.pass(5_000);
    stage.look().await;
    assert_eq!(stage.of_pool("oldest_ready_task_age_seconds", "lonely"), 16.001);
    assert_eq!(stage.of_pool("ready_tasks", "lonely"), 1.0);
    let run = RunId::new("alone").unwrap();
    stage.claim(&run, "t0", "c").await;
    stage.look().await;
    assert_eq!(stage.of_pool("oldest_ready_task_age_seconds", "lonely"), 0.0);
    stage.clean().await;
}

#[tokio::test]
async fn an_open_join_ages_from_its_first_input() {
    let mut stage = Stage::new().await;
    let tasks = vec![task("a", "tool", &[]), task("b", "tool", &[]), task("j", "tool", &["a", "b"])];
    let run = stage.submit("run", tasks).await;
    stage.pass(1_000);
    stage.look().await;
    assert_eq!(stage.value("trireme_open_joins "), 0.0);
    let token = stage.claim(&run, "a", "c").await;
    let complete = Complete {
        run: run.clone(),
        task: id("a"),
        token,
        outcome: Outcome::Result(Payload::from_json("1")),
        tasks: Vec::new(),
        first_token: None,
        usage: Usage::default(),
        next: None,
    };
    stage.store.complete(complete).await.unwrap();
    stage.pass(7_000);
    stage.look().await;
    assert_eq!(stage.value("trireme_open_joins "), 1.0);
    assert_eq!(stage.value("trireme_oldest_open_join_age_seconds "), 7.0);
    stage.store.cancel(&run).await.unwrap();
    stage.look().await;
    assert_eq!(stage.value("trireme_open_joins "), 0.0);
    stage.clean().await;
}

#[tokio::test]
async fn a_quarantined_task_is_counted_once_and_lies_among_the_dead_letters_until_its_run_goes() {
    let mut stage = Stage::new().await;
    let run = stage.submit("run", vec![task("a", "tool", &[])]).await;
    for claim in ["1", "2", "3"] {
        stage.claim(&run, "a", claim).await;
        stage.pass(LEASE_MS);
        stage.store.sweep().await.unwrap();
    }
    let quarantined = r#"trireme_quarantined_tasks_total{pool="tool"}"#;
    stage.pass(1);
    for _ in 0..2 {
        stage.look().await;
        assert_eq!((stage.value(quarantined), stage.value("trireme_dead_letters ")), (1.0, 1.0));
    }
    // another process takes up where this one is
    let mut other = Sampler::new(stage.store.clone());
    other.look(&stage.gauges).await.unwrap();
    assert_eq!(stage.value(quarantined), 1.0);
    stage.pass(RETENTION_MS + 1);
    while stage.store.sweep().await.unwrap().more {}
    stage.look().await;
    assert_eq!(stage.value("trireme_dead_letters "), 0.0);
    stage.clean().await;
}
