//! The transitions. Each takes the run, the operation and the store's time, changes the run in place and
//! says what must follow ([`Effects`]).
//!
//! Every function checks everything before it writes: its port to Lua has no rollback.

mod claim;
mod expand;
mod extend;
mod finish;
mod line;
mod replay;
mod settle;
mod sweep;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use crate::{
    effect::{Effects, Event, What},
    graph::Kind,
    id::{Ms, TaskId},
    limits::{MAX_OWNERS, REPUBLISH_CAP_MS, REPUBLISH_MS},
    op::{Cancelled, Hint, Submit},
    payload::Payload,
    run::{Run, RunStatus, Task, TaskStatus, Usage},
};

use settle::Settle;

/// One operation at work on a run.
pub(crate) struct Step<'a> {
    run: &'a mut Run,
    now: Ms,
    effects: &'a mut Effects,
    /// Tasks that reach their end in this step, first in first out.
    queue: VecDeque<Settle>,
}

/// The sooner of two times, where 0 means never.
pub(crate) fn sooner(a: Ms, b: Ms) -> Ms {
    match (a, b) {
        (0, other) | (other, 0) => other,
        _ => a.min(b),
    }
}

impl Run {
    /// Accepts `submit`: lays out the graph and makes the tasks without inputs ready.
    pub fn submit(submit: Submit, now: Ms, effects: &mut Effects) -> Self {
        let (order, tasks) = Self::lay_out(submit.graph);
        let deadline = submit.deadline.map_or(0, |limit| now.saturating_add(limit));
        let mut run = Self {
            id: submit.run,
            tenant: submit.caller.tenant,
            key: submit.caller.key,
            name: submit.name,
            fingerprint: submit.fingerprint,
            status: RunStatus::Running,
            created: now,
            ended: 0,
            deadline,
            keep: submit.keep,
            due: deadline,
            input: submit.input,
            budget: submit.budget,
            trace: submit.trace,
            usage: Usage::default(),
            wasted: Usage::default(),
            degraded: false,
            failure: None,
            replayed: false,
            order,
            added: Vec::new(),
            lines: BTreeMap::new(),
            tasks,
        };
        let roots: Vec<TaskId> = run.order.iter().filter(|id| run.tasks[*id].pending == 0).cloned().collect();
        if deadline != 0 {
            effects.due.push(None);
        }
        let mut step = Step::new(&mut run, now, effects);
        step.log(What::RunStarted { replay_of: None });
        for root in &roots {
            step.make_ready(root);
        }
        run
    }

    /// Whether `id` belongs to a map, or to an agent at any depth, that has ended: nobody needs it then.
    pub(crate) fn orphaned(&self, id: &TaskId) -> bool {
        if let Some(parent) = self.parent(id) {
            return self.tasks[&parent].status.terminal();
        }
        let owner = |id: &TaskId| self.tasks.get(id).and_then(|task| task.owner.clone());
        std::iter::successors(owner(id), owner).take(MAX_OWNERS).any(|id| self.tasks[&id].status.terminal())
    }

    /// Ends the run now. What is in flight is dropped; what comes later is told so.
    pub fn cancel(&mut self, now: Ms, effects: &mut Effects) -> Cancelled {
        if self.status.terminal() {
            return Cancelled::Ended;
        }
        Step::new(self, now, effects).end_run(RunStatus::Cancelled, None);
        Cancelled::Cancelled
    }
}

impl<'a> Step<'a> {
    pub(crate) fn new(run: &'a mut Run, now: Ms, effects: &'a mut Effects) -> Self {
        Self { run, now, effects, queue: VecDeque::new() }
    }

    fn task(&mut self, id: &TaskId) -> Option<&mut Task> {
        self.run.tasks.get_mut(id)
    }

    fn log(&mut self, what: What) {
        self.effects.log.push(Event { at: self.now, what });
    }

    /// Sets when somebody must look at `id` again; 0 for never.
    fn set_due(&mut self, id: &TaskId, due: Ms) {
        if let Some(task) = self.run.tasks.get_mut(id)
            && task.due != due
        {
            task.due = due;
            self.effects.due.push(Some(id.clone()));
        }
    }

    /// The inputs of `id` are there: it is ready, unless others come first at what it touches. The windows of joins
    /// behind it open.
    fn make_ready(&mut self, id: &TaskId) {
        if self.run.tasks.get(id).is_some_and(|task| task.resource.is_none()) || self.enter_line(id) {
            self.start_time(id);
        }
        let opens = self.run.tasks.get(id).map(|task| task.opens.clone()).unwrap_or_default();
        self.open_windows(&opens);
    }

    /// `id` is ready, and its time limit starts.
    fn start_time(&mut self, id: &TaskId) {
        let (now, timeout) = (self.now, self.time_limit(id));
        // a task's time ends with its agent's
        let owner = self.run.tasks.get(id).and_then(|task| task.owner.as_ref());
        let bound = owner.and_then(|owner| self.run.tasks.get(owner)).map_or(0, |owner| owner.deadline);
        let Some(task) = self.task(id) else { return };
        task.deadline = sooner(timeout.map_or(0, |limit| now.saturating_add(limit)), bound);
        self.requeue(id);
    }

    /// Ready again: after a retry, a lost lease or a release.
    fn requeue(&mut self, id: &TaskId) {
        let now = self.now;
        let Some(task) = self.task(id) else { return };
        task.status = TaskStatus::Ready;
        if task.ready_at != 0 && task.first_ready_at == 0 {
            task.first_ready_at = task.ready_at;
        }
        task.ready_at = now;
        task.republished = 0;
        task.token = None;
        let due = sooner(now + REPUBLISH_MS, task.deadline);
        self.set_due(id, due);
        self.hint(id);
    }

    fn hint(&mut self, id: &TaskId) {
        if let Some(exec) = self.run.exec(id) {
            let hint = Hint {
                run: self.run.id.clone(),
                task: id.clone(),
                pool: exec.pool.clone(),
                priority: exec.priority,
            };
            self.effects.hints.push(hint);
        }
    }

    /// How long `id` may take: its timeout, or of a map the window over its children.
    fn time_limit(&self, id: &TaskId) -> Option<Ms> {
        let own = self.run.tasks.get(id)?.spec.as_ref().and_then(|spec| spec.policy);
        own.and_then(|policy| policy.within).or(self.run.exec(id)?.timeout)
    }

    /// Starts the windows of joins that see their first input become ready or end.
    fn open_windows(&mut self, joins: &[TaskId]) {
        for join in joins {
            let (now, within) = (self.now, self.time_limit(join));
            let Some(task) = self.task(join) else { continue };
            if task.deadline == 0 && !task.status.terminal() {
                task.deadline = within.map_or(0, |limit| now.saturating_add(limit));
                let due = task.deadline;
                self.set_due(join, due);
            }
        }
    }

    fn end_run(&mut self, status: RunStatus, failure: Option<crate::run::Failure>) {
        self.run.status = status;
        self.run.ended = self.now;
        self.run.due = self.now + crate::limits::LINGER_MS;
        self.effects.due.push(None);
        self.effects.ended = true;
        self.log(match (status, &failure) {
            (RunStatus::Failed, Some(failure)) => {
                What::RunFailed { task: failure.task.clone(), error: failure.error.clone() }
            }
            (RunStatus::Cancelled, _) => What::RunCancelled {},
            _ => What::RunSucceeded {},
        });
        self.run.failure = failure;
        self.queue.clear();
    }

    fn orphaned(&self, id: &TaskId) -> bool {
        self.run.orphaned(id)
    }

    fn kind(&self, id: &TaskId) -> Option<Kind> {
        self.run.exec(id).map(|exec| exec.kind)
    }
}

/// How long to wait until a hint is published again, after `times` times.
pub(crate) fn republish_after(times: u32) -> Ms {
    REPUBLISH_MS.saturating_mul(1 << times.min(10)).min(REPUBLISH_CAP_MS)
}

fn engine_error(text: &'static str) -> Payload {
    Payload::from_json(bytes::Bytes::from_static(text.as_bytes()))
}
