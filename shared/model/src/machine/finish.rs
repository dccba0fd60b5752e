//! `complete` and `fail`: the end of an attempt. First write wins, and only by the token that holds the task.

use crate::{
    effect::{Effects, What, reason},
    id::{Ms, TaskId, Token},
    limits::{BACKOFF_CAP_MS, MAX_LIMITED},
    op::{Assignment, Claim, Claimed, Complete, Completed, Fail, Failed, FailureClass, Hint, Next, Outcome},
    run::{Run, Task, TaskStatus, Usage},
};

use super::{Step, engine_error, settle::Settle, sooner};

/// Where the caller's token stands.
enum Holder {
    /// It holds the running task.
    Holds,
    /// It ended the task, or scheduled its retry, in an earlier call of the same operation.
    Held,
    Stale,
    Cancelled,
    Gone,
}

impl Run {
    /// Records an attempt's outcome and moves everything that waited for it.
    pub fn complete(
        &mut self,
        complete: &Complete,
        epoch: &str,
        now: Ms,
        effects: &mut Effects,
    ) -> Completed {
        let id = &complete.task;
        match self.holder(id, &complete.token, &complete.usage) {
            Holder::Holds => {}
            Holder::Held => {
                return Completed::Recorded { next: self.repeat_next(id, complete.next.as_ref(), now) };
            }
            Holder::Stale => return Completed::Stale,
            Holder::Cancelled => return Completed::Cancelled,
            Holder::Gone => return Completed::Gone,
        }
        self.usage.add(&complete.usage);
        let mut step = Step::new(self, now, effects);
        match &complete.outcome {
            Outcome::Result(result) => {
                if let Some(task) = step.task(id) {
                    task.result = Some(result.clone());
                }
                step.queue.push_back(Settle::succeeded(id.clone(), false));
            }
            Outcome::Expanded => {
                let Some(task) = step.task(id) else { return Completed::Gone };
                task.status = TaskStatus::Expanded;
                let (width, due) = (task.width(), task.deadline);
                step.set_due(id, due);
                step.log(What::TaskExpanded { task: id.clone(), width });
                step.check_join(id);
            }
        }
        step.settle_all();
        let next = complete.next.as_ref().and_then(|next| step.take_next(next, epoch));
        if let (Some(next), Some(task)) = (&next, self.tasks.get_mut(id)) {
            task.next = Some(next.task.clone());
        }
        Completed::Recorded { next }
    }

    /// Records an attempt's failure: schedules the next one, or ends the task.
    pub fn fail(&mut self, fail: &Fail, now: Ms, effects: &mut Effects) -> Failed {
        let id = &fail.task;
        match self.holder(id, &fail.token, &fail.usage) {
            Holder::Holds => {}
            Holder::Held => {
                let task = &self.tasks[id];
                let retrying = task.status == TaskStatus::Retrying;
                return if retrying { Failed::Retrying(task.due) } else { Failed::Ended };
            }
            Holder::Stale => return Failed::Stale,
            Holder::Cancelled => return Failed::Cancelled,
            Holder::Gone => return Failed::Gone,
        }
        self.usage.add(&fail.usage);
        let exec = self.exec(id).map(|exec| (exec.max_attempts, exec.backoff));
        let mut step = Step::new(self, now, effects);
        let Some((max_attempts, backoff)) = exec else { return Failed::Gone };
        let Some(task) = step.task(id) else { return Failed::Gone };
        let jitter = u64::from(fail.jitter.min(999));
        let wait = match fail.class {
            FailureClass::Released => {
                step.requeue(id);
                return Failed::Released;
            }
            FailureClass::Permanent => None,
            FailureClass::Retryable => {
                task.failures += 1;
                // full jitter: anywhere between none and the exponential bound
                let bound = backoff.saturating_mul(1 << (task.failures - 1).min(20)).min(BACKOFF_CAP_MS);
                (task.failures < max_attempts).then_some(bound * jitter / 1000)
            }
            FailureClass::RateLimited => {
                task.limited += 1;
                let bound = backoff.saturating_mul(1 << (task.limited - 1).min(20)).min(BACKOFF_CAP_MS);
                let spread = backoff.saturating_mul(jitter) / 1000;
                let wait = fail.retry_after.map_or(bound, |after| after.saturating_add(spread));
                if task.limited >= MAX_LIMITED {
                    step.queue.push_back(Settle::failed(id.clone(), engine_error(reason::LIMITED)));
                    step.settle_all();
                    return Failed::Ended;
                }
                Some(wait)
            }
        };
        let Some(wait) = wait else {
            step.queue.push_back(Settle::failed(id.clone(), fail.error.clone()));
            step.settle_all();
            return Failed::Ended;
        };
        task.status = TaskStatus::Retrying;
        let retry_at = sooner(now.saturating_add(wait.max(1)), task.deadline);
        step.set_due(id, retry_at);
        step.log(What::TaskRetrying { task: id.clone(), retry_at, error: fail.error.clone() });
        Failed::Retrying(retry_at)
    }

    /// Checks `token`; the cost of an attempt that comes too late is booked as wasted here.
    fn holder(&mut self, id: &TaskId, token: &Token, usage: &Usage) -> Holder {
        let Some(task) = self.tasks.get(id) else { return Holder::Gone };
        let (status, mine) = (task.status, task.token.as_ref() == Some(token));
        if mine && (status.terminal() && status != TaskStatus::Cancelled) {
            return Holder::Held;
        }
        if mine && matches!(status, TaskStatus::Retrying | TaskStatus::Expanded) {
            return Holder::Held;
        }
        let orphaned = self.parent(id).is_some_and(|parent| self.tasks[&parent].status.terminal());
        if self.status.terminal() || orphaned || status == TaskStatus::Cancelled {
            self.wasted.add(usage);
            return Holder::Cancelled;
        }
        if mine && status == TaskStatus::Running {
            return Holder::Holds;
        }
        self.wasted.add(usage);
        Holder::Stale
    }

    /// The successor that an earlier call of the same `complete` claimed.
    fn repeat_next(&self, id: &TaskId, next: Option<&Next>, now: Ms) -> Option<Box<Assignment>> {
        let next = next?;
        let claimed = self.tasks.get(id)?.next.as_ref()?;
        let task = self.tasks.get(claimed)?;
        let holds = task.status == TaskStatus::Running
            && task.token.as_ref().is_some_and(|token| token.claim() == next.claim);
        if self.status.terminal() || !holds {
            return None;
        }
        self.assignment(claimed, now, true).map(Box::new)
    }
}

impl Step<'_> {
    /// Claims the first task that became ready in this step and fits `next`, instead of publishing it.
    fn take_next(self, next: &Next, epoch: &str) -> Option<Box<Assignment>> {
        if self.run.status.terminal() {
            return None;
        }
        let now = self.now;
        // a deadline of now is the sweep's to act on, as in `claim`
        let takes = |hint: &Hint| {
            let late = |task: &Task| task.deadline != 0 && task.deadline <= now;
            next.pools.contains(&hint.pool) && self.run.tasks.get(&hint.task).is_some_and(|task| !late(task))
        };
        let at = self.effects.hints.iter().position(takes)?;
        let hint = self.effects.hints.remove(at);
        let claim = Claim { run: hint.run, task: hint.task, claim: next.claim.clone(), has_input: true };
        match self.start(&claim, epoch) {
            Claimed::Run(assignment) => Some(assignment),
            _ => None,
        }
    }
}
