//! A run as its users see it. Tasks that were still open when their run or map ended read as cancelled.

use serde::{Deserialize, Serialize};

use crate::{
    graph::Kind,
    id::{Ms, RunId, TaskId},
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

fn set(time: Ms) -> Option<Ms> {
    (time != 0).then_some(time)
}

impl Run {
    /// The run as its users see it, without its output, which may have to be merged from several results.
    pub fn view(&self) -> RunView {
        let mut tasks = Vec::with_capacity(self.tasks.len());
        for id in &self.order {
            let Some(task) = self.tasks.get(id) else { continue };
            tasks.push(self.task_view(id, task, self.status.terminal()));
            let Some(group) = &task.group else { continue };
            let over = self.status.terminal() || task.status.terminal();
            for index in 0..group.next {
                let child = id.child(index);
                if let Some(task) = self.tasks.get(&child) {
                    tasks.push(self.task_view(&child, task, over));
                }
            }
        }
        let summary = self.summary();
        RunView {
            run_id: summary.run_id,
            name: summary.name,
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

    /// What lies behind a failed join: the first of its inputs, or of a map its children, that failed.
    fn root_cause(&self, failure: &Failure) -> Failure {
        let mut cause = failure.clone();
        // each step goes to an input of an acyclic graph or to a child
        while let Some(id) = &cause.task
            && let Some(task) = self.tasks.get(id)
        {
            let inputs = match (&task.spec, &task.group) {
                (Some(spec), _) if spec.exec.kind == Kind::Join => spec.inputs.clone(),
                (_, Some(group)) => (0..group.next).map(|index| id.child(index)).collect(),
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
            pool: exec.map_or_else(String::new, |exec| exec.pool.clone()),
            status: if cut { TaskStatus::Cancelled } else { task.status },
            attempt: task.attempt,
            degraded: task.degraded,
            queued_ms: set(task.started_at).map(|started| started.saturating_sub(task.ready_at)),
            run_ms: set(task.ended_at)
                .filter(|_| task.started_at != 0)
                .map(|ended| ended.saturating_sub(task.started_at)),
            ready_ms: set(task.ready_at),
            started_ms: set(task.started_at),
            ended_ms: set(task.ended_at),
            inputs: task.spec.as_ref().map_or_else(Vec::new, |spec| spec.inputs.clone()),
            error: task.error.clone(),
        }
    }
}
