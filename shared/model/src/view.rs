//! A run as its users see it. Tasks that were still open when their run or map ended read as cancelled.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{
    graph::Kind,
    id::{Ms, RunId, TaskId, Tenant},
    payload::Payload,
    run::{Failure, Run, RunStatus, Task, TaskStatus, Usage},
};

/// A run and its tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    /// Its id.
    pub run_id: RunId,
    /// Its label.
    pub name: String,
    /// The failed run whose results it has from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<RunId>,
    /// The run that goes on from what this one recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed_as: Option<RunId>,
    /// Where it stands.
    pub status: RunStatus,
    /// Some result in it is a fallback or an incomplete merge.
    pub degraded: bool,
    /// The output, once it has succeeded.
    pub output: Option<Payload>,
    /// Why it failed.
    pub error: Option<Failure>,
    /// When it was accepted, ms since the Unix epoch.
    pub created_ms: Ms,
    /// When it ended.
    pub ended_ms: Option<Ms>,
    /// From acceptance to its end.
    pub wall_ms: Option<Ms>,
    /// When it must have ended.
    pub deadline_ms: Option<Ms>,
    /// What recorded attempts cost.
    pub usage: Usage,
    /// What attempts cost whose outcome was not recorded.
    pub wasted: Usage,
    /// Its tasks; a map's children follow their map.
    pub tasks: Vec<TaskView>,
}

/// One task of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    /// Its id.
    pub id: TaskId,
    /// What kind of work it is.
    pub kind: Kind,
    /// What it calls: the name of a tool, model or agent; may be empty.
    #[serde(default)]
    pub label: String,
    /// The agent that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<TaskId>,
    /// What it must not touch at the same time as another task, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The pool it belongs to; empty for a join.
    pub pool: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// Claims so far.
    pub attempt: u32,
    /// Its result is a fallback or an incomplete merge.
    pub degraded: bool,
    /// From ready to its last claim.
    pub queued_ms: Option<Ms>,
    /// From its last claim to its end.
    pub run_ms: Option<Ms>,
    /// From its last claim to the first token that a model generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<Ms>,
    /// When it became ready for the first time, ms since the Unix epoch.
    #[serde(default)]
    pub first_ready_ms: Option<Ms>,
    /// When it last became ready, ms since the Unix epoch.
    pub ready_ms: Option<Ms>,
    /// When its last attempt was claimed.
    pub started_ms: Option<Ms>,
    /// When it ended.
    pub ended_ms: Option<Ms>,
    /// The tasks it waits for.
    pub inputs: Vec<TaskId>,
    /// Its error.
    pub error: Option<Payload>,
}

/// A line of the list of runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Its id.
    pub run_id: RunId,
    /// Whose it is. Not shown: whoever may see a run knows.
    #[serde(skip)]
    pub tenant: Tenant,
    /// Its label.
    pub name: String,
    /// Where it stands.
    pub status: RunStatus,
    /// Some result in it is a fallback or an incomplete merge.
    pub degraded: bool,
    /// When it was accepted, ms since the Unix epoch.
    pub created_ms: Ms,
    /// When it ended.
    pub ended_ms: Option<Ms>,
}

/// A task in quarantine: its starts never finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its run.
    pub run_id: RunId,
    /// The task.
    pub task: TaskId,
    /// The run's label.
    pub run_name: String,
    /// Whose run it is.
    pub tenant: Tenant,
    /// Where the run stands: with a fallback or a join that can do without, it went on.
    pub run_status: RunStatus,
    /// What kind of work it is.
    pub kind: Kind,
    /// The pool it belongs to.
    pub pool: String,
    /// When it was put into quarantine, ms since the Unix epoch.
    pub quarantined_ms: Ms,
    /// How often it was started.
    pub starts: u32,
}

fn set(time: Ms) -> Option<Ms> {
    (time != 0).then_some(time)
}

impl Run {
    /// The run as its users see it, without its output, which may have to be merged from several results.
    pub fn view(&self) -> RunView {
        let mut tasks = Vec::with_capacity(self.tasks.len());
        let mut owned: HashMap<&TaskId, Vec<&TaskId>> = HashMap::new();
        for id in &self.added {
            if let Some(owner) = self.tasks.get(id).and_then(|task| task.owner.as_ref()) {
                owned.entry(owner).or_default().push(id);
            }
        }
        for id in &self.order {
            let Some(task) = self.tasks.get(id) else { continue };
            tasks.push(self.task_view(id, task, self.status.terminal()));
            if let Some(group) = &task.group {
                let over = self.status.terminal() || task.status.terminal();
                for index in 0..group.args.len() as u32 {
                    let child = id.child(index);
                    if let Some(task) = self.tasks.get(&child) {
                        tasks.push(self.task_view(&child, task, over));
                    }
                }
            }
            self.view_added(id, &owned, &mut tasks);
        }
        let summary = self.summary();
        RunView {
            run_id: summary.run_id,
            name: summary.name,
            replay_of: self.id.replay_of(),
            replayed_as: self.id.next_replay().ok().filter(|_| self.replayed),
            status: summary.status,
            degraded: summary.degraded,
            output: None,
            error: self.failure.as_ref().map(|failure| self.root_cause(failure)),
            created_ms: self.created,
            ended_ms: summary.ended_ms,
            wall_ms: summary.ended_ms.map(|ended| ended.saturating_sub(self.created)),
            deadline_ms: set(self.deadline),
            usage: self.usage,
            wasted: self.wasted,
            tasks,
        }
    }

    /// The tasks of the agent `id`, those of agents inside it after their agent.
    fn view_added(&self, id: &TaskId, owned: &HashMap<&TaskId, Vec<&TaskId>>, into: &mut Vec<TaskView>) {
        for id in owned.get(id).into_iter().flatten() {
            if let Some(task) = self.tasks.get(*id) {
                let over = self.status.terminal() || self.orphaned(id);
                into.push(self.task_view(id, task, over));
                // an agent's id is longer than its owner's, so this ends
                self.view_added(id, owned, into);
            }
        }
    }

    /// What lies behind a failed join: the first of its inputs, of a map its children, or of an agent its vital
    /// tasks, that failed.
    fn root_cause(&self, failure: &Failure) -> Failure {
        let mut cause = failure.clone();
        // each step goes to an input of an acyclic graph or to a child
        while let Some(id) = &cause.task
            && let Some(task) = self.tasks.get(id)
        {
            let inputs = match (&task.spec, &task.group) {
                (Some(spec), _) if spec.exec.kind == Kind::Join => spec.inputs.clone(),
                (_, Some(group)) if !group.args.is_empty() => {
                    (0..group.args.len() as u32).map(|index| id.child(index)).collect()
                }
                (Some(spec), _) if spec.exec.kind == Kind::Agent => {
                    let vital = |id: &&TaskId| self.tasks.get(*id).is_some_and(|task| task.vital);
                    let mine = |other: &&TaskId| self.tasks[*other].owner.as_ref() == Some(id);
                    self.added.iter().filter(vital).filter(mine).cloned().collect()
                }
                _ => break,
            };
            let failed = inputs.into_iter().filter_map(|input| {
                let task = self.tasks.get(&input).filter(|task| task.status == TaskStatus::Failed)?;
                Some((task.ended_at, input, task.error.clone()?))
            });
            let Some((_, input, error)) = failed.min_by_key(|(ended, ..)| *ended) else { break };
            cause = Failure { task: Some(input), error };
        }
        cause
    }

    /// The run as a line of a list.
    pub fn summary(&self) -> RunSummary {
        RunSummary {
            run_id: self.id.clone(),
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            status: self.status,
            degraded: self.degraded,
            created_ms: self.created,
            ended_ms: set(self.ended),
        }
    }

    fn task_view(&self, id: &TaskId, task: &Task, over: bool) -> TaskView {
        let exec = self.exec(id);
        let cut = over && !task.status.terminal();
        TaskView {
            id: id.clone(),
            kind: exec.map_or(Kind::Tool, |exec| exec.kind),
            label: task.spec.as_ref().map_or_else(String::new, |spec| spec.label.clone()),
            owner: task.owner.clone(),
            resource: task.resource.clone(),
            pool: exec.map_or_else(String::new, |exec| exec.pool.clone()),
            status: if cut { TaskStatus::Cancelled } else { task.status },
            attempt: task.attempt,
            degraded: task.degraded,
            queued_ms: set(task.started_at).map(|started| started.saturating_sub(task.ready_at)),
            run_ms: set(task.ended_at)
                .filter(|_| task.started_at != 0)
                .map(|ended| ended.saturating_sub(task.started_at)),
            first_token_ms: set(task.first_token),
            first_ready_ms: set(if task.first_ready_at == 0 { task.ready_at } else { task.first_ready_at }),
            ready_ms: set(task.ready_at),
            started_ms: set(task.started_at),
            ended_ms: set(task.ended_at),
            inputs: task.spec.as_ref().map_or_else(Vec::new, |spec| spec.inputs.clone()),
            error: task.error.clone(),
        }
    }
}
