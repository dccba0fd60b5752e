//! Model calls that go wrong, what they cost, and the text that they stream.

use std::time::Instant;

use trireme_model::What;
use trireme_worker::Config;

use crate::support::{Hired, Stage, config, task};

const ASK: &str =
    "tasks: {a: {llm: {model: sim/m, prompt: hello}, retry: {backoff: 1ms}}}\noutput: '{{ a.text }}'";

/// Only where a call hangs: on a busy machine a good one may take that long too.
fn impatient() -> Config {
    Config { first_token_ms: 1000, stall_ms: 1000, ..patient() }
}

fn patient() -> Config {
    config(&[("llm", 4), ("tool", 4)])
}

async fn stage(rules: &str) -> (Stage, Hired) {
    with(rules, patient()).await
}

async fn with(rules: &str, config: Config) -> (Stage, Hired) {
    let stage = Stage::new().await.simulating(rules).await;
    let worker = stage.hire(config).await;
    (stage, worker)
}

#[tokio::test]
async fn a_rate_limit_waits_as_asked_and_burns_no_attempt() {
    let (stage, worker) = stage(
        "rules: [{times: 2, fault: {error: {status: 429, retry_after: 250ms}}}, {respond: {text: fine}}]",
    )
    .await;
    let run = stage
        .submit("tasks: {a: {llm: {model: sim/m, prompt: hello}, retry: {attempts: 1, backoff: 1ms}}}\noutput: '{{ a.text }}'")
        .await;
    assert_eq!(stage.output(&run).await, "fine");
    let now = stage.run(&run).await;
    let a = &now.tasks[&task("a")];
    assert_eq!((a.attempt, a.failures, a.limited), (3, 0, 2));
    let calls = stage.simulator().ledger().calls();
    let pauses = calls.windows(2).map(|pair| pair[1].at_us - pair[0].at_us);
    assert!(pauses.clone().all(|pause| pause >= 249_000), "{:?}", pauses.collect::<Vec<_>>());
    worker.stop().await;
}

#[tokio::test]
async fn every_passing_fault_is_retried_and_its_cost_counted() {
    for (fault, code) in [
        ("{error: {status: 500}}", "provider_failed"),
        ("{cut: {after_tokens: 2}}", "provider_failed"),
        ("{truncate: {after_tokens: 2}}", "provider_failed"),
        ("{hang: {before_headers: true}}", "first_token_timeout"),
        ("{hang: {after_tokens: 2}}", "stall_timeout"),
        ("{garbage: {after_tokens: 0}}", "invalid_output"),
        ("{wrong_content_type: {}}", "invalid_output"),
    ] {
        let text = "one two three four five";
        let rules = format!(
            "rules: [{{times: 1, respond: {{text: {text}}}, fault: {fault}}}, {{respond: {{text: {text}}}}}]"
        );
        let config = if code.ends_with("timeout") { impatient() } else { patient() };
        let (stage, worker) = with(&rules, config).await;
        let run = stage.submit(ASK).await;
        assert_eq!(stage.output(&run).await, text, "{fault}");
        let now = stage.run(&run).await;
        let a = &now.tasks[&task("a")];
        assert_eq!((a.attempt, a.failures), (2, 1), "{fault}");
        assert_eq!((now.usage.calls, now.wasted.calls), (2, 0), "{fault}");
        assert!(now.usage.output_tokens > 0);
        let metrics = worker.stop().await;
        assert_eq!(metrics.attempts.with_label_values(&["llm", "llm", code]).get(), 1, "{fault}: not {code}");
        assert_eq!(stage.simulator().ledger().stats().received, 2, "{fault}");
    }
}

#[tokio::test]
async fn attempts_are_used_up_and_the_last_error_is_kept() {
    let (stage, worker) = stage("rules: [{fault: {error: {status: 500, message: the moon is full}}}]").await;
    let run = stage.submit(ASK).await;
    let error = stage.failed(&run, "a").await;
    assert_eq!(error["class"], "provider_failed");
    assert!(error["message"].as_str().unwrap().contains("the moon is full"), "{error}");
    assert_eq!(stage.ended(&run).await.usage.calls, 3);
    worker.stop().await;
}

#[tokio::test]
async fn a_refusal_and_an_unknown_model_are_final() {
    let (stage, worker) = stage("rules: [{fault: {error: {status: 400}}}]").await;
    let run = stage.submit(ASK).await;
    assert_eq!(stage.failed(&run, "a").await["class"], "refused");
    assert_eq!(stage.ended(&run).await.usage.calls, 1);
    let run = stage.submit("tasks: {a: {llm: {model: nobody/m, prompt: hello}}}").await;
    let error = stage.failed(&run, "a").await;
    assert!(error["message"].as_str().unwrap().contains("nobody/m"), "{error}");
    assert_eq!(stage.ended(&run).await.usage.calls, 0, "no provider ever saw it");
    worker.stop().await;
}

#[tokio::test]
async fn what_a_cut_call_cost_is_known_where_the_provider_says_so_early() {
    let (stage, worker) = stage("rules: [{fault: {cut: {after_tokens: 2}}, respond: {text: a b c d e f, usage: {prompt_tokens: 40}}}]").await;
    let run = stage
        .submit("tasks: {a: {llm: {model: claude/m, prompt: hello, max_tokens: 99}, retry: {attempts: 1}}}")
        .await;
    stage.failed(&run, "a").await;
    assert_eq!(stage.ended(&run).await.usage.input_tokens, 40);
    worker.stop().await;
}

#[tokio::test]
async fn prices_become_costs() {
    let (stage, worker) =
        stage("rules: [{respond: {text: hi, usage: {prompt_tokens: 100, completion_tokens: 10}}}]").await;
    let run = stage.submit("tasks: {a: {llm: {model: priced, prompt: hello}}}").await;
    stage.output(&run).await;
    let usage = stage.run(&run).await.usage;
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.usd_micros), (100, 10, 120));
    worker.stop().await;
}

#[tokio::test]
async fn streamed_text_is_in_the_log_whole_in_order_and_in_batches() {
    let words: String = (0..200).map(|word| format!("w{word} ")).collect();
    let text = words.trim();
    let (stage, worker) = stage(&format!(
        "rules: [{{times: 1, respond: {{text: '{text}'}}, fault: {{cut: {{after_tokens: 20}}}}}}, \
         {{respond: {{text: '{text}', tokens_per_second: 500, chunk_interval: 2ms}}}}]"
    ))
    .await;
    let begun = Instant::now();
    let run = stage
        .submit("tasks: {a: {llm: {model: sim/m, prompt: hello, stream: true}, retry: {backoff: 1ms}}}\noutput: '{{ a.text }}'")
        .await;
    assert_eq!(stage.output(&run).await, text);
    let writes = stage.tap.of("append").len() as u128;
    let most = begun.elapsed().as_millis() / 30 + 3;
    assert!(writes <= most, "{writes} writes, at most {most} are allowed");
    let deltas = stage.deltas(&run, "a").await;
    let of = |attempt: u32| -> String {
        deltas.iter().filter(|delta| delta.0 == attempt).map(|delta| delta.1.as_str()).collect()
    };
    assert_eq!(of(2), text);
    let first = of(1);
    assert!(!first.is_empty() && text.starts_with(&first) && first.len() < text.len(), "{first:?}");
    assert!(deltas.iter().filter(|delta| delta.0 == 2).count() > 1, "it came in pieces");
    let events = stage.events(&run).await;
    let at = |wanted: &dyn Fn(&What) -> bool| events.iter().rposition(|event| wanted(&event.what)).unwrap();
    let last =
        |attempt: u32| at(&|what| matches!(what, What::TaskDelta { attempt: of, .. } if *of == attempt));
    assert!(last(1) < at(&|what| matches!(what, What::TaskRetrying { .. })));
    assert!(last(2) < at(&|what| matches!(what, What::TaskSucceeded { task, .. } if task.as_str() == "a")));
    worker.stop().await;
}

#[tokio::test]
async fn without_stream_nothing_is_written() {
    let (stage, worker) = stage("").await;
    let run = stage.submit(ASK).await;
    stage.output(&run).await;
    worker.stop().await;
    assert!(stage.tap.of("append").is_empty());
}
