//! Tasks of a run that touch the same thing do so one after the other: each resource has a line, and the first in it
//! has the resource until it ends.

use crate::{
    graph::Kind,
    id::TaskId,
    limits::MAX_RESOURCE,
    op::Extended,
    run::{Run, Task, TaskStatus},
};

use super::Step;

/// Whether a resource may have this name.
pub(super) fn named(name: &str) -> bool {
    (1..=MAX_RESOURCE).contains(&name.len())
}

impl Task {
    /// Whether it waits for nothing but a resource.
    pub(crate) fn queued(&self) -> bool {
        self.status == TaskStatus::Waiting && self.pending == 0 && self.resource.is_some()
    }
}

impl Run {
    /// Whether `id` may say that it touches `name`.
    pub(super) fn may_touch(&self, id: &TaskId, name: &str) -> bool {
        self.exec(id).is_some_and(|exec| exec.kind == Kind::Tool) && named(name)
    }
}

impl Step<'_> {
    /// The running `id` is about to touch `name`: it goes on, or waits until those before it have ended.
    pub(super) fn touch(mut self, id: &TaskId, name: &str) -> Extended {
        let Some(task) = self.task(id) else { return Extended::Gone };
        if task.resource.as_deref() == Some(name) {
            return Extended::Held;
        }
        self.leave_line(id);
        if let Some(task) = self.task(id) {
            task.resource = Some(name.to_owned());
        }
        if self.enter_line(id) {
            return Extended::Held;
        }
        if let Some(task) = self.task(id) {
            (task.status, task.token, task.deadline) = (TaskStatus::Waiting, None, 0);
        }
        self.set_due(id, 0);
        Extended::Queued
    }

    /// Puts `id` at the end of the line for its resource; says whether that is its own now.
    pub(super) fn enter_line(&mut self, id: &TaskId) -> bool {
        let Some(name) = self.run.tasks.get(id).and_then(|task| task.resource.clone()) else { return true };
        let line = self.run.lines.entry(name).or_default();
        line.push(id.clone());
        line.len() == 1
    }

    /// `id` needs its resource no more: the next one in the line that somebody needs is ready.
    pub(super) fn leave_line(&mut self, id: &TaskId) {
        let Some(name) = self.run.tasks.get(id).and_then(|task| task.resource.clone()) else { return };
        let Some(mut line) = self.run.lines.remove(&name) else { return };
        let held = line.first() == Some(id);
        line.retain(|other| other != id);
        if held {
            // nobody else would take those out whose agent has ended
            let orphans = line.iter().take_while(|other| self.orphaned(other)).count();
            line.drain(..orphans);
            if let Some(next) = line.first().cloned() {
                self.start_time(&next);
            }
        }
        if !line.is_empty() {
            self.run.lines.insert(name, line);
        }
    }
}
