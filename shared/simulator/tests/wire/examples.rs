//! The scenarios in `examples/` load and answer as their comments say.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use trireme_simulator::{Scenario, Simulator, count_tokens};

use crate::client::{openai, start};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/scenarios")
}

async fn example(name: &str) -> Simulator {
    start(&std::fs::read_to_string(folder().join(name)).unwrap()).await
}

#[test]
fn all_examples_load() {
    let files = std::fs::read_dir(folder()).unwrap();
    let files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 3);
    for file in files {
        Scenario::from_file(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

#[tokio::test]
async fn the_market_brief_answers_the_same_twice() {
    let simulator = example("market-brief.yaml").await;
    let client = reqwest::Client::new();
    for path in ["search?q=Acme", "filings?company=Acme", "prices?company=Acme"] {
        let url = format!("{}/tools/{path}", simulator.base_url());
        let get = || async { client.get(&url).send().await.unwrap().json::<Value>().await.unwrap() };
        let (first, second) = tokio::join!(get(), get());
        assert_eq!(first, second);
    }
    for (model, tokens) in [("sim/fast", 60), ("sim/best", 120)] {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "Acme"}]});
        let ask = || async {
            let answer: Value = openai(&simulator, &body).send().await.unwrap().json().await.unwrap();
            answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
        };
        let (first, second) = tokio::join!(ask(), ask());
        assert_eq!(first, second);
        assert!(count_tokens(&first).abs_diff(tokens) <= 5, "{first}");
    }
}

#[tokio::test]
async fn the_agent_loop_ends() {
    let simulator = example("weather-agent.yaml").await;
    let mut body = json!({"model": "sim/agent", "messages": [{"role": "user", "content": "Weather?"}],
        "tools": [{"type": "function", "function": {"name": "weather"}}]});
    let answer: Value = openai(&simulator, &body).send().await.unwrap().json().await.unwrap();
    let message = answer["choices"][0]["message"].clone();
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(message.clone());
    for call in message["tool_calls"].as_array().unwrap() {
        let arguments = call["function"]["arguments"].as_str().unwrap().to_owned();
        let url = format!("{}/tools/weather", simulator.base_url());
        let result = reqwest::Client::new().post(url).body(arguments).send().await.unwrap();
        let content = result.text().await.unwrap();
        messages.push(json!({"role": "tool", "tool_call_id": call["id"], "content": content}));
    }
    let answer: Value = openai(&simulator, &body).send().await.unwrap().json().await.unwrap();
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.contains("Paris: ") && text.contains("Oslo: "), "{text}");
}
