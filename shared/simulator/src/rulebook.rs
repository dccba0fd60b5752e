//! The compiled scenario: finds the rule for a call and renders its answer.

mod cache;
mod compile;
mod gate;
mod pace;
mod script;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use minijinja::{Value as Jinja, context, value::Serde};
use serde_json::{Map, Value, json};

use crate::{
    Kind,
    draw::{self, Draw},
    echo,
    matcher::{Glob, Text},
    prompt::{Answered, Prompt, Refusal},
    reply::{Plan, Reply, Segment, ToolBody, ToolReply, Usage},
    scenario::{Fault, Latency, Range, Stop, Unmatched, UsageOverride},
    template::{self, Templates},
};

use cache::Cache;
use gate::Gate;
use pace::{Own, Speeds};
use script::Script;

/// Distinct contents whose repeats are counted; over it the count starts anew for all.
const MAX_CONTENTS: usize = 1_000_000;

/// A scenario, compiled, with its counters.
#[derive(Debug)]
pub(crate) struct Rulebook {
    seed: u64,
    pub(crate) models: Vec<String>,
    unmatched: Unmatched,
    templates: Templates,
    speeds: Speeds,
    cache: Option<Cache>,
    llm: Vec<LlmRule>,
    scripts: Vec<Script>,
    tools: Vec<ToolRule>,
    /// How often each content was asked.
    asked: Mutex<HashMap<u64, u64>>,
}

#[derive(Debug)]
struct LlmRule {
    gate: Gate,
    api: Option<Kind>,
    model: Option<Glob>,
    last_user: Option<Text>,
    system: Option<Text>,
    anywhere: Option<Text>,
    goal: Option<Text>,
    all_results: Option<Text>,
    result_count: Option<Range>,
    tool_results: Option<Text>,
    has_tool_results: Option<bool>,
    tool_result_of: Option<Glob>,
    offers_tool: Option<Glob>,
    offers_tools: Option<bool>,
    parallel: Option<bool>,
    turn: Option<Range>,
    stream: Option<bool>,
    says: Says,
    calls: Vec<(String, Arguments)>,
    pace: Own,
    usage: UsageOverride,
    stop: Option<Stop>,
    fault: Option<Fault>,
}

#[derive(Debug)]
enum Says {
    Nothing,
    Echo,
    Text(template::Text),
    Json(template::Json),
}

#[derive(Debug)]
enum Arguments {
    Json(template::Json),
    Raw(template::Text),
}

#[derive(Debug)]
struct ToolRule {
    gate: Gate,
    tool: Glob,
    args: Vec<(String, Text)>,
    latency: Latency,
    body: Option<ToolSays>,
    fault: Option<Fault>,
}

#[derive(Debug)]
enum ToolSays {
    Text(template::Text),
    Json(template::Json),
    Filler(u64),
}

// === impl Rulebook ===

impl Rulebook {
    /// Forgets how often rules applied and contents were asked.
    pub(crate) fn reset(&self) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if let Some(cache) = &self.cache {
            cache.clear();
        }
        self.llm.iter().for_each(|rule| rule.gate.reset());
        self.tools.iter().for_each(|rule| rule.gate.reset());
    }

    /// Decides the answer to a model call and counts it.
    pub(crate) fn answer(&self, prompt: &Prompt) -> Result<Reply, Refusal> {
        if !self.models.is_empty() && !self.models.contains(&prompt.model) {
            return Err(missing(format!("the model `{}` does not exist", prompt.model)));
        }
        let draw = self.draw(prompt.hash());
        let found = self.llm.iter().find_map(|rule| {
            let n = rule.holds(prompt).then(|| rule.gate.admit(&draw)).flatten()?;
            Some((rule, n))
        });
        let script =
            if found.is_some() { None } else { self.scripts.iter().find(|script| script.holds(prompt)) };
        if found.is_none() && script.is_none() && self.unmatched == Unmatched::Error {
            return Err(missing(format!("no rule of the scenario matches this call to `{}`", prompt.model)));
        }
        let id = format!("{:016x}", draw.stream("id").next_u64());
        let failed = |message| Refusal { status: 500, message, param: None };
        let segments = match (found, script) {
            (Some((rule, n)), _) => self.segments(rule, prompt, n, draw.occurrence(), &id).map_err(failed)?,
            (None, Some(script)) => script.segments(prompt, &self.templates, &id).map_err(failed)?,
            (None, None) => vec![Segment::Text(echo::answer(prompt))],
        };
        let has_calls = segments.iter().any(|s| matches!(s, Segment::Call { .. }));
        let own = found.map(|(rule, _)| rule.pace).unwrap_or_default();
        let usage = found.map(|(rule, _)| rule.usage).unwrap_or_default();
        let prompt_tokens = usage.prompt_tokens.unwrap_or_else(|| prompt.tokens());
        let cached = usage.cached_tokens.or_else(|| Some(self.cache.as_ref()?.cached(prompt)));
        let cached = cached.unwrap_or_default().min(prompt_tokens);
        let work =
            self.cache.as_ref().map_or(prompt_tokens as f64, |cache| cache.work(prompt_tokens, cached));
        let pace = self.speeds.pace(own, &prompt.model, work, &mut draw.stream("first token"));
        let name = match (found, script) {
            (Some((rule, _)), _) => &rule.gate.name,
            (None, Some(script)) => &script.name,
            (None, None) => "echo",
        };
        let mut reply = Reply {
            plan: plan(name, found.and_then(|(rule, _)| rule.fault.as_ref()), &draw),
            segments,
            stop: if has_calls { Stop::ToolCalls } else { Stop::Stop },
            usage: Usage::default(),
            pace,
            id,
        };
        reply.limit(prompt.max_tokens);
        if let Some(stop) = found.and_then(|(rule, _)| rule.stop) {
            reply.stop = stop;
        }
        if let (Some(cache), None) = (&self.cache, &reply.plan.fault) {
            cache.keep(prompt, reply.pace.first_token);
        }
        reply.usage = Usage {
            prompt: prompt_tokens,
            completion: usage.completion_tokens.unwrap_or_else(|| reply.tokens()),
            cached,
        };
        Ok(reply)
    }

    /// Decides the answer to a tool call and counts it.
    pub(crate) fn tool(&self, name: &str, args: &Map<String, Value>) -> Result<ToolReply, Refusal> {
        let args = Value::Object(args.clone());
        let draw = self.draw(tool_hash(name, &args));
        let found = self.tools.iter().find_map(|rule| {
            let n = rule.holds(name, &args).then(|| rule.gate.admit(&draw)).flatten()?;
            Some((rule, n))
        });
        let known = self.tools.is_empty() || self.tools.iter().any(|rule| rule.tool.holds(name));
        if found.is_none() && (self.unmatched == Unmatched::Error || !known) {
            return Err(missing(format!("no tool `{name}` in the scenario for this call")));
        }
        let failed = |message| Refusal { status: 500, message, param: None };
        let body = match found.and_then(|(rule, n)| Some((rule.body.as_ref()?, n))) {
            Some((ToolSays::Filler(bytes), _)) => ToolBody::Filler(*bytes),
            Some((says, n)) => {
                let context = context! {
                    tool => name, args => Jinja::from(Serde(&args)), n => n,
                    occurrence => draw.occurrence(), hash => format!("{:016x}", tool_hash(name, &args)),
                };
                match says {
                    ToolSays::Text(text) => {
                        ToolBody::Text(self.templates.render(text, &context).map_err(failed)?)
                    }
                    ToolSays::Json(json) => {
                        ToolBody::Json(self.templates.render_json(json, &context).map_err(failed)?)
                    }
                    ToolSays::Filler(bytes) => ToolBody::Filler(*bytes),
                }
            }
            None => ToolBody::Json(json!({"tool": name, "args": args})),
        };
        let latency = found.map(|(rule, _)| rule.latency).unwrap_or_default();
        Ok(ToolReply {
            plan: plan(
                found.map_or("echo", |(rule, _)| &rule.gate.name),
                found.and_then(|(rule, _)| rule.fault.as_ref()),
                &draw,
            ),
            latency: latency.draw(&mut draw.stream("latency")),
            body,
        })
    }

    fn draw(&self, content: u64) -> Draw {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= MAX_CONTENTS && !asked.contains_key(&content) {
            asked.clear();
        }
        let occurrence = asked.entry(content).or_insert(0);
        *occurrence += 1;
        Draw::new(self.seed, content, *occurrence)
    }

    fn segments(
        &self,
        rule: &LlmRule,
        prompt: &Prompt,
        n: u64,
        occurrence: u64,
        id: &str,
    ) -> Result<Vec<Segment>, String> {
        // Built once and only for rules that have a template in them: prompts can be long.
        let context = std::cell::LazyCell::new(|| llm_context(prompt, n, occurrence));
        let templates = &self.templates;
        let mut segments = Vec::with_capacity(1 + rule.calls.len());
        let text = match &rule.says {
            Says::Nothing => String::new(),
            Says::Echo => echo::answer(prompt),
            Says::Text(template::Text::Literal(text)) => text.clone(),
            Says::Text(text) => templates.render(text, &context)?,
            Says::Json(json) => templates.render_json(json, &context)?.to_string(),
        };
        if !text.is_empty() {
            segments.push(Segment::Text(text));
        }
        let prefix = if prompt.kind == Kind::Anthropic { "toolu_" } else { "call_" };
        for (i, (name, arguments)) in rule.calls.iter().enumerate() {
            segments.push(Segment::Call {
                id: format!("{prefix}{id}{i:02}"),
                name: name.clone(),
                arguments: match arguments {
                    Arguments::Json(json) => templates.render_json(json, &context)?.to_string(),
                    Arguments::Raw(text) => templates.render(text, &context)?,
                },
            });
        }
        Ok(segments)
    }
}

/// Identity of a tool call: its name and arguments, whatever the order of the latter.
pub(crate) fn tool_hash(name: &str, args: &Value) -> u64 {
    let mut fields: Vec<(&String, String)> =
        args.as_object().into_iter().flatten().map(|(key, value)| (key, value.to_string())).collect();
    fields.sort();
    draw::hash(json!([name, fields]).to_string().as_bytes())
}

fn missing(message: String) -> Refusal {
    Refusal { status: 404, message, param: Some("model".to_owned()) }
}

fn plan(rule: &str, fault: Option<&Fault>, draw: &Draw) -> Plan {
    let fault = fault.cloned();
    let fault_after = match &fault {
        Some(Fault::Error { after, .. }) => after.draw(&mut draw.stream("error")),
        _ => Duration::ZERO,
    };
    Plan { rule: rule.to_owned(), occurrence: draw.occurrence(), fault, fault_after }
}

fn llm_context(prompt: &Prompt, n: u64, occurrence: u64) -> Jinja {
    let result = |result: &Answered| {
        let content = serde_json::from_str::<Value>(&result.text);
        let content = content.unwrap_or_else(|_| Value::String(result.text.clone()));
        context! { name => result.name.as_str(), text => result.text.as_str(), content => Jinja::from(Serde(&content)) }
    };
    let results: Vec<Jinja> = prompt.last_results().into_iter().map(result).collect();
    let all_results: Vec<Jinja> = prompt.all_results().map(|(_, answered)| result(answered)).collect();
    context! {
        model => prompt.model.as_str(), system => prompt.system.as_str(), prompt => prompt.all_text(),
        last_user => prompt.last_user(), tool_results => results,
        goal => prompt.goal(), all_results => all_results, tools => prompt.tools.clone(),
        turn => prompt.turn(), n => n, occurrence => occurrence, hash => prompt.hash_text(),
    }
}

// === impl LlmRule ===

impl LlmRule {
    fn holds(&self, prompt: &Prompt) -> bool {
        let text = |wanted: &Option<Text>, get: &dyn Fn() -> String| {
            wanted.as_ref().is_none_or(|wanted| wanted.holds(&get()))
        };
        self.api.is_none_or(|api| api == prompt.kind)
            && self.stream.is_none_or(|stream| stream == prompt.stream)
            && self.model.as_ref().is_none_or(|model| model.holds(&prompt.model))
            && self.turn.is_none_or(|turn| turn.holds(prompt.turn()))
            && self.last_user.as_ref().is_none_or(|wanted| wanted.holds(prompt.last_user()))
            && self.system.as_ref().is_none_or(|wanted| wanted.holds(&prompt.system))
            && text(&self.anywhere, &|| prompt.all_text())
            && self.goal.as_ref().is_none_or(|wanted| wanted.holds(prompt.goal()))
            && text(&self.all_results, &|| prompt.all_results_text())
            && self.result_count.is_none_or(|count| count.holds(prompt.all_results().count() as u64))
            && self.offers_tools.is_none_or(|offers| offers != prompt.tools.is_empty())
            && self.parallel.is_none_or(|parallel| parallel == prompt.parallel)
            && text(&self.tool_results, &|| prompt.last_results_text())
            && self.has_tool_results.is_none_or(|has| has != prompt.last_results().is_empty())
            && self
                .tool_result_of
                .as_ref()
                .is_none_or(|glob| prompt.last_results().iter().any(|result| glob.holds(&result.name)))
            && self.offers_tool.as_ref().is_none_or(|glob| prompt.tools.iter().any(|tool| glob.holds(tool)))
    }
}

// === impl ToolRule ===

impl ToolRule {
    fn holds(&self, name: &str, args: &Value) -> bool {
        self.tool.holds(name)
            && self
                .args
                .iter()
                .all(|(key, wanted)| args.get(key).is_some_and(|value| wanted.holds_value(value)))
    }
}

#[cfg(test)]
mod tests;
