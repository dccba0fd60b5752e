use futures::StreamExt;
use reqwest::Response;
use serde_json::{Value, json};
use trireme_simulator::{Outcome, Simulator};

use crate::client::{anthropic, events, openai, start};

fn ask(stream: bool) -> Value {
    json!({"model": "m", "max_tokens": 99, "stream": stream, "messages": [{"role": "user", "content": "hello"}]})
}

/// What came before the body ended, and whether it broke.
async fn drain(response: Response) -> (Vec<u8>, bool) {
    let mut body = response.bytes_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        match piece {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(_) => return (bytes, true),
        }
    }
    (bytes, false)
}

fn said(stream: &[u8]) -> String {
    let events = events(std::str::from_utf8(stream).unwrap());
    let deltas = events
        .iter()
        .map(|(_, chunk)| chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned());
    deltas.collect()
}

async fn last_outcome(simulator: &Simulator) -> (Outcome, u64, String) {
    simulator.ledger().wait_for(|stats| stats.in_flight == 0).await;
    let call = simulator.ledger().calls().pop().unwrap();
    (call.outcome, call.completion_tokens, call.fault.unwrap_or_default())
}

#[tokio::test]
async fn a_rate_limit_says_when_to_come_back_and_ends_after_its_times() {
    let simulator = start("rules: [{times: 1, fault: {error: {status: 429, retry_after: 1500ms}}}]").await;
    let limited = openai(&simulator, &ask(true)).send().await.unwrap();
    assert_eq!(429, limited.status());
    assert_eq!(
        ("2", "1500"),
        (
            limited.headers()["retry-after"].to_str().unwrap(),
            limited.headers()["retry-after-ms"].to_str().unwrap()
        )
    );
    assert_eq!("rate_limit_exceeded", limited.json::<Value>().await.unwrap()["error"]["code"]);
    assert_eq!((Outcome::Error, 0, "error".to_owned()), last_outcome(&simulator).await);
    assert_eq!(200, openai(&simulator, &ask(true)).send().await.unwrap().status());
    let statuses: Vec<u16> = simulator.ledger().calls().iter().map(|call| call.status).collect();
    assert_eq!(429, statuses[0]);
}

#[tokio::test]
async fn server_errors_have_the_providers_names() {
    let simulator = start("rules: [{when: {api: anthropic}, fault: {error: {status: 529}}}, {fault: {error: {status: 500, message: oh}}}]").await;
    let overloaded = anthropic(&simulator, &ask(false)).send().await.unwrap();
    assert_eq!(529, overloaded.status());
    assert_eq!("overloaded_error", overloaded.json::<Value>().await.unwrap()["error"]["type"]);
    let broken = openai(&simulator, &ask(false)).send().await.unwrap();
    assert_eq!(500, broken.status());
    assert_eq!(
        json!({"message": "oh", "type": "server_error", "param": null, "code": null}),
        broken.json::<Value>().await.unwrap()["error"]
    );
}

#[tokio::test]
async fn a_cut_stream_breaks_after_its_tokens() {
    let simulator =
        start("rules: [{respond: {text: abcdefghijklmnop}, fault: {cut: {after_tokens: 2}}}]").await;
    let (bytes, broke) = drain(openai(&simulator, &ask(true)).send().await.unwrap()).await;
    assert_eq!(("abcdefgh".to_owned(), true), (said(&bytes), broke));
    assert_eq!((Outcome::Cut, 2, "cut".to_owned()), last_outcome(&simulator).await);
    let (bytes, broke) = drain(openai(&simulator, &ask(false)).send().await.unwrap()).await;
    assert_eq!((8, true), (bytes.len(), broke));
}

#[tokio::test]
async fn a_truncated_stream_ends_cleanly_but_unfinished() {
    let simulator =
        start("rules: [{respond: {text: abcdefghijklmnop}, fault: {truncate: {after_tokens: 3}}}]").await;
    let (bytes, broke) = drain(openai(&simulator, &ask(true)).send().await.unwrap()).await;
    assert_eq!(("abcdefghijkl".to_owned(), false), (said(&bytes), broke));
    let text = String::from_utf8(bytes).unwrap();
    assert!(!text.contains("[DONE]") && !text.contains("\"stop\""));
    assert_eq!(Outcome::Cut, last_outcome(&simulator).await.0);
    let body = openai(&simulator, &ask(false)).send().await.unwrap().bytes().await.unwrap();
    assert!(serde_json::from_slice::<Value>(&body).is_err());
}

#[tokio::test]
async fn a_hang_before_the_first_token_has_headers_and_ends_when_the_client_leaves() {
    let simulator = start("rules: [{fault: {hang: {}}}]").await;
    let response = openai(&simulator, &ask(true)).send().await.unwrap();
    assert_eq!(200, response.status());
    assert_eq!(1, simulator.ledger().stats().in_flight);
    drop(response);
    assert_eq!((Outcome::ClientDisconnected, 0, "hang".to_owned()), last_outcome(&simulator).await);
}

#[tokio::test]
async fn a_hang_before_the_headers_is_noticed_too() {
    let simulator = start("rules: [{fault: {hang: {before_headers: true}}}]").await;
    for stream in [true, false] {
        let request = tokio::spawn(openai(&simulator, &ask(stream)).send());
        simulator.ledger().wait_for(|stats| stats.in_flight == 1).await;
        request.abort();
        let (outcome, _, _) = last_outcome(&simulator).await;
        assert_eq!(Outcome::ClientDisconnected, outcome);
    }
    assert!(simulator.ledger().calls().iter().all(|call| call.status == 0));
}

#[tokio::test]
async fn a_hang_in_the_middle_sends_its_tokens_first() {
    let simulator = start("rules: [{respond: {text: abcdefghijkl}, fault: {hang: {after_tokens: 1}}}]").await;
    let mut body = openai(&simulator, &ask(true)).send().await.unwrap().bytes_stream();
    let first = body.next().await.unwrap().unwrap();
    assert_eq!("abcd", said(&first));
    drop(body);
    assert_eq!((Outcome::ClientDisconnected, 1, "hang".to_owned()), last_outcome(&simulator).await);
}

#[tokio::test]
async fn a_pause_ends_and_the_answer_is_whole() {
    for fault in [
        "{hang: {after_tokens: 1, for: 30ms}}",
        "{hang: {for: 30ms, before_headers: true}}",
        "{hang: {after_tokens: 9, for: 30ms}}",
    ] {
        let simulator = start(&format!("rules: [{{respond: {{text: abcdefghijkl}}, fault: {fault}}}]")).await;
        let (bytes, broke) = drain(openai(&simulator, &ask(true)).send().await.unwrap()).await;
        assert_eq!(("abcdefghijkl".to_owned(), false), (said(&bytes), broke));
        assert!(bytes.ends_with(b"data: [DONE]\n\n"), "{fault}");
        let (outcome, tokens, _) = last_outcome(&simulator).await;
        assert_eq!((Outcome::Completed, 3), (outcome, tokens));
        let call = simulator.ledger().calls().pop().unwrap();
        assert!(call.ended_at_us.unwrap() - call.at_us >= 30_000, "{fault}");
    }
}

#[tokio::test]
async fn an_error_inside_the_stream() {
    let simulator =
        start("rules: [{respond: {text: abcdefgh}, fault: {stream_error: {after_tokens: 1}}}]").await;
    let stream = anthropic(&simulator, &ask(true)).send().await.unwrap().text().await.unwrap();
    let events_seen = events(&stream);
    let (name, data) = events_seen.last().unwrap();
    assert_eq!(("error", "overloaded_error"), (name.as_str(), data["error"]["type"].as_str().unwrap()));
    assert_eq!((Outcome::Error, 1), (last_outcome(&simulator).await.0, last_outcome(&simulator).await.1));
    let stream = openai(&simulator, &ask(true)).send().await.unwrap().text().await.unwrap();
    assert_eq!("server_error", events(&stream).last().unwrap().1["error"]["type"]);
    assert_eq!(529, openai(&simulator, &ask(false)).send().await.unwrap().status());
}

#[tokio::test]
async fn bytes_that_are_no_answer() {
    let simulator = start(
        "
rules:
  - {when: {nth: 1}, fault: {garbage: {after_tokens: 1}}}
  - {when: {nth: 1}, fault: {wrong_content_type: {}}}
  - {fault: empty}
",
    )
    .await;
    let (bytes, broke) = drain(openai(&simulator, &ask(true)).send().await.unwrap()).await;
    assert!(std::str::from_utf8(&bytes).is_err() && !broke);
    let proxy = openai(&simulator, &ask(true)).send().await.unwrap();
    assert_eq!(
        (200, "text/html"),
        (proxy.status().as_u16(), proxy.headers()["content-type"].to_str().unwrap())
    );
    assert!(proxy.text().await.unwrap().starts_with("<html>"));
    let empty = openai(&simulator, &ask(true)).send().await.unwrap();
    assert_eq!((200, 0), (empty.status().as_u16(), empty.bytes().await.unwrap().len()));
    simulator.ledger().wait_for(|stats| stats.garbled == 3).await;
}

#[tokio::test]
async fn shutdown_breaks_open_streams_and_frees_the_port() {
    let simulator = start("rules: [{fault: {hang: {}}}]").await;
    let (ledger, address) = (simulator.ledger(), simulator.address());
    let response = openai(&simulator, &ask(true)).send().await.unwrap();
    simulator.shutdown().await;
    assert!(drain(response).await.1);
    assert_eq!(Outcome::Cut, ledger.calls()[0].outcome);
    std::net::TcpListener::bind(address).unwrap();
}
