//! From scenario to rulebook: patterns and templates are compiled here, so that a mistake in a
//! scenario is told with its place before any socket opens.

use std::{collections::HashMap, sync::Mutex, sync::atomic::AtomicU64};

use serde_json::Value;

use super::{
    Arguments, LlmRule, Rulebook, Says, ToolRule, ToolSays,
    cache::Cache,
    gate::Gate,
    pace::{self, Own, Speeds},
    script,
};
use crate::{
    Kind,
    matcher::{Glob, Text},
    scenario::{self, Error, Fault, Range, Scenario, TextMatch},
    template::Templates,
};

/// Largest `filler_bytes`.
const MAX_FILLER: u64 = 1 << 30;

impl Rulebook {
    pub(crate) fn compile(scenario: &Scenario) -> Result<Self, Error> {
        let mut templates = Templates::new(&scenario.data);
        let llm = scenario.rules.iter().enumerate();
        let llm = llm.map(|(i, rule)| llm_rule(&format!("rules[{i}]"), rule, &mut templates));
        let llm = llm.collect::<Result<_, _>>()?;
        let scripts = scenario.scripts.iter().enumerate();
        let scripts = scripts
            .map(|(i, source)| script::Script::compile(&format!("scripts[{i}]"), source, &mut templates));
        let scripts = scripts.collect::<Result<_, _>>()?;
        let tools = scenario.tools.iter().enumerate();
        let tools = tools.map(|(i, rule)| tool_rule(&format!("tools[{i}]"), rule, &mut templates));
        Ok(Self {
            seed: scenario.seed,
            models: scenario.models.clone(),
            unmatched: scenario.unmatched,
            speeds: Speeds::compile(scenario)?,
            cache: scenario.prompt_cache.map(Cache::new).transpose()?,
            llm,
            scripts,
            tools: tools.collect::<Result<_, _>>()?,
            templates,
            asked: Mutex::new(HashMap::new()),
        })
    }
}

fn llm_rule(place: &str, rule: &scenario::LlmRule, templates: &mut Templates) -> Result<LlmRule, Error> {
    let (when, respond) = (&rule.when, &rule.respond);
    let at = |field: &str| format!("{place}.{field}");
    if when.api == Some(Kind::Tool) {
        return Err(invalid(at("when.api"), "must be openai or anthropic"));
    }
    let says = match (&respond.text, &respond.json) {
        (Some(_), Some(_)) => return Err(invalid(at("respond"), "takes text or json, not both")),
        (Some(source), None) => Says::Text(compiled(at("respond.text"), |p| templates.text(p, source))?),
        (None, Some(value)) => Says::Json(compiled(at("respond.json"), |p| templates.json(p, value))?),
        (None, None) if respond.tool_calls.is_empty() => Says::Echo,
        (None, None) => Says::Nothing,
    };
    let mut calls = Vec::with_capacity(respond.tool_calls.len());
    for (i, call) in respond.tool_calls.iter().enumerate() {
        let place = at(&format!("respond.tool_calls[{i}].arguments"));
        let arguments = match &call.arguments {
            Value::Null => Arguments::Raw(compiled(place, |p| templates.text(p, "{}"))?),
            Value::String(source) => Arguments::Raw(compiled(place, |p| templates.text(p, source))?),
            value @ Value::Object(_) => Arguments::Json(compiled(place, |p| templates.json(p, value))?),
            _ => return Err(invalid(place, "must be a map or a text")),
        };
        calls.push((call.name.clone(), arguments));
    }
    let pace = Own::compile(
        &at("respond"),
        respond.time_to_first_token,
        respond.prompt_tokens_per_second,
        respond.tokens_per_second,
        respond.chunk_interval,
    )?;
    Ok(LlmRule {
        gate: gate(place, rule.name.as_ref(), when.nth, rule.times, rule.times_each, rule.chance)?,
        api: when.api,
        model: when.model.as_deref().map(Glob::new),
        last_user: text(at("when.last_user"), when.last_user.as_ref())?,
        system: text(at("when.system"), when.system.as_ref())?,
        anywhere: text(at("when.anywhere"), when.anywhere.as_ref())?,
        goal: text(at("when.goal"), when.goal.as_ref())?,
        all_results: text(at("when.all_results"), when.all_results.as_ref())?,
        result_count: range(at("when.result_count"), when.result_count)?,
        tool_results: text(at("when.tool_results"), when.tool_results.as_ref())?,
        has_tool_results: when.has_tool_results,
        tool_result_of: when.tool_result_of.as_deref().map(Glob::new),
        offers_tool: when.offers_tool.as_deref().map(Glob::new),
        offers_tools: when.offers_tools,
        parallel: when.parallel,
        turn: range(at("when.turn"), when.turn)?,
        stream: when.stream,
        says,
        calls,
        pace,
        usage: respond.usage,
        stop: respond.stop,
        fault: fault(place, rule.fault.as_ref())?,
    })
}

fn tool_rule(place: &str, rule: &scenario::ToolRule, templates: &mut Templates) -> Result<ToolRule, Error> {
    let at = |field: &str| format!("{place}.{field}");
    let respond = &rule.respond;
    let body = match (&respond.json, &respond.text, respond.filler_bytes) {
        (None, None, None) => None,
        (Some(value), None, None) => {
            Some(ToolSays::Json(compiled(at("respond.json"), |p| templates.json(p, value))?))
        }
        (None, Some(source), None) => {
            Some(ToolSays::Text(compiled(at("respond.text"), |p| templates.text(p, source))?))
        }
        (None, None, Some(bytes)) if bytes <= MAX_FILLER => Some(ToolSays::Filler(bytes)),
        (None, None, Some(_)) => return Err(invalid(at("respond.filler_bytes"), "is over 1 GiB")),
        _ => return Err(invalid(at("respond"), "takes one of json, text and filler_bytes")),
    };
    let args = rule.when.args.iter().map(|(key, wanted)| {
        let place = at(&format!("when.args.{key}"));
        let compiled = Text::compile(wanted).map_err(|problem| invalid(place, problem))?;
        Ok((key.clone(), compiled))
    });
    Ok(ToolRule {
        gate: gate(place, rule.name.as_ref(), rule.when.nth, rule.times, rule.times_each, rule.chance)?,
        tool: Glob::new(&rule.tool),
        args: args.collect::<Result<_, Error>>()?,
        latency: pace::latency(&at("latency"), rule.latency)?,
        body,
        fault: fault(place, rule.fault.as_ref())?,
    })
}

fn gate(
    place: &str,
    name: Option<&String>,
    nth: Option<Range>,
    times: Option<u64>,
    times_each: Option<u64>,
    chance: Option<f64>,
) -> Result<Gate, Error> {
    if chance.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
        return Err(invalid(format!("{place}.chance"), "must be from 0 to 1"));
    }
    Ok(Gate {
        name: name.cloned().unwrap_or_else(|| place.to_owned()),
        nth: range(format!("{place}.when.nth"), nth)?,
        times,
        times_each,
        chance,
        seen: AtomicU64::new(0),
        applied: AtomicU64::new(0),
    })
}

fn fault(place: &str, fault: Option<&Fault>) -> Result<Option<Fault>, Error> {
    match fault {
        Some(Fault::Error { status, after, .. }) => {
            pace::latency(&format!("{place}.fault.error.after"), *after)?;
            status_of(format!("{place}.fault.error.status"), *status)?;
        }
        Some(Fault::StreamError { status, .. }) => {
            status_of(format!("{place}.fault.stream_error.status"), *status)?;
        }
        Some(Fault::WrongContentType { content_type, .. }) if !content_type.is_ascii() => {
            let place = format!("{place}.fault.wrong_content_type.content_type");
            return Err(invalid(place, "must be ASCII"));
        }
        _ => {}
    }
    Ok(fault.cloned())
}

fn status_of(place: String, status: u16) -> Result<(), Error> {
    match status {
        400..=599 => Ok(()),
        _ => Err(invalid(place, "must be from 400 to 599")),
    }
}

pub(super) fn text(place: String, wanted: Option<&TextMatch>) -> Result<Option<Text>, Error> {
    let compiled = wanted.map(Text::compile).transpose();
    compiled.map_err(|problem| invalid(place, problem))
}

fn range(place: String, range: Option<Range>) -> Result<Option<Range>, Error> {
    match range {
        Some(range) if range.min > range.max => Err(invalid(place, "min is over max")),
        range => Ok(range),
    }
}

pub(super) fn compiled<T>(
    place: String,
    compile: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, Error> {
    compile(&place).map_err(|problem| invalid(place, problem))
}

pub(super) fn invalid(place: String, problem: impl Into<String>) -> Error {
    Error::Invalid { place, problem: problem.into() }
}
