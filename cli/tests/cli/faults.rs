//! Providers and tools that misbehave: each failure has its class and says what happened, and passing ones pass.

use serde_json::{Value, json};

use crate::support::{
    process::{Ended, finish_with, trireme},
    simulator::Simulator,
};

/// What a model does by the name of the task, and the class and part of the message of the failure.
const MODEL: &[(&str, &str, &str, &str)] = &[
    ("cut", "{cut: {after_tokens: 2}}", "provider_failed", "connection lost"),
    ("truncate", "{truncate: {after_tokens: 2}}", "provider_failed", "cut off"),
    ("overloaded", "{stream_error: {after_tokens: 2}}", "provider_failed", "the provider failed"),
    ("empty", "empty", "provider_failed", "cut off"),
    ("broken", "{error: {status: 500}}", "provider_failed", "http 500"),
    ("garbage", "{garbage: {after_tokens: 2}}", "invalid_output", "not understood"),
    ("proxy", "{wrong_content_type: {}}", "invalid_output", "text/html"),
];
/// Failures that no repeat would heal.
const FOR_GOOD: &[(&str, &str, &str, &str)] = &[
    ("long", "{error: {status: 400, message: too many words}}", "refused", "too many words"),
    ("key", "{error: {status: 401}}", "refused", "key, permission or credit"),
];

/// A scenario in which the prompts are the names above; `times` is how often each fails.
fn scenario(cases: &[(&str, &str, &str, &str)], times: &str) -> String {
    let rule = |(name, fault, ..): &(&str, &str, &str, &str)| {
        format!("  - {{when: {{last_user: {{equals: {name}}}}}, {times} fault: {fault}}}\n")
    };
    format!("rules:\n{}  - {{respond: {{text: fine}}}}\n", cases.iter().map(rule).collect::<String>())
}

fn tasks(cases: &[(&str, &str, &str, &str)], more: &str) -> String {
    let task = |(name, ..): &(&str, &str, &str, &str)| {
        format!("  {name}: {{llm: {{model: sim/fast, prompt: {name}}}{more}}}\n")
    };
    format!("tasks:\n{}", cases.iter().map(task).collect::<String>())
}

async fn run_spec(spec: &str, simulator: &Simulator) -> Ended {
    let command = trireme(&["run", "-", "--json", "--config", simulator.config()]);
    finish_with(command, spec.as_bytes()).await
}

fn task<'a>(view: &'a Value, id: &str) -> &'a Value {
    let tasks = view["tasks"].as_array().unwrap();
    tasks.iter().find(|task| task["id"] == id).unwrap_or_else(|| panic!("no {id} in {view}"))
}

#[track_caller]
fn failed(view: &Value, id: &str, class: &str, message: &str) {
    let task = task(view, id);
    let error = &task["error"];
    assert_eq!((&task["degraded"], &error["class"]), (&json!(true), &json!(class)), "{task}");
    assert!(error["message"].as_str().unwrap().contains(message), "{message:?} is not in {task}");
}

#[tokio::test]
async fn every_failure_of_a_model_is_named() {
    let cases = [MODEL, FOR_GOOD].concat();
    let simulator = Simulator::text(&scenario(&cases, "")).await;
    let spec = format!("defaults: {{retry: {{attempts: 1}}}}\n{}", tasks(&cases, ", fallback: none"));
    let view = run_spec(&spec, &simulator).await.expect(0, &[]).json();
    assert_eq!(view["degraded"], true);
    for (name, _, class, message) in cases {
        failed(&view, name, class, message);
        assert_eq!(task(&view, name)["attempt"], 1);
    }
}

#[tokio::test]
async fn passing_failures_of_a_model_pass() {
    let simulator = Simulator::text(&scenario(MODEL, "times_each: 1,")).await;
    let spec = format!("defaults: {{retry: {{attempts: 2, backoff: 10ms}}}}\n{}", tasks(MODEL, ""));
    let view = run_spec(&spec, &simulator).await.expect(0, &[]).json();
    assert_eq!((&view["status"], &view["degraded"]), (&json!("succeeded"), &json!(false)));
    for (name, ..) in MODEL {
        assert_eq!(view["output"][name]["text"], "fine", "{name}");
        assert_eq!(task(&view, name)["attempt"], 2, "{name}");
    }
}

#[tokio::test]
async fn failures_for_good_are_not_repeated() {
    let simulator = Simulator::text(&scenario(FOR_GOOD, "")).await;
    let spec = tasks(FOR_GOOD, ", fallback: none, retry: {attempts: 5, backoff: 1ms}");
    run_spec(&spec, &simulator).await.expect(0, &[]);
    assert_eq!(simulator.calls().await.len(), FOR_GOOD.len());
}

#[tokio::test]
async fn a_rate_limit_burns_no_attempt_and_its_wait_is_kept() {
    let scenario =
        "rules: [{times: 2, fault: {error: {status: 429, retry_after: 1s}}}, {respond: {text: fine}}]";
    let simulator = Simulator::text(scenario).await;
    let spec = "tasks: {a: {llm: {model: sim/fast, prompt: hi}, retry: {attempts: 1, backoff: 1ms}}}\noutput: \"{{ a.text }}\"";
    let ended = run_spec(spec, &simulator).await;
    assert_eq!(ended.expect(0, &["rate_limited"]).json()["output"], "fine");
    let at: Vec<u64> = simulator.calls().await.iter().map(|call| call["at_ms"].as_u64().unwrap()).collect();
    assert_eq!(at.len(), 3);
    assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= 1_000), "asked again too soon: {at:?}");
}

#[tokio::test]
async fn tools_that_answer_too_much_or_not_at_all_are_named() {
    let simulator = Simulator::text(
        "tools:\n\
         - {tool: search, when: {args: {q: huge}}, respond: {filler_bytes: 52428800}}\n\
         - {tool: search, when: {args: {q: large}}, respond: {filler_bytes: 300000}}\n\
         - {tool: search, when: {args: {q: broken}}, fault: {error: {status: 500}}}\n\
         - {tool: search, when: {args: {q: silent}}, fault: {hang: {before_headers: true}}}\n",
    )
    .await;
    let call =
        |name: &str, more: &str| format!("  {name}: {{tool: {{name: search, args: {{q: {name}}}}}{more}}}\n");
    let spec = [
        "defaults: {retry: {attempts: 1}}\ntasks:\n".to_owned(),
        call("huge", ", fallback: none"),
        call("broken", ", fallback: none"),
        call("silent", ", fallback: none, timeout: 500ms"),
        call("large", ""),
        "output: {large: \"{{ large | length }}\"}\n".to_owned(),
    ]
    .concat();
    let view = run_spec(&spec, &simulator).await.expect(0, &[]).json();
    failed(&view, "huge", "output_too_large", "8388608 bytes");
    failed(&view, "broken", "http_status", "500");
    failed(&view, "silent", "timeout", "");
    // over 64 KiB a result goes by reference, which its readers do not notice
    assert_eq!(view["output"]["large"], 300_000);
}

#[tokio::test]
async fn templates_that_never_end_or_miss_something_are_named() {
    let simulator = Simulator::text("{}").await;
    let spec = r#"
tasks:
  one: {tool: {name: value, args: {value: {a: 1}}}}
  endless: {tool: {name: value, args: {value: "{% for i in range(100000) %}{% for j in range(100000) %}{{ i }}{% endfor %}{% endfor %} "}}, fallback: none}
  lacking: {tool: {name: value, args: {value: "{{ one.b.c }}"}}, fallback: none}
"#;
    let view = run_spec(spec, &simulator).await.expect(0, &[]).json();
    failed(&view, "endless", "template_endless", "too many steps");
    failed(&view, "lacking", "missing_reference", "`one` has no field `b`");
}
