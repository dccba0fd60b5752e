//! A map's children: how they are told, and how no more of them are released than may run at once.

use crate::{
    effect::Effects,
    id::{Ms, TaskId},
    limits::{EXTEND_CHUNK, MAX_WIDTH},
    op::Extended,
    payload::Payload,
    run::{Group, Run, Task},
};

use super::Step;

impl Run {
    /// Appends the children of `map` that are new and releases as many as may run.
    pub(super) fn extend_map(
        &mut self,
        map: &TaskId,
        (start, args): (u32, &[Payload]),
        now: Ms,
        effects: &mut Effects,
    ) -> Extended {
        let Some(task) = self.tasks.get_mut(map) else { return Extended::Gone };
        let width = task.width();
        let end = start.saturating_add(u32::try_from(args.len()).unwrap_or(u32::MAX));
        let is_map = task.spec.as_ref().is_some_and(|spec| spec.children.is_some());
        if !is_map || start > width || end > MAX_WIDTH || args.len() > EXTEND_CHUNK {
            return Extended::Refused;
        }
        let known = (width - start) as usize;
        let group = task.group.get_or_insert_with(Group::default);
        group.args.extend(args.iter().skip(known).cloned());
        let width = group.args.len() as u32;
        Step::new(self, now, effects).release(map);
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
            // a replayed run has children with results ahead of those that are still to be released
            if self.run.tasks.contains_key(&child) {
                continue;
            }
            self.run.tasks.insert(child.clone(), Task::waiting(None));
            if let Some(group) = self.run.tasks.get_mut(map).and_then(|task| task.group.as_mut()) {
                group.active += 1;
            }
            self.make_ready(&child);
        }
    }
}
