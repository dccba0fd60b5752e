//! Scripts, applied: the style of a request decides what the model says towards the same goal.
//!
//! ```text
//! a line of the system text begins with PLAN   -> one line per step, then `join` and what the answer needs
//!   or with `Write a PLAN`
//! tools are offered                            -> the calls whose inputs are known: all, or one where the request
//!                                                 allows one; the answer when there are none
//!   but `replan` among them, and results lack  -> a call of it
//! no tools are offered                         -> the answer, from the results that are in the request
//! ```

mod known;
mod reference;

use std::{collections::BTreeMap, sync::LazyLock};

use minijinja::{Value as Jinja, context, value::Serde};
use regex::Regex;
use serde_json::{Map, Value, json};

use super::compile::{compiled, invalid, text};
use crate::{
    Kind,
    matcher::Text,
    prompt::{Prompt, Role},
    reply::Segment,
    scenario::{self, Error},
    template::{self, Templates},
};
use known::Known;

/// The tool by which a model asks for another plan.
const REPLAN: &str = "replan";

/// Steps of one script.
const MAX_STEPS: usize = 1000;

/// Said where the results do not hold what the answer needs.
const UNKNOWN: &str = "I could not find everything that the answer needs.";

/// A compiled script.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) name: String,
    goal: Text,
    steps: Vec<Step>,
    thought: Option<template::Text>,
    answer: template::Text,
    /// Indices of the steps that the answer uses.
    needed: Vec<usize>,
    json: Option<template::Json>,
    needs: usize,
    stuck: Option<Stuck>,
}

#[derive(Debug)]
struct Step {
    id: String,
    tool: String,
    arguments: Map<String, Value>,
}

#[derive(Debug)]
struct Stuck {
    /// Index of the step.
    at: usize,
    times: u64,
}

/// Where a conversation stands.
struct Progress {
    /// Arguments of each step whose inputs are known.
    arguments: Vec<Option<Map<String, Value>>>,
    /// What answered each step, by its place in the request's results.
    found: Vec<Option<usize>>,
    /// Results by step.
    values: BTreeMap<String, Value>,
}

// === impl Script ===

impl Script {
    pub(super) fn compile(
        place: &str,
        source: &scenario::Script,
        templates: &mut Templates,
    ) -> Result<Self, Error> {
        let at = |field: &str| format!("{place}.{field}");
        if source.steps.len() > MAX_STEPS {
            return Err(invalid(at("steps"), format!("has over {MAX_STEPS} steps")));
        }
        let mut steps: Vec<Step> = Vec::with_capacity(source.steps.len());
        for (i, step) in source.steps.iter().enumerate() {
            let wrong = |problem: String| Err(invalid(at(&format!("steps[{i}]")), problem));
            let named = !step.id.is_empty() && step.id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !named || steps.iter().any(|earlier| earlier.id == step.id) {
                return wrong(format!("id `{}` must be unique, of letters, digits and _", step.id));
            }
            for id in reference::names(&step.arguments) {
                if !steps.iter().any(|earlier| earlier.id == id) {
                    return wrong(format!("refers to `{id}`, which is no earlier step"));
                }
            }
            steps.push(Step {
                id: step.id.clone(),
                tool: step.tool.clone(),
                arguments: step.arguments.clone(),
            });
        }
        let stuck = source.stuck.as_ref().map(|stuck| {
            let found = steps.iter().position(|step| step.id == stuck.at);
            let at = found.ok_or_else(|| invalid(at("stuck.at"), format!("no step `{}`", stuck.at)))?;
            Ok::<_, Error>(Stuck { at, times: stuck.times })
        });
        let stuck = stuck.transpose()?;
        let thought =
            source.thought.as_ref().map(|source| compiled(at("thought"), |p| templates.text(p, source)));
        let json = source.json.as_ref().map(|value| compiled(at("json"), |p| templates.json(p, value)));
        let goal = text(at("goal"), Some(&source.goal))?.ok_or_else(|| invalid(at("goal"), "is missing"))?;
        Ok(Self {
            name: source.name.clone().unwrap_or_else(|| place.to_owned()),
            goal,
            steps,
            thought: thought.transpose()?,
            needed: needed(&source.answer, &source.steps),
            answer: compiled(at("answer"), |p| templates.text(p, &source.answer))?,
            json: json.transpose()?,
            needs: source.needs,
            stuck,
        })
    }

    pub(super) fn holds(&self, prompt: &Prompt) -> bool {
        let asked = prompt.messages.iter().filter(|message| message.role == Role::User);
        asked.into_iter().any(|message| self.goal.holds(&message.text))
    }

    /// What the model says. `id` makes the ids of calls.
    pub(super) fn segments(
        &self,
        prompt: &Prompt,
        templates: &Templates,
        id: &str,
    ) -> Result<Vec<Segment>, String> {
        static PLAN: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new(r"(?m)^\W*(?:Write a )?PLAN\b").ok());
        let known = known::all(prompt);
        let progress = self.progress(&known);
        if PLAN.as_ref().is_some_and(|plan| plan.is_match(&prompt.system)) {
            return Ok(vec![Segment::Text(self.plan(&known, &progress))]);
        }
        let prefix = if prompt.kind == Kind::Anthropic { "toolu_" } else { "call_" };
        if progress.values.len() < self.needs && prompt.tools.iter().any(|tool| tool == REPLAN) {
            let lacking = self.steps.iter().filter(|step| !progress.values.contains_key(&step.id));
            let lacking: Vec<&str> = lacking.map(|step| step.tool.as_str()).collect();
            return Ok(vec![Segment::Call {
                id: format!("{prefix}{id}00"),
                name: REPLAN.to_owned(),
                arguments: json!({"reason": format!("results of {}", lacking.join(", "))}).to_string(),
            }]);
        }
        let mut next = self.next(prompt, &known, &progress);
        if !prompt.parallel {
            next.truncate(1);
        }
        if next.is_empty() {
            return Ok(vec![Segment::Text(self.answer(prompt, templates, &progress)?)]);
        }
        let mut segments = Vec::with_capacity(1 + next.len());
        if let Some(thought) = &self.thought {
            let context = context! { goal => prompt.goal(), turn => prompt.turn() };
            segments.push(Segment::Text(templates.render(thought, &context)?));
        }
        for (i, (tool, arguments)) in next.into_iter().enumerate() {
            let arguments = Value::Object(arguments).to_string();
            segments.push(Segment::Call {
                id: format!("{prefix}{id}{i:02}"),
                name: tool.to_owned(),
                arguments,
            });
        }
        Ok(segments)
    }

    fn progress(&self, known: &[Known]) -> Progress {
        let count = self.steps.len();
        let mut progress = Progress {
            arguments: Vec::with_capacity(count),
            found: Vec::with_capacity(count),
            values: BTreeMap::new(),
        };
        for (i, step) in self.steps.iter().enumerate() {
            let arguments = reference::resolve(&step.arguments, &progress.values);
            let found = known.iter().rposition(|known| known.answers(i, &step.tool, arguments.as_ref()));
            let value = found.map(|found| known::value(&known[found].text));
            // where results are counted, words alone are none
            let value = value.filter(|value| self.needs == 0 || !value.is_string());
            progress.values.extend(value.map(|value| (step.id.clone(), value)));
            progress.arguments.push(arguments);
            progress.found.push(found);
        }
        progress
    }

    /// The calls to make now, none when it is time to answer.
    fn next(&self, prompt: &Prompt, known: &[Known], progress: &Progress) -> Vec<(&str, Map<String, Value>)> {
        let offered = |step: &Step| prompt.tools.contains(&step.tool);
        if let Some(stuck) = &self.stuck
            && let Some(arguments) = &progress.arguments[stuck.at]
            && progress.found[stuck.at].is_some()
            && progress.found[stuck.at + 1..].iter().all(Option::is_none)
            && offered(&self.steps[stuck.at])
            && !nudged(prompt)
        {
            let step = &self.steps[stuck.at];
            let asked = known.iter().filter(|known| known.answers(stuck.at, &step.tool, Some(arguments)));
            if asked.count() as u64 <= stuck.times {
                return vec![(&step.tool, arguments.clone())];
            }
        }
        let steps = self.steps.iter().zip(&progress.arguments).zip(&progress.found);
        let open = steps.filter(|((step, _), found)| found.is_none() && offered(step));
        open.filter_map(|((step, arguments), _)| Some((step.tool.as_str(), arguments.clone()?))).collect()
    }

    /// The steps that have no result yet, one a line. References are to numbers of lines; a plan that follows
    /// another goes on with its numbers.
    fn plan(&self, known: &[Known], progress: &Progress) -> String {
        let last = known.iter().filter_map(|known| known.number).max().unwrap_or(0);
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut next = last;
        // one whose words are no result is planned anew
        let found =
            |at: usize| progress.found[at].filter(|_| progress.values.contains_key(&self.steps[at].id));
        for (at, step) in self.steps.iter().enumerate() {
            let number = found(at).and_then(|found| known[found].number).unwrap_or_else(|| {
                next += 1;
                next
            });
            numbers.insert(&step.id, number);
        }
        let mut lines = Vec::with_capacity(self.steps.len() + 1);
        for (at, step) in self.steps.iter().enumerate() {
            if found(at).is_none() {
                let arguments = Value::Object(reference::numbered(&step.arguments, &numbers));
                lines.push(format!("{} {} {arguments}", numbers[step.id.as_str()], step.tool));
            }
        }
        let mut join = "join".to_owned();
        if self.needed.len() < self.steps.len() {
            for step in &self.needed {
                join.push_str(&format!(" {}", numbers[self.steps[*step].id.as_str()]));
            }
        }
        lines.push(join);
        lines.join("\n")
    }

    fn answer(&self, prompt: &Prompt, templates: &Templates, progress: &Progress) -> Result<String, String> {
        let context = context! {
            goal => prompt.goal(), turn => prompt.turn(), results => Jinja::from(Serde(&progress.values)),
        };
        let said = match (&self.json, &prompt.schema) {
            (Some(json), Some(_)) => templates.render_json(json, &context).map(|value| value.to_string()),
            _ => templates.render(&self.answer, &context),
        };
        // A model that lacks a result says so; a broken template shows as the same wrong answer in every run.
        Ok(said.unwrap_or_else(|_| UNKNOWN.to_owned()))
    }
}

/// The steps that an answer's template names; all of them when it names none.
fn needed(answer: &str, steps: &[scenario::Step]) -> Vec<usize> {
    static NAME: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\bresults\.([A-Za-z0-9_]+)").ok());
    let names = NAME.iter().flat_map(|name| name.captures_iter(answer));
    let names: std::collections::HashSet<String> = names.map(|parts| parts[1].to_owned()).collect();
    let all = 0..steps.len();
    if names.is_empty() { all.collect() } else { all.filter(|i| names.contains(&steps[*i].id)).collect() }
}

/// Whether somebody told the model that it repeats itself.
fn nudged(prompt: &Prompt) -> bool {
    let told = |text: &str| {
        let text = text.to_lowercase();
        text.contains("already") || text.contains("repeat")
    };
    let began = prompt.messages.iter().skip_while(|message| message.role != Role::Assistant);
    began.filter(|message| message.role != Role::Assistant).any(|message| {
        let spoken = message.role == Role::User && !message.text.is_empty();
        spoken || message.results.iter().any(|result| told(&result.text))
    })
}

#[cfg(test)]
mod tests;
