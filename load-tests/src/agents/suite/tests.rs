use std::collections::HashSet;

use super::*;

#[test]
fn a_seed_gives_the_same_items_and_another_one_others() {
    for name in NAMES {
        let goals = |seed: u64| {
            let suite = Suite::generate(name, 20, seed, 1.0).unwrap();
            suite.items.into_iter().map(|item| item.goal).collect::<Vec<_>>()
        };
        assert_eq!(goals(1), goals(1));
        assert_ne!(goals(1), goals(2));
    }
    assert!(Suite::generate("x", 1, 1, 1.0).is_none());
}

#[test]
fn no_goal_is_part_of_another_and_every_scenario_is_sound() {
    for name in NAMES {
        let suite = Suite::generate(name, ITEMS, 1, 1.0).unwrap();
        assert_eq!(ITEMS, suite.items.len());
        let goals: HashSet<&str> = suite.items.iter().map(|item| item.goal.as_str()).collect();
        assert_eq!(ITEMS, goals.len());
        for item in &suite.items {
            assert_eq!(1, goals.iter().filter(|goal| goal.contains(&item.goal)).count(), "{}", item.goal);
        }
        let text = serde_json::to_string(&suite.scenario(1, 1.0)).unwrap();
        Scenario::parse(&text).unwrap();
    }
}

#[test]
fn known_answers_follow_from_the_facts() {
    let fact = |suite: &Suite, key: &str, field: &str| suite.facts[key][field].clone();
    for name in ["a", "b"] {
        let suite = Suite::generate(name, ITEMS, 3, 1.0).unwrap();
        for item in &suite.items {
            let Known::Text(known) = &item.known else { panic!("{item:?}") };
            let values = item.script.steps.iter().map(|step| {
                let key = step.arguments["q"].as_str().unwrap();
                (fact(&suite, key, "value").as_f64().unwrap(), fact(&suite, key, "name"))
            });
            let mut values: Vec<_> = values.collect();
            assert_eq!(if name == "a" { 2 } else { 8 }, values.len());
            values.sort_by(|a, b| b.0.total_cmp(&a.0));
            assert_eq!(values[0].1, json!(known));
            assert!(values[0].0 > values[1].0);
        }
    }
    let suite = Suite::generate("c", ITEMS, 3, 1.0).unwrap();
    for item in &suite.items {
        let find = |id: String| item.script.steps.iter().find(|step| step.id == id);
        let branches = (0..).map_while(|at| Some((find(format!("s{at}"))?, find(format!("m{at}"))?)));
        let total: f64 = branches
            .map(|(search, scale)| {
                let value = fact(&suite, search.arguments["q"].as_str().unwrap(), "value");
                value.as_f64().unwrap() * scale.arguments["by"].as_f64().unwrap()
            })
            .sum();
        assert!(matches!(item.known, Known::Number(known) if (known - total).abs() < 1e-6), "{item:?}");
    }
    let widths: HashSet<usize> = suite.items.iter().map(|item| item.script.steps.len()).collect();
    assert_eq!(HashSet::from([5, 7, 9, 11]), widths);
    let suite = Suite::generate("d", ITEMS, 3, 1.0).unwrap();
    for item in &suite.items {
        let mut key = item.script.steps[0].arguments["record"].as_str().unwrap().to_owned();
        let mut total = 0.0;
        for _ in 0..12 {
            total += fact(&suite, &key, "value").as_f64().unwrap();
            let bytes = 4 * fact(&suite, &key, "tokens").as_u64().unwrap();
            assert!((1000..=3000).contains(&bytes));
            key = fact(&suite, &key, "next").as_str().unwrap().to_owned();
        }
        assert_eq!(Known::Number(total), item.known);
    }
    let suite = Suite::generate("e", ITEMS, 3, 1.0).unwrap();
    for item in &suite.items {
        let mut query = item.script.steps[0].arguments["q"].clone();
        for _ in 0..2 {
            query = json!(format!(
                "owner of {}",
                fact(&suite, query.as_str().unwrap(), "name").as_str().unwrap()
            ));
        }
        assert_eq!(
            Known::Text(fact(&suite, query.as_str().unwrap(), "name").as_str().unwrap().into()),
            item.known
        );
    }
    let suite = Suite::generate("f", ITEMS, 3, 1.0).unwrap();
    for item in &suite.items {
        let place = item.script.steps[0].arguments["q"].as_str().unwrap();
        let mut values: Vec<f64> =
            suite.facts[place].as_object().unwrap().values().map(|value| value.as_f64().unwrap()).collect();
        values.sort_by(f64::total_cmp);
        assert_eq!((values[0], values[0]), (values[1], values[3]), "four of five agree");
        assert_eq!(Known::Number(values[0]), item.known);
    }
}

#[test]
fn the_slowest_of_eight_searches_takes_what_was_published() {
    // The simulator's log-normal, drawn here from a normal by Box and Muller.
    let mut random = Random::new(5);
    let mut unit = || (random.draw() >> 11) as f64 / (1u64 << 53) as f64;
    let sigma = calibration::SEARCH_SIGMA;
    let median = calibration::SEARCH.as_secs_f64() / (sigma * sigma / 2.0).exp();
    let mut search = || {
        median * (sigma * (-2.0 * (1.0 - unit()).ln()).sqrt() * (std::f64::consts::TAU * unit()).cos()).exp()
    };
    let rounds = 20_000;
    let mean =
        (0..rounds).map(|_| (0..8).map(|_| search()).fold(0.0, f64::max)).sum::<f64>() / f64::from(rounds);
    assert!((mean - 1.13).abs() < 0.02, "{mean}");
}

/// What the best model of `suite` answers to a joiner's question about item 0, given these results.
async fn joined(suite: &Suite, results: &str) -> String {
    use trireme_llm::{ChatRequest, Limits};
    let _ = rustls::crypto::ring::default_provider().install_default();
    let simulator =
        trireme_simulator::Simulator::start(suite.scenario(1, 1000.0), "127.0.0.1:0".parse().unwrap());
    let simulator = simulator.await.unwrap();
    let providers = super::super::product::providers(&simulator.base_url()).unwrap();
    let request = ChatRequest {
        system: Some("Answer the task from the results of the PLAN's nodes.".into()),
        ..ChatRequest::new("sim/best", format!("{}\n\n{results}", suite.items[0].goal))
    };
    let text = providers.chat(&request, Limits::default(), |_| {}).await.unwrap().text;
    simulator.shutdown().await;
    text
}

#[tokio::test]
async fn four_of_five_sources_settle_a_median() {
    let suite = Suite::generate("f", 1, 1, 1000.0).unwrap();
    let place = suite.items[0].script.steps[0].arguments["q"].as_str().unwrap();
    let given = suite.facts[place].as_object().unwrap();
    let line = |at: usize, (source, value): (&String, &Value)| {
        format!("{} {source} {{\"q\":\"{place}\"}} -> {{\"q\":\"{place}\",\"value\":{value}}}\n", at + 1)
    };
    for missing in 0..given.len() {
        let lines = given.iter().enumerate().map(|(at, entry)| {
            if at == missing {
                format!("{} {} {{\"q\":\"{place}\"}} -> No result came in time.\n", at + 1, entry.0)
            } else {
                line(at, entry)
            }
        });
        let said = joined(&suite, &lines.collect::<String>()).await;
        assert!(suite.items[0].known.is(&said), "{said}");
    }
}

#[tokio::test]
async fn a_wrong_result_makes_a_wrong_answer() {
    let suite = Suite::generate("a", 1, 1, 1000.0).unwrap();
    let steps = &suite.items[0].script.steps;
    let queries: Vec<&str> = steps.iter().map(|step| step.arguments["q"].as_str().unwrap()).collect();
    let line = |at: usize, value: f64| {
        let name = queries[at].strip_prefix("Height of ").unwrap();
        format!(
            "{} search {{\"q\":\"{}\"}} -> {{\"name\":\"{name}\",\"value\":{value}}}\n",
            at + 1,
            queries[at]
        )
    };
    let real: Vec<f64> = queries.iter().map(|q| suite.facts[*q]["value"].as_f64().unwrap()).collect();
    let known = &suite.items[0].known;
    assert!(known.is(&joined(&suite, &(line(0, real[0]) + &line(1, real[1]))).await));
    assert!(!known.is(&joined(&suite, &(line(0, real[1]) + &line(1, real[0]))).await));
    assert!(!known.is(&joined(&suite, &line(0, real[0])).await));
}
