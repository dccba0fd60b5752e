//! A worker that is told to stop: finishes what it can, hands back the rest, and goes.

use trireme_model::TaskStatus;

use crate::support::{Stage, config, task};

#[tokio::test]
async fn an_attempt_may_finish_but_no_successor_is_taken() {
    let stage = Stage::new().await;
    let first = stage.hire(config(&[("tool", 4)])).await;
    let run = stage
        .submit(
            r#"
tasks:
  a: {tool: {name: probe, args: {wait: gate, value: 1}}}
  b: {tool: {name: probe, args: {value: "{{ a }}"}}}
output: "{{ b }}"
"#,
        )
        .await;
    stage.probe.until("the attempt", |seen| seen.running == 1).await;
    first.ask_to_stop();
    stage.tap.until("the drain", |calls| calls.iter().any(|call| call.what == "stopped")).await;
    stage.probe.open("gate");
    first.stop().await;
    assert_eq!(stage.probe.started(), ["a"]);
    let now = stage.run(&run).await;
    assert_eq!(now.tasks[&task("a")].status, TaskStatus::Succeeded);
    assert_eq!(now.tasks[&task("b")].status, TaskStatus::Ready);
    let second = stage.hire(config(&[("tool", 4)])).await;
    assert_eq!(stage.output(&run).await, 1);
    second.stop().await;
}

#[tokio::test]
async fn what_does_not_finish_is_handed_back_and_goes_on_elsewhere_at_once() {
    // nothing is swept: only a release and its hint can bring the task to the second worker
    let stage = Stage::unswept_system();
    let mut short = config(&[("tool", 1)]);
    short.drain_ms = 20;
    let first = stage.hire(short).await;
    let spec = "tasks: {a: {tool: {name: probe, args: {wait: gate, value: 1}}}}\noutput: '{{ a }}'";
    let runs = [stage.submit(spec).await, stage.submit(spec).await, stage.submit(spec).await];
    stage.probe.until("the first attempt", |seen| seen.running == 1).await;
    first.stop().await;
    assert_eq!(stage.tap.of("claim").len(), 1, "what was not claimed stays so");
    assert_eq!(stage.tap.of("acked").len(), 1, "and unacked");
    let now = stage.run(&runs[0]).await;
    let released = &now.tasks[&task("a")];
    assert_eq!((released.status, released.failures, released.lost), (TaskStatus::Ready, 0, 0));
    stage.probe.open("gate");
    let second = stage.hire(config(&[("tool", 1)])).await;
    for run in &runs {
        assert_eq!(stage.output(run).await, 1);
    }
    assert_eq!(stage.run(&runs[0]).await.tasks[&task("a")].attempt, 2);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_does_not_keep_the_worker() {
    let stage = Stage::new().await;
    let worker = stage.hire(config(&[("tool", 4)])).await;
    stage.submit("tasks: {a: {tool: {name: probe, args: {wait: gate}}}, b: {tool: {name: probe, args: {wait: never}}}}").await;
    stage.probe.until("both attempts", |seen| seen.running == 2).await;
    stage.tap.refuse("complete", usize::MAX);
    stage.tap.refuse("fail", usize::MAX);
    stage.probe.open("gate");
    stage.tap.until("an outcome", |calls| calls.iter().any(|call| call.what == "complete")).await;
    worker.stop().await;
    assert!(stage.tap.of("acked").is_empty(), "no outcome is known to be durable");
    stage.probe.until("no attempt", |seen| seen.running == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_a_broker_stops_too() {
    let stage = Stage::new().await;
    stage.tap.refuse("consume", usize::MAX);
    let worker = stage.hire(config(&[("tool", 4)])).await;
    stage.tap.until("a try", |calls| calls.iter().any(|call| call.what == "consume")).await;
    worker.stop().await;
}
