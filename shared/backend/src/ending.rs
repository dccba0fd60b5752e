//! What is told of runs that have ended, for their traces.

use trireme_model::{Kind, Ms, Run, RunId, RunStatus, Task, TaskId, TaskStatus, Trace, Usage};

/// Runs that have ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endings {
    /// The runs.
    pub runs: Vec<Ending>,
    /// For [`Backend::mark_ended`](crate::Backend::mark_ended).
    pub mark: Mark,
    /// There are more already.
    pub more: bool,
}

/// Up to where a batch of endings goes, per shard, on the store's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark(pub Vec<(u16, Ms)>);

/// A run that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The run.
    pub run: RunId,
    /// Its label.
    pub name: String,
    /// Its trace, a sampled one.
    pub trace: Trace,
    /// How it ended.
    pub status: RunStatus,
    /// When it was accepted.
    pub created: Ms,
    /// When it ended.
    pub ended: Ms,
    /// What recorded attempts cost.
    pub usage: Usage,
    /// Some result in it is degraded.
    pub degraded: bool,
    /// The class of its error.
    pub error: Option<String>,
    /// Its joins, maps and agents, as far as they began.
    pub parts: Vec<Part>,
}

/// A join, map or agent of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The task.
    pub task: TaskId,
    /// What it is.
    pub kind: Kind,
    /// The map or agent that it belongs to.
    pub owner: Option<TaskId>,
    /// How it ended; where the run ended before, how it stood then.
    pub status: TaskStatus,
    /// Of a join when its first input came, else when it became ready.
    pub begun: Ms,
    /// When it ended.
    pub ended: Ms,
    /// Inputs or children that succeeded.
    pub done: u32,
    /// Inputs or children that did not.
    pub missed: u32,
    /// Its result is degraded.
    pub degraded: bool,
}

/// The class of a recorded error.
pub fn error_class(error: &[u8]) -> String {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Recorded {
        class: String,
    }
    serde_json::from_slice::<Recorded>(error).unwrap_or_default().class
}

impl Ending {
    /// Of a run that has ended and has a sampled trace.
    pub fn of(run: &Run) -> Option<Self> {
        let trace = run.trace.filter(|trace| trace.sampled && run.status.terminal())?;
        let mut parts: Vec<Part> = run.tasks.iter().filter_map(|(id, task)| part(run, id, task)).collect();
        parts.sort_by(|a, b| a.task.cmp(&b.task));
        Some(Self {
            run: run.id.clone(),
            name: run.name.clone(),
            trace,
            status: run.status,
            created: run.created,
            ended: run.ended,
            usage: run.usage,
            degraded: run.degraded,
            error: run.failure.as_ref().map(|failure| error_class(failure.error.as_bytes())),
            parts,
        })
    }
}

fn part(run: &Run, id: &TaskId, task: &Task) -> Option<Part> {
    let exec = run.exec(id)?;
    let tasks = &run.tasks;
    let begun = match exec.kind {
        Kind::Llm | Kind::Tool => return None,
        Kind::Join => {
            let spec = task.spec.as_ref()?;
            // the run's output is no join that anybody wrote
            spec.policy?;
            let inputs = spec.inputs.iter().filter_map(|input| tasks.get(input)).map(|input| input.ended_at);
            first(inputs, task.ended_at)?
        }
        Kind::Map | Kind::Agent if task.started_at == 0 => return None,
        Kind::Map | Kind::Agent if task.first_ready_at != 0 => task.first_ready_at,
        Kind::Map | Kind::Agent => task.ready_at,
    };
    Some(Part {
        task: id.clone(),
        kind: exec.kind,
        owner: run.parent(id).or_else(|| task.owner.clone()),
        status: task.status,
        begun,
        ended: if task.ended_at == 0 { run.ended } else { task.ended_at },
        done: task.done,
        missed: task.missed,
        degraded: task.degraded,
    })
}

/// When the first of a join's inputs came, of one that ended at `ended`.
pub fn first(inputs: impl Iterator<Item = Ms>, ended: Ms) -> Option<Ms> {
    (ended != 0).then(|| inputs.filter(|at| *at != 0).min().unwrap_or(ended).min(ended))
}
