//! Suites whose calls do not wait for each other: (a), (b), (c) and (f).

use std::time::Duration;

use serde_json::{Map, Value, json};
use trireme_simulator::scenario::{Script, TextMatch, ToolResponse, ToolRule, ToolWhen};

use super::{Item, Known, Random, Suite, ToolDef, name, script, step, text, tool};
use crate::agents::calibration;

/// Entities of one item of (b).
const WIDE: usize = 8;
/// Tools of (f), one source each.
const SOURCES: [&str; 5] = ["almanac", "archive", "census", "gazette", "registry"];
/// How long the product waits for the calls of (f) before it answers from the others: four of five sources settle a
/// median, and a usual search takes longer than this one time in fifty.
const WITHIN: Duration = Duration::from_millis(1600);
/// Results of (f) from which its answer follows, one of them being wrong.
const SUFFICE: usize = 3;

/// A fact: what a search for `q` finds, from 100 to 999 with one decimal.
fn fact(random: &mut Random) -> f64 {
    (1000 + random.below(9000)) as f64 / 10.0
}

/// Words that do not change what is found, so that results have a usual length.
const SEARCHED: &str = "{{ prose(args.q, 60) }}";

fn search(name: &str, description: &str) -> ToolDef {
    tool(name, description, &[("q", text())])
}

fn searched(tool: &str, speed: f64) -> ToolRule {
    let fact = |field: &str| Value::String(format!("{{{{ data.facts[args.q].{field} }}}}"));
    let json = json!({"q": "{{ args.q }}", "name": fact("name"), "value": fact("value"), "text": SEARCHED});
    rule(tool, calibration::search(speed, 1), json)
}

fn rule(tool: &str, latency: trireme_simulator::scenario::Latency, json: Value) -> ToolRule {
    ToolRule {
        name: None,
        tool: tool.to_owned(),
        when: ToolWhen::default(),
        times: None,
        times_each: None,
        chance: None,
        latency,
        respond: ToolResponse { json: Some(json), ..ToolResponse::default() },
        fault: None,
    }
}

fn suite(title: &'static str, items: Vec<Item>, facts: Map<String, Value>, speed: f64) -> Suite {
    Suite {
        name: "",
        title,
        items,
        warm_up: None,
        tools: vec![search("search", "Searches for one fact and gives its value.")],
        rules: vec![searched("search", speed)],
        facts,
        strategy: "plan",
        within: None,
    }
}

/// Names and values, noted as facts under what is searched for.
fn entities(
    random: &mut Random,
    facts: &mut Map<String, Value>,
    attribute: &str,
    first: usize,
    count: usize,
) -> Vec<(String, f64)> {
    let mut entities: Vec<(String, f64)> = Vec::with_capacity(count);
    while entities.len() < count {
        let (name, value) = (name(random, first + entities.len()), fact(random));
        // No two values of an item are alike: the largest is one.
        if entities.iter().all(|(_, other)| *other != value) {
            facts.insert(format!("{attribute} of {name}"), json!({"name": name, "value": value}));
            entities.push((name, value));
        }
    }
    entities
}

fn largest(entities: &[(String, f64)]) -> Known {
    let best = entities.iter().max_by(|a, b| a.1.total_cmp(&b.1));
    Known::Text(best.map(|(name, _)| name.clone()).unwrap_or_default())
}

/// Searches for each, and the name of the largest as answer.
fn pick_largest(id: String, goal: String, attribute: &str, entities: &[(String, f64)]) -> Item {
    let steps = entities.iter().enumerate().map(|(at, (name, _))| {
        step(&format!("s{at}"), "search", json!({"q": format!("{attribute} of {name}")}))
    });
    let all: Vec<String> = (0..entities.len()).map(|at| format!("results.s{at}")).collect();
    let answer = format!("{{{{ ([{}]|sort(attribute='value')|last).name }}}}", all.join(", "));
    let script = script(&id, &goal, steps.collect(), &answer);
    Item { id, goal, known: largest(entities), script }
}

/// (a) Which of two is larger.
pub(super) fn compare(count: usize, random: &mut Random, speed: f64) -> Suite {
    let mut facts = Map::new();
    let items = (0..count).map(|at| {
        let two = entities(random, &mut facts, "Height", at * 2, 2);
        let goal = format!("Which is higher, {} or {}?", two[0].0, two[1].0);
        pick_largest(format!("a-{at:03}"), goal, "Height", &two)
    });
    let items = items.collect();
    suite("2-wide compare", items, facts, speed)
}

/// (b) The best of eight.
pub(super) fn recommend(count: usize, random: &mut Random, speed: f64) -> Suite {
    let mut facts = Map::new();
    let items = (0..count).map(|at| {
        let eight = entities(random, &mut facts, "Rating", at * WIDE, WIDE);
        let names: Vec<&str> = eight.iter().map(|(name, _)| name.as_str()).collect();
        let goal = format!("Recommend the one with the best rating of these: {}.", names.join(", "));
        pick_largest(format!("b-{at:03}"), goal, "Rating", &eight)
    });
    let items = items.collect();
    suite("8-wide recommend", items, facts, speed)
}

/// (c) Two to five searches, each scaled, all summed up.
pub(super) fn combine(count: usize, random: &mut Random, speed: f64) -> Suite {
    let mut facts = Map::new();
    let items = (0..count).map(|at| {
        let branches = 2 + at % 4;
        let entities = entities(random, &mut facts, "Output", at * 5, branches);
        let factors: Vec<u64> = (0..branches).map(|_| 2 + random.below(8)).collect();
        let parts =
            entities.iter().zip(&factors).map(|((name, _), factor)| format!("{factor} times that of {name}"));
        let goal = format!("What is the total of these outputs: {}?", parts.collect::<Vec<_>>().join(", "));
        let id = format!("c-{at:03}");
        let mut steps = Vec::new();
        for (branch, (name, _)) in entities.iter().enumerate() {
            steps.push(step(&format!("s{branch}"), "search", json!({"q": format!("Output of {name}")})));
        }
        for (branch, factor) in factors.iter().enumerate() {
            let value = format!("$s{branch}.value");
            steps.push(step(&format!("m{branch}"), "scale", json!({"value": value, "by": factor})));
        }
        let values: Vec<String> = (0..branches).map(|branch| format!("$m{branch}.value")).collect();
        steps.push(step("sum", "total", json!({"values": values})));
        let total: f64 =
            entities.iter().zip(&factors).map(|((_, value), factor)| value * *factor as f64).sum();
        let script = script(&id, &goal, steps, "{{ results.sum.value }}");
        Item { id, goal, known: Known::Number(total), script }
    });
    let items = items.collect();
    let mut suite = suite("2 to 5 branches of search, compute, combine", items, facts, speed);
    let number = || json!({"type": "number"});
    suite.tools.extend([
        tool("scale", "Multiplies a value.", &[("value", number()), ("by", number())]),
        tool("total", "Adds values up.", &[("values", json!({"type": "array", "items": number()}))]),
    ]);
    let latency = calibration::compute(speed);
    suite.rules.extend([
        rule("scale", latency, json!({"value": "{{ args.value * args.by }}"})),
        rule("total", latency, json!({"value": "{{ args['values']|sum }}"})),
    ]);
    suite
}

/// (f) The median of five sources. One is wrong, another one takes ten times as long; whichever three have answered, or
/// more, their upper median is the value that most sources give. A model that has fewer asks for another plan, if it may.
pub(super) fn sources(count: usize, random: &mut Random, speed: f64) -> Suite {
    let mut facts = Map::new();
    // Which entities each source is slow at.
    let mut slow: Vec<Vec<String>> = vec![Vec::new(); SOURCES.len()];
    let items = (0..count).map(|at| {
        let (name, value) = (name(random, at), fact(random));
        let (late, wrong) = (random.below(5) as usize, 1 + random.below(4) as usize);
        let wrong = (late + wrong) % SOURCES.len();
        slow[late].push(name.clone());
        let given: Map<String, Value> = SOURCES
            .iter()
            .enumerate()
            .map(|(source, tool)| {
                ((*tool).to_owned(), json!(if source == wrong { value * 1.5 } else { value }))
            })
            .collect();
        facts.insert(name.clone(), Value::Object(given));
        let goal = format!("What do most of the five sources give as the area of {name}?");
        let id = format!("f-{at:03}");
        let steps = SOURCES.map(|source| step(source, source, json!({"q": name})));
        let script = Script { needs: SUFFICE, ..script(&id, &goal, steps.into(), MEDIAN) };
        Item { id, goal, known: Known::Number(value), script }
    });
    let items: Vec<Item> = items.collect();
    let mut rules = Vec::new();
    for (source, slow) in SOURCES.iter().zip(&slow) {
        let json = json!({
            "q": "{{ args.q }}", "value": format!("{{{{ data.facts[args.q].{source} }}}}"), "text": SEARCHED,
        });
        if !slow.is_empty() {
            let regex = Some(format!("^(?:{})$", slow.join("|")));
            let mut late = rule(source, calibration::search(speed, calibration::SLOW_FACTOR), json.clone());
            late.name = Some(format!("{source}, slow"));
            late.when.args.insert("q".into(), TextMatch { regex, ..TextMatch::default() });
            rules.push(late);
        }
        rules.push(rule(source, calibration::search(speed, 1), json));
    }
    let tools = SOURCES.map(|source| search(source, "Looks a place's area up in this source."));
    Suite {
        name: "",
        title: "5 sources, one 10 times slower",
        items,
        warm_up: None,
        tools: tools.into(),
        rules,
        facts,
        strategy: "plan",
        within: Some(WITHIN),
    }
}

/// The upper median of the results that are there.
const MEDIAN: &str =
    "{% set all = results|items|map('last')|map(attribute='value')|sort %}{{ all[all|length // 2] }}";
