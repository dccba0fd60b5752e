use serde_json::{Value, json};
use trireme_simulator::{Kind, Outcome};

use crate::client::start;

#[tokio::test]
async fn arguments_come_from_query_and_body() {
    let simulator = start("
tools:
  - {name: acme, tool: search, when: {args: {q: Acme}}, respond: {json: {found: '{{ args.q }}', limit: '{{ args.limit }}'}}}
  - {name: other, tool: search, respond: {text: 'nothing for {{ args.q }}'}}
").await;
    let url = format!("{}/tools/search", simulator.base_url());
    let client = reqwest::Client::new();
    let posted = client.post(&url).json(&json!({"q": "Acme news", "limit": 3})).send().await.unwrap();
    assert_eq!(json!({"found": "Acme news", "limit": 3}), posted.json::<Value>().await.unwrap());
    let got = client.get(format!("{url}?q=Acme%20Inc&limit=3")).send().await.unwrap();
    assert_eq!(json!({"found": "Acme Inc", "limit": "3"}), got.json::<Value>().await.unwrap());
    let text = client.get(format!("{url}?q=Bolt")).send().await.unwrap();
    assert_eq!("text/plain; charset=utf-8", text.headers()["content-type"]);
    assert_eq!("nothing for Bolt", text.text().await.unwrap());
    let calls = simulator.ledger().calls();
    assert_eq!(["acme", "acme", "other"], [0, 1, 2].map(|i| calls[i].rule.as_str()));
    assert!(calls.iter().all(|call| call.kind == Kind::Tool
        && call.target == "search"
        && call.outcome == Outcome::Completed));
}

#[tokio::test]
async fn bad_calls_and_unknown_tools_are_told() {
    let simulator = start("tools: [{tool: search}]").await;
    let client = reqwest::Client::new();
    let post = |path: &str, body: &'static str| {
        client.post(format!("{}{path}", simulator.base_url())).body(body).send()
    };
    assert_eq!(400, post("/tools/search", "{").await.unwrap().status());
    assert_eq!(400, post("/tools/search", "[1]").await.unwrap().status());
    let unknown = post("/tools/nobody", "{}").await.unwrap();
    assert_eq!(404, unknown.status());
    assert!(unknown.json::<Value>().await.unwrap()["error"].as_str().unwrap().contains("nobody"));
    assert_eq!(404, post("/nowhere", "{}").await.unwrap().status());
}

#[tokio::test]
async fn faults_of_tools() {
    let simulator = start(
        "
tools:
  - {tool: limited, times_each: 1, fault: {error: {status: 429, retry_after: 1s}}}
  - {tool: limited, respond: {text: fine}}
  - {tool: cut, respond: {text: abcdefghijkl}, fault: {cut: {after_tokens: 1}}}
  - {tool: garbage, fault: {garbage: {}}}
  - {tool: hang, fault: {hang: {}}}
  - {tool: large, respond: {filler_bytes: 300000}}
",
    )
    .await;
    let get = |tool: &str| reqwest::get(format!("{}/tools/{tool}", simulator.base_url()));
    let limited = get("limited").await.unwrap();
    assert_eq!((429, "1"), (limited.status().as_u16(), limited.headers()["retry-after"].to_str().unwrap()));
    assert_eq!("fine", get("limited").await.unwrap().text().await.unwrap());
    assert!(get("cut").await.unwrap().bytes().await.is_err());
    assert!(get("garbage").await.unwrap().json::<Value>().await.is_err());
    let large: String = get("large").await.unwrap().json().await.unwrap();
    assert_eq!(300_000, large.len());
    let hanging = tokio::spawn(get("hang"));
    simulator.ledger().wait_for(|stats| stats.in_flight == 1).await;
    hanging.abort();
    let stats = simulator.ledger().wait_for(|stats| stats.in_flight == 0).await;
    assert_eq!(
        (1, 1, 1, 1, 2),
        (stats.client_disconnected, stats.errors, stats.cut, stats.garbled, stats.completed)
    );
}
