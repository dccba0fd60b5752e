//! `trireme dev` with `submit` and `runs`: real processes over HTTP on the embedded backend.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    SOON,
    api::{Api, whole_log},
    eventually, example, example_names, examples,
    process::{Ended, Process, finish_with, run, trireme},
    simulator::Simulator,
};

const LONG: &str = "name: long\ntasks: {a: {tool: {name: sleep, args: {ms: 60000}}}}\n";

/// A coordinator and worker of the test's own.
pub struct Dev {
    pub process: Process,
    pub api: Api,
}

impl Dev {
    pub async fn start(more: &[&str]) -> Self {
        let mut process =
            Process::start("dev", trireme(&[&["dev", "--listen", "127.0.0.1:0"], more].concat()));
        let api = Api::new(process.address("listening on").await);
        Self { process, api }
    }

    /// `trireme args --server` of this one.
    pub async fn run(&self, args: &[&str]) -> Ended {
        run(&[args, &["--server", &self.api.base]].concat()).await
    }

    pub async fn submit(&self, spec: &str) -> String {
        let ended = finish_with(trireme(&["submit", "-", "--server", &self.api.base]), spec.as_bytes()).await;
        ended.expect(0, &[]).out.trim().to_owned()
    }
}

#[tokio::test]
async fn submit_follow_prints_the_output_of_every_example() {
    let simulator = Simulator::examples().await;
    let mut dev = Dev::start(&["--config", simulator.config()]).await;
    for name in example_names() {
        let file = examples().join(format!("{name}.yaml"));
        let file = file.to_str().unwrap();
        let here = run(&["run", file, "--config", simulator.config()]).await;
        let there = dev.run(&["submit", file, "--follow"]).await;
        there.expect(0, &["run succeeded"]);
        if name == "quorum" {
            // any two of the three may come first
            assert!(!there.out.is_empty());
        } else {
            assert_eq!(here.expect(0, &[]).out, there.out, "{name}");
        }
    }
    dev.process.stop(SOON).await;
}

#[tokio::test]
async fn runs_are_listed_shown_followed_and_drawn() {
    let mut dev = Dev::start(&[]).await;
    let id = dev.submit(&example("hello")).await;
    let followed = dev.run(&["runs", "follow", &id]).await;
    followed.expect(0, &["run started", "total done", "run succeeded"]);
    assert_eq!(followed.json()["total"], 52);
    let shown = dev.run(&["runs", "show", &id]).await.expect(0, &[]).json();
    assert_eq!((&shown["run_id"], &shown["status"]), (&json!(id), &json!("succeeded")));
    assert_eq!(shown["output"]["goods"], 50);
    let drawn = dev.run(&["runs", "waterfall", &id]).await;
    assert!(drawn.expect(0, &[]).out.contains("* critical path"), "{}", drawn.out);
    let other = dev.submit("name: other\ntasks: {a: {tool: {name: noop}}}").await;
    dev.api.ended(&other, SOON).await;
    let listed = dev.run(&["runs", "list"]).await;
    let lines: Vec<&str> = listed.expect(0, &[]).out.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with(&other) && lines[1].starts_with(&id), "newest first: {lines:?}");
    let none = dev.run(&["runs", "list", "--status", "failed"]).await;
    assert_eq!(none.expect(0, &[]).out, "");
    dev.run(&["runs", "list", "--status", "odd"]).await.expect(64, &["status"]);
    dev.run(&["runs", "show", &"0".repeat(32)]).await.expect(64, &["trireme: "]);
    dev.process.stop(SOON).await;
}

#[tokio::test]
async fn cancel_reaches_a_call_in_flight() {
    let simulator = Simulator::text("rules: [{fault: {hang: {}}}]").await;
    let mut dev = Dev::start(&["--config", simulator.config()]).await;
    let id = dev.submit("tasks: {a: {llm: {model: sim/fast, prompt: hi}}}").await;
    eventually("the call is made", SOON, || async { (simulator.calls().await.len() == 1).then_some(()) })
        .await;
    let cancelled = dev.run(&["runs", "cancel", &id]).await;
    assert_eq!(cancelled.expect(0, &[]).out, "cancelled\n");
    eventually("the call is broken off", SOON, || async {
        (simulator.calls().await[0]["outcome"] == "client_disconnected").then_some(())
    })
    .await;
    assert_eq!(dev.api.run(&id).await["status"], "cancelled");
    dev.run(&["runs", "follow", &id]).await.expect(1, &["cancelled"]);
    whole_log(&dev.api.events(&id, None, usize::MAX).await);
    let done = dev.submit(&example("hello")).await;
    dev.api.ended(&done, SOON).await;
    dev.run(&["runs", "cancel", &done]).await.expect(64, &["trireme: "]);
    dev.process.stop(SOON).await;
}

#[tokio::test]
async fn a_refused_spec_says_the_same_as_check() {
    let dev = Dev::start(&[]).await;
    let spec =
        "tasks:\n  a: {tool: {name: nope}}\n  b: {tool: {name: value, args: {value: \"{{ zzz }}\"}}}\n";
    let ended = finish_with(trireme(&["submit", "-", "--server", &dev.api.base]), spec.as_bytes()).await;
    ended.expect(64, &["tasks.a.tool.name", "unknown tool", "tasks.b.tool.args.value", "`zzz`"]);
}

#[tokio::test]
async fn the_same_key_is_the_same_run() {
    let dev = Dev::start(&[]).await;
    let file = examples().join("hello.yaml");
    let submit = ["submit", file.to_str().unwrap(), "--idempotency-key", "order-17", "--json"];
    let first = dev.run(&submit).await.expect(0, &[]).json();
    let second = dev.run(&submit).await.expect(0, &[]).json();
    assert_eq!(first["run_id"], second["run_id"]);
    let other = dev.run(&[&submit[..], &["--input", "price=1"]].concat()).await;
    other.expect(64, &["key"]);
}

#[tokio::test]
async fn health_readiness_and_metrics_answer() {
    let dev = Dev::start(&[]).await;
    let id = dev.submit(&example("hello")).await;
    dev.api.ended(&id, SOON).await;
    assert_eq!(dev.api.get("/healthz").await.unwrap().0, 200);
    dev.api.readiness(200, SOON).await;
    let (status, metrics) = dev.api.get("/metrics").await.unwrap();
    assert_eq!(status, 200);
    assert!(metrics.contains("# TYPE trireme_"), "{metrics}");
    let (_, openapi) = dev.api.get("/openapi.json").await.unwrap();
    let openapi: Value = serde_json::from_str(&openapi).unwrap();
    assert!(openapi["paths"]["/v1/runs"].is_object());
}

#[tokio::test]
async fn a_termination_drains_and_exits_0() {
    let mut dev = Dev::start(&[]).await;
    dev.process.stop(SOON).await;
    // with a run in flight it waits for the attempt, but no longer than the drain time
    let mut command = trireme(&["dev", "--listen", "127.0.0.1:0"]);
    command.env("TRIREME__WORKER__DRAIN_MS", "200").env("TRIREME__COORDINATOR__GRACE", "1s");
    let mut process = Process::start("dev", command);
    let api = Api::new(process.address("listening on").await);
    let id = api.submit(LONG).await;
    eventually("the task runs", SOON, || async {
        (api.run(&id).await["tasks"][0]["status"] == "running").then_some(())
    })
    .await;
    process.stop(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let dev = Dev::start(&[]).await;
    let address = dev.api.base.trim_start_matches("http://").to_owned();
    run(&["dev", "--listen", &address]).await.expect(69, &[&address]);
    run(&["simulate", "--listen", &address]).await.expect(69, &[&address]);
}

#[tokio::test]
async fn keys_that_nobody_could_ever_have_are_refused() {
    let mut command = trireme(&["dev", "--listen", "127.0.0.1:0"]);
    command.env("TRIREME__COORDINATOR__ACCESS", "keys");
    finish_with(command, b"").await.expect(64, &["coordinator.access", "bootstrap_key_file"]);
}
