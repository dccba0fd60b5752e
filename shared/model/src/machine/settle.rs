//! The end of tasks and everything that follows from it: successors, joins, maps, losers, the run's end.

use crate::{
    effect::{What, reason},
    graph::{Kind, OnMiss},
    id::TaskId,
    payload::Payload,
    run::{Failure, RunStatus, TaskStatus},
};

use super::{Step, engine_error};

/// A task that reaches its end in this step.
pub(crate) struct Settle {
    task: TaskId,
    status: TaskStatus,
    /// An incomplete merge.
    degraded: bool,
    error: Option<Payload>,
    /// Of a skipped task: the failed one at the root of it.
    cause: Option<TaskId>,
    /// The engine ends it; an attempt that holds it does not know yet.
    cut: bool,
}

impl Settle {
    pub(crate) fn succeeded(task: TaskId, degraded: bool) -> Self {
        Self { task, status: TaskStatus::Succeeded, degraded, error: None, cause: None, cut: false }
    }

    /// The attempt that holds the task reports its failure.
    pub(crate) fn failed(task: TaskId, error: Payload) -> Self {
        Self {
            task,
            status: TaskStatus::Failed,
            degraded: false,
            error: Some(error),
            cause: None,
            cut: false,
        }
    }

    /// The engine ends the task with one of the errors in [`reason`].
    pub(crate) fn cut(task: TaskId, error: &'static str) -> Self {
        Self { cut: true, ..Self::failed(task, engine_error(error)) }
    }

    pub(super) fn skipped(task: TaskId, cause: TaskId, error: Payload) -> Self {
        Self {
            task,
            status: TaskStatus::Skipped,
            degraded: false,
            error: Some(error),
            cause: Some(cause),
            cut: false,
        }
    }

    fn cancelled(task: TaskId) -> Self {
        Self { task, status: TaskStatus::Cancelled, degraded: false, error: None, cause: None, cut: true }
    }
}

impl Step<'_> {
    /// Works off the queue. Every task settles at most once, so this ends.
    pub(super) fn settle_all(&mut self) {
        while let Some(settle) = self.queue.pop_front() {
            self.settle(settle);
        }
        self.retract_hints();
    }

    /// A task can become ready and be ended again in one step: nobody may claim it then.
    fn retract_hints(&mut self) {
        let run = &*self.run;
        let over = run.status.terminal();
        let ready = |id: &TaskId| run.tasks.get(id).is_some_and(|task| task.status == TaskStatus::Ready);
        self.effects.hints.retain(|hint| hint.run != run.id || (!over && ready(&hint.task)));
    }

    fn settle(&mut self, settle: Settle) {
        let Settle { task: id, mut status, mut degraded, error, cause, cut } = settle;
        let kind = self.kind(&id);
        let (now, fallback) = (self.now, self.run.exec(&id).and_then(|exec| exec.fallback.clone()));
        let Some(task) = self.task(&id) else { return };
        if task.status.terminal() {
            return;
        }
        let before = task.status;
        if let (TaskStatus::Failed | TaskStatus::Skipped, Some(value)) = (status, fallback) {
            (status, degraded) = (TaskStatus::Succeeded, true);
            task.result = Some(value);
            task.frozen = None;
        }
        task.status = status;
        task.degraded = degraded;
        task.ended_at = now;
        if before == TaskStatus::Running && cut {
            // whoever still holds the task is told that its result was not recorded
            task.token = None;
        }
        task.error = error.clone().filter(|_| cause.is_none());
        self.run.degraded |= degraded;
        self.set_due(&id, 0);
        let task = &self.run.tasks[&id];
        let (owner, added) = (task.owner.clone().filter(|_| task.vital), task.added.clone());
        let agent = kind == Some(Kind::Agent) && (before == TaskStatus::Expanded || !added.is_empty());
        let children = agent || task.group.as_ref().is_some_and(|group| group.active > 0);
        if (before == TaskStatus::Running && cut) || children {
            self.effects.abort.push(id.clone());
        }
        let (task, given) = (id.clone(), error.clone());
        self.log(match (status, given) {
            (TaskStatus::Failed, Some(error)) => What::TaskFailed { task, error },
            (TaskStatus::Skipped, _) => What::TaskSkipped { task },
            (TaskStatus::Cancelled, _) => What::TaskCancelled { task },
            _ => What::TaskSucceeded { task, degraded },
        });
        let good = status == TaskStatus::Succeeded;
        let failure = error.map(|error| (cause.unwrap_or_else(|| id.clone()), error)).filter(|_| !good);
        if id == *self.run.output() {
            let status = if good { RunStatus::Succeeded } else { RunStatus::Failed };
            let failure = failure.map(|(task, error)| Failure { task: Some(task), error });
            return self.end_run(status, failure);
        }
        self.leave_line(&id);
        if let Some(parent) = self.run.parent(&id) {
            return self.child_ended(&parent, good);
        }
        self.drop_unused(&added);
        if let (Some(owner), Some((_, error))) = (owner, &failure) {
            self.queue.push_back(Settle { cut: true, ..Settle::failed(owner, error.clone()) });
        }
        let Some(task) = self.task(&id) else { return };
        let (successors, opens) = (task.successors.clone(), task.opens.clone());
        self.open_windows(&opens);
        for successor in &successors {
            self.input_ended(successor, good, failure.as_ref());
        }
        if before == TaskStatus::Waiting {
            self.drop_losers(&id);
        }
    }

    /// Tells `id` that one of its inputs has ended.
    fn input_ended(&mut self, id: &TaskId, good: bool, failure: Option<&(TaskId, Payload)>) {
        let kind = self.kind(id);
        let Some(task) = self.task(id) else { return };
        if task.status != TaskStatus::Waiting {
            // a late input is recorded, not merged
            return;
        }
        if kind == Some(Kind::Join) {
            if good {
                task.done += 1
            } else {
                task.missed += 1
            }
            self.check_join(id);
        } else if good {
            task.pending -= 1;
            if task.pending == 0 {
                self.make_ready(id);
            }
        } else if let Some((cause, error)) = failure {
            self.queue.push_back(Settle::skipped(id.clone(), cause.clone(), error.clone()));
        }
    }

    /// Books the end of a map's child and lets the next one start.
    fn child_ended(&mut self, map: &TaskId, good: bool) {
        let Some(task) = self.task(map) else { return };
        if good {
            task.done += 1
        } else {
            task.missed += 1
        }
        if let Some(group) = task.group.as_mut() {
            group.active -= 1;
        }
        if !self.check_join(map) {
            self.release(map);
        }
    }

    /// Fires or fails a join, or a map over its children, as soon as its policy allows; once. Says whether
    /// it did.
    pub(super) fn check_join(&mut self, id: &TaskId) -> bool {
        let Some(task) = self.run.tasks.get(id) else { return false };
        let Some(policy) = task.spec.as_ref().and_then(|spec| spec.policy) else { return false };
        let open = match self.kind(id) {
            Some(Kind::Join) => task.status == TaskStatus::Waiting,
            _ => task.status == TaskStatus::Expanded,
        };
        if !open || task.frozen.is_some() {
            return false;
        }
        let width = task.width();
        let (needed, left) = (policy.needed(width), width - task.done - task.missed);
        if task.done >= needed {
            self.fire(id, false);
            return true;
        }
        if task.done + left < needed {
            match policy.on_miss {
                OnMiss::Fail => self.queue.push_back(Settle::cut(id.clone(), reason::UNMET)),
                _ if left == 0 => self.fire(id, true),
                _ => return false,
            }
            return true;
        }
        false
    }

    /// The window of a join, or of a map over its children, has closed.
    pub(super) fn window_closed(&mut self, id: &TaskId, on_miss: OnMiss) {
        match on_miss {
            OnMiss::Fail => self.queue.push_back(Settle::cut(id.clone(), reason::WINDOW)),
            OnMiss::Partial | OnMiss::Default => self.fire(id, true),
        }
    }

    /// Freezes the inputs that a join merges.
    fn fire(&mut self, id: &TaskId, degraded: bool) {
        let Some(task) = self.run.tasks.get(id) else { return };
        let width = task.width();
        let frozen = if task.done == width {
            "*".to_owned()
        } else {
            let inputs: Vec<TaskId> = match &task.spec {
                Some(spec) if spec.exec.kind == Kind::Join => spec.inputs.clone(),
                _ => (0..width).map(|index| id.child(index)).collect(),
            };
            let succeeded = |input: &TaskId| {
                self.run.tasks.get(input).is_some_and(|input| input.status == TaskStatus::Succeeded)
            };
            inputs.iter().map(|input| if succeeded(input) { '1' } else { '0' }).collect()
        };
        if let Some(task) = self.task(id) {
            task.frozen = Some(frozen);
        }
        self.queue.push_back(Settle::succeeded(id.clone(), degraded));
    }

    /// `id` ended without all of its inputs: cancels those that nobody else waits for.
    fn drop_losers(&mut self, id: &TaskId) {
        let Some(spec) = self.run.tasks.get(id).and_then(|task| task.spec.as_ref()) else { return };
        let inputs = spec.inputs.clone();
        self.drop_unused(&inputs);
    }

    /// Cancels those of `tasks` that nobody waits for.
    fn drop_unused(&mut self, tasks: &[TaskId]) {
        for id in tasks {
            let task = &self.run.tasks[id];
            let needed = task.successors.iter().any(|other| !self.run.tasks[other].status.terminal());
            if !task.status.terminal() && !needed {
                self.queue.push_back(Settle::cancelled(id.clone()));
            }
        }
    }
}
