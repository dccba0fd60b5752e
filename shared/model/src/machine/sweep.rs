//! `sweep`: what happens when a time in the due index has come.

use std::collections::BTreeSet;

use crate::{
    effect::{Effects, What, reason},
    graph::Kind,
    id::{Ms, TaskId},
    limits::{MAX_LOST, REPUBLISH_CAP_MS, REPUBLISH_MS},
    run::{Failure, Keep, Run, RunStatus, TaskStatus},
};

use super::{Step, engine_error, republish_after, settle::Settle, sooner};

impl Run {
    /// Looks at the run itself: its deadline, or after its end its retention.
    pub fn look_at_run(&mut self, now: Ms, effects: &mut Effects) {
        if self.due == 0 || self.due > now {
            return;
        }
        if self.status.terminal() {
            let until = self.kept_until();
            effects.purge = until <= now;
            if until > now {
                self.due = until;
                effects.due.push(None);
            }
            return;
        }
        let failure = Failure { task: None, error: engine_error(reason::DEADLINE) };
        Step::new(self, now, effects).end_run(RunStatus::Failed, Some(failure));
    }

    /// Lets an ended run be forgotten at the next look, which is due now. Says whether it has ended.
    pub fn expire(&mut self, now: Ms, effects: &mut Effects) -> bool {
        if !self.status.terminal() {
            return false;
        }
        self.keep = Keep { ended: 0, failed: 0 };
        self.due = now;
        effects.due.push(None);
        true
    }

    /// Looks at a task whose due time may have come: publishes its hint again, starts its retry, takes it
    /// back from a lost attempt, closes its window or ends it at its deadline.
    pub fn look_at_task(&mut self, id: &TaskId, paused: &BTreeSet<String>, now: Ms, effects: &mut Effects) {
        let mut step = Step::new(self, now, effects);
        let over = step.run.status.terminal();
        let orphaned = step.orphaned(id);
        let kind = step.kind(id);
        let Some(task) = step.task(id) else { return };
        if task.due == 0 || task.due > now {
            return;
        }
        if over || task.status.terminal() {
            step.set_due(id, 0);
            return;
        }
        if orphaned {
            if task.status == TaskStatus::Running {
                // whoever still holds it is told that nobody needs its result
                task.token = None;
            }
            task.status = TaskStatus::Cancelled;
            task.ended_at = now;
            step.set_due(id, 0);
            step.leave_line(id);
            return;
        }
        let status = task.status;
        if task.deadline != 0 && task.deadline <= now {
            let window =
                task.spec.as_ref().and_then(|spec| spec.policy).filter(|policy| policy.within.is_some());
            let open = kind == Some(Kind::Join) || task.status == TaskStatus::Expanded;
            match window {
                Some(policy) if open => step.window_closed(id, policy.on_miss),
                _ => {
                    let limited = task.limited > 0;
                    let reason = if limited { reason::LIMITED_TIMEOUT } else { reason::TIMEOUT };
                    step.queue.push_back(Settle::cut(id.clone(), reason));
                }
            }
            return step.settle_all();
        }
        match status {
            TaskStatus::Ready if step.paused(id, paused) => step.hold(id),
            TaskStatus::Ready => {
                let Some(task) = step.task(id) else { return };
                task.republished += 1;
                let due = sooner(now + republish_after(task.republished), task.deadline);
                step.set_due(id, due);
                step.hint(id);
            }
            TaskStatus::Retrying => step.requeue(id),
            TaskStatus::Running => {
                let Some(task) = step.task(id) else { return };
                task.lost += 1;
                if task.lost >= MAX_LOST {
                    step.effects.quarantined.push(id.clone());
                    step.queue.push_back(Settle::cut(id.clone(), reason::POISON));
                    step.settle_all();
                } else {
                    step.log(What::TaskLost { task: id.clone() });
                    step.requeue(id);
                }
            }
            _ => {
                let due = step.task(id).map_or(0, |task| task.deadline);
                step.set_due(id, due);
            }
        }
    }

    /// The pool of `id` was resumed: publishes its hint again at once, where it is ready still.
    pub fn wake(&mut self, id: &TaskId, paused: &BTreeSet<String>, now: Ms, effects: &mut Effects) {
        let mut step = Step::new(self, now, effects);
        if step.run.status.terminal() || step.orphaned(id) || step.paused(id, paused) {
            return;
        }
        let Some(task) = step.task(id).filter(|task| task.status == TaskStatus::Ready) else { return };
        task.republished = 0;
        let due = sooner(now + REPUBLISH_MS, task.deadline);
        step.set_due(id, due);
        step.hint(id);
    }
}

impl Step<'_> {
    pub(super) fn paused(&self, id: &TaskId, paused: &BTreeSet<String>) -> bool {
        !paused.is_empty() && self.run.exec(id).is_some_and(|exec| paused.contains(&exec.pool))
    }

    /// A ready task waits for its pool to be resumed; nobody need look at it before, but for its deadline.
    pub(super) fn hold(&mut self, id: &TaskId) {
        let now = self.now;
        let Some(task) = self.task(id) else { return };
        let due = sooner(now + REPUBLISH_CAP_MS, task.deadline);
        self.set_due(id, due);
        self.effects.held.push(id.clone());
    }
}
