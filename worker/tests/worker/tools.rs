//! Tools that refuse, flood, panic and do not exist.

use crate::support::{Stage, config, task};

#[tokio::test]
async fn arguments_that_do_not_fit_are_final_and_name_the_field() {
    let stage = Stage::new().await.simulating("").await;
    let worker = stage.hire(config(&[("tool", 2)])).await;
    let run = stage.submit("tasks: {a: {tool: {name: remote, args: {q: 7}}}}").await;
    let error = stage.failed(&run, "a").await;
    assert_eq!(error["class"], "invalid_args");
    assert!(error["message"].as_str().unwrap().contains("/q"), "{error}");
    assert_eq!(stage.ended(&run).await.tasks[&task("a")].attempt, 1);
    assert_eq!(stage.simulator().ledger().stats().received, 0);
    worker.stop().await;
}

#[tokio::test]
async fn an_unknown_tool_is_final_and_lists_those_there_are() {
    let stage = Stage::new().await;
    let worker = stage.hire(config(&[("tool", 2)])).await;
    let run = stage.submit("tasks: {a: {tool: {name: nothing}}}").await;
    let error = stage.failed(&run, "a").await;
    assert_eq!(error["class"], "unknown_tool");
    assert!(error["message"].as_str().unwrap().contains("calculator"), "{error}");
    worker.stop().await;
}

#[tokio::test]
async fn large_outputs_work_and_huge_ones_are_errors() {
    let stage =
        Stage::new().await.simulating("tools: [{tool: remote, respond: {filler_bytes: 50000000}}]").await;
    let worker = stage.hire(config(&[("tool", 2)])).await;
    for (args, size) in [("{bytes: 100000}", 100_000), ("{bytes: 4000000}", 4_000_000)] {
        let run = stage
            .submit(&format!("tasks: {{a: {{tool: {{name: probe, args: {args}}}}}}}\noutput: '{{{{ a }}}}'"))
            .await;
        assert_eq!(stage.output(&run).await.as_str().unwrap().len(), size);
    }
    for tool in ["{name: remote, args: {q: x}}", "{name: probe, args: {bytes: 50000000}}"] {
        let run = stage.submit(&format!("tasks: {{a: {{tool: {tool}}}}}")).await;
        assert_eq!(stage.failed(&run, "a").await["class"], "output_too_large", "{tool}");
        assert_eq!(stage.ended(&run).await.tasks[&task("a")].attempt, 1);
    }
    // the tools' limit allows it here, the store's does not
    let run = stage.submit("tasks: {a: {tool: {name: probe, args: {bytes: 9000000}}}}").await;
    assert_eq!(stage.failed(&run, "a").await["class"], "output_too_large");
    worker.stop().await;
}

#[tokio::test]
async fn a_panic_is_a_failed_attempt_and_nothing_else() {
    let stage = Stage::new().await;
    let worker = stage.hire(config(&[("tool", 1)])).await;
    let spec = |panics: u32| {
        format!(
            "tasks: {{a: {{tool: {{name: probe, args: {{panic: {panics}, value: 1}}}}, retry: {{attempts: 2, backoff: 1ms}}}}}}\noutput: '{{{{ a }}}}'"
        )
    };
    let run = stage.submit(&spec(1)).await;
    assert_eq!(stage.output(&run).await, 1);
    assert_eq!(stage.run(&run).await.tasks[&task("a")].failures, 1);
    let run = stage.submit(&spec(9)).await;
    let error = stage.failed(&run, "a").await;
    assert_eq!(error["class"], "panicked");
    assert!(error["message"].as_str().unwrap().contains("the probe was told to"), "{error}");
    // the one slot is still there, and every hint was acked
    let run = stage.submit(&spec(0)).await;
    assert_eq!(stage.output(&run).await, 1);
    let metrics = worker.stop().await;
    assert_eq!(metrics.attempts.with_label_values(&["tool", "tool", "panicked"]).get(), 3);
    assert_eq!(metrics.slots_used.with_label_values(&["tool"]).get(), 0);
    assert_eq!(stage.tap.of("acked").len(), stage.tap.of("delivered").len());
}
