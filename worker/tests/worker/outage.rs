//! A store that does not answer, answers that get lost, hints that lie: nothing runs twice, nothing is acked early.

use std::sync::atomic::Ordering::SeqCst;

use trireme_backend::Backend;

use crate::support::{Call, Stage, Tap, config, task};

const ONE: &str = "tasks: {a: {tool: {name: probe, args: {value: 7}}}}\noutput: '{{ a }}'";

/// Repeats of one call: all with one id, and only the last was answered.
fn assert_repeats(calls: &[Call], times: usize) {
    assert_eq!(calls.len(), times, "{calls:?}");
    assert!(calls.iter().all(|call| call.id == calls[0].id), "{calls:?}");
    let answered: Vec<bool> = calls.iter().map(|call| call.answered).collect();
    assert_eq!(answered.iter().filter(|answered| **answered).count(), 1);
    assert!(answered[times - 1]);
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_repeated_until_it_is_answered() {
    for fault in [Tap::refuse, Tap::lose, Tap::stall] {
        let stage = Stage::new().await;
        fault(&stage.tap, "claim", 3);
        let worker = stage.hire(config(&[("tool", 2)])).await;
        let run = stage.submit(ONE).await;
        assert_eq!(stage.output(&run).await, 7);
        assert_repeats(&stage.tap.of_task("claim", "a"), 4);
        assert_eq!(stage.probe.started(), ["a"]);
        // how much of its lease was left is unknown: it was renewed before the work began
        assert!(stage.tap.last("claim", "a") < stage.tap.last("renew", ""));
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_outcome_is_repeated_and_only_then_acked() {
    for fault in [Tap::refuse, Tap::lose, Tap::stall] {
        let stage = Stage::new().await;
        fault(&stage.tap, "complete", 3);
        let worker = stage.hire(config(&[("tool", 2)])).await;
        let run = stage.submit(ONE).await;
        assert_eq!(stage.output(&run).await, 7);
        worker.stop().await;
        assert_repeats(&stage.tap.of_task("complete", "a"), 4);
        assert_eq!(stage.probe.started(), ["a"]);
        assert!(stage.tap.last("complete", "a") < stage.tap.last("acked", "a"));
        // the successor came with the repeated answer, not by a hint
        assert_eq!(stage.tap.of("delivered").len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_repeated_and_counts_once() {
    let stage = Stage::manual();
    stage.tap.lose("fail", 3);
    let worker = stage.hire(config(&[("tool", 2)])).await;
    let run = stage.submit("tasks: {a: {tool: {name: probe, args: {panic: 1}}}}").await;
    stage.tap.until("an answer", |calls| calls.iter().any(|call| call.what == "fail" && call.answered)).await;
    let now = stage.run(&run).await;
    assert_eq!(now.tasks[&task("a")].failures, 1);
    stage.hand.advance(1000);
    stage.sweep().await;
    stage.output(&run).await;
    worker.stop().await;
    assert_repeats(&stage.tap.of_task("fail", "a"), 4);
    assert_eq!(stage.probe.started(), ["a", "a"]);
}

#[tokio::test(start_paused = true)]
async fn reads_and_a_maps_pieces_are_repeated_inside_the_attempt() {
    let stage = Stage::new().await;
    stage.tap.refuse("extend", 2);
    stage.tap.refuse("recorded", 2);
    let mut config = config(&[("tool", 4)]);
    // nothing is remembered, so everything is read
    config.cache_bytes = 0;
    let worker = stage.hire(config).await;
    let run = stage
        .submit("tasks: {a: {tool: {name: value, args: {value: [1, 2]}}}, each: {map: {over: '{{ a }}', do: {tool: {name: value, args: {value: '{{ item }}'}}}}}}\noutput: '{{ each }}'")
        .await;
    assert_eq!(stage.output(&run).await, serde_json::json!([1, 2]));
    worker.stop().await;
    assert!(stage.tap.of("fail").is_empty(), "no attempt was burnt");
    assert_eq!(stage.tap.of("extend").len(), 3);
}

#[tokio::test]
async fn hints_that_need_no_work_are_acked() {
    let stage = Stage::new().await;
    let worker = stage.hire(config(&[("tool", 8)])).await;
    let busy = stage.submit("tasks: {held: {tool: {name: probe, args: {wait: gate}}}, waits: {tool: {name: probe, args: {value: '{{ held }}'}}}}").await;
    stage.probe.until("an attempt", |seen| seen.running == 1).await;
    let cancelled = stage.submit("tasks: {off: {tool: {name: probe, args: {wait: gate}}}}").await;
    stage.probe.until("an attempt", |seen| seen.running == 2).await;
    stage.store.cancel(&cancelled).await.unwrap();
    let done = stage.submit("tasks: {did: {tool: {name: value, args: {value: 1}}}, on: {tool: {name: probe, args: {wait: gate}}, after: [did]}}").await;
    stage.probe.until("an attempt", |seen| seen.started.len() == 3).await;
    let gone = trireme_model::RunId::new("nobody").unwrap();
    let hints = [
        (&busy, "held", "busy"),
        (&busy, "waits", "not_ready"),
        (&cancelled, "off", "cancelled"),
        (&done, "did", "done"),
        (&gone, "ghost", "gone"),
    ];
    for (run, task, answer) in hints {
        let acked = stage.tap.of("acked").len();
        stage.tap.forge(run, task, "tool").await;
        stage
            .tap
            .until("an ack", |calls| calls.iter().filter(|call| call.what == "acked").count() > acked)
            .await;
        assert_eq!(worker.metrics.idle_hints.with_label_values(&[answer]).get(), 1, "{answer}");
    }
    assert_eq!(stage.probe.started(), ["held", "off", "on"]);
    stage.probe.open("gate");
    stage.output(&busy).await;
    worker.stop().await;
}

#[tokio::test]
async fn every_hint_twice_changes_nothing() {
    let stage = Stage::new().await;
    stage.tap.duplicate.store(true, SeqCst);
    let worker = stage.hire(config(&[("tool", 8)])).await;
    let spec = "tasks: {a: {tool: {name: probe, args: {value: 1}}}, b: {tool: {name: probe, args: {value: 2}}}, c: {tool: {name: probe, args: {value: '{{ a }}{{ b }}'}}}}\noutput: '{{ c }}'";
    let mut runs = Vec::new();
    for _ in 0..20 {
        runs.push(stage.submit(spec).await);
    }
    for run in &runs {
        assert_eq!(stage.output(run).await, "12");
    }
    assert_eq!(stage.probe.started().len(), 60);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_absent_at_the_start_is_asked_again() {
    let stage = Stage::new().await;
    stage.tap.refuse("consume", 5);
    let worker = stage.hire(config(&[("tool", 2)])).await;
    let run = stage.submit(ONE).await;
    assert_eq!(stage.output(&run).await, 7);
    assert_eq!(stage.tap.of("consume").len(), 6);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_not_kept_for_as_long_as_a_long_task_takes() {
    let stage = Stage::new().await;
    let worker = stage.hire(config(&[("tool", 2)])).await;
    let long = "tasks: {a: {tool: {name: sleep, args: {ms: 580000}}, timeout: 600s}}\noutput: '{{ a }}'";
    let run = stage.submit(long).await;
    // a task as long as this one does not fit into the patience of `output`
    tokio::time::sleep(std::time::Duration::from_secs(590)).await;
    stage.output(&run).await;
    worker.stop().await;
    assert!(stage.tap.last("acked", "a") < stage.tap.last("complete", "a"));
}
