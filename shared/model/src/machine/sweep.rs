//! `sweep`: what happens when a time in the due index has come.

use crate::{
    effect::{Effects, What, reason},
    graph::Kind,
    id::{Ms, TaskId},
    limits::MAX_LOST,
    run::{Failure, Run, RunStatus, TaskStatus},
};

use super::{Step, engine_error, republish_after, settle::Settle, sooner};

impl Run {
    /// Looks at the run itself: its deadline, or after its end its retention.
    pub fn look_at_run(&mut self, now: Ms, effects: &mut Effects) {
        if self.due == 0 || self.due > now {
            return;
        }
        if self.status.terminal() {
            effects.purge = true;
            return;
        }
        let failure = Failure { task: None, error: engine_error(reason::DEADLINE) };
        Step::new(self, now, effects).end_run(RunStatus::Failed, Some(failure));
    }

    /// Looks at a task whose due time may have come: publishes its hint again, starts its retry, takes it
    /// back from a lost attempt, closes its window or ends it at its deadline.
    pub fn look_at_task(&mut self, id: &TaskId, now: Ms, effects: &mut Effects) {
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
            task.status = TaskStatus::Cancelled;
            task.ended_at = now;
            step.set_due(id, 0);
            return;
        }
        if task.deadline != 0 && task.deadline <= now {
            let window =
                task.spec.as_ref().and_then(|spec| spec.policy).filter(|policy| policy.within.is_some());
            let open = kind == Some(Kind::Join) || task.status == TaskStatus::Expanded;
            match window {
                Some(policy) if open => step.window_closed(id, policy.on_miss),
                _ => step.queue.push_back(Settle::cut(id.clone(), reason::TIMEOUT)),
            }
            return step.settle_all();
        }
        match task.status {
            TaskStatus::Ready => {
                task.republished += 1;
                let due = sooner(now + republish_after(task.republished), task.deadline);
                step.set_due(id, due);
                step.hint(id);
            }
            TaskStatus::Retrying => step.requeue(id),
            TaskStatus::Running => {
                task.lost += 1;
                if task.lost >= MAX_LOST {
                    step.queue.push_back(Settle::cut(id.clone(), reason::POISON));
                    step.settle_all();
                } else {
                    step.log(What::TaskLost { task: id.clone() });
                    step.requeue(id);
                }
            }
            _ => {
                let due = task.deadline;
                step.set_due(id, due);
            }
        }
    }
}
