use super::*;
use crate::agents::suite::{NAMES, Suite};

/// Latencies are so much shorter that a test takes a second, and long enough that turns are told apart.
const SPEED: f64 = 50.0;
/// Of a suite with a window: 400 ms of it, 150 for a usual search, leave room for a busy machine.
const SPEED_WITH_WINDOW: f64 = 4.0;

#[tokio::test]
async fn every_suite_is_answered_right_in_every_style() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    for name in NAMES {
        let windowed = Suite::generate(name, 0, 1, 1.0).unwrap().within.is_some();
        let speed = if windowed { SPEED_WITH_WINDOW } else { SPEED };
        let suite = Suite::generate(name, 2, 1, speed).unwrap();
        let scenario = suite.scenario(1, speed);
        let simulator =
            trireme_simulator::Simulator::start(scenario, "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let product = Product::start(Kind::Embedded, &simulator.base_url(), &suite).await.unwrap();
        for (strategy, terse) in [("react", false), ("plan", false), ("plan", true)] {
            let style = Style { strategy, terse, speed };
            for item in &suite.items {
                let outcome =
                    product.run(&format!("{}-{strategy}-{terse}", item.id), &spec(&suite, item, style)).await;
                let answer = outcome.answer.unwrap();
                assert!(item.known.is(&answer), "{} {style:?}: {answer}, not {:?}", item.id, item.known);
            }
        }
        product.stop().await.unwrap();
        simulator.shutdown().await;
    }
}

#[tokio::test]
async fn a_spec_is_submitted_and_its_output_awaited() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let suite = suite::Suite::generate("a", 1, 1, 1000.0).unwrap();
    let simulator =
        trireme_simulator::Simulator::start(suite.scenario(1, 1000.0), "127.0.0.1:0".parse().unwrap());
    let simulator = simulator.await.unwrap();
    let product = Product::start(Kind::Embedded, &simulator.base_url(), &suite).await.unwrap();
    let q = suite.items[0].script.steps[0].arguments["q"].as_str().unwrap();
    let spec = json!({
        "tasks": {"found": {"tool": {"name": "search", "args": {"q": q}}}}, "output": "ANSWER: {{ found.name }}",
    });
    let said = product.run("found", &spec).await.answer.unwrap();
    assert!(q.ends_with(said.strip_prefix("ANSWER: ").unwrap()), "{q}: {said}");
    let refused = product.run("refused", &json!({"tasks": {}})).await;
    assert!(refused.answer.is_err());
    product.stop().await.unwrap();
    simulator.shutdown().await;
}
