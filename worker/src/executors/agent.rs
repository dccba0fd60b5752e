//! `agent` tasks: an agent extends its own graph while it runs.
//!
//! Every model call is a task, every tool call is a task, and whatever may run at once does: a tool call is added to
//! the run the moment its arguments close in the model's stream. All state lies in the results of these tasks, so any
//! worker takes the next step. A turn's calls and its successor are added in the same atomic step that records the
//! turn; calls that were begun while it streamed are found again by tool and arguments when a turn is repeated.

mod call;
mod condense;
mod dispatch;
mod joiner;
mod observe;
mod offer;
mod past;
mod plan;
mod resources;
mod siblings;
mod step;
mod tasks;
mod time;

use serde_json::json;
use trireme_agent::{Work, call_key, work::ids};
use trireme_llm::ChatRequest;
use trireme_model::{Outcome, Payload, TaskId};
use trireme_spec::agent::{AgentCall, Strategy};

use super::{Executors, Job};
use crate::outcome::{Ended, Failure};

/// An agent's first attempt: it becomes its first task, and ends when one of its tasks answers.
pub(super) fn begin(job: &Job<'_>, agent: AgentCall) -> Result<Ended, Failure> {
    let id = &job.assignment.task;
    let first = match agent.strategy {
        Strategy::React => {
            let model = agent.models.step.clone();
            let config = Some(Box::new(agent));
            let work = Work::Step { agent: id.clone(), turn: 0, last: None, config };
            tasks::model(job, fits(ids::step(id, 0))?, &model, work, Vec::new()).vital()
        }
        Strategy::Plan => {
            let model = agent.models.planner.clone();
            let work = Work::Plan { agent: id.clone(), round: 0, config: Some(Box::new(agent)) };
            tasks::model(job, fits(ids::plan(id, 0))?, &model, work, Vec::new()).vital()
        }
    };
    Ok(Ended::Done { outcome: Outcome::Expanded, tasks: vec![first.added()] })
}

/// Executes a task of an agent.
pub(super) async fn work(
    executors: &Executors,
    job: &Job<'_>,
    work: Result<Work, serde_json::Error>,
) -> Result<Ended, Failure> {
    let work = work.map_err(|error| Failure::permanent("invalid_body", error.to_string()))?;
    match work {
        Work::Agent { agent, arguments } => {
            let args = call::arguments(job, &arguments).await?;
            let Some(goal) = args.get("task").and_then(|task| task.as_str()) else {
                return Err(Failure::permanent("invalid_args", "task: expected the task as text"));
            };
            begin(job, AgentCall { goal: goal.to_owned(), ..*agent })
        }
        Work::Step { agent, turn, last, config } => {
            step::take(executors, job, step::Turn { agent, turn, last, config }).await
        }
        Work::Plan { agent, round, config } => plan::write(executors, job, &agent, round, config).await,
        Work::Join { agent, round, last } => joiner::answer(executors, job, &agent, round, last).await,
        Work::Think { model, max_tokens, temperature, arguments } => {
            call::think(executors, job, (model, max_tokens, temperature), &arguments).await
        }
        Work::Call { agent, tool, arguments } => call::tool(executors, job, &agent, &tool, &arguments).await,
        Work::Condense { agent, seen, upto } => condense::condense(executors, job, &agent, &seen, upto).await,
    }
}

/// Asks the provider to keep the start of the prompt: one cache for all runs with the same tools and instructions,
/// spread over sixteen keys, because a provider keeps a key on one machine and that takes about 15 requests a minute
/// (OpenAI's prompt caching guide).
fn cached(job: &Job<'_>, mut request: ChatRequest) -> ChatRequest {
    let tools: Vec<&str> = request.tools.iter().map(|tool| tool.name.as_str()).collect();
    let start = call_key("prompt", &json!([request.system, tools]));
    let shard = call_key("shard", &json!(job.assignment.run.as_str()));
    request.prompt_cache_key = Some(format!("trireme-{start}-{}", &shard[..1]));
    request
}

/// An id that may have grown too long under agents with very long names.
fn fits(id: Option<TaskId>) -> Result<TaskId, Failure> {
    id.ok_or_else(|| {
        Failure::permanent("id_too_long", "the agent's id leaves no room for those of its tasks")
    })
}

/// A record that another task of the agent left.
fn record<T: serde::de::DeserializeOwned>(id: &TaskId, value: Option<Payload>) -> Result<T, Failure> {
    let value = value
        .ok_or_else(|| Failure::permanent("missing_record", format!("{id} has no result to go on from")))?;
    value.parse().map_err(|error| Failure::permanent("invalid_record", format!("{id}: {error}")))
}
