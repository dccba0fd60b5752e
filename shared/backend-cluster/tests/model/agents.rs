//! What drives agents: tasks that attempts add, and runs whose agents wait for answers that never come.

use trireme_model::{Added, Complete, Extend, Kind, More, Outcome, RunId, Task, TaskId, TaskStatus};

use crate::{
    draw::Draw,
    world::{Held, Op, World},
};

fn owned(world: &World, held: &Held) -> bool {
    world.task(held).is_some_and(|task| task.owner.is_some())
}

/// Tasks that `held` might add: some are there already, and of those some belong to others.
fn added(world: &World, draw: &mut Draw, held: &Held) -> Vec<Added> {
    let Some((run, _)) = world.runs.get(&held.run) else { return Vec::new() };
    let owner = match world.task(held) {
        Some(Task { owner: Some(owner), .. }) if held.kind != Kind::Agent => owner,
        _ => &held.task,
    };
    let mine = |id: &&TaskId| run.tasks[*id].owner.as_ref() == Some(owner);
    let known: Vec<TaskId> = run.added.iter().filter(mine).cloned().collect();
    // what grows without end never comes to one
    let count = if run.added.len() > 60 { 1 } else { 1 + draw.below(4) };
    let count = if draw.chance(1) { 257 } else { count };
    draw.added(owner, &known, count)
}

/// The outcome of `held`, and the tasks that come with it.
pub fn outcome(world: &World, draw: &mut Draw, held: &Held) -> (Outcome, Vec<Added>) {
    let owned = owned(world, held);
    let (expanded, answer, adds) = match held.kind {
        Kind::Map => (85, 1, 1),
        Kind::Agent if owned => (60, 15, 75),
        Kind::Agent => (85, 1, 75),
        _ if owned => (1, 20, 30),
        _ => (1, 1, 1),
    };
    let outcome = match draw.below(100) {
        lot if lot < expanded => Outcome::Expanded,
        lot if lot < expanded + answer => {
            Outcome::Answer { value: draw.payload(), degraded: draw.chance(20) }
        }
        _ => Outcome::Result(draw.payload()),
    };
    (outcome, if draw.chance(adds) { added(world, draw, held) } else { Vec::new() })
}

/// Adds tasks to some agent.
pub fn extend(world: &World, draw: &mut Draw, any: Option<Held>) -> Option<Op> {
    let fits = |held: &&Held| (owned(world, held) || held.kind == Kind::Agent) && world.good(held);
    let fit: Vec<&Held> = world.held.iter().filter(fits).collect();
    let held = if draw.chance(95) { (*draw.pick(&fit)?).clone() } else { any? };
    let tasks = if draw.chance(98) { added(world, draw, &held) } else { Vec::new() };
    let Held { run, task, token, .. } = held;
    Some(Op::Extend(Extend { run, task, token, more: More::Tasks(tasks) }))
}

/// Lets some call say what it touches.
pub fn touch(world: &World, draw: &mut Draw, any: Option<Held>) -> Option<Op> {
    let fits = |held: &&Held| held.kind == Kind::Tool && world.good(held);
    let fit: Vec<&Held> = world.held.iter().filter(fits).collect();
    let Held { run, task, token, .. } = if draw.chance(90) { (*draw.pick(&fit)?).clone() } else { any? };
    let more = More::Resource(draw.resource(100).unwrap_or_default());
    Some(Op::Extend(Extend { run, task, token, more }))
}

/// Whether a complete carries a result that is put away first.
pub fn large(op: &Op) -> bool {
    let Op::Complete(Complete { outcome, .. }) = op else { return false };
    matches!(outcome, Outcome::Result(value) | Outcome::Answer { value, .. } if value.len() > 1_000)
}

/// A live run of which nothing is left that an attempt could do.
pub fn stuck(world: &World) -> Option<RunId> {
    use TaskStatus::{Ready, Retrying, Running};
    let at_work = |run: &RunId| {
        let mut tasks = world.runs[run].0.tasks.values();
        tasks.any(|task| matches!(task.status, Ready | Running | Retrying))
    };
    world.live().into_iter().find(|run| !at_work(run)).cloned()
}
