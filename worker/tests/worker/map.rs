//! Wide maps, and many calls at once.

use trireme_backend::Backend;

use crate::support::{Stage, config, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_children_a_hundred_at_once() {
    let stage = Stage::new().await;
    let worker = stage.hire(config(&[("tool", 512)])).await;
    let items: Vec<usize> = (0..10_000).collect();
    let spec = format!(
        "tasks: {{each: {{map: {{over: {items:?}, at_once: 100, do: {{tool: {{name: probe, args: {{value: '{{{{ item }}}}'}}}}}}}}}}}}\noutput: '{{{{ each }}}}'"
    );
    let run = stage.submit(&spec).await;
    assert_eq!(stage.output(&run).await, serde_json::json!(items));
    assert!(stage.probe.most() <= 100, "{} at once", stage.probe.most());
    assert_eq!(stage.probe.started().len(), 10_000);
    worker.stop().await;
}

#[tokio::test]
async fn what_can_not_be_mapped_over_is_a_final_error() {
    let stage = Stage::new().await;
    let worker = stage.hire(config(&[("tool", 4)])).await;
    let over = |value: &str| {
        format!(
            "tasks: {{a: {{tool: {{name: value, args: {{value: {value}}}}}}}, each: {{map: {{over: '{{{{ a }}}}', do: {{tool: {{name: noop}}}}}}}}}}"
        )
    };
    let run = stage.submit(&over("{x: 1}")).await;
    let error = stage.failed(&run, "each").await;
    assert_eq!(error["class"], "not_a_list", "{error}");
    let wide: Vec<usize> = (0..10_001).collect();
    let run = stage.submit(&over(&format!("{wide:?}"))).await;
    let error = stage.failed(&run, "each").await;
    assert_eq!(error["class"], "too_wide", "{error}");
    assert!(error["message"].as_str().unwrap().contains("10001"), "{error}");
    assert!(stage.tap.of("extend").is_empty());
    worker.stop().await;
}

#[tokio::test]
async fn an_empty_list_is_an_empty_result() {
    let stage = Stage::new().await;
    let worker = stage.hire(config(&[("tool", 4)])).await;
    let run = stage
        .submit("tasks: {each: {map: {over: [], do: {tool: {name: noop}}}}}\noutput: '{{ each }}'")
        .await;
    assert_eq!(stage.output(&run).await, serde_json::json!([]));
    worker.stop().await;
}

/// 500 calls unless told: `TRIREME_TEST_CALLS=2000 cargo test -p trireme-worker --release in_flight` holds as many
/// as the issue asks for (two open files each).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_calls_are_in_flight_at_once_and_all_can_be_cancelled() {
    let calls: usize = std::env::var("TRIREME_TEST_CALLS").map_or(500, |calls| calls.parse().unwrap());
    trireme_simulator::raise_open_files().unwrap();
    // silent until the client leaves, so that no call ends before the last has begun
    let stage = Stage::new()
        .await
        .simulating("rules: [{fault: {hang: {after_tokens: 1}}, respond: {text: a b c d e f}}]")
        .await;
    let worker = stage.hire(config(&[("llm", calls), ("tool", 4)])).await;
    let items: Vec<usize> = (0..calls).collect();
    let spec = format!(
        "tasks: {{each: {{map: {{over: {items:?}, at_once: {calls}, do: {{llm: {{model: sim/m, prompt: '{{{{ item }}}}'}}}}}}}}}}"
    );
    let run = stage.submit(&spec).await;
    let ledger = stage.simulator().ledger();
    within("all calls at once", ledger.wait_for(|stats| stats.in_flight == calls as u64)).await;
    stage.store.cancel(&run).await.unwrap();
    within("all to be cut", ledger.wait_for(|stats| stats.client_disconnected == calls as u64)).await;
    let metrics = worker.stop().await;
    assert_eq!(ledger.stats().received, calls as u64, "none was made twice");
    assert_eq!(metrics.attempts.with_label_values(&["llm", "llm", "cancelled"]).get(), calls as u64);
    assert_eq!(stage.run(&run).await.wasted.calls, calls as u64);
}
