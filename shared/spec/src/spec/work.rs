//! Reads what a task does.

use trireme_model::{JoinPolicy, Need, OnMiss, limits::MAX_WIDTH, merge::Form};

use super::{
    AT_ONCE, DO, Gather, JOIN, Join, LLM, Llm, MAP, MESSAGE, Map, Name, Schema, Source, TOOL, Tool, Work,
    agent,
    read::{fixed, names, settings},
};
use crate::{
    body::Role,
    fields::{Fields, choice, duration, flag, integer, items, name, number, object, text},
    problem::{Report, list, quoted},
    source::{Data, Node, join},
};

const ON_MISS: &[(&str, OnMiss)] =
    &[("fail", OnMiss::Fail), ("partial", OnMiss::Partial), ("default", OnMiss::Default)];
const FORMS: &[(&str, Form)] =
    &[("object", Form::Object), ("list", Form::List), ("first", Form::First), ("concat", Form::Concat)];
/// Largest `max_tokens`.
const MAX_TOKENS: u64 = 10_000_000;
/// Messages of one prompt.
const MAX_MESSAGES: usize = 1_000;
/// Stop strings, and tools on offer, of one call.
const MAX_LIST: usize = 128;

/// The work of a task: exactly one kind.
pub(super) fn of_task(fields: &Fields<'_>, report: &mut Report) -> Work {
    one_of(fields, &["llm", "tool", "join", "map", "agent"], report)
}

fn one_of(fields: &Fields<'_>, kinds: &[&str], report: &mut Report) -> Work {
    let given: Vec<&str> = kinds.iter().copied().filter(|kind| fields.get(kind).is_some()).collect();
    let &[kind] = given.as_slice() else {
        let found = if given.is_empty() { "none".to_owned() } else { list(&given) };
        let message = format!("a task is exactly one of {}, this one has {found}", list(kinds));
        report.add(&fields.path, Some(fields.place), message);
        return Work::Broken;
    };
    let Some((node, path)) = fields.get(kind) else { return Work::Broken };
    let work = match kind {
        "llm" => llm(node, &path, report).map(|llm| Work::Llm(Box::new(llm))),
        "tool" => tool(node, &path, report).map(Work::Tool),
        "join" => join_of(node, &path, report).map(Work::Join),
        "map" => map(node, &path, report).map(|map| Work::Map(Box::new(map))),
        _ => agent::agent(node, &path, report).map(|agent| Work::Agent(Box::new(agent))),
    };
    work.unwrap_or(Work::Broken)
}

pub(super) fn source(node: &Node, path: &str, report: &mut Report) -> Option<Source> {
    text(node, path, report).map(|text| Source { text, path: path.to_owned(), place: node.place })
}

/// An alias or `provider/model`, or a template that gives one.
pub(super) fn model(node: &Node, path: &str, report: &mut Report) -> Option<Source> {
    name(node, path, report).map(|text| Source { text, path: path.to_owned(), place: node.place })
}

/// A JSON schema; whether it is one is checked when the spec is compiled.
pub(super) fn schema(node: &Node, path: &str, report: &mut Report) -> Option<Schema> {
    object(node, path, report).map(|_| (node.clone(), path.to_owned()))
}

fn llm(node: &Node, path: &str, report: &mut Report) -> Option<Llm> {
    let fields = Fields::of(node, path, LLM, report)?;
    let model = fields.need("model", report).and_then(|(node, path)| model(node, &path, report));
    let messages = match (fields.get("prompt"), fields.get("messages")) {
        (Some((node, path)), None) => source(node, &path, report).map(|prompt| vec![(Role::User, prompt)]),
        (None, Some((node, path))) => messages(node, &path, report),
        (prompt, _) => {
            let found = if prompt.is_some() { "has both" } else { "has neither" };
            let message = format!("an llm task has either `prompt` or `messages`, this one {found}");
            report.add(path, Some(node.place), message);
            None
        }
    };
    Some(Llm {
        model: model?,
        messages: messages?,
        system: fields.read("system", report, source),
        max_tokens: fields.read("max_tokens", report, tokens),
        temperature: fields.read("temperature", report, temperature),
        stop: fields.read("stop", report, stops).unwrap_or_default(),
        schema: fields.read("schema", report, schema),
        tools: fields
            .read("tools", report, |node, path, report| {
                at_most(node, path, MAX_LIST, report);
                names(node, path, report)
            })
            .unwrap_or_default(),
        stream: fields.read("stream", report, flag).unwrap_or(false),
    })
}

/// A bound of generated tokens.
pub(super) fn tokens(node: &Node, path: &str, report: &mut Report) -> Option<u32> {
    // within the bounds it fits
    integer(node, path, 1..=MAX_TOKENS, report).map(|tokens| tokens as u32)
}

/// A sampling temperature.
pub(super) fn temperature(node: &Node, path: &str, report: &mut Report) -> Option<f64> {
    number(node, path, 0.0..=2.0, report)
}

fn at_most(node: &Node, path: &str, most: usize, report: &mut Report) {
    if let Data::List(items) = &node.data
        && items.len() > most
    {
        report.add(path, Some(node.place), format!("{} entries are over the limit of {most}", items.len()));
    }
}

fn messages(node: &Node, path: &str, report: &mut Report) -> Option<Vec<(Role, Source)>> {
    at_most(node, path, MAX_MESSAGES, report);
    let items = items(node, path, report)?;
    if items.is_empty() {
        report.add(path, Some(node.place), "a conversation needs at least one message");
    }
    let mut messages = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let Some(fields) = Fields::of(item, &path, MESSAGE, report) else { continue };
        let role =
            fields.need("role", report).and_then(|(node, path)| choice(node, &path, Role::NAMES, report));
        let content = fields.need("content", report).and_then(|(node, path)| source(node, &path, report));
        if let (Some(role), Some(content)) = (role, content) {
            messages.push((role, content));
        }
    }
    Some(messages)
}

fn stops(node: &Node, path: &str, report: &mut Report) -> Option<Vec<Source>> {
    if let Data::Text(_) = node.data {
        return source(node, path, report).map(|stop| vec![stop]);
    }
    at_most(node, path, MAX_LIST, report);
    let items = items(node, path, report)?;
    Some(
        items
            .iter()
            .enumerate()
            .filter_map(|(at, item)| source(item, &format!("{path}[{at}]"), report))
            .collect(),
    )
}

fn tool(node: &Node, path: &str, report: &mut Report) -> Option<Tool> {
    let fields = Fields::of(node, path, TOOL, report)?;
    let tool = fields.need("name", report).and_then(|(node, path)| {
        let text = name(node, &path, report)?;
        Some(Name { text, path, place: node.place })
    });
    let args = fields.get("args").filter(|(node, path)| object(node, path, report).is_some());
    Some(Tool { name: tool?, args: args.map(|(node, path)| (node.clone(), path)) })
}

fn join_of(node: &Node, path: &str, report: &mut Report) -> Option<Join> {
    let fields = Fields::of(node, path, JOIN, report)?;
    let from = fields.need("from", report).and_then(|(node, path)| from(node, &path, report));
    let gather = gather(&fields, Form::Object, from.as_ref().map(Vec::len), report);
    Some(Join { from: from?, gather })
}

fn from(node: &Node, path: &str, report: &mut Report) -> Option<Vec<(String, Name)>> {
    let from: Vec<(String, Name)> = match &node.data {
        Data::List(_) => {
            names(node, path, report)?.into_iter().map(|name| (name.text.clone(), name)).collect()
        }
        Data::Map(entries) => {
            let mut from = Vec::new();
            for entry in entries {
                let path = join(path, &entry.key);
                if let Some(text) = name(&entry.value, &path, report) {
                    from.push((entry.key.clone(), Name { text, path, place: entry.value.place }));
                }
            }
            from
        }
        _ => {
            let message =
                format!("expected a list of tasks, or an object of names and tasks, got {}", node.kind());
            report.add(path, Some(node.place), message);
            return None;
        }
    };
    let mut seen = std::collections::HashSet::new();
    for (_, name) in &from {
        if !seen.insert(name.text.as_str()) {
            report.add(&name.path, Some(name.place), format!("{} stands twice", quoted(&name.text)));
        }
    }
    if from.is_empty() {
        report.add(path, Some(node.place), "a join needs at least one input");
        return None;
    }
    Some(from)
}

/// Reads a policy; `inputs` is how many inputs there are, where that is known.
fn gather(fields: &Fields<'_>, form: Form, inputs: Option<usize>, report: &mut Report) -> Gather {
    let need = fields.read("need", report, |node, path, report| need(node, path, inputs, report));
    let on_miss = fields.read("on_miss", report, |node, path, report| choice(node, path, ON_MISS, report));
    let default = fields.read("default", report, fixed);
    match (on_miss, &default) {
        (Some(OnMiss::Default), None) if fields.get("default").is_none() => {
            report.add(&fields.path, Some(fields.place), "`on_miss: default` needs the field `default`");
        }
        (Some(OnMiss::Default), _) | (_, None) => {}
        (_, Some(_)) => {
            let (path, place) = fields
                .get("default")
                .map_or((fields.path.clone(), fields.place), |(node, path)| (path, node.place));
            report.add(path, Some(place), "`default` has a meaning only with `on_miss: default`");
        }
    }
    Gather {
        policy: JoinPolicy {
            need: need.unwrap_or(Need::All),
            within: fields.read("within", report, duration),
            on_miss: on_miss.unwrap_or(OnMiss::Fail),
        },
        form: fields
            .read("merge", report, |node, path, report| choice(node, path, FORMS, report))
            .unwrap_or(form),
        default,
    }
}

fn need(node: &Node, path: &str, inputs: Option<usize>, report: &mut Report) -> Option<Need> {
    match &node.data {
        Data::Text(word) if word == "all" => Some(Need::All),
        Data::Text(word) if word == "any" => Some(Need::Count(1)),
        Data::Number(_) => {
            let count = integer(node, path, 1..=MAX_WIDTH.into(), report)?;
            if let Some(inputs) = inputs
                && count > inputs as u64
            {
                let message = format!("needs {count} of {inputs} inputs");
                report.add(path, Some(node.place), message);
                return None;
            }
            Some(Need::Count(count as u32))
        }
        _ => {
            let message = format!("expected `all`, `any` or a whole number, got {}", node.kind());
            report.add(path, Some(node.place), message);
            None
        }
    }
}

fn each<'n>(node: &'n Node, path: &str, report: &mut Report) -> Option<Fields<'n>> {
    if let Data::Map(entries) = &node.data
        && let Some(entry) = entries.iter().find(|entry| entry.key == "agent")
    {
        let message = "an agent can't be the `do` of a map: write a task for each, or one agent that calls others by \
                       its field `agents`";
        report.add(join(path, "agent"), Some(entry.place), message);
        return None;
    }
    Fields::of(node, path, DO, report)
}

fn map(node: &Node, path: &str, report: &mut Report) -> Option<Map> {
    let fields = Fields::of(node, path, MAP, report)?;
    let over = fields.need("over", report).filter(|(node, path)| {
        let fits = matches!(node.data, Data::List(_) | Data::Text(_));
        if !fits {
            let message = format!("expected a list, or a template that gives one, got {}", node.kind());
            report.add(path, Some(node.place), message);
        }
        fits
    });
    let width = over.as_ref().and_then(|(node, path)| match &node.data {
        Data::List(items) if items.len() > MAX_WIDTH as usize => {
            let message = format!("{} items are over the limit of {MAX_WIDTH}", items.len());
            report.add(path, Some(node.place), message);
            None
        }
        Data::List(items) => Some(items.len()),
        _ => None,
    });
    let each = fields.need("do", report).and_then(|(node, path)| each(node, &path, report));
    let each = each.map(|fields| (one_of(&fields, &["llm", "tool"], report), settings(&fields, report)));
    let at_once = fields
        .read("at_once", report, |node, path, report| integer(node, path, 1..=MAX_WIDTH.into(), report))
        .map_or(AT_ONCE, |at_once| at_once as u32);
    let gather = gather(&fields, Form::List, width, report);
    let (over, (each, settings)) = (over?, each?);
    Some(Map { over: (over.0.clone(), over.1), each, settings, at_once, gather })
}
