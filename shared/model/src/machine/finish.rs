//! `complete` and `fail`: the end of an attempt. First write wins, and only by the token that holds the task.

use crate::{
    effect::{Effects, What, reason},
    graph::Kind,
    id::{Ms, TaskId, Token},
    limits::{BACKOFF_CAP_MS, MAX_ADDED, MAX_LIMITED},
    op::{
        Assignment, Claim, Claimed, Complete, Completed, Fail, Failed, FailureClass, Hint, Next, Outcome,
        Site,
    },
    payload::Payload,
    run::{Answer, Failure, Group, Run, RunStatus, Task, TaskStatus, Usage},
};

use super::{Step, engine_error, settle::Settle, sooner};

/// Where the caller's token stands.
enum Holder {
    /// It holds the running task.
    Holds,
    /// It ended or expanded the task in an earlier call of the same operation.
    Held,
    /// It does not hold the task; that is what it is told, this time or again.
    Told(Answer),
    Gone,
}

impl Run {
    /// Records an attempt's outcome and moves everything that waited for it.
    pub fn complete(
        &mut self,
        complete: &Complete,
        site: Site<'_>,
        now: Ms,
        effects: &mut Effects,
    ) -> Completed {
        let id = &complete.task;
        match self.holder(id, &complete.token, &complete.usage) {
            Holder::Holds => {}
            Holder::Held => {
                return Completed::Recorded { next: self.repeat_next(id, complete.next.as_ref(), now) };
            }
            Holder::Told(Answer::Cancelled) => return Completed::Cancelled,
            Holder::Told(_) => return Completed::Stale,
            Holder::Gone => return Completed::Gone,
        }
        let fits = match complete.outcome {
            Outcome::Result(_) => true,
            Outcome::Expanded => self.expands(id),
            Outcome::Answer { .. } => self.tasks[id].owner.is_some(),
        };
        if !fits || !self.can_add(id, &complete.tasks, MAX_ADDED) {
            return Completed::Refused;
        }
        self.usage.add(&complete.usage);
        let mut step = Step::new(self, now, effects);
        if let Some(task) = step.task(id) {
            task.first_token = complete.first_token.unwrap_or(0);
        }
        match &complete.outcome {
            Outcome::Result(value) | Outcome::Answer { value, .. } => {
                if let Some(task) = step.task(id) {
                    task.result = Some(value.clone());
                }
                step.queue.push_back(Settle::succeeded(id.clone(), false));
            }
            Outcome::Expanded => {
                let Some(task) = step.task(id) else { return Completed::Gone };
                task.status = TaskStatus::Expanded;
                // also of an agent, and of a map without children: that it was expanded
                task.group.get_or_insert_with(Group::default);
                let (width, due) = (task.width(), task.deadline);
                step.set_due(id, due);
                step.log(What::TaskExpanded { task: id.clone(), width });
                step.check_join(id);
            }
        }
        step.add(id, &complete.tasks);
        if let Outcome::Answer { value, degraded } = &complete.outcome {
            step.answer(id, value, *degraded);
        }
        step.settle_all();
        let next = complete.next.as_ref().and_then(|next| step.take_next(next, site));
        if let (Some(next), Some(task)) = (&next, self.tasks.get_mut(id)) {
            task.next = Some(next.task.clone());
        }
        Completed::Recorded { next }
    }

    /// Whether `id` is a map or an agent: anything else has nothing to wait for.
    fn expands(&self, id: &TaskId) -> bool {
        let spec = self.tasks.get(id).and_then(|task| task.spec.as_ref());
        spec.is_some_and(|spec| matches!(spec.exec.kind, Kind::Map | Kind::Agent))
    }

    /// Records an attempt's failure: schedules the next one, or ends the task.
    pub fn fail(&mut self, fail: &Fail, now: Ms, effects: &mut Effects) -> Failed {
        let id = &fail.task;
        match self.holder(id, &fail.token, &fail.usage) {
            Holder::Holds => {}
            Holder::Held => return Failed::Ended,
            Holder::Told(Answer::Retrying(at)) => return Failed::Retrying(at),
            Holder::Told(Answer::Released) => return Failed::Released,
            Holder::Told(Answer::Stale) => return Failed::Stale,
            Holder::Told(Answer::Cancelled) => return Failed::Cancelled,
            Holder::Gone => return Failed::Gone,
        }
        self.usage.add(&fail.usage);
        if self.deadline != 0 && self.deadline <= now {
            // the sweep would say so a moment later; whatever failed now failed for want of time
            return Step::new(self, now, effects).out_of_time(id, &fail.error);
        }
        let exec = self.exec(id).map(|exec| (exec.max_attempts, exec.backoff));
        let mut step = Step::new(self, now, effects);
        let Some((max_attempts, backoff)) = exec else { return Failed::Gone };
        let Some(task) = step.task(id) else { return Failed::Gone };
        let jitter = u64::from(fail.jitter.min(999));
        let wait = match fail.class {
            FailureClass::Released => {
                task.tell(fail.token.clone(), Answer::Released);
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
        let retry_at = sooner(now.saturating_add(wait.max(1)), task.deadline);
        (task.status, task.token) = (TaskStatus::Retrying, None);
        task.tell(fail.token.clone(), Answer::Retrying(retry_at));
        step.set_due(id, retry_at);
        step.log(What::TaskRetrying { task: id.clone(), retry_at, error: fail.error.clone() });
        Failed::Retrying(retry_at)
    }

    /// Checks `token`; the cost of an attempt that comes too late is booked as wasted here, once.
    fn holder(&mut self, id: &TaskId, token: &Token, usage: &Usage) -> Holder {
        let Some(task) = self.tasks.get(id) else { return Holder::Gone };
        let (status, mine) = (task.status, task.token.as_ref() == Some(token));
        if mine && (status.terminal() || status == TaskStatus::Expanded) {
            return Holder::Held;
        }
        if let Some(told) = task.told.iter().find(|told| told.token == *token) {
            return Holder::Told(told.answer);
        }
        let needed = !self.status.terminal() && !self.orphaned(id) && status != TaskStatus::Cancelled;
        if needed && mine && status == TaskStatus::Running {
            return Holder::Holds;
        }
        self.wasted.add(usage);
        let answer = if needed { Answer::Stale } else { Answer::Cancelled };
        if let Some(task) = self.tasks.get_mut(id) {
            task.tell(token.clone(), answer);
        }
        Holder::Told(answer)
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
    /// The attempt of `id` failed at or after the run's deadline, which ends the run.
    fn out_of_time(mut self, id: &TaskId, error: &Payload) -> Failed {
        let now = self.now;
        if let Some(task) = self.task(id) {
            (task.status, task.ended_at, task.error) = (TaskStatus::Failed, now, Some(error.clone()));
        }
        self.set_due(id, 0);
        self.log(What::TaskFailed { task: id.clone(), error: error.clone() });
        let failure = Failure { task: None, error: engine_error(reason::DEADLINE) };
        self.end_run(RunStatus::Failed, Some(failure));
        Failed::Ended
    }

    /// Claims the first task that became ready in this step and fits `next`, instead of publishing it.
    fn take_next(self, next: &Next, site: Site<'_>) -> Option<Box<Assignment>> {
        if self.run.status.terminal() {
            return None;
        }
        let now = self.now;
        // a deadline of now is the sweep's to act on, as in `claim`
        let takes = |hint: &Hint| {
            let late = |task: &Task| task.deadline != 0 && task.deadline <= now;
            next.pools.contains(&hint.pool)
                && !site.paused.contains(&hint.pool)
                && self.run.tasks.get(&hint.task).is_some_and(|task| !late(task))
                && !self.orphaned(&hint.task)
        };
        let at = self.effects.hints.iter().position(takes)?;
        let hint = self.effects.hints.remove(at);
        let claim = Claim { run: hint.run, task: hint.task, claim: next.claim.clone(), has_input: true };
        match self.start(&claim, site.epoch) {
            Claimed::Run(assignment) => Some(assignment),
            _ => None,
        }
    }
}
