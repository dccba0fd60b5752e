//! The joiner of a plan: answers from its results, or asks for another plan.

use serde_json::{Value, json};
use trireme_agent::{
    Finish, Work, prompt,
    record::{JoinRecord, PlanRecord},
    work::ids,
};
use trireme_llm::{ChatEvent, ChatRequest, FinishReason, Message, Tool, ToolChoice};
use trireme_model::{Outcome, Payload, TaskId};

use super::{
    cached, fits, plan, step, tasks,
    time::{broke, took},
};
use crate::{
    executors::{Executors, Job, llm},
    outcome::{Ended, Failure},
};

/// The tool by which a joiner asks for another plan.
const REPLAN: &str = "replan";
/// Most characters of a reason for another plan.
const MAX_REASON: usize = 2_000;

/// Joins plan number `round`; `last` says why it must answer, if it must.
pub(super) async fn answer(
    executors: &Executors,
    job: &Job<'_>,
    agent: &TaskId,
    round: u32,
    last: Option<Finish>,
) -> Result<Ended, Failure> {
    let plans = plan::read(job, agent, round + 1).await?;
    let config = &plans.first.agent;
    let limit = last.or_else(|| limit(job, &plans));
    let (results, _) = plans.results(job, agent).await?;
    let may_replan = limit.is_none();
    let model = if may_replan { &config.models.joiner } else { &config.models.answer };
    let max_tokens = if may_replan { config.max_tokens.joiner } else { config.max_tokens.answer };
    let mut content = prompt::results(&config.goal, &results);
    if let Some(finish) = limit.filter(|finish| *finish != Finish::Answer) {
        content.push_str(prompt::last(finish));
    }
    let replan = Tool {
        name: REPLAN.to_owned(),
        description: "Asks for another plan because results are missing.".to_owned(),
        parameters: json!({
            "type": "object",
            "properties": {"reason": {"type": "string", "description": "what is missing"}},
            "required": ["reason"],
            "additionalProperties": false,
        }),
    };
    let request = ChatRequest {
        system: Some(prompt::joiner(config, may_replan)),
        messages: vec![Message::user(content)],
        tools: may_replan.then_some(replan).into_iter().collect(),
        tool_choice: if may_replan { ToolChoice::Auto } else { ToolChoice::None },
        output_schema: config.output_schema.clone(),
        max_tokens,
        temperature: config.temperature.map(|temperature| temperature as f32),
        ..llm::request_of(job, model.clone(), 0)
    };
    let request = cached(job, request);
    let stream = config.stream;
    let mut said = String::new();
    let on_event = |event: ChatEvent<'_>| {
        if let ChatEvent::TextDelta(text) = event {
            said.push_str(text);
            if stream {
                job.shared.deltas.push(job.assignment, text);
            }
        }
    };
    let steps = 2 * (round + 1) + u32::from(last.is_some());
    let until = plans.time(job).last().or(job.deadline);
    let failure = match llm::ask(&executors.providers, job, &request, until, on_event).await {
        Ok(response) => {
            if let Some(call) = response.tool_calls.iter().find(|call| call.name == REPLAN && may_replan) {
                let next = if used_up(&plans) {
                    last_word(job, agent, round, &config.models.answer)?
                } else {
                    another_plan(job, agent, round, &config.models.planner)?
                };
                return Ok(again(job, call.arguments.get("reason"), next));
            }
            if !response.text.trim().is_empty() {
                let cut = response.finish_reason == FinishReason::Length;
                let finish = match limit.unwrap_or(Finish::Answer) {
                    Finish::Answer if cut => Finish::Length,
                    finish => finish,
                };
                return Ok(step::answer(response.text, response.json, finish, steps));
            }
            Failure::empty()
        }
        Err(error) => llm::failure(&error),
    };
    let tried = job.assignment.attempt >= job.assignment.max_attempts;
    match limit {
        Some(finish)
            if finish != Finish::Answer && (tried || !failure.again() || finish == Finish::Deadline) =>
        {
            // an answer that was cut says more than none
            let said = Some(said).filter(|said| !said.trim().is_empty());
            let found = Some(results).filter(|results| !results.is_empty());
            let text = said.or(found).unwrap_or(failure.message);
            Ok(step::answer(text, None, finish, steps))
        }
        _ => Err(failure),
    }
}

/// Why there can't be another plan; [`Finish::Answer`] when none was ever wanted.
fn limit(job: &Job<'_>, plans: &plan::Plans) -> Option<Finish> {
    let config = &plans.first.agent;
    let rounds = plans.rounds.len() as u32;
    let nothing_new = |plan: &PlanRecord| {
        let earlier = plans.rounds.iter().take(plans.rounds.len() - 1).flat_map(|plan| &plan.nodes);
        let earlier: Vec<&TaskId> = earlier.map(|node| &node.task).collect();
        plan.nodes.iter().all(|node| earlier.contains(&&node.task))
    };
    if plans.time(job).short() {
        Some(Finish::Deadline)
    } else if broke(job) {
        Some(Finish::Budget)
    } else if rounds > 1 && plans.rounds.last().is_some_and(nothing_new) {
        Some(Finish::Stuck)
    } else if config.max_replans == 0 {
        Some(Finish::Answer)
    } else {
        None
    }
}

/// Whether the last plan that the agent may make has been made. Its joiner may still find that the results suffice, so
/// it is asked as every joiner is.
fn used_up(plans: &plan::Plans) -> bool {
    let (config, rounds) = (&plans.first.agent, plans.rounds.len() as u32);
    rounds > config.max_replans || 2 * rounds >= config.max_steps.max(2)
}

/// The results do not suffice, for this `reason`: what comes `next`.
fn again(job: &Job<'_>, reason: Option<&Value>, next: tasks::New) -> Ended {
    let reason = reason.and_then(Value::as_str).unwrap_or("the results do not suffice");
    let record = JoinRecord { replan: reason.chars().take(MAX_REASON).collect(), took_ms: took(job) };
    Ended::Done { outcome: Outcome::Result(Payload::of(&record)), tasks: vec![next.vital().added()] }
}

fn another_plan(job: &Job<'_>, agent: &TaskId, round: u32, planner: &str) -> Result<tasks::New, Failure> {
    let work = Work::Plan { agent: agent.clone(), round: round + 1, config: None };
    Ok(tasks::model(job, fits(ids::plan(agent, round + 1))?, planner, work, Vec::new()))
}

/// There is no plan left: a call of its own has to answer from what there is. A task for each call, so that a worker
/// that dies costs one of them.
fn last_word(job: &Job<'_>, agent: &TaskId, round: u32, model: &str) -> Result<tasks::New, Failure> {
    let work = Work::Join { agent: agent.clone(), round, last: Some(Finish::MaxSteps) };
    Ok(tasks::model(job, fits(ids::answer(agent))?, model, work, Vec::new()))
}
