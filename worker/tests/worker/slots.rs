//! Who runs when: siblings at once, slots never over-used, high priority first.

use crate::support::{Stage, config, task};

const SIBLINGS: &str = r#"
tasks:
  a: {tool: {name: probe, args: {wait: gate}}}
  b: {tool: {name: probe, args: {wait: gate}}}
  c: {tool: {name: probe, args: {wait: gate}}}
"#;

#[tokio::test]
async fn siblings_run_at_once() {
    let stage = Stage::new().await;
    let worker = stage.hire(config(&[("tool", 8)])).await;
    let run = stage.submit(SIBLINGS).await;
    stage.probe.until("all three at once", |seen| seen.running == 3).await;
    stage.probe.open("gate");
    stage.output(&run).await;
    let metrics = worker.stop().await;
    assert_eq!(metrics.slots_used.with_label_values(&["tool"]).get(), 0);
}

#[tokio::test]
async fn one_slot_over_all_pools_is_one_attempt_at_a_time() {
    let stage = Stage::new().await;
    stage.probe.open("gate");
    let mut config = config(&[("left", 4), ("right", 4), ("tool", 4)]);
    config.slots = Some(1);
    let worker = stage.hire(config).await;
    let mut runs = Vec::new();
    for _ in 0..8 {
        let spec = r#"
tasks:
  a: {tool: {name: probe, args: {wait: gate}}, pool: left}
  b: {tool: {name: probe, args: {wait: gate}}, pool: right}
  c: {tool: {name: probe, args: {value: "{{ a }}{{ b }}"}}, pool: left}
"#;
        runs.push(stage.submit(spec).await);
    }
    for run in &runs {
        stage.output(run).await;
    }
    assert_eq!((stage.probe.most(), stage.probe.started().len()), (1, 24));
    worker.stop().await;
}

#[tokio::test]
async fn a_pools_slots_are_never_over_used() {
    let stage = Stage::new().await;
    let worker = stage.hire(config(&[("left", 2), ("tool", 2)])).await;
    let items: Vec<usize> = (0..50).collect();
    let spec = format!(
        "tasks: {{each: {{map: {{over: {items:?}, do: {{tool: {{name: probe, args: {{value: '{{{{ item }}}}'}}}}, pool: left}}}}}}}}"
    );
    let run = stage.submit(&spec).await;
    assert_eq!(stage.output(&run).await["each"].as_array().unwrap().len(), 50);
    assert!(stage.probe.most() <= 2, "{} at once", stage.probe.most());
    worker.stop().await;
}

#[tokio::test]
async fn high_priority_goes_first() {
    let stage = Stage::new().await;
    // both wait before anybody works
    let normal = stage.submit("tasks: {late: {tool: {name: probe}}, last: {tool: {name: probe}}}").await;
    let high = stage.submit("tasks: {soon: {tool: {name: probe}, priority: high}}").await;
    let mut config = config(&[("tool", 4)]);
    config.slots = Some(1);
    let worker = stage.hire(config).await;
    stage.output(&normal).await;
    stage.output(&high).await;
    let started = stage.probe.started();
    let at = |task: &str| started.iter().position(|started| started == task).unwrap();
    // what was delivered alone before all others were there may have begun; nothing else may go before
    assert!(at("soon") <= 1, "{started:?}");
    assert!(at("soon") < at("last"), "{started:?}");
    worker.stop().await;
}

#[tokio::test]
async fn a_slot_that_a_chain_leaves_serves_the_next_hint_at_once() {
    let stage = Stage::new().await;
    let worker = stage.hire(config(&[("left", 1), ("right", 1), ("tool", 1)])).await;
    // the chain moves from left to right and stays there
    let chain = stage
        .submit(
            r#"
tasks:
  a: {tool: {name: probe, args: {wait: first}}, pool: left}
  b: {tool: {name: probe, args: {wait: second, value: "{{ a }}"}}, pool: right}
"#,
        )
        .await;
    stage.probe.until("the chain's start", |seen| seen.started == ["a"]).await;
    let other = stage
        .submit("tasks: {x: {tool: {name: probe, args: {wait: second}}, pool: left, priority: high}}")
        .await;
    stage
        .tap
        .until("the hint of x", |calls| calls.iter().any(|c| c.what == "delivered" && c.task == "x"))
        .await;
    stage.probe.open("first");
    stage.probe.until("both pools at work", |seen| seen.running == 2).await;
    let used = |pool: &str| worker.metrics.slots_used.with_label_values(&[pool]).get();
    assert_eq!((used("left"), used("right"), used("tool")), (1, 1, 0));
    stage.probe.open("second");
    stage.output(&chain).await;
    stage.output(&other).await;
    assert_eq!(stage.run(&chain).await.tasks[&task("b")].attempt, 1);
    worker.stop().await;
}
