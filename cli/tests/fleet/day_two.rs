//! What an operator does on the second day, on a real fleet: shed load, pause, replay.

use std::time::Duration;

use serde_json::{Value, json};
use trireme_test_servers::free_port;

use crate::support::{SOON, eventually, fleet::Fleet, process::run, simulator::Simulator};

const SPEC: &str = "\
tasks:
  a: {tool: {name: value, args: {value: 1}}}
  b: {tool: {name: calculator, args: {expression: \"{{ a }} + 1\"}}}
output: \"{{ b }}\"
";
/// Two looks at the store, and patience for a loaded machine.
const LOOKED: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_full_backlog_sheds_load_and_loses_nothing() {
    let fleet = Fleet::shared(None).await;
    let bound = [("TRIREME__COORDINATOR__BACKLOG__MAX_READY", "20")];
    let coordinator = fleet.spawn_coordinator("c", free_port().unwrap(), &bound).ready().await;
    let api = &coordinator.api;
    let mut accepted = Vec::new();
    let end = std::time::Instant::now() + LOOKED;
    let problem = loop {
        let (status, body) = api.post("/v1/runs", SPEC, None).await.unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        match status {
            202 => accepted.push(body["run_id"].as_str().unwrap().to_owned()),
            503 => break body,
            other => panic!("{other}: {body}"),
        }
        assert!(std::time::Instant::now() < end, "{} runs were accepted", accepted.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(problem["code"], "backlog_full", "{problem}");
    assert!(accepted.len() >= 20, "{}", accepted.len());
    let worker = fleet.worker("w", &[]).await;
    eventually("a submit is accepted again", LOOKED, || async {
        let (status, body) = api.post("/v1/runs", SPEC, None).await.unwrap();
        (status == 202).then_some(body)
    })
    .await;
    for id in &accepted {
        let run = api.ended(id, LOOKED).await;
        assert_eq!((&run["status"], &run["output"]), (&json!("succeeded"), &json!(2)), "{run}");
    }
    worker.stop().await;
    coordinator.stop().await;
    fleet.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_goes_on_where_it_failed() {
    let scenario = "rules: [{when: {last_user: flaky}, times_each: 1, fault: {error: {status: 400}}}]";
    let simulator = Simulator::text(scenario).await;
    let fleet = Fleet::shared(Some(simulator.config.clone())).await;
    let (coordinator, worker) = (fleet.coordinator("c").await, fleet.worker("w", &[]).await);
    let spec = "\
tasks:
  first: {tool: {name: value, args: {value: done}}}
  flaky: {llm: {model: sim/fast, prompt: flaky}, after: [first]}
output: \"{{ first }}\"
";
    let failed = coordinator.api.submit(spec).await;
    assert_eq!(coordinator.api.ended(&failed, SOON).await["status"], "failed");
    let server = coordinator.api.base.clone();
    for _ in 0..2 {
        let replay = run(&["runs", "replay", &failed, "--server", &server]).await;
        assert_eq!(replay.expect(0, &[]).out.trim(), format!("{failed}-r1"));
    }
    let again = coordinator.api.ended(&format!("{failed}-r1"), SOON).await;
    assert_eq!((&again["status"], &again["replay_of"]), (&json!("succeeded"), &json!(failed)), "{again}");
    let attempts = |id: &str| {
        again["tasks"].as_array().unwrap().iter().find(|t| t["id"] == id).unwrap()["attempt"].clone()
    };
    assert_eq!((attempts("first"), attempts("flaky")), (json!(0), json!(1)));
    run(&["dead-letters", "list", "--server", &server]).await.expect(0, &[]);
    run(&["dead-letters", "replay", "nobody/a", "--server", &server]).await.expect(64, &["no such run"]);
    worker.stop().await;
    coordinator.stop().await;
    fleet.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_pool_waits_and_goes_on_when_resumed() {
    let fleet = Fleet::shared(None).await;
    let (coordinator, worker) = (fleet.coordinator("c").await, fleet.worker("w", &[]).await);
    let server = coordinator.api.base.clone();
    run(&["pools", "pause", "tool", "--server", &server]).await.expect(0, &[]);
    let runs = [coordinator.api.submit(SPEC).await, coordinator.api.submit(SPEC).await];
    eventually("both tasks are held", SOON, || async {
        let list = run(&["pools", "list", "--json", "--server", &server]).await.json();
        let pool = list["pools"].as_array()?.iter().find(|pool| pool["pool"] == "tool")?.clone();
        (pool["paused"] == true && pool["held"] == 2).then_some(())
    })
    .await;
    // no hint is left that a worker would only turn away
    eventually("no hint waits", SOON, || async { (fleet.queued().await == 0).then_some(()) }).await;
    let text = eventually("the pause is told", LOOKED, || async {
        let (_, text) = coordinator.api.get("/metrics").await.ok()?;
        text.contains("trireme_pool_paused{pool=\"tool\"} 1").then_some(text)
    })
    .await;
    assert!(text.contains("trireme_pool_paused{pool=\"llm\"} 0"), "{text}");
    for id in &runs {
        assert_eq!(coordinator.api.run(id).await["status"], "running");
    }
    run(&["pools", "resume", "tool", "--server", &server]).await.expect(0, &[]);
    for id in &runs {
        let ended = coordinator.api.ended(id, SOON).await;
        assert_eq!((&ended["status"], &ended["output"]), (&json!("succeeded"), &json!(2)), "{ended}");
        run(&["runs", "delete", id, "--server", &server]).await.expect(0, &[]);
        assert_eq!(coordinator.api.get(&format!("/v1/runs/{id}")).await.unwrap().0, 404);
    }
    worker.stop().await;
    coordinator.stop().await;
    fleet.clean().await;
}
