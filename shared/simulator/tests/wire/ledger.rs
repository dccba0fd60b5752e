use serde_json::{Value, json};
use trireme_simulator::{Call, Kind, Outcome, Stats};

use crate::client::{openai, start};

fn ask(text: &str) -> Value {
    json!({"model": "sim/fast", "messages": [{"role": "user", "content": text}]})
}

#[tokio::test]
async fn a_call_is_recorded_with_its_identity_and_bill() {
    let simulator = start("rules: [{name: hi, respond: {text: abcdefgh}}]").await;
    for _ in 0..2 {
        let request = openai(&simulator, &ask("hello"))
            .header("Idempotency-Key", "run/task/call")
            .header("X-Trireme-Run", "r1")
            .header("X-Trireme-Task", "news");
        request.send().await.unwrap().bytes().await.unwrap();
    }
    let calls = simulator.ledger().calls();
    let first = &calls[0];
    assert_eq!(
        (1, Kind::OpenAi, "sim/fast", "hi"),
        (first.id, first.kind, first.target.as_str(), first.rule.as_str())
    );
    assert_eq!(
        [Some("run/task/call"), Some("r1"), Some("news")],
        [&first.idempotency_key, &first.run, &first.task].map(|value| value.as_deref())
    );
    assert_eq!(
        (2, 2, 200, Outcome::Completed),
        (first.prompt_tokens, first.completion_tokens, first.status, first.outcome)
    );
    assert!(first.ended_at_ms >= Some(first.at_ms) && first.ended_at_us >= Some(first.at_us));
    assert_eq!((1, 2), (first.occurrence, calls[1].occurrence));
    assert_eq!((&first.body_hash, &first.content_hash), (&calls[1].body_hash, &calls[1].content_hash));
    assert_eq!((32, 16), (first.body_hash.len(), first.content_hash.len()));
}

#[tokio::test]
async fn refused_calls_are_recorded_and_not_billed() {
    let simulator = start("").await;
    openai(&simulator, &json!({"messages": []})).send().await.unwrap();
    let call = simulator.ledger().calls().pop().unwrap();
    assert_eq!(
        (400, Outcome::Error, 0, 0),
        (call.status, call.outcome, call.prompt_tokens, call.completion_tokens)
    );
}

#[tokio::test]
async fn the_ledger_is_readable_over_http() {
    let simulator = start("").await;
    for text in ["a", "b", "c"] {
        openai(&simulator, &ask(text)).send().await.unwrap().bytes().await.unwrap();
    }
    let get = |path: &str| {
        let url = format!("{}/_simulator/{path}", simulator.base_url());
        async move { reqwest::get(url).await.unwrap().json::<Value>().await.unwrap() }
    };
    let page = get("ledger?since=1&limit=1").await;
    let calls: Vec<Call> = serde_json::from_value(page["calls"].clone()).unwrap();
    assert_eq!(
        (vec![2], json!(2)),
        (calls.iter().map(|call| call.id).collect::<Vec<_>>(), page["next"].clone())
    );
    assert_eq!(calls[0], simulator.ledger().calls()[1]);
    let stats: Stats = serde_json::from_value(get("stats").await).unwrap();
    assert_eq!((3, 3, 3, 0), (stats.received, stats.openai, stats.completed, stats.in_flight));
    assert!(stats.max_in_flight >= 1);

    let url = format!("{}/_simulator/ledger", simulator.base_url());
    assert_eq!(204, reqwest::Client::new().delete(url).send().await.unwrap().status());
    assert_eq!(json!({"calls": [], "next": 0}), get("ledger").await);
    assert_eq!(0, simulator.ledger().stats().received);
}

#[tokio::test]
async fn a_reset_makes_the_same_draws_again() {
    let simulator = start("rules: [{name: first, times: 1}]").await;
    let mut rules = Vec::new();
    for round in 0..2 {
        for _ in 0..2 {
            openai(&simulator, &ask("a")).send().await.unwrap().bytes().await.unwrap();
        }
        rules.extend(simulator.ledger().calls().into_iter().map(|call| (call.rule, call.occurrence)));
        match round {
            0 => simulator.reset(),
            _ => {
                let url = format!("{}/_simulator/reset", simulator.base_url());
                reqwest::Client::new().post(url).send().await.unwrap();
                assert!(simulator.ledger().calls().is_empty());
            }
        }
    }
    let expected = [("first".to_owned(), 1), ("echo".to_owned(), 2)];
    assert_eq!([expected.clone(), expected].concat(), rules);
}
