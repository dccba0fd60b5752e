//! A plain client and a parser of event streams.

use serde_json::Value;
use trireme_simulator::{Scenario, Simulator};

pub async fn start(yaml: &str) -> Simulator {
    // Another test of this process may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let scenario = Scenario::parse(yaml).unwrap();
    Simulator::start(scenario, "127.0.0.1:0".parse().unwrap()).await.unwrap()
}

pub fn openai(simulator: &Simulator, body: &Value) -> reqwest::RequestBuilder {
    let url = format!("{}/chat/completions", simulator.openai_base_url());
    reqwest::Client::new().post(url).bearer_auth("key").json(body)
}

pub fn anthropic(simulator: &Simulator, body: &Value) -> reqwest::RequestBuilder {
    let url = format!("{}/v1/messages", simulator.anthropic_base_url());
    reqwest::Client::new().post(url).header("anthropic-version", "2023-06-01").json(body)
}

/// `(event, data)` of each event of a stream; data that is not JSON comes as a string.
pub fn events(stream: &str) -> Vec<(String, Value)> {
    let events = stream.split("\n\n").filter(|event| !event.is_empty());
    events
        .map(|event| {
            let field = |name: &str| {
                let lines = event.lines().filter_map(|line| line.strip_prefix(name));
                lines.map(str::to_owned).collect::<String>()
            };
            let data = field("data: ");
            let data = serde_json::from_str(&data).unwrap_or(Value::String(data));
            (field("event: "), data)
        })
        .collect()
}
