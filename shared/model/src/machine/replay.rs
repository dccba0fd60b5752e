//! A failed run once more: a new run that has everything the old one recorded and does again only what its output
//! still needs. The old run stays as it ended, so that each run has one end (invariant 10).

use std::collections::{BTreeMap, HashSet};

use crate::{
    effect::{Effects, What},
    graph::Kind,
    id::{InvalidId, KeyId, Ms, TaskId},
    limits::MAX_LOST,
    run::{Group, Run, RunStatus, Task, TaskStatus, Usage},
    view::DeadLetter,
};

use super::{Step, sooner};

impl Run {
    /// The run that replays this one, which must have failed; it counts for `key`, whoever's this one is. Its id is a
    /// function of this one's, so that a repeat means the same run.
    ///
    /// Kept as they are, with the time of the replay: every result, and every other end that the output does not
    /// need. Begun anew, with all their attempts: tasks that the output needs and that have no result; of a map only
    /// the children without one. What is left of the budget is the new run's budget.
    ///
    /// # Errors
    /// The id would be longer than ids may be.
    pub fn replay(&self, key: Option<KeyId>, now: Ms, effects: &mut Effects) -> Result<Self, InvalidId> {
        let again = self.needed_again();
        let deadline = if self.deadline == 0 { 0 } else { now + self.deadline.saturating_sub(self.created) };
        let mut run = Self {
            id: self.id.next_replay()?,
            key,
            status: RunStatus::Running,
            created: now,
            ended: 0,
            deadline,
            due: deadline,
            budget: self.budget.left(&self.usage),
            usage: Usage::default(),
            wasted: Usage::default(),
            degraded: false,
            failure: None,
            replayed: false,
            // spans of the old run's trace have their ids by now
            trace: None,
            lines: BTreeMap::new(),
            tasks: self.tasks.iter().map(|(id, task)| (id.clone(), kept(task, now))).collect(),
            ..self.clone()
        };
        for id in &again {
            run.begin_anew(id);
        }
        run.degraded = run.tasks.values().any(|task| task.degraded);
        if deadline != 0 {
            effects.due.push(None);
        }
        let ids: Vec<TaskId> =
            run.order.iter().chain(&run.added).filter(|id| again.contains(*id)).cloned().collect();
        let old = self.id.clone();
        let mut step = Step::new(&mut run, now, effects);
        step.log(What::RunStarted { replay_of: Some(old) });
        // owners stand before what they own, whose time ends with theirs
        for id in &ids {
            step.take_up(id);
        }
        step.settle_all();
        Ok(run)
    }

    /// Tasks in quarantine, with the map's children among them.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        let dead = self.tasks.iter().filter(|(_, task)| task.lost >= MAX_LOST);
        dead.map(|(id, task)| self.dead_letter(id, task)).collect()
    }

    /// What is told of a task in quarantine.
    pub fn dead_letter(&self, id: &TaskId, task: &Task) -> DeadLetter {
        let exec = self.exec(id);
        DeadLetter {
            run_id: self.id.clone(),
            task: id.clone(),
            run_name: self.name.clone(),
            run_status: self.status,
            tenant: self.tenant.clone(),
            kind: exec.map_or(Kind::Tool, |exec| exec.kind),
            pool: exec.map_or_else(String::new, |exec| exec.pool.clone()),
            quarantined_ms: task.ended_at,
            starts: task.attempt,
        }
    }

    /// Tasks without a result that the output needs, from the output backwards.
    fn needed_again(&self) -> HashSet<TaskId> {
        let (mut again, mut look) = (HashSet::new(), vec![self.output()]);
        while let Some(id) = look.pop() {
            let Some((id, task)) = self.tasks.get_key_value(id) else { continue };
            if task.status == TaskStatus::Succeeded || !again.insert(id.clone()) {
                continue;
            }
            let Some(spec) = &task.spec else { continue };
            look.extend(&spec.inputs);
            // what its attempts asked for by the way, it would only find again
            look.extend(&task.added);
            if spec.exec.kind == Kind::Agent {
                look.extend(self.added.iter().filter(|other| {
                    let other = &self.tasks[*other];
                    other.vital && other.owner.as_ref() == Some(id)
                }));
            }
        }
        again
    }

    /// Sets `id` back to where it waited for its inputs, as far as these have no result.
    fn begin_anew(&mut self, id: &TaskId) {
        let Some(task) = self.tasks.get(id) else { return };
        let inputs = task.spec.as_ref().map_or(&[][..], |spec| &spec.inputs);
        let missing =
            inputs.iter().filter(|input| self.tasks[*input].status != TaskStatus::Succeeded).count();
        let (missing, all) = (missing as u32, inputs.len() as u32);
        let join = self.kind_of(id) == Some(Kind::Join);
        let mut fresh = Task {
            owner: task.owner.clone(),
            vital: task.vital,
            resource: task.resource.clone(),
            added: task.added.clone(),
            successors: task.successors.clone(),
            opens: task.opens.clone(),
            pending: if join { all } else { missing },
            done: if join { all - missing } else { 0 },
            ..Task::waiting(task.spec.clone())
        };
        if let Some(group) = &task.group {
            let args = group.args.clone();
            let children: Vec<TaskId> = (0..args.len() as u32).map(|index| id.child(index)).collect();
            let good = |child: &TaskId| {
                self.tasks.get(child).is_some_and(|child| child.status == TaskStatus::Succeeded)
            };
            let next = children.iter().position(|child| !good(child)).unwrap_or(children.len()) as u32;
            fresh.done = children.iter().filter(|child| good(child)).count() as u32;
            // those without a result are released again as if they had never been
            let lost: Vec<TaskId> = children.into_iter().filter(|child| !good(child)).collect();
            lost.iter().for_each(|child| drop(self.tasks.remove(child)));
            fresh.group = Some(Group { args, next, active: 0 });
        }
        self.tasks.insert(id.clone(), fresh);
    }

    fn kind_of(&self, id: &TaskId) -> Option<Kind> {
        self.exec(id).map(|exec| exec.kind)
    }
}

/// A task as a new run has it from the start: what it recorded, without its history.
fn kept(task: &Task, now: Ms) -> Task {
    let then = |time: Ms| if time == 0 { 0 } else { now };
    let open = !task.status.terminal();
    Task {
        // what nobody needs any more would be cancelled when it is next looked at
        status: if open { TaskStatus::Cancelled } else { task.status },
        attempt: 0,
        failures: 0,
        limited: 0,
        lost: 0,
        republished: 0,
        token: None,
        told: Vec::new(),
        deadline: 0,
        ready_at: then(task.ready_at),
        first_ready_at: 0,
        started_at: then(task.started_at),
        first_token: 0,
        ended_at: now,
        due: 0,
        next: None,
        ..task.clone()
    }
}

impl Step<'_> {
    /// Lets a task that was set back go on: its inputs, and what is inside of it, may have ended before.
    fn take_up(&mut self, id: &TaskId) {
        let now = self.now;
        let Some(task) = self.run.tasks.get(id) else { return };
        let (kind, pending, expanded) = (self.kind(id), task.pending, task.group.is_some());
        if kind == Some(Kind::Join) {
            let timed = task.spec.as_ref().and_then(|spec| spec.policy).is_some_and(|p| p.within.is_some());
            let inputs = task.spec.as_ref().map_or_else(Vec::new, |spec| spec.inputs.clone());
            let there = |input: &TaskId| {
                let input = &self.run.tasks[input];
                input.status != TaskStatus::Waiting || input.queued()
            };
            if timed && inputs.iter().any(there) {
                self.open_windows(std::slice::from_ref(id));
            }
            self.check_join(id);
            return;
        }
        if pending > 0 {
            return;
        }
        if kind == Some(Kind::Agent) && expanded {
            // it has handed over its first tasks: these are at work, or about to be
            let limit = self.time_limit(id).map_or(0, |limit| now.saturating_add(limit));
            let owner = self.run.tasks[id].owner.as_ref().and_then(|owner| self.run.tasks.get(owner));
            let deadline = sooner(limit, owner.map_or(0, |owner| owner.deadline));
            let opens = self.run.tasks[id].opens.clone();
            if let Some(task) = self.task(id) {
                (task.status, task.deadline) = (TaskStatus::Expanded, deadline);
                (task.ready_at, task.started_at) = (now, now);
            }
            self.set_due(id, deadline);
            self.log(What::TaskExpanded { task: id.clone(), width: 0 });
            self.open_windows(&opens);
            return;
        }
        self.make_ready(id);
        if kind == Some(Kind::Map) {
            self.release(id);
        }
    }
}
