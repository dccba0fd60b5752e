//! Condensing: older turns become a summary while the agent goes on.

use trireme_agent::{
    history, prompt,
    record::{Seen, StepRecord},
    work::ids,
};
use trireme_llm::{ChatEvent, ChatRequest, Message};
use trireme_model::{Payload, TaskId};

use super::{fits, past::values, record};
use crate::{
    executors::{Executors, Job, llm},
    outcome::{Ended, Failure},
};

/// Makes a summary of what stands for the turns before `seen.from` and of the turns up to `upto`.
pub(super) async fn condense(
    executors: &Executors,
    job: &Job<'_>,
    agent: &TaskId,
    seen: &Seen,
    upto: u32,
) -> Result<Ended, Failure> {
    let turns: Vec<u32> = std::iter::once(0).chain(seen.from..=upto).collect();
    let mut ids = turns.iter().map(|turn| fits(ids::step(agent, *turn))).collect::<Result<Vec<_>, _>>()?;
    ids.extend(seen.summary.clone());
    let mut read = values(job, &ids).await?;
    let summary = match &seen.summary {
        Some(id) => Some(record::<String>(id, read.pop().flatten())?),
        None => None,
    };
    // the turn after the last one may still run; it was shown the results of the last one
    let next: Option<StepRecord> = read.pop().flatten().and_then(|value| value.parse().ok());
    let mut records = ids
        .iter()
        .zip(read)
        .map(|(id, value)| record::<StepRecord>(id, value))
        .collect::<Result<Vec<_>, _>>()?;
    let first = records.remove(0).first;
    let first =
        first.ok_or_else(|| Failure::permanent("invalid_record", "the first turn has no settings"))?;
    let text = history::transcript(summary.as_deref(), &records, next.as_ref());
    let request = ChatRequest {
        system: Some(prompt::condenser()),
        messages: vec![Message::user(format!("Task: {}\n\n{text}", first.agent.goal))],
        max_tokens: first.agent.max_tokens.condenser,
        ..llm::request_of(job, first.agent.models.condenser, 0)
    };
    match llm::ask(&executors.providers, job, &request, job.deadline, |_: ChatEvent<'_>| {}).await {
        Ok(response) if !response.text.trim().is_empty() => Ok(Ended::result(Payload::of(&response.text))),
        Ok(_) => Err(Failure::permanent("invalid_output", "the summary is empty")),
        Err(error) => Err(llm::failure(&error)),
    }
}
