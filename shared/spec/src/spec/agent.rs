//! Reads agents: the one that a task or the whole run is, and those that it may call.

use std::collections::BTreeMap;

use trireme_model::OnMiss;

use super::{
    AGENT, Agent, CONTEXT, Name, ROLES, SUB_AGENT, SubAgent, TURN,
    read::{fixed, names},
    work::{model, schema, source, temperature, tokens},
};
use crate::{
    agent::{
        CONDENSE_OVER, CONDENSE_OVER_LIMITS, Context, ELIDE_OVER, ELIDE_OVER_LIMITS, MAX_AGENT_DEPTH,
        MAX_DESCRIPTION_BYTES, MAX_REPLANS, MAX_STEPS, MAX_SUB_AGENTS, MAX_TOOLS, MaxTokens, READ_RESULT,
        REPLANS_LIMIT, STEPS_LIMIT, Strategy, Turn, callable,
    },
    fields::{Fields, choice, duration, flag, integer, object, text},
    problem::{Report, quoted},
    source::{Data, Entry, Node, join},
};

const STRATEGIES: &[(&str, Strategy)] = &[("react", Strategy::React), ("plan", Strategy::Plan)];
const ON_MISS: &[(&str, OnMiss)] = &[("partial", OnMiss::Partial), ("fail", OnMiss::Fail)];

/// An agent with a goal.
pub(super) fn agent(node: &Node, path: &str, report: &mut Report) -> Option<Agent> {
    let fields = Fields::of(node, path, AGENT, report)?;
    let goal = fields.need("goal", report).and_then(|(node, path)| source(node, &path, report));
    if fields.get("model").is_none() {
        fields.need("model", report);
    }
    let stream = fields.read("stream", report, flag).unwrap_or(true);
    let agent = any(&fields, 1, stream, report);
    let all = count(&agent);
    if all > MAX_SUB_AGENTS {
        let message = format!("{all} sub-agents in all are over the limit of {MAX_SUB_AGENTS}");
        report.add(path, Some(node.place), message);
    }
    Some(Agent { goal: Some(goal?), ..agent })
}

fn count(agent: &Agent) -> usize {
    agent.agents.iter().map(|sub| 1 + count(&sub.agent)).sum()
}

/// What every agent may set; fields that do not apply were refused before. The outermost is at `depth` 1.
fn any(fields: &Fields<'_>, depth: usize, stream: bool, report: &mut Report) -> Agent {
    let tools = fields.read("tools", report, names).unwrap_or_default();
    let agents = fields.read("agents", report, |node, path, report| {
        sub_agents(node, path, &tools, depth + 1, stream, report)
    });
    let agents = agents.unwrap_or_default();
    check_names(&tools, report);
    let offered = tools.len() + agents.len();
    if offered > MAX_TOOLS {
        let message = format!("{offered} tools and agents on offer are over the limit of {MAX_TOOLS}");
        report.add(&fields.path, Some(fields.place), message);
    }
    let count = |most: u32, least: u32| {
        move |node: &Node, path: &str, report: &mut Report| {
            // within the bounds it fits
            integer(node, path, least.into()..=most.into(), report).map(|count| count as u32)
        }
    };
    let models = fields.read("models", report, |node, path, report| Fields::of(node, path, &ROLES, report));
    Agent {
        goal: None,
        model: fields.read("model", report, model),
        models: ROLES.map(|role| models.as_ref().and_then(|models| models.read(role, report, model))),
        system: fields.read("system", report, source),
        strategy: fields
            .read("strategy", report, |node, path, report| choice(node, path, STRATEGIES, report))
            .unwrap_or_default(),
        tools,
        agents,
        max_tokens: fields.read("max_tokens", report, max_tokens).unwrap_or_default(),
        temperature: fields.read("temperature", report, temperature),
        max_steps: fields.read("max_steps", report, count(STEPS_LIMIT, 1)).unwrap_or(MAX_STEPS),
        max_replans: fields.read("max_replans", report, count(REPLANS_LIMIT, 0)).unwrap_or(MAX_REPLANS),
        output_schema: fields.read("output_schema", report, schema),
        turn: fields.read("turn", report, turn).unwrap_or(Turn { within: None, on_miss: OnMiss::Partial }),
        context: fields
            .read("context", report, context)
            .unwrap_or(Context { elide_over: ELIDE_OVER, condense_over: CONDENSE_OVER }),
        stream,
    }
}

fn sub_agents(
    node: &Node,
    path: &str,
    tools: &[Name],
    depth: usize,
    stream: bool,
    report: &mut Report,
) -> Option<Vec<SubAgent>> {
    let entries = object(node, path, report)?;
    if depth > MAX_AGENT_DEPTH && !entries.is_empty() {
        let message = format!("agents stand at most {MAX_AGENT_DEPTH} deep inside each other");
        report.add(path, Some(node.place), message);
        return None;
    }
    let mut agents = Vec::with_capacity(entries.len());
    for entry in entries {
        let path = join(path, &entry.key);
        check_name(entry, &path, tools, report);
        let Some(fields) = Fields::of(&entry.value, &path, SUB_AGENT, report) else { continue };
        let description =
            fields.need("description", report).and_then(|(node, path)| description(node, &path, report));
        let agent = any(&fields, depth, stream, report);
        let name = entry.key.clone();
        agents.push(SubAgent { name, description: description.unwrap_or_default(), agent });
    }
    Some(agents)
}

/// Models know tools by names of the form that providers take, and two may become one in it.
fn check_names(tools: &[Name], report: &mut Report) {
    let mut known = BTreeMap::from([(READ_RESULT.to_owned(), READ_RESULT)]);
    for tool in tools {
        let name = callable(&tool.text);
        let same = known.entry(name.clone()).or_insert(&tool.text);
        // one that stands twice is one tool
        if *same != tool.text || name == READ_RESULT {
            let (other, own) = (quoted(same), quoted(&tool.text));
            let message = format!("to a model {own} is the same as {other}: {}", quoted(&name));
            report.add(&tool.path, Some(tool.place), message);
        }
    }
}

/// Models call agents as they call tools, so their names are of the form that providers take.
fn check_name(entry: &Entry, path: &str, tools: &[Name], report: &mut Report) {
    let name = entry.key.as_str();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !(1..=64).contains(&name.len()) || !name.bytes().all(word) {
        let message = format!("an agent's name is 1 to 64 of A-Z a-z 0-9 _ -, not {}", quoted(name));
        report.add(path, Some(entry.place), message);
    } else if tools.iter().any(|tool| callable(&tool.text) == name) || name == READ_RESULT {
        let message = format!("{} is one of the agent's tools already", quoted(name));
        report.add(path, Some(entry.place), message);
    }
}

fn description(node: &Node, path: &str, report: &mut Report) -> Option<String> {
    let text = text(node, path, report)?;
    fixed(node, path, report);
    if (1..=MAX_DESCRIPTION_BYTES).contains(&text.len()) {
        return Some(text);
    }
    let bytes = text.len();
    let message = format!("a description has 1 to {MAX_DESCRIPTION_BYTES} bytes, this one {bytes}");
    report.add(path, Some(node.place), message);
    None
}

/// One number for all roles, or an object of some.
fn max_tokens(node: &Node, path: &str, report: &mut Report) -> Option<MaxTokens> {
    let [step, planner, joiner, answer, condenser] = match &node.data {
        Data::Map(_) => {
            let fields = Fields::of(node, path, &ROLES, report)?;
            ROLES.map(|role| fields.read(role, report, tokens))
        }
        Data::Number(_) => [tokens(node, path, report); 5],
        _ => {
            let message = format!("expected a whole number, or an object of roles, got {}", node.kind());
            report.add(path, Some(node.place), message);
            return None;
        }
    };
    Some(MaxTokens { step, planner, joiner, answer, condenser })
}

fn turn(node: &Node, path: &str, report: &mut Report) -> Option<Turn> {
    let fields = Fields::of(node, path, TURN, report)?;
    let on_miss = fields.read("on_miss", report, |node, path, report| choice(node, path, ON_MISS, report));
    Some(Turn {
        within: fields.read("within", report, duration),
        on_miss: on_miss.unwrap_or(OnMiss::Partial),
    })
}

fn context(node: &Node, path: &str, report: &mut Report) -> Option<Context> {
    let fields = Fields::of(node, path, CONTEXT, report)?;
    let mut read = |name, limits: std::ops::RangeInclusive<u32>| {
        let bounds = u64::from(*limits.start())..=u64::from(*limits.end());
        let found = fields.read(name, report, |node, path, report| integer(node, path, bounds, report));
        // within the bounds it fits
        found.map(|found| found as u32)
    };
    Some(Context {
        elide_over: read("elide_over", ELIDE_OVER_LIMITS).unwrap_or(ELIDE_OVER),
        condense_over: read("condense_over", CONDENSE_OVER_LIMITS).unwrap_or(CONDENSE_OVER),
    })
}
