//! Every example, on the embedded backend and the simulator: the same output in parallel as one at a time.

use serde_json::{Value, json};

use crate::support::{example_names, examples, process::run, simulator::Simulator};

/// Its output.
pub async fn output(name: &str, simulator: &Simulator, more: &[&str]) -> Value {
    view(name, simulator, more).await["output"].clone()
}

/// The run of an example.
pub async fn view(name: &str, simulator: &Simulator, more: &[&str]) -> Value {
    let file = examples().join(format!("{name}.yaml"));
    let config = if name == "agent-mcp" { simulator.with_mcp().await } else { simulator.config.clone() };
    let args = ["run", file.to_str().unwrap(), "--config", config.to_str().unwrap(), "--json"];
    let view = run(&[&args, more].concat()).await;
    let view = view.expect(0, &[]).json();
    assert_eq!(view["status"], "succeeded", "{name}: {view}");
    assert_eq!(view["degraded"], json!(name == "fallback"), "{name}: {view}");
    view
}

#[tokio::test]
async fn outputs_are_equal_in_parallel_and_one_at_a_time() {
    let simulator = Simulator::examples().await;
    let names = example_names();
    assert!(names.len() >= 6, "{names:?}");
    for name in &names {
        let parallel = output(name, &simulator, &[]).await;
        // who wins a race is a matter of time: one at a time, it is whoever comes first
        if !["race", "quorum"].contains(&name.as_str()) {
            assert_eq!(output(name, &simulator, &["--sequential"]).await, parallel, "{name}");
        }
        match name.as_str() {
            "hello" => {
                assert_eq!(parallel, json!({"total": 52, "goods": 50, "text": "4 pieces cost 52"}));
            }
            "map" => {
                assert_eq!(parallel, json!({"squares": [1, 4, 9, 16, 25, 36, 49, 64, 81, 100], "sum": 385}))
            }
            "fallback" => {
                assert_eq!(parallel, json!({"id": 7, "first": "nothing", "names": ["ann", "unknown"]}));
            }
            "race" => assert!(parallel.as_str().unwrap().starts_with("Summary "), "{parallel}"),
            "market-brief" => assert!(parallel.as_str().unwrap().starts_with("Brief "), "{parallel}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_brief_asks_every_tool_and_model_once() {
    let simulator = Simulator::examples().await;
    let view = view("market-brief", &simulator, &[]).await;
    let calls = simulator.calls().await;
    let mut called: Vec<&str> = calls.iter().map(|call| call["task"].as_str().unwrap()).collect();
    called.sort_unstable();
    let tasks = view["tasks"].as_array().unwrap().iter();
    let callers =
        tasks.filter(|task| task["kind"] == "llm" || task["kind"] == "tool" && task["id"] != "output");
    let mut callers: Vec<&str> = callers.map(|task| task["id"].as_str().unwrap()).collect();
    callers.sort_unstable();
    assert_eq!(called, callers);
    let tokens: u64 = calls.iter().map(|call| call["completion_tokens"].as_u64().unwrap()).sum();
    assert_eq!(view["usage"]["output_tokens"], tokens, "what is billed is what was used");
    assert!(calls.iter().all(|call| call["outcome"] == "completed"), "{calls:?}");
    let mut keys: Vec<&str> = calls.iter().map(|call| call["idempotency_key"].as_str().unwrap()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), calls.len(), "every call has a key of its own");
}

#[tokio::test]
async fn the_loser_of_a_race_is_broken_off() {
    let simulator = Simulator::examples().await;
    output("race", &simulator, &[]).await;
    let calls = crate::support::eventually("both calls end", crate::support::SOON, || async {
        let calls = simulator.calls().await;
        calls.iter().all(|call| call["outcome"] != "in_flight").then_some(calls)
    })
    .await;
    let outcome = |target: &str| {
        calls.iter().find(|call| call["target"] == target).map(|call| call["outcome"].clone()).unwrap()
    };
    assert_eq!((outcome("fast"), outcome("best")), (json!("completed"), json!("client_disconnected")));
}
