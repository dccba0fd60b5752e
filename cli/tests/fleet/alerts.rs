//! The alert rules with a real Prometheus that scrapes a real fleet: workers stop, an alert fires; they come back, it
//! resolves. Only the waiting is shortened: `for`, and the age of a task that is too old.

use std::{collections::BTreeSet, path::PathBuf, process::Command as Blocking};

use regex::Regex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use trireme_test_servers::free_port;

use crate::support::{SOON, api::Api, eventually, fleet::Fleet, process::Process};

const TASK: &str = "tasks: {a: {tool: {name: calculator, args: {expression: 1 + 1}}}}";

/// A Prometheus with the product's rules.
struct Prometheus {
    api: Api,
    _process: Process,
    _dir: TempDir,
}

impl Prometheus {
    async fn start(targets: &[&Api]) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let setup = root.join("charts/tests/setup");
        let done = tokio::task::spawn_blocking(move || Blocking::new(setup).status()).await.unwrap().unwrap();
        assert!(done.success(), "charts/tests/setup could not put Prometheus in place");
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port().unwrap());
        let rules = std::fs::read_to_string(root.join("charts/trireme/rules/trireme.yaml")).unwrap();
        let rules = Regex::new(r"(?m)^( +for:) \w+$").unwrap().replace_all(&rules, "$1 2s");
        assert!(rules.contains("trireme_oldest_ready_task_age_seconds) > 60 "), "another threshold");
        let rules = rules.replace("age_seconds) > 60 ", "age_seconds) > 5 ");
        std::fs::write(dir.path().join("rules.yaml"), rules).unwrap();
        let targets: Vec<&str> = targets.iter().map(|api| api.base.trim_start_matches("http://")).collect();
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": "fleet", "static_configs": [{"targets": targets}]}],
        });
        // JSON is YAML
        let file = dir.path().join("prometheus.yaml");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new(root.join(".tools/charts/prometheus"));
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).kill_on_drop(true);
        let process = Process::start("prometheus", command);
        Self { api: Api::new(format!("http://127.0.0.1:{port}")), _process: process, _dir: dir }
    }

    /// The alerts that fire.
    async fn firing(&self) -> Option<BTreeSet<String>> {
        let (_, text) = self.api.get("/api/v1/alerts").await.ok()?;
        let answer: Value = serde_json::from_str(&text).ok()?;
        let alerts = answer["data"]["alerts"].as_array()?;
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().map(str::to_owned)).collect()
    }

    async fn until(&self, what: &str, wanted: impl Fn(&BTreeSet<String>) -> bool) {
        eventually(what, SOON * 2, || async {
            let firing = self.firing().await?;
            wanted(&firing).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_fire_while_no_worker_works_and_resolve_when_one_does() {
    let fleet = Fleet::shared(None).await;
    let coordinator = fleet.coordinator("c").await;
    let port = free_port().unwrap();
    let worker = fleet.spawn_worker("w1", port, &[]).ready().await;
    let prometheus = Prometheus::start(&[&coordinator.api, &worker.api]).await;
    let api = coordinator.api.clone();
    let id = api.submit(TASK).await;
    api.ended(&id, SOON).await;
    let of_the_queue = ["TriremeOldestTaskAge", "TriremeNoConsumers"];
    prometheus.until("a fleet at work raises no alert", BTreeSet::is_empty).await;

    worker.stop().await;
    let id = api.submit(TASK).await;
    prometheus
        .until("the task that nobody starts raises its alerts", |firing| {
            of_the_queue.iter().all(|alert| firing.contains(*alert))
        })
        .await;

    let worker = fleet.spawn_worker("w2", port, &[]).ready().await;
    api.ended(&id, SOON).await;
    prometheus
        .until("they resolve", |firing| !of_the_queue.iter().any(|alert| firing.contains(*alert)))
        .await;

    // The objective itself: tasks that start late because the worker stands still, then enough that start at once.
    worker.process.signal("STOP");
    let mut late = Vec::new();
    for _ in 0..8 {
        late.push(api.submit(TASK).await);
    }
    let waits = r#"trireme_oldest_ready_task_age_seconds{pool="tool",priority="normal"}"#;
    eventually("the tasks have waited", SOON, || async {
        let (_, text) = api.get("/metrics").await.ok()?;
        let age: f64 = text.lines().find_map(|line| line.strip_prefix(waits))?.trim().parse().ok()?;
        (age > 1.5).then_some(())
    })
    .await;
    worker.process.signal("CONT");
    for id in &late {
        api.ended(id, SOON).await;
    }
    let burns = |firing: &BTreeSet<String>| firing.contains("TriremeQueueLatencyBurnFast");
    prometheus.until("late starts burn the budget", burns).await;
    for _ in 0..100 {
        let id = api.submit(TASK).await;
        api.ended(&id, SOON).await;
    }
    prometheus.until("many that start at once end that", |firing| !burns(firing)).await;
    for member in [coordinator, worker] {
        member.stop().await;
    }
    fleet.clean().await;
}
