use futures::{StreamExt, stream};
use trireme_simulator::Simulator;

use super::*;

/// Latencies are a thousandth: what is looked at is answers and counts.
const SPEED: f64 = 1000.0;

#[tokio::test]
async fn every_item_of_every_suite_is_answered_right_one_call_at_a_time() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    for name in suite::NAMES {
        let suite = suite::Suite::generate(name, 8, 1, SPEED).unwrap();
        let simulator =
            Simulator::start(suite.scenario(1, SPEED), "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let agent = Sequential::new(&simulator.base_url(), &suite).await.unwrap();
        let outcomes: Vec<Outcome> =
            stream::iter(&suite.items).map(|item| agent.run(item)).buffered(1).collect().await;
        for (item, outcome) in suite.items.iter().zip(&outcomes) {
            let answer = outcome.answer.as_ref().unwrap();
            assert!(item.known.is(answer), "{}: {answer}, not {:?}", item.id, item.known);
        }
        let stats = simulator.ledger().stats();
        assert_eq!(1, stats.max_in_flight, "suite {name}");
        // A turn for each tool call, and one to answer.
        assert_eq!(stats.tool + 8, stats.openai, "suite {name}");
        simulator.shutdown().await;
    }
}
