//! What an agent has done so far, read from the records of its turns.

use trireme_agent::{
    record::{Condensing, First, Seen, StepRecord},
    work::ids,
};
use trireme_backend::Recorded;
use trireme_model::{Ms, TaskId};
use trireme_spec::agent::AgentCall;

use super::{fits, record, time::Time};
use crate::{executors::Job, outcome::Failure};

/// An agent's past as its next turn sees it.
pub(super) struct Past {
    pub(super) first: First,
    pub(super) seen: Seen,
    /// What stands for the turns before `seen.from`.
    pub(super) summary: Option<String>,
    /// The turns from `seen.from` on.
    pub(super) records: Vec<StepRecord>,
    /// A summary that is being made.
    pub(super) condensing: Option<Condensing>,
}

/// Reads the past of turn `turn`; the first turn has its settings in its body.
pub(super) async fn read(
    job: &Job<'_>,
    agent: &TaskId,
    turn: u32,
    config: Option<Box<AgentCall>>,
) -> Result<Past, Failure> {
    let Some(before) = turn.checked_sub(1) else {
        let agent =
            config.ok_or_else(|| Failure::permanent("invalid_body", "a first turn without settings"))?;
        let first = First { agent: *agent, time: Time::total(job) };
        let (seen, records) = (Seen::default(), Vec::new());
        return Ok(Past { first, seen, summary: None, records, condensing: None });
    };
    let last: StepRecord = turns(job, agent, &[before]).await?.remove(0);
    let mut seen = last.seen.clone();
    let mut condensing = last.condensing.clone();
    if let Some(made) = &condensing {
        let ids = [made.task.clone()];
        let recorded = job.shared.read(|| job.shared.backend.recorded(&job.assignment.run, &ids)).await?;
        match recorded.first() {
            // it counts only for the history that it was made of
            Some(None) | None => {}
            Some(Some(recorded)) => {
                if matches!(recorded, Recorded::Result(_)) {
                    seen = seen.condensed(made);
                }
                condensing = None;
            }
        }
    }
    let summary = match &seen.summary {
        Some(task) => {
            let value = values(job, std::slice::from_ref(task)).await?.pop().flatten();
            Some(record::<String>(task, value)?)
        }
        None => None,
    };
    let wanted: Vec<u32> = std::iter::once(0).chain(seen.from.max(1)..turn).collect();
    let mut records = turns(job, agent, &wanted).await?;
    let mut zeroth = records.remove(0);
    let first = zeroth.first.take();
    let first =
        first.ok_or_else(|| Failure::permanent("invalid_record", "the first turn has no settings"))?;
    if seen.from == 0 {
        records.insert(0, zeroth);
    }
    Ok(Past { first, seen, summary, records, condensing })
}

async fn turns(job: &Job<'_>, agent: &TaskId, turns: &[u32]) -> Result<Vec<StepRecord>, Failure> {
    let ids = turns.iter().map(|turn| fits(ids::step(agent, *turn))).collect::<Result<Vec<_>, _>>()?;
    let values = values(job, &ids).await?;
    ids.iter().zip(values).map(|(id, value)| record(id, value)).collect()
}

/// The values of tasks of the run.
pub(super) async fn values(
    job: &Job<'_>,
    tasks: &[TaskId],
) -> Result<Vec<Option<trireme_model::Payload>>, Failure> {
    Ok(job.shared.read(|| job.shared.values.get(&job.assignment.run, tasks)).await?)
}

impl Past {
    /// The longest turn so far.
    pub(super) fn longest(&self) -> Ms {
        self.records.iter().map(|record| record.took_ms).max().unwrap_or(0)
    }
}
