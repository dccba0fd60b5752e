//! `extend`: an attempt adds to its run while it runs; and what an agent's tasks add as they end.

use std::collections::HashSet;

use crate::{
    effect::{Effects, What, reason},
    graph::{Added, Kind, check_shape},
    id::{Ms, TaskId},
    limits::{ADD_CHUNK, KEPT_FOR_ENDS, MAX_ADDED},
    op::{Extend, Extended, More},
    payload::Payload,
    run::{Run, Task, TaskStatus},
};

use super::{Step, engine_error, line::named, settle::Settle};

impl Run {
    /// Adds what is new in `extend`.
    pub fn extend(&mut self, extend: &Extend, now: Ms, effects: &mut Effects) -> Extended {
        let id = &extend.task;
        if self.status.terminal() || self.orphaned(id) {
            return Extended::Cancelled;
        }
        let Some(task) = self.tasks.get(id) else { return Extended::Gone };
        if task.status != TaskStatus::Running || task.token.as_ref() != Some(&extend.token) {
            return Extended::Stale;
        }
        match &extend.more {
            More::Children { start, args } => self.extend_map(id, (*start, args), now, effects),
            More::Tasks(tasks) if !tasks.is_empty() && self.can_add(id, tasks, MAX_ADDED - KEPT_FOR_ENDS) => {
                let mut step = Step::new(self, now, effects);
                let new = step.add(id, tasks);
                if let Some(task) = step.task(id) {
                    task.added.extend(new.iter().cloned());
                }
                step.settle_all();
                Extended::Added(new.len() as u32)
            }
            More::Resource(name) if self.may_touch(id, name) => Step::new(self, now, effects).touch(id, name),
            More::Tasks(_) | More::Resource(_) => Extended::Refused,
        }
    }

    /// The agent that tasks added by `id` belong to.
    fn owner_for(&self, id: &TaskId) -> Option<TaskId> {
        let task = self.tasks.get(id)?;
        let agent = task.spec.as_ref().is_some_and(|spec| spec.exec.kind == Kind::Agent);
        if agent { Some(id.clone()) } else { task.owner.clone() }
    }

    /// Whether `id` may add `tasks` to a run that takes `most` of them.
    pub(super) fn can_add(&self, id: &TaskId, tasks: &[Added], most: u32) -> bool {
        if tasks.is_empty() {
            return true;
        }
        let Some(owner) = self.owner_for(id) else { return false };
        if tasks.len() > ADD_CHUNK || self.added.len() + tasks.len() > most as usize {
            return false;
        }
        let mut earlier: HashSet<&TaskId> = HashSet::new();
        tasks.iter().all(|added| {
            let spec = &added.spec;
            let below =
                spec.id.as_str().strip_prefix(owner.as_str()).is_some_and(|rest| rest.starts_with('/'));
            let known = |input: &TaskId| {
                earlier.contains(input)
                    || self.tasks.get(input).is_some_and(|task| task.owner.as_ref() == Some(&owner))
            };
            // a name that another's task has, or that a map's child may get
            let foreign = self.tasks.get(&spec.id).is_some_and(|task| task.owner.as_ref() != Some(&owner))
                || self.parent(&spec.id).is_some();
            let fits = below && !foreign && spec.inputs.iter().all(known) && added.fits();
            earlier.insert(&spec.id);
            fits
        })
    }
}

impl Added {
    /// Whether an agent may have such a task, as far as the task alone tells: it is no map, its parts fit its kind,
    /// it has at most [`ADD_CHUNK`] inputs without repeats, and it names a resource only as a tool call.
    pub fn fits(&self) -> bool {
        let mut seen = HashSet::new();
        self.spec.exec.kind != Kind::Map
            && check_shape(&self.spec).is_ok()
            && self.resource.as_ref().is_none_or(|name| self.spec.exec.kind == Kind::Tool && named(name))
            && self.spec.inputs.len() <= ADD_CHUNK
            && self.spec.inputs.iter().all(|input| seen.insert(input))
    }
}

impl Step<'_> {
    /// Adds those of `tasks` that do not exist; [`Run::can_add`] was asked. Gives back their ids.
    pub(super) fn add(&mut self, by: &TaskId, tasks: &[Added]) -> Vec<TaskId> {
        let mut new = Vec::new();
        let Some(owner) = self.run.owner_for(by) else { return new };
        for added in tasks {
            let spec = &added.spec;
            if self.run.tasks.contains_key(&spec.id) {
                continue;
            }
            let task = Task {
                owner: Some(owner.clone()),
                vital: added.vital,
                resource: added.resource.clone(),
                ..Task::waiting(Some(Box::new(spec.clone())))
            };
            self.run.tasks.insert(spec.id.clone(), task);
            self.run.added.push(spec.id.clone());
            new.push(spec.id.clone());
            let (task, kind, label) = (spec.id.clone(), spec.exec.kind, spec.label.clone());
            self.log(What::TaskAdded { task, kind, label });
            self.connect(&spec.id, &spec.inputs);
        }
        new
    }

    /// Ties a new task to its inputs, some of which may have ended before.
    fn connect(&mut self, id: &TaskId, inputs: &[TaskId]) {
        let join = self.kind(id) == Some(Kind::Join);
        let policy = self.run.tasks.get(id).and_then(|task| task.spec.as_ref()).and_then(|spec| spec.policy);
        let timed = join && policy.is_some_and(|policy| policy.within.is_some());
        let (mut good, mut bad, mut open) = (0, 0, false);
        let mut failed = None;
        for input in inputs {
            let Some(task) = self.task(input) else { continue };
            task.successors.push(id.clone());
            if timed {
                task.opens.push(id.clone());
            }
            open |= task.status != TaskStatus::Waiting || task.queued();
            if task.status == TaskStatus::Succeeded {
                good += 1;
            } else if task.status.terminal() {
                bad += 1;
                let error = task.error.clone().unwrap_or_else(|| engine_error(reason::INPUT_CANCELLED));
                failed.get_or_insert((input.clone(), error));
            }
        }
        let Some(task) = self.task(id) else { return };
        if join {
            (task.done, task.missed) = (good, bad);
            if timed && open {
                self.open_windows(std::slice::from_ref(id));
            }
            self.check_join(id);
            return;
        }
        task.pending -= good;
        if let Some((cause, error)) = failed {
            self.queue.push_back(Settle::skipped(id.clone(), cause, error));
        } else if task.pending == 0 {
            self.make_ready(id);
        }
    }

    /// The agent that `id` belongs to has its answer.
    pub(super) fn answer(&mut self, id: &TaskId, value: &Payload, degraded: bool) {
        let Some(owner) = self.run.tasks.get(id).and_then(|task| task.owner.clone()) else { return };
        if let Some(task) = self.task(&owner).filter(|task| task.status == TaskStatus::Expanded) {
            task.result = Some(value.clone());
            self.queue.push_back(Settle::succeeded(owner, degraded));
        }
    }
}
