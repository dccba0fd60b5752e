//! Suites whose calls wait for each other: (d) and (e).

use serde_json::{Map, Value, json};
use trireme_simulator::scenario::{Latency, Stuck, ToolResponse, ToolRule, ToolWhen};

use super::{Item, Known, Random, Suite, name, script, step, text, tool};
use crate::agents::calibration;

/// Records of one item of (d).
const RECORDS: usize = 12;
/// How often the model of (e) repeats a call before it goes on by itself.
const REPEATS: u64 = 6;

fn answers(name: &str, latency: Latency, json: Value) -> ToolRule {
    ToolRule {
        name: None,
        tool: name.to_owned(),
        when: ToolWhen::default(),
        times: None,
        times_each: None,
        chance: None,
        latency,
        respond: ToolResponse { json: Some(json), ..ToolResponse::default() },
        fault: None,
    }
}

fn fact(key: &str, field: &str) -> String {
    format!("{{{{ data.facts[args.{key}].{field} }}}}")
}

/// (d) Twelve records, each naming the next; the sum of their values.
pub(super) fn records(count: usize, random: &mut Random, speed: f64) -> Suite {
    let mut facts = Map::new();
    let items = (0..count).map(|at| {
        // 32 random bits and the position: no two records are alike.
        let mut key = |place: usize| format!("R-{:08x}-{at}-{place}", random.draw() >> 32);
        let keys: Vec<String> = (0..=RECORDS).map(&mut key).collect();
        let mut total = 0.0;
        for pair in keys.windows(2) {
            let value = (10 + random.below(990)) as f64;
            total += value;
            // 250 to 700 tokens of 4 bytes: 1 to 2.8 KB.
            let tokens = 250 + random.below(451);
            facts.insert(pair[0].clone(), json!({"value": value, "next": pair[1], "tokens": tokens}));
        }
        let goal = format!(
            "Begin with record {}. Each record names the next. What is the total of the values of the first {RECORDS}?",
            keys[0]
        );
        let id = format!("d-{at:03}");
        let steps = (0..RECORDS).map(|place| {
            let key = if place == 0 { keys[0].clone() } else { format!("$s{}.next", place - 1) };
            step(&format!("s{place}"), "lookup", json!({"record": key}))
        });
        let all: Vec<String> = (0..RECORDS).map(|place| format!("results.s{place}.value")).collect();
        let script = script(&id, &goal, steps.collect(), &format!("{{{{ {} }}}}", all.join(" + ")));
        Item { id, goal, known: Known::Number(total), script }
    });
    let items = items.collect();
    let json = json!({
        "record": "{{ args.record }}", "value": fact("record", "value"), "next": fact("record", "next"),
        "text": "{{ prose(args.record, data.facts[args.record].tokens) }}",
    });
    Suite {
        name: "",
        title: "12-step loop, growing context",
        items,
        warm_up: None,
        tools: vec![tool(
            "lookup",
            "Gives a record: its value, the next record's name, and a text.",
            &[("record", text())],
        )],
        rules: vec![answers("lookup", calibration::lookup(speed), json)],
        facts,
        strategy: "plan",
        within: None,
    }
}

/// (e) Three searches, each for what the one before found; the model repeats the second one.
pub(super) fn stuck(count: usize, random: &mut Random, speed: f64) -> Suite {
    let mut facts = Map::new();
    let items = (0..count).map(|at| {
        let names: Vec<String> = (0..4).map(|place| name(random, at * 4 + place)).collect();
        for pair in names.windows(2) {
            facts.insert(format!("owner of {}", pair[0]), json!({"name": pair[1]}));
        }
        let goal = format!("Who owns the owner of the owner of {}?", names[0]);
        let id = format!("e-{at:03}");
        let steps = vec![
            step("first", "search", json!({"q": format!("owner of {}", names[0])})),
            step("second", "search", json!({"q": "owner of ${first.name}"})),
            step("third", "search", json!({"q": "owner of ${second.name}"})),
        ];
        let mut script = script(&id, &goal, steps, "{{ results.third.name }}");
        script.stuck = Some(Stuck { at: "second".into(), times: REPEATS });
        Item { id, goal, known: Known::Text(names[3].clone()), script }
    });
    let items = items.collect();
    let json = json!({"q": "{{ args.q }}", "name": fact("q", "name"), "text": "{{ prose(args.q, 60) }}"});
    Suite {
        name: "",
        title: "a loop that gets stuck",
        items,
        warm_up: None,
        tools: vec![tool("search", "Searches for one fact.", &[("q", text())])],
        rules: vec![answers("search", calibration::search(speed, 1), json)],
        facts,
        strategy: "react",
        within: None,
    }
}
