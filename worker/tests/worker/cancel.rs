//! What need not go on stops: by an abort, by a renewal, at a deadline.

use std::sync::atomic::Ordering::SeqCst;

use trireme_backend::Backend;
use trireme_model::RunStatus;

use crate::support::{Stage, config, task};

/// Model and tool never answer.
const SILENT: &str = r#"
rules: [{fault: {hang: {before_headers: true}}}]
tools: [{tool: remote, fault: {hang: {before_headers: true}}}]
"#;
const BOTH: &str = r#"
tasks:
  a: {llm: {model: sim/m, prompt: hello}}
  b: {tool: {name: remote, args: {q: x}}}
"#;

#[tokio::test]
async fn a_cancel_reaches_the_calls_in_flight() {
    let stage = Stage::new().await.simulating(SILENT).await;
    // only the abort can tell
    stage.tap.refuse("renew", usize::MAX);
    let worker = stage.hire(config(&[("llm", 2), ("tool", 2)])).await;
    let run = stage.submit(BOTH).await;
    let ledger = stage.simulator().ledger();
    ledger.wait_for(|stats| stats.in_flight == 2).await;
    stage.store.cancel(&run).await.unwrap();
    ledger.wait_for(|stats| stats.client_disconnected == 2).await;
    let metrics = worker.stop().await;
    assert_eq!(metrics.leases_lost.get(), 0);
    assert_eq!(metrics.attempts.with_label_values(&["llm", "llm", "cancelled"]).get(), 1);
    let run = stage.run(&run).await;
    assert_eq!(run.status, RunStatus::Cancelled);
    assert_eq!((run.usage.calls, run.wasted.calls), (0, 1), "the call that was cut is booked as wasted");
}

#[tokio::test]
async fn a_renewal_tells_what_a_lost_abort_did_not() {
    let stage = Stage::new().await.simulating(SILENT).await;
    stage.tap.mute.store(true, SeqCst);
    let worker = stage.hire(config(&[("llm", 2), ("tool", 2)])).await;
    let run = stage.submit(BOTH).await;
    let ledger = stage.simulator().ledger();
    ledger.wait_for(|stats| stats.in_flight == 2).await;
    stage.store.cancel(&run).await.unwrap();
    ledger.wait_for(|stats| stats.client_disconnected == 2).await;
    let metrics = worker.stop().await;
    assert_eq!(metrics.leases_lost.get(), 0);
}

#[tokio::test]
async fn the_losers_of_a_race_are_cut() {
    let stage = Stage::new().await.simulating(SILENT).await;
    stage.tap.refuse("renew", usize::MAX);
    let worker = stage.hire(config(&[("llm", 2), ("tool", 2)])).await;
    let run = stage
        .submit(
            r#"
tasks:
  slow: {llm: {model: sim/m, prompt: hello}}
  fast: {tool: {name: probe, args: {wait: gate, value: 1}}}
  race: {join: {from: [slow, fast], need: any, merge: first}}
  then: {tool: {name: probe, args: {wait: later, value: "{{ race }}"}}}
output: "{{ then }}"
"#,
        )
        .await;
    let ledger = stage.simulator().ledger();
    ledger.wait_for(|stats| stats.in_flight == 1).await;
    stage.probe.open("gate");
    // while the run goes on
    ledger.wait_for(|stats| stats.client_disconnected == 1).await;
    stage.probe.open("later");
    assert_eq!(stage.output(&run).await, 1);
    assert_eq!(worker.stop().await.leases_lost.get(), 0);
}

#[tokio::test]
async fn a_tasks_timeout_cuts_the_call_and_gives_the_fallback() {
    // nothing is swept: it is the worker that keeps the time
    let stage = Stage::unswept_system().simulating(SILENT).await;
    let worker = stage.hire(config(&[("llm", 2), ("tool", 2)])).await;
    let run = stage
        .submit(
            r#"
tasks:
  a: {llm: {model: sim/m, prompt: hello}, timeout: 300ms, fallback: {text: none}}
  b: {tool: {name: remote, args: {q: x}}, timeout: 300ms, fallback: []}
output: ["{{ a.text }}", "{{ b }}"]
"#,
        )
        .await;
    assert_eq!(stage.output(&run).await, serde_json::json!(["none", []]));
    stage.simulator().ledger().wait_for(|stats| stats.client_disconnected == 2).await;
    let run = stage.run(&run).await;
    assert!(run.degraded && run.tasks[&task("a")].degraded);
    assert_eq!(run.usage.calls, 1, "what it cost is known all the same");
    worker.stop().await;
}

#[tokio::test]
async fn no_task_outlives_its_runs_deadline() {
    let stage = Stage::unswept_system();
    let worker = stage.hire(config(&[("tool", 4)])).await;
    let run = stage
        .submit(
            r#"
deadline: 300ms
tasks:
  each: {map: {over: [1, 2], do: {tool: {name: probe, args: {wait: never}}, timeout: 1h}}}
"#,
        )
        .await;
    stage.probe.until("both children", |seen| seen.started.len() == 2).await;
    stage.probe.until("their end", |seen| seen.running == 0).await;
    assert_eq!(stage.ended(&run).await.status, RunStatus::Failed);
    worker.stop().await;
}
