//! Many streams at once, and the pace of one.

use futures::{StreamExt, stream};
use serde_json::json;
use trireme_simulator::raise_open_files;

use crate::client::{events, start};

/// Open streams at once; enough to overflow a short listen queue.
const STREAMS: usize = 1_500;

#[tokio::test]
async fn many_streams_are_held_at_once() {
    // Both ends of each stream are in this process.
    assert!(
        raise_open_files().unwrap() > 2 * STREAMS as u64 + 200,
        "the hard limit on open files is too low"
    );
    let simulator = start("rules: [{respond: {text: abcdefgh}, fault: {hang: {after_tokens: 1}}}]").await;
    let client = reqwest::Client::new();
    let url = format!("{}/chat/completions", simulator.openai_base_url());
    let open = stream::iter(0..STREAMS).map(|i| {
        let body =
            json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": i.to_string()}]});
        client.post(&url).json(&body).send()
    });
    let open: Vec<_> = open.buffer_unordered(STREAMS).collect().await;
    assert!(open.iter().all(|response| response.as_ref().unwrap().status() == 200));
    assert_eq!(STREAMS as u64, simulator.ledger().stats().in_flight);
    drop(open);
    let stats = simulator.ledger().wait_for(|stats| stats.in_flight == 0).await;
    assert_eq!((STREAMS as u64, STREAMS as u64), (stats.max_in_flight, stats.client_disconnected));
}

#[tokio::test]
async fn chunks_are_bounded_by_their_interval_and_never_early() {
    // 40 tokens at 1,000 a second are 39 ms, so there is room for three intervals of 15 ms at most
    // and for the last token.
    let simulator = start(
        "
chunk_interval: 15ms
rules: [{respond: {text: '{{ prose(hash, 40) }}', time_to_first_token: 20ms, tokens_per_second: 1000}}]
",
    )
    .await;
    let url = format!("{}/chat/completions", simulator.openai_base_url());
    let body = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "x"}]});
    let text = reqwest::Client::new().post(url).json(&body).send().await.unwrap().text().await.unwrap();
    let pieces = events(&text)
        .iter()
        .filter(|(_, chunk)| {
            chunk["choices"][0]["delta"]["content"].as_str().is_some_and(|piece| !piece.is_empty())
        })
        .count();
    assert!((1..=5).contains(&pieces), "{pieces} pieces");
    let call = simulator.ledger().calls().pop().unwrap();
    assert_eq!(40, call.completion_tokens);
    assert!(call.ended_at_us.unwrap() - call.at_us >= 59_000);
}
