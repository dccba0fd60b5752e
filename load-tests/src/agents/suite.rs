//! The suites: items generated from a seed, each with a goal, the one right answer, and what the simulated model and
//! tools know of it.
//!
//! | suite | an item | tools |
//! |---|---|---|
//! | a | which of two is larger | search |
//! | b | the best of eight | search |
//! | c | two to five searches, each scaled, all summed up | search, scale, total |
//! | d | twelve records, each naming the next, 1 to 3 KB each | lookup |
//! | e | three searches one after the other, stuck at the second for up to six turns | search |
//! | f | the median of five sources, one of which takes ten times as long | five sources |
//!
//! The answer is computed here from the facts, and by the simulated model from the tool results that it is shown: it is
//! right only when these are.

mod chain;
mod fan_out;
mod scored;

use serde_json::{Map, Value, json};
use trireme_simulator::scenario::{LlmRule, LlmWhen, Scenario, Script, Span, Step, TextMatch, ToolRule};

use super::{calibration, statistics::Random};
pub use scored::Known;

/// Items of a suite unless fewer are asked for.
pub const ITEMS: usize = 100;

/// The suites by name.
pub const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A tool as models are told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolDef {
    /// Its name, also in the simulator's path.
    pub name: String,
    /// What it does.
    pub description: String,
    /// JSON schema of its arguments.
    pub parameters: Value,
}

/// One goal.
#[derive(Debug, Clone)]
pub struct Item {
    /// Such as `a-017`.
    pub id: String,
    /// What the agent is told.
    pub goal: String,
    /// The right answer.
    pub known: Known,
    /// What the simulated model knows.
    pub script: Script,
}

/// Goals of one kind, and the world they are in.
#[derive(Debug, Clone)]
pub struct Suite {
    /// One of [`NAMES`].
    pub name: &'static str,
    /// What an item is.
    pub title: &'static str,
    /// The goals.
    pub items: Vec<Item>,
    /// One more goal, which every system pursues before it is measured: connections, imports and first uses.
    pub warm_up: Option<Item>,
    /// Tools on offer.
    pub tools: Vec<ToolDef>,
    /// How tools answer, without latencies' scale.
    rules: Vec<ToolRule>,
    /// What tools know.
    facts: Map<String, Value>,
    /// `react` or `plan`: what the product is told to do.
    pub strategy: &'static str,
    /// How long the product waits for the slowest call of a turn, in units of the calibrated time.
    pub within: Option<std::time::Duration>,
}

impl Suite {
    /// The suite `name` with `count` items; latencies of its tools are `speed` times shorter than calibrated. Nothing
    /// for a name that is none of [`NAMES`].
    pub fn generate(name: &str, count: usize, seed: u64, speed: f64) -> Option<Self> {
        let name = NAMES.into_iter().find(|known| *known == name)?;
        // Suites differ in their numbers whatever the seed is.
        let mut random = Random::new(seed ^ (u64::from(name.as_bytes()[0]) << 32));
        let mut suite = match name {
            "a" => fan_out::compare(count + 1, &mut random, speed),
            "b" => fan_out::recommend(count + 1, &mut random, speed),
            "c" => fan_out::combine(count + 1, &mut random, speed),
            "d" => chain::records(count + 1, &mut random, speed),
            "e" => chain::stuck(count + 1, &mut random, speed),
            _ => fan_out::sources(count + 1, &mut random, speed),
        };
        suite.name = name;
        suite.warm_up = suite.items.pop();
        Some(suite)
    }

    /// The simulated world of this suite.
    pub fn scenario(&self, seed: u64, speed: f64) -> Scenario {
        // An agent that shortens its history asks for a summary, which is no pursuit of the goal.
        let condense = LlmRule {
            name: Some("condense".into()),
            when: LlmWhen { system: Some(contains("Condense this part")), ..LlmWhen::default() },
            respond: trireme_simulator::scenario::LlmResponse {
                text: Some("{{ last_user }}".into()),
                ..Default::default()
            },
            ..LlmRule::default()
        };
        Scenario {
            seed,
            models: vec![calibration::BEST.into(), calibration::SMALL.into()],
            unmatched: trireme_simulator::scenario::Unmatched::Error,
            // Providers send tokens one by one; at 60 a second that is every 17 ms.
            chunk_interval: Span(std::time::Duration::from_millis(15).div_f64(speed).max(MIN_CHUNK)),
            speeds: calibration::models(speed),
            prompt_cache: Some(calibration::cache()),
            data: json!({"facts": self.facts}),
            rules: vec![condense],
            scripts: self.items.iter().chain(&self.warm_up).map(|item| item.script.clone()).collect(),
            tools: self.rules.clone(),
            ..Scenario::default()
        }
    }
}

/// The least that the simulator takes.
const MIN_CHUNK: std::time::Duration = std::time::Duration::from_millis(1);

/// What every agent is told besides its goal: a house style of about 900 tokens, as deployed agents have, so that
/// prompts are as long as those that the latencies were measured with.
pub fn system() -> String {
    let (topics, verbs) = (
        [
            "figures",
            "names",
            "dates",
            "sources",
            "units",
            "quotes",
            "estimates",
            "ranges",
            "tables",
            "claims",
        ],
        ["keep", "check", "state", "compare", "cite", "round"],
    );
    let mut text = String::from(
        "You are an analyst. Use the tools for every fact; never guess one. End your answer with a line `ANSWER: ` and \
         the answer alone, a name or a plain number.\nHouse style:\n",
    );
    for at in 0..54 {
        let (topic, verb) = (topics[at % topics.len()], verbs[at % verbs.len()]);
        text.push_str(&format!(
            "{}. With {topic} in section {}, {verb} them as the tools give them.\n",
            at + 1,
            at * 7 % 40
        ));
    }
    text
}

fn contains(text: &str) -> TextMatch {
    TextMatch { contains: Some(text.to_owned()), ..TextMatch::default() }
}

fn step(id: &str, tool: &str, arguments: Value) -> Step {
    let arguments = match arguments {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    Step { id: id.to_owned(), tool: tool.to_owned(), arguments }
}

/// A script that thinks and reasons as the calibration says.
fn script(id: &str, goal: &str, steps: Vec<Step>, answer: &str) -> Script {
    Script {
        name: Some(id.to_owned()),
        goal: contains(goal),
        steps,
        thought: Some(format!("{{{{ prose(goal ~ turn, {}) }}}}", calibration::THOUGHT_TOKENS)),
        answer: format!("{{{{ prose(goal, {}) }}}}\nANSWER: {answer}", calibration::REASONING_TOKENS),
        // A model that is given a schema fills it in and says nothing else.
        json: Some(json!({"answer": answer})),
        needs: 0,
        stuck: None,
    }
}

/// A tool with text arguments, all required.
fn tool(name: &str, description: &str, arguments: &[(&str, Value)]) -> ToolDef {
    let properties: Map<String, Value> =
        arguments.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    let required: Vec<&str> = arguments.iter().map(|(name, _)| *name).collect();
    ToolDef {
        name: name.to_owned(),
        description: description.to_owned(),
        parameters: json!({"type": "object", "properties": properties, "required": required}),
    }
}

fn text() -> Value {
    json!({"type": "string"})
}

/// A name that nobody else has: `at` is in it.
fn name(random: &mut Random, at: usize) -> String {
    let first = ["Al", "Bor", "Cas", "Del", "Er", "Fal", "Gar", "Hol", "Is", "Jor", "Kel", "Lun"];
    let middle = ["an", "e", "i", "o", "ur", "ma", "ri", "to"];
    let last = ["dale", "ford", "gate", "holm", "mere", "more", "stad", "ton", "wick", "by"];
    let code: String =
        format!("{at:x}").chars().map(|c| char::from(b'a' + c.to_digit(16).unwrap_or(0) as u8)).collect();
    format!("{}{}{} {code}", random.pick(&first), random.pick(&middle), random.pick(&last))
}

#[cfg(test)]
mod tests;
