//! `extend`: a running map grows its children, and releases no more of them than may run at once.

use crate::{
    effect::Effects,
    id::{Ms, TaskId},
    limits::{EXTEND_CHUNK, MAX_WIDTH},
    op::{Extend, Extended},
    run::{Group, Run, Task, TaskStatus},
};

use super::Step;

impl Run {
    /// Appends the children that are new in `extend` and releases as many as may run.
    pub fn extend(&mut self, extend: &Extend, now: Ms, effects: &mut Effects) -> Extended {
        if self.status.terminal() {
            return Extended::Cancelled;
        }
        let Some(task) = self.tasks.get_mut(&extend.task) else { return Extended::Gone };
        if task.status != TaskStatus::Running || task.token.as_ref() != Some(&extend.token) {
            return Extended::Stale;
        }
        let width = task.width();
        let end = extend.start.saturating_add(u32::try_from(extend.args.len()).unwrap_or(u32::MAX));
        let is_map = task.spec.as_ref().is_some_and(|spec| spec.children.is_some());
        if !is_map || extend.start > width || end > MAX_WIDTH || extend.args.len() > EXTEND_CHUNK {
            return Extended::Refused;
        }
        let known = (width - extend.start) as usize;
        let group = task.group.get_or_insert_with(Group::default);
        group.args.extend(extend.args.iter().skip(known).cloned());
        let width = group.args.len() as u32;
        Step::new(self, now, effects).release(&extend.task);
        Extended::Width(width)
    }
}

impl Step<'_> {
    /// Makes children of `map` ready until `at_once` of them are at work or none is left.
    pub(super) fn release(&mut self, map: &TaskId) {
        loop {
            let Some(task) = self.run.tasks.get_mut(map) else { return };
            let at_once = task
                .spec
                .as_ref()
                .and_then(|spec| spec.children.as_ref())
                .map_or(0, |children| children.at_once);
            let Some(group) = task.group.as_mut() else { return };
            if group.active >= at_once || group.next as usize >= group.args.len() {
                return;
            }
            let child = map.child(group.next);
            group.next += 1;
            group.active += 1;
            self.run.tasks.insert(child.clone(), Task::waiting(None));
            self.make_ready(&child);
        }
    }
}
