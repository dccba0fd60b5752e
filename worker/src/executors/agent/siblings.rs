//! What agents that work beside this one have done: several may go in the same circle without one of them repeating
//! itself.

use serde::Deserialize;
use trireme_agent::{
    call_key,
    record::{Called, Observed, StepRecord},
    stuck::{Observation, Turn, WINDOW},
    work::ids,
};
use trireme_model::TaskId;

use super::past::values;
use crate::{executors::Job, outcome::Failure};

/// Siblings that are looked at.
const MAX_SIBLINGS: usize = 16;

/// As much of the record of a turn or a plan as names the tasks that it added.
#[derive(Deserialize)]
struct Parent {
    #[serde(default)]
    calls: Vec<Child>,
    #[serde(default)]
    nodes: Vec<Child>,
}

#[derive(Deserialize)]
struct Child {
    task: Option<TaskId>,
}

/// A call and its result, without what names this one execution.
pub(super) fn observation(branch: &str, call: &Called, observed: &Observed) -> Observation {
    Observation {
        tool: call.name.clone(),
        call: call_key(&call.name, &call.arguments),
        result: observed.key.clone(),
        error: observed.error,
        branch: branch.to_owned(),
    }
}

/// Adds what the siblings of `agent` observed to `turns`, the first of which is turn `from`. The last turn stays as it
/// is: it is this agent's own that is judged.
pub(super) async fn observe(
    job: &Job<'_>,
    agent: &TaskId,
    from: u32,
    turns: &mut [Turn],
) -> Result<(), Failure> {
    let Some((parent, _)) = agent.as_str().rsplit_once('/') else { return Ok(()) };
    let (Ok(parent), Some(earlier)) = (TaskId::new(parent), turns.len().checked_sub(1)) else {
        return Ok(());
    };
    // while the turn that called this agent still runs, its calls are not known; nobody has gone far by then
    let Some(record) = values(job, &[parent]).await?.pop().flatten() else { return Ok(()) };
    let Ok(Parent { calls, nodes }) = record.parse() else { return Ok(()) };
    let mut siblings: Vec<TaskId> = calls.into_iter().chain(nodes).filter_map(|child| child.task).collect();
    siblings.sort();
    siblings.dedup();
    siblings.retain(|sibling| sibling != agent);
    siblings.truncate(MAX_SIBLINGS);
    let first = earlier.saturating_sub(WINDOW);
    // a turn's results stand in the record of the next one; a sibling that is a tool has none at all
    let wanted: Vec<(usize, TaskId)> = siblings
        .iter()
        .flat_map(|sibling| (first..=earlier).map(move |at| (at, ids::step(sibling, from + at as u32))))
        .filter_map(|(at, id)| Some((at, id?)))
        .collect();
    let ids: Vec<TaskId> = wanted.iter().map(|(_, id)| id.clone()).collect();
    let mut before: Option<StepRecord> = None;
    for ((at, id), value) in wanted.into_iter().zip(values(job, &ids).await?) {
        let record: Option<StepRecord> = value.and_then(|value| value.parse().ok());
        if let (Some(before), Some(record), true) = (&before, &record, at > first) {
            let branch = id.as_str().rsplit_once('/').map_or("", |(sibling, _)| sibling);
            let seen = before.calls.iter().zip(&record.observed);
            turns[at - 1].observations.extend(seen.map(|(call, one)| observation(branch, call, one)));
        }
        before = record;
    }
    Ok(())
}
