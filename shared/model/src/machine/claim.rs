//! `claim` and `renew`: who owns a task, and for how long.

use crate::{
    effect::{Effects, What, reason},
    id::{Ms, TaskId, Token},
    limits::LEASE_MS,
    op::{Assignment, Claim, Claimed, Renew, Renewed, Site},
    run::{Run, TaskStatus},
};

use super::{Step, settle::Settle, sooner};

impl Run {
    /// Hands `claim.task` to the caller if it is ready. A repeat with the same claim id gets the same answer.
    pub fn claim(&mut self, claim: &Claim, site: Site<'_>, now: Ms, effects: &mut Effects) -> Claimed {
        let Some(task) = self.tasks.get(&claim.task) else { return self.claim_missing(&claim.task) };
        let status = task.status;
        let repeat = task.token.as_ref().is_some_and(|token| token.claim() == claim.claim);
        let late = task.deadline != 0 && task.deadline <= now;
        let mut step = Step::new(self, now, effects);
        if step.run.status.terminal() || (!status.terminal() && step.orphaned(&claim.task)) {
            return Claimed::Cancelled;
        }
        match status {
            TaskStatus::Running if repeat => {}
            TaskStatus::Running => return Claimed::Busy,
            // past its limit: the sweep, which is due, ends it
            TaskStatus::Ready if late => return Claimed::NotReady,
            TaskStatus::Ready if step.paused(&claim.task, site.paused) => {
                step.hold(&claim.task);
                return Claimed::Paused;
            }
            TaskStatus::Ready => return step.start(claim, site.epoch),
            status if status.terminal() => return Claimed::Done,
            _ => return Claimed::NotReady,
        }
        self.assignment(&claim.task, now, claim.has_input)
            .map_or(Claimed::Gone, |assignment| Claimed::Run(Box::new(assignment)))
    }

    /// A child that does not exist yet is not ready; of anything else there is no trace.
    fn claim_missing(&self, id: &TaskId) -> Claimed {
        let Some(parent) = self.parent(id) else { return Claimed::Gone };
        if self.status.terminal() || self.tasks[&parent].status.terminal() {
            return Claimed::Cancelled;
        }
        Claimed::NotReady
    }

    /// Extends the lease of the attempt that holds `renew.token`.
    pub fn renew(&mut self, renew: &Renew, now: Ms, effects: &mut Effects) -> Renewed {
        let mut step = Step::new(self, now, effects);
        if step.run.status.terminal() || step.orphaned(&renew.task) {
            return Renewed::Cancelled;
        }
        let Some(task) = step.task(&renew.task) else { return Renewed::Lost };
        if task.status == TaskStatus::Cancelled {
            return Renewed::Cancelled;
        }
        if task.status != TaskStatus::Running || task.token.as_ref() != Some(&renew.token) {
            return Renewed::Lost;
        }
        let due = sooner(now + LEASE_MS, task.deadline);
        step.set_due(&renew.task, due);
        Renewed::Held
    }

    /// What the holder of `id` needs to execute it.
    pub(crate) fn assignment(&self, id: &TaskId, now: Ms, has_input: bool) -> Option<Assignment> {
        let task = self.tasks.get(id)?;
        let exec = self.exec(id)?;
        let parent = self.parent(id);
        let spec = self.tasks.get(parent.as_ref().unwrap_or(id))?.spec.as_ref()?;
        let arg = match (&parent, id.split_child()) {
            (Some(parent), Some((_, index))) => {
                self.tasks[parent].group.as_ref().and_then(|group| group.args.get(index as usize)).cloned()
            }
            _ => None,
        };
        Some(Assignment {
            run: self.id.clone(),
            task: id.clone(),
            kind: exec.kind,
            pool: exec.pool.clone(),
            priority: exec.priority,
            token: task.token.clone()?,
            attempt: task.attempt,
            max_attempts: exec.max_attempts,
            now,
            deadline: sooner(task.deadline, self.deadline),
            ready_at: task.ready_at,
            body: spec.body.clone(),
            arg,
            inputs: spec.inputs.clone(),
            owner: parent.or_else(|| task.owner.clone()),
            left: task.owner.is_some().then(|| self.budget.left(&self.usage)),
            input: (!has_input).then(|| self.input.clone()),
            trace: self.trace.filter(|_| !has_input),
        })
    }
}

impl Step<'_> {
    /// Starts the next attempt of a ready task.
    pub(super) fn start(mut self, claim: &Claim, epoch: &str) -> Claimed {
        let (id, now) = (&claim.task, self.now);
        if self.run.exec(id).is_some_and(|exec| exec.paid) && self.run.budget.spent(&self.run.usage) {
            self.queue.push_back(Settle::cut(id.clone(), reason::BUDGET));
            self.settle_all();
            return Claimed::Done;
        }
        let Some(task) = self.task(id) else { return Claimed::Gone };
        task.attempt += 1;
        task.status = TaskStatus::Running;
        task.token = Some(Token::new(epoch, task.attempt, &claim.claim));
        task.started_at = now;
        let (attempt, due) = (task.attempt, sooner(now + LEASE_MS, task.deadline));
        self.set_due(id, due);
        self.log(What::TaskStarted { task: id.clone(), attempt });
        self.run
            .assignment(id, now, claim.has_input)
            .map_or(Claimed::Gone, |assignment| Claimed::Run(Box::new(assignment)))
    }
}
