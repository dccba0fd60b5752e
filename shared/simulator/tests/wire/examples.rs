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

#[test]
fn a_scenario_survives_being_printed() {
    for file in std::fs::read_dir(folder()).unwrap() {
        let scenario = Scenario::from_file(file.unwrap().path()).unwrap();
        let printed = serde_json::to_string(&scenario).unwrap();
        assert_eq!(scenario, Scenario::parse(&printed).unwrap());
    }
}

#[test]
fn the_readme_names_every_field() {
    fn fields(value: &Value, names: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(name, value)| {
                names.push(name.clone());
                fields(value, names);
            }),
            Value::Array(items) => items.iter().for_each(|item| fields(item, names)),
            _ => {}
        }
    }
    let yaml = "
rules:
  - {when: {last_user: a}, fault: {error: {status: 500}}}
  - {fault: {stream_error: {}}}
  - {fault: {hang: {}}}
  - {fault: {wrong_content_type: {}}}
  - {respond: {time_to_first_token: {uniform: {min: 0, max: 1s}}}}
  - {respond: {time_to_first_token: {log_normal: {mean: 1s, sigma: 1.0}, straggler: {p: 0.1, factor: 2}}}}
tools: [{tool: a}]
";
    let scenario = Scenario::parse(yaml).unwrap();
    let mut names = Vec::new();
    fields(&serde_json::to_value(scenario).unwrap(), &mut names);
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    assert!(names.len() > 50);
    for name in names {
        let words = readme.split(|c: char| !c.is_alphanumeric() && c != '_');
        assert!(words.into_iter().any(|word| word == name), "README.md does not explain `{name}`");
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
    for (model, tokens) in [("fast", 60), ("best", 120)] {
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
    let mut body = json!({"model": "agent", "messages": [{"role": "user", "content": "Weather?"}],
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
