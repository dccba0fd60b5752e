//! The rules that a run's times followed, so that they can be followed again with other durations (what if) and
//! backwards (slack).
//!
//! Each task has two events: it is there (ready; of a join: added), and it ends. Queue waits, retries, windows and
//! the engine's own time stay as they were. A join or map that took k results takes the first k.

mod order;
mod slack;

use super::{
    cause::{Cause, Causes},
    timeline::{Node, Timeline},
};
use crate::{graph::Kind, id::Ms};

/// What a task waits for to be there.
#[derive(Clone, Copy)]
enum Gate {
    /// The end of a task.
    End(usize),
    /// This long after a task was there that adds it while it runs.
    Attempt(usize, Ms),
}

/// How a task ends.
enum Rule {
    /// As long after it is there as it was.
    Lasts,
    /// This long after the end of another task.
    Follows(usize, Ms),
    /// This long after the first `k` of `among` have ended.
    Takes { k: usize, after: Ms },
    /// This long after its window opened, or when all of its inputs are there.
    Window(Ms),
}

struct Task {
    gates: Vec<Gate>,
    /// From the last gate until it is there.
    lag: Ms,
    rule: Rule,
    /// The inputs or children that a join or map may take: those that ended by themselves.
    among: Vec<usize>,
}

/// One of a task's two events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    There(usize),
    End(usize),
}

/// The rules of one run.
pub(super) struct Schedule<'a> {
    timeline: &'a Timeline<'a>,
    tasks: Vec<Task>,
    /// Every event, behind what it waits for.
    order: Vec<Event>,
}

/// When everything happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) there: Vec<Ms>,
    pub(super) end: Vec<Ms>,
}

impl<'a> Schedule<'a> {
    pub(super) fn of(timeline: &'a Timeline<'a>, causes: &Causes) -> Self {
        let nodes = &timeline.nodes;
        let mut observed = Times {
            there: nodes.iter().map(Node::there).collect(),
            end: nodes.iter().map(|node| node.end).collect(),
        };
        // how far into its adder the last task was added, by adder
        let mut added = vec![0; nodes.len()];
        let mut schedule = Self { timeline, tasks: Vec::with_capacity(nodes.len()), order: Vec::new() };
        for (at, node) in nodes.iter().enumerate() {
            let gates = gates(timeline, causes, at, &mut added);
            let last = gates.iter().map(|gate| schedule.gate(&observed, *gate, same)).max();
            if merges(node) {
                // a join is there once it was added; when it ends is its rule's matter
                observed.there[at] = last.unwrap_or(0).min(node.end);
            }
            let lag = observed.there[at].saturating_sub(last.unwrap_or(0));
            let (rule, among) = rule(timeline, causes, at, &observed);
            schedule.tasks.push(Task { gates, lag, rule, among });
        }
        schedule.order = schedule.sorted();
        schedule
    }

    /// When everything happens if the last attempt of each task, or a part of it, takes what `takes` makes of the time
    /// that it took.
    pub(super) fn follow(&self, takes: impl Fn(usize, Ms) -> Ms) -> Times {
        let nodes = &self.timeline.nodes;
        let mut times = Times {
            there: nodes.iter().map(Node::there).collect(),
            end: nodes.iter().map(|node| node.end).collect(),
        };
        let mut scratch = Vec::new();
        for event in &self.order {
            match *event {
                Event::There(at) => {
                    let task = &self.tasks[at];
                    let gate = |gate: &Gate| self.gate(&times, *gate, &takes);
                    times.there[at] = task.gates.iter().map(gate).max().unwrap_or(0) + task.lag;
                }
                Event::End(at) => times.end[at] = self.end(&times, at, &takes, &mut scratch),
            }
        }
        times
    }

    fn gate(&self, times: &Times, gate: Gate, takes: impl Fn(usize, Ms) -> Ms) -> Ms {
        match gate {
            Gate::End(at) => times.end[at],
            Gate::Attempt(at, offset) => {
                let waited = self.timeline.nodes[at].waited().min(offset);
                times.there[at] + waited + takes(at, offset - waited)
            }
        }
    }

    fn end(&self, times: &Times, at: usize, takes: impl Fn(usize, Ms) -> Ms, scratch: &mut Vec<Ms>) -> Ms {
        let (node, task, there) = (&self.timeline.nodes[at], &self.tasks[at], times.there[at]);
        let ends = |of: &[usize]| of.iter().map(|input| times.end[*input]).max();
        match task.rule {
            Rule::Lasts => {
                let ran = node.started.map_or(0, |started| node.end - started);
                there + (node.end - node.there() - ran) + takes(at, ran)
            }
            Rule::Follows(other, after) => times.end[other] + after,
            Rule::Takes { k, after } => {
                scratch.clear();
                scratch.extend(task.among.iter().map(|input| times.end[*input]));
                let nth =
                    k.min(scratch.len()).checked_sub(1).map_or(0, |nth| *scratch.select_nth_unstable(nth).1);
                nth.max(there) + after
            }
            Rule::Window(window) => {
                let closes = opens(self.timeline, times, at) + window;
                let all = task.among.len() == node.awaits().len();
                ends(&task.among).filter(|_| all).map_or(closes, |end| end.max(there).min(closes))
            }
        }
    }
}

/// As it was.
fn same(_: usize, time: Ms) -> Ms {
    time
}

/// A join that fired or failed: it is never ready.
fn merges(node: &Node) -> bool {
    node.view.kind == Kind::Join && node.first_ready.is_none() && !node.cut
}

/// When the window of a join or map opens: a map's when it is ready, a join's when it was added and the first of its
/// inputs is ready, or has ended if it never is.
fn opens(timeline: &Timeline, times: &Times, at: usize) -> Ms {
    let (node, there) = (&timeline.nodes[at], times.there[at]);
    if node.view.kind == Kind::Map {
        return there;
    }
    let first = node.inputs.iter().map(|input| begins(timeline, times, *input)).min();
    first.map_or(there, |first| first.max(there))
}

/// When an input opens the window of its join.
fn begins(timeline: &Timeline, times: &Times, input: usize) -> Ms {
    if merges(&timeline.nodes[input]) { times.end[input] } else { times.there[input] }
}

fn gates(timeline: &Timeline, causes: &Causes, at: usize, added: &mut [Ms]) -> Vec<Gate> {
    let nodes = &timeline.nodes;
    let (node, there) = (&nodes[at], nodes[at].there());
    let ended = |input: &&usize| !nodes[**input].cut && nodes[**input].end <= there;
    let mut gates: Vec<Gate> = Vec::new();
    if !merges(node) {
        gates.extend(node.inputs.iter().filter(ended).map(|input| Gate::End(*input)));
    }
    let Some(adder) = causes.adder[at].filter(|adder| nodes[*adder].there() <= there) else { return gates };
    let by = &nodes[adder];
    let map = node.parent.is_some_and(|parent| nodes[parent].view.kind == Kind::Map);
    // a turn's join and the next step are added with the step's result, calls while it runs
    let turn = by.end <= there && (node.view.kind == Kind::Join || !below(node, by));
    if node.parent != Some(adder) && (map || turn) {
        gates.push(Gate::End(adder));
        return gates;
    }
    if let Cause::Attempt(cause, time) = causes.start[at]
        && cause == adder
    {
        added[adder] = time.saturating_sub(by.there());
    }
    // a task that waited for its inputs was added no earlier than the one before it
    gates.push(Gate::Attempt(adder, added[adder].min(there - by.there())));
    gates
}

/// Whether the id of `node` stands below that of `other`.
fn below(node: &Node, other: &Node) -> bool {
    let rest = node.view.id.as_str().strip_prefix(other.view.id.as_str());
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// How `at` ends, and among what it chooses.
fn rule(timeline: &Timeline, causes: &Causes, at: usize, observed: &Times) -> (Rule, Vec<usize>) {
    let nodes = &timeline.nodes;
    let node = &nodes[at];
    if merges(node) || (node.view.kind == Kind::Map && !node.cut && !node.children.is_empty()) {
        let among: Vec<usize> = node.awaits().iter().copied().filter(|input| !nodes[*input].cut).collect();
        let took = || among.iter().map(|input| nodes[*input].end).filter(|end| *end <= node.end);
        let added = observed.there[at];
        let last = took().max().map_or(added, |last| last.max(added));
        let missing = node.awaits().len() > took().count();
        let rule = if missing && last < node.end {
            Rule::Window(node.end.saturating_sub(opens(timeline, observed, at)))
        } else {
            Rule::Takes { k: took().count(), after: node.end.saturating_sub(last) }
        };
        return (rule, among);
    }
    match causes.inside[at] {
        Some(Cause::End(last)) if node.end >= nodes[last].end => {
            (Rule::Follows(last, node.end - nodes[last].end), Vec::new())
        }
        _ => (Rule::Lasts, Vec::new()),
    }
}
