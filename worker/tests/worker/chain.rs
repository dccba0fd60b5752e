//! A finished task's successor goes on in the same worker, without the broker.

use crate::support::{Stage, config, task};

#[tokio::test]
async fn a_chain_needs_one_hint() {
    let stage = Stage::new().await;
    let worker = stage.hire(config(&[("tool", 4)])).await;
    let run = stage
        .submit(
            r#"
tasks:
  a: {tool: {name: probe, args: {value: 1}}}
  b: {tool: {name: probe, args: {value: "{{ a }}"}}}
  c: {tool: {name: probe, args: {value: "{{ b }}"}}}
output: "{{ c }}"
"#,
        )
        .await;
    assert_eq!(stage.output(&run).await, 1);
    let metrics = worker.stop().await;
    assert_eq!(stage.tap.of("delivered").len(), 1);
    assert_eq!(metrics.continued.with_label_values(&["tool"]).get(), 2);
    assert_eq!(stage.probe.started(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_chain_goes_on_across_pools() {
    let stage = Stage::new().await.simulating("").await;
    let worker = stage.hire(config(&[("llm", 1), ("tool", 1)])).await;
    let run = stage
        .submit(
            r#"
tasks:
  a: {tool: {name: probe, args: {value: copper}}}
  b: {llm: {model: sim/m, prompt: "{{ a }}"}}
  c: {tool: {name: probe, args: {value: "{{ b.text }}"}}}
"#,
        )
        .await;
    stage.output(&run).await;
    let metrics = worker.stop().await;
    assert_eq!(stage.tap.of("delivered").len(), 1);
    assert_eq!(metrics.continued.with_label_values(&["llm"]).get(), 1);
    assert_eq!(metrics.continued.with_label_values(&["tool"]).get(), 1);
    let used = |pool: &str| metrics.slots_used.with_label_values(&[pool]).get();
    assert_eq!((used("llm"), used("tool")), (0, 0));
}

#[tokio::test]
async fn a_chain_never_takes_a_slot_that_is_in_use() {
    let stage = Stage::new().await;
    let worker = stage.hire(config(&[("left", 4), ("right", 1), ("tool", 4)])).await;
    let spec = r#"
tasks:
  a: {tool: {name: value, args: {value: 1}}, pool: left}
  b: {tool: {name: probe, args: {wait: gate, value: "{{ a }}"}}, pool: right}
"#;
    let (first, second) = (stage.submit(spec).await, stage.submit(spec).await);
    stage.probe.until("one of them", |seen| seen.running == 1).await;
    stage
        .tap
        .until("both chains at b", |calls| {
            calls.iter().filter(|call| call.what == "complete" && call.task == "a").count() == 2
        })
        .await;
    assert_eq!(stage.probe.started(), ["b"]);
    stage.probe.open("gate");
    stage.output(&first).await;
    stage.output(&second).await;
    assert_eq!(stage.probe.most(), 1);
    worker.stop().await;
}

#[tokio::test]
async fn siblings_of_the_taken_successor_are_published() {
    let stage = Stage::new().await;
    let worker = stage.hire(config(&[("tool", 4)])).await;
    let run = stage
        .submit(
            r#"
tasks:
  a: {tool: {name: probe, args: {value: 1}}}
  b: {tool: {name: probe, args: {wait: gate, value: "{{ a }}"}}}
  c: {tool: {name: probe, args: {wait: gate, value: "{{ a }}"}}}
"#,
        )
        .await;
    stage.probe.until("both branches at once", |seen| seen.running == 2).await;
    stage.probe.open("gate");
    stage.output(&run).await;
    worker.stop().await;
    let run = stage.run(&run).await;
    assert!(["a", "b", "c"].iter().all(|id| run.tasks[&task(id)].attempt == 1));
}
