//! The results of calls as a model sees them.

use std::collections::HashMap;

use serde_json::Value;
use trireme_agent::{
    elide, prompt,
    record::{Called, Observed},
    result_key,
    work::ids,
};
use trireme_backend::Recorded;
use trireme_model::{Payload, TaskId, merge::frozen};
use trireme_spec::agent::AgentCall;

use super::{fits, past::values};
use crate::{executors::Job, outcome::Failure};

/// Bytes of a turn's observations.
const MAX_OBSERVED: usize = 4 << 20;

/// The result of one task.
pub(super) enum Given {
    Value(Value),
    /// It failed, or never ran.
    Error(String),
    /// It has no result that counts.
    Missing,
    /// Nobody waited for it.
    Unneeded,
}

/// The results of a turn's calls, exactly as the turn's join froze them.
pub(super) async fn observe(
    job: &Job<'_>,
    step: &TaskId,
    calls: &[Called],
    agent: &AgentCall,
) -> Result<Vec<Observed>, Failure> {
    // all of them stand in one record
    let elide_over = (agent.context.elide_over as usize).min(MAX_OBSERVED / calls.len().max(1));
    let mut tasks: Vec<TaskId> = Vec::new();
    for task in calls.iter().filter_map(|call| call.task.as_ref()) {
        if !tasks.contains(task) {
            tasks.push(task.clone());
        }
    }
    let given = if tasks.is_empty() {
        HashMap::new()
    } else {
        let join = fits(ids::join(step))?;
        given(job, &join, &tasks).await?
    };
    let observed = |call: &Called| {
        let (content, error) = match (&call.task, &call.refused) {
            (Some(task), _) => {
                text(given.get(task).unwrap_or(&Given::Missing), agent.agents.contains_key(&call.name))
            }
            (None, Some(refused)) => (format!("Error ({}): {}", refused.class, refused.message), true),
            (None, None) => (prompt::MISSING.to_owned(), true),
        };
        let handle = call.task.as_ref().map_or("", TaskId::as_str);
        let key = result_key(&Value::String(content.clone()));
        let content = elide::elide(&content, elide_over, handle).text;
        Observed { key, id: call.id.clone(), content, error, task: call.task.clone() }
    };
    Ok(calls.iter().map(observed).collect())
}

/// What `tasks` gave, as `join` froze it.
pub(super) async fn given(
    job: &Job<'_>,
    join: &TaskId,
    tasks: &[TaskId],
) -> Result<HashMap<TaskId, Given>, Failure> {
    let mut ids = vec![join.clone()];
    ids.extend_from_slice(tasks);
    let recorded = job.shared.read(|| job.shared.backend.recorded(&job.assignment.run, &ids)).await?;
    let mut recorded = recorded.into_iter();
    let included: HashMap<TaskId, bool> = match recorded.next().flatten() {
        Some(Recorded::Merged { frozen: bits, inputs, .. }) => {
            let bits = frozen(&bits, inputs.len());
            inputs.into_iter().zip(bits).collect()
        }
        _ => HashMap::new(),
    };
    let mut given = HashMap::with_capacity(tasks.len());
    for (task, recorded) in tasks.iter().zip(recorded) {
        // what the join did not wait for, such as a node of an earlier plan, counts as it is
        let counts = included.get(task).copied().unwrap_or(true);
        let one = match recorded {
            Some(Recorded::Result(value)) if counts => Given::Value(parse(&value)),
            Some(Recorded::Merged { .. }) if counts => {
                let value = values(job, std::slice::from_ref(task)).await?.pop().flatten();
                value.map_or(Given::Missing, |value| Given::Value(parse(&value)))
            }
            Some(Recorded::Failed(Some(error))) => Given::Error(describe(&error)),
            _ if !included.contains_key(task) => Given::Unneeded,
            _ => Given::Missing,
        };
        given.insert(task.clone(), one);
    }
    Ok(given)
}

fn parse(value: &Payload) -> Value {
    // what the store gives back was written as JSON; numbers that serde_json can't hold stay readable as text
    value.parse().unwrap_or_else(|_| Value::String(String::from_utf8_lossy(value.as_bytes()).into_owned()))
}

fn describe(error: &Payload) -> String {
    let error = parse(error);
    let part = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or("failed").to_owned();
    format!("Error ({}): {}", part("class"), part("message"))
}

/// A result as text, and whether it is an error. Of an agent inside the agent only the answer matters.
pub(super) fn text(given: &Given, agent: bool) -> (String, bool) {
    match given {
        Given::Error(error) => (error.clone(), true),
        Given::Missing | Given::Unneeded => (prompt::MISSING.to_owned(), true),
        Given::Value(Value::String(text)) => (text.clone(), false),
        Given::Value(value) => {
            let answer = value.get("text").and_then(Value::as_str).filter(|_| agent);
            (answer.map_or_else(|| value.to_string(), str::to_owned), false)
        }
    }
}
