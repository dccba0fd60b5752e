//! What each task waited for last. The view tells inputs; what an agent's task or a map's child waited for besides
//! is found here:
//!
//! - A transition is one step of the store, so a task becomes ready in the very millisecond in which its last input
//!   ends. A task whose inputs all ended earlier was added when it became ready.
//! - A task of an agent was added by the step that its id stands below (`a/step-0/call-1` by `a/step-0`), or else by
//!   the last step of the agent that had started by then.
//! - A task that waited for a resource became ready by the end of another task on the same one.
//! - A child of a map was released by the end of a sibling, if one ended in that millisecond, else by its map.

use std::collections::{HashMap, VecDeque};

use super::timeline::{Node, Timeline};
use crate::{graph::Kind, id::Ms};

/// Steps of an agent that are looked at to find the one that added a task: they follow each other, so the first or
/// second is the one.
const MAX_STEPS_BACK: usize = 64;

/// What was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The run's beginning.
    Run,
    /// The end of this task.
    End(usize),
    /// This task's attempt (of a join or a task that was never ready: its being there), up to this time.
    Attempt(usize, Ms),
}

/// What everything waited for.
pub(super) struct Causes {
    /// What made each task ready; of a join, what made it end.
    pub(super) start: Vec<Cause>,
    /// Of a map or an agent with tasks inside: what it waited for to end.
    pub(super) inside: Vec<Option<Cause>>,
    /// What the run waited for to end.
    pub(super) run: Cause,
    /// The step, or for a first task the agent, that added each task of an agent; of a child, its map or the sibling
    /// whose end released it.
    pub(super) adder: Vec<Option<usize>>,
    /// Which task on a resource ended when.
    freed: HashMap<(String, Ms), usize>,
}

impl Causes {
    pub(super) fn of(timeline: &Timeline) -> Self {
        let nodes = &timeline.nodes;
        let mut causes = Self {
            start: vec![Cause::Run; nodes.len()],
            inside: vec![None; nodes.len()],
            run: Cause::Run,
            adder: vec![None; nodes.len()],
            freed: HashMap::new(),
        };
        for (at, node) in nodes.iter().enumerate() {
            if let Some(resource) = &node.view.resource {
                causes.freed.insert((resource.clone(), node.end), at);
            }
        }
        for (at, node) in nodes.iter().enumerate() {
            if node.view.kind == Kind::Map {
                causes.release(timeline, at);
            } else if node.container() {
                causes.add(timeline, at);
            }
            causes.inside[at] = inside(timeline, node);
        }
        for at in 0..nodes.len() {
            causes.start[at] = causes.start_of(timeline, at);
        }
        causes.run = run_end(timeline);
        causes
    }

    /// Who released the children of `map`: a sibling's end releases the next one.
    fn release(&mut self, timeline: &Timeline, map: usize) {
        let children = &timeline.nodes[map].children;
        let mut ends: HashMap<Ms, VecDeque<usize>> = HashMap::new();
        for child in children {
            ends.entry(timeline.nodes[*child].end).or_default().push_back(*child);
        }
        for child in children {
            let there = timeline.nodes[*child].there();
            let freed = ends.get_mut(&there).and_then(|ended| {
                // children are released in order, so what freed the place stands before
                if ended.front()? < child { ended.pop_front() } else { None }
            });
            self.adder[*child] = Some(freed.unwrap_or(map));
        }
    }

    /// Who added the tasks of `agent`.
    fn add(&mut self, timeline: &Timeline, agent: usize) {
        let nodes = &timeline.nodes;
        let own = nodes[agent].view.id.as_str();
        let mut steps: Vec<usize> = Vec::new();
        for at in &nodes[agent].children {
            let node = &nodes[*at];
            // the ids between its own and its agent's, longest first
            let above =
                std::iter::successors(node.view.id.as_str().rsplit_once('/'), |(id, _)| id.rsplit_once('/'))
                    .map(|(id, _)| id)
                    .take_while(|id| id.len() > own.len())
                    .find_map(|id| timeline.index.get(id).copied())
                    .filter(|above| above < at && nodes[*above].parent == Some(agent));
            let begun = |step: &&usize| nodes[**step].started.is_some_and(|started| started <= node.there());
            let running = || {
                let back = steps.iter().rev().take(MAX_STEPS_BACK).filter(begun);
                back.copied().max_by_key(|step| nodes[*step].started)
            };
            self.adder[*at] = Some(above.or_else(running).unwrap_or(agent));
            if above.is_none() && node.view.kind == Kind::Llm && !node.condenses() {
                steps.push(*at);
            }
        }
    }

    fn start_of(&self, timeline: &Timeline, at: usize) -> Cause {
        let nodes = &timeline.nodes;
        let node = &nodes[at];
        let there = node.there();
        let came =
            node.inputs.iter().copied().filter(|input| !nodes[*input].cut && nodes[*input].end <= there);
        let latest = came.max_by_key(|input| nodes[*input].end);
        if let Some(input) = latest.filter(|input| nodes[*input].end == there) {
            return Cause::End(input);
        }
        let freed =
            node.view.resource.as_ref().and_then(|resource| self.freed.get(&(resource.clone(), there)));
        if let Some(before) = freed.filter(|before| **before != at) {
            return Cause::End(*before);
        }
        let adder = self.adder[at].filter(|adder| nodes[*adder].there() <= there);
        if let Some(adder) = adder {
            let by = &nodes[adder];
            if node.parent.is_some_and(|parent| nodes[parent].view.kind == Kind::Map) {
                let released = node.parent == Some(adder);
                return if released { Cause::Attempt(adder, there) } else { Cause::End(adder) };
            }
            // a join that still misses something waits for its window even while a step runs
            let missing = node.view.kind == Kind::Join
                && node.inputs.iter().any(|input| nodes[*input].cut || nodes[*input].end > there);
            if there == by.end || (there < by.end && !missing) {
                return Cause::Attempt(adder, there);
            }
        }
        let ended = adder.filter(|adder| nodes[*adder].end <= there && Some(*adder) != node.parent);
        if let Some(later) = latest.into_iter().chain(ended).max_by_key(|other| nodes[*other].end) {
            return Cause::End(later);
        }
        // a window that nothing came into opened when its first input was ready
        let open = node.inputs.iter().copied().filter(|input| nodes[*input].there() <= there);
        if let Some(first) = open.min_by_key(|input| nodes[*input].there()) {
            return Cause::Attempt(first, nodes[first].there());
        }
        adder.map_or(Cause::Run, |adder| Cause::Attempt(adder, there))
    }
}

/// The last task inside that ended by itself, up to the end of `node`; the one that gives an agent its answer is a
/// model's call.
fn last_ended(timeline: &Timeline, node: &Node) -> Option<usize> {
    let nodes = &timeline.nodes;
    let ended = node.children.iter().copied().filter(|at| !nodes[*at].cut && nodes[*at].end <= node.end);
    ended.max_by_key(|at| (nodes[*at].end, nodes[*at].view.kind == Kind::Llm, nodes[*at].started))
}

/// Of tasks that were open at `end` the one that was at it for longest; condensing goes on beside the others.
fn longest_open(timeline: &Timeline, among: impl Iterator<Item = usize>, end: Ms) -> Option<usize> {
    let nodes = &timeline.nodes;
    let open = among.filter(|at| nodes[*at].cut && nodes[*at].first_ready.is_some() && nodes[*at].end == end);
    open.min_by_key(|at| (nodes[*at].condenses(), nodes[*at].first_ready))
}

/// What a map or an agent waited for to end.
fn inside(timeline: &Timeline, node: &Node) -> Option<Cause> {
    let nodes = &timeline.nodes;
    let last = last_ended(timeline, node);
    let open = longest_open(timeline, node.children.iter().copied(), node.end);
    let answered = last.filter(|last| nodes[*last].end == node.end);
    if node.view.kind == Kind::Map && !node.cut {
        // a window over the children that none of them came into
        let opened = open.map(|open| Cause::Attempt(open, nodes[open].there()));
        return last.map(Cause::End).or(opened);
    }
    answered.or(open).or(last).map(Cause::End)
}

fn run_end(timeline: &Timeline) -> Cause {
    let nodes = &timeline.nodes;
    let output = timeline.output().filter(|at| !nodes[*at].cut && nodes[*at].end == timeline.wall);
    let top = || (0..nodes.len()).filter(|at| nodes[*at].parent.is_none());
    let open = || longest_open(timeline, top(), timeline.wall);
    let last = || top().filter(|at| !nodes[*at].cut).max_by_key(|at| nodes[*at].end);
    output.or_else(open).or_else(last).map_or(Cause::Run, Cause::End)
}
