//! A run's tasks on one clock: ms since the run was accepted, each time within the run's, its owner's and its
//! map's, and in the order in which it must have come.

use std::collections::HashMap;

use super::{CONDENSE, Category};
use crate::{
    graph::Kind,
    id::Ms,
    run::TaskStatus,
    view::{RunView, TaskView},
};

/// A run on its own clock.
pub(super) struct Timeline<'a> {
    /// Its tasks, in the order of the view: owners and maps before what is inside them.
    pub(super) nodes: Vec<Node<'a>>,
    /// When it ended; of a run that goes on, the last time that is known.
    pub(super) wall: Ms,
    /// Where each task stands in `nodes`.
    pub(super) index: HashMap<&'a str, usize>,
}

/// One task.
pub(super) struct Node<'a> {
    pub(super) view: &'a TaskView,
    /// The tool or model; a map's children have their map's.
    pub(super) label: &'a str,
    /// The agent or map that it is inside of.
    pub(super) parent: Option<usize>,
    /// What is inside this agent or map.
    pub(super) children: Vec<usize>,
    pub(super) inputs: Vec<usize>,
    /// When it first became ready; a join and a task that was skipped never did.
    pub(super) first_ready: Option<Ms>,
    pub(super) ready: Ms,
    /// When its last attempt was claimed, if that came after it was last ready.
    pub(super) started: Option<Ms>,
    /// When it ended, or was ended by what it is inside of.
    pub(super) end: Ms,
    /// It did not come to an end of its own: it was cancelled, or is still open.
    pub(super) cut: bool,
}

/// What a task did from one time to another.
pub(super) type Phase = (Category, Ms, Ms);

impl<'a> Timeline<'a> {
    pub(super) fn of(run: &'a RunView) -> Self {
        let known = run.tasks.iter().flat_map(|task| {
            [task.first_ready_ms, task.ready_ms, task.started_ms, task.ended_ms].into_iter().flatten()
        });
        let until = run.ended_ms.or_else(|| known.max()).unwrap_or(run.created_ms);
        let wall = until.saturating_sub(run.created_ms);
        let clock = |time: Ms| time.saturating_sub(run.created_ms).min(wall);
        let index: HashMap<&str, usize> =
            run.tasks.iter().enumerate().map(|(at, task)| (task.id.as_str(), at)).collect();
        let mut nodes: Vec<Node> = Vec::with_capacity(run.tasks.len());
        for (at, view) in run.tasks.iter().enumerate() {
            let map = || view.id.split_child().map(|(map, _)| map);
            let parent = view.owner.as_ref().map(|owner| owner.as_str()).or_else(map);
            // what stands later can't be a parent: the view puts parents first
            let parent = parent.and_then(|id| index.get(id).copied()).filter(|parent| {
                *parent < at && (view.owner.is_some() || nodes[*parent].view.kind == Kind::Map)
            });
            let (bound, inherited) = parent.map_or((wall, ""), |parent| {
                nodes[parent].children.push(at);
                (nodes[parent].end, nodes[parent].label)
            });
            let first_ready = view.first_ready_ms.or(view.ready_ms).map(|time| clock(time).min(bound));
            let begun = first_ready.unwrap_or(0);
            let end = view.ended_ms.map_or(bound, clock).min(bound).max(begun);
            let ready = view.ready_ms.map_or(begun, clock).clamp(begun, end);
            // an attempt from before it was last ready is over
            let started =
                view.started_ms.filter(|started| view.ready_ms.is_none_or(|ready| *started >= ready));
            let map_child = view.owner.is_none() && parent.is_some();
            nodes.push(Node {
                view,
                label: if view.label.is_empty() && map_child { inherited } else { &view.label },
                parent,
                children: Vec::new(),
                inputs: view.inputs.iter().filter_map(|id| index.get(id.as_str()).copied()).collect(),
                first_ready,
                ready,
                started: started.filter(|_| first_ready.is_some()).map(|time| clock(time).clamp(ready, end)),
                end,
                cut: view.status == TaskStatus::Cancelled || !view.status.terminal(),
            });
        }
        Self { nodes, wall, index }
    }

    /// The run's output: the last task that is inside of nothing.
    pub(super) fn output(&self) -> Option<usize> {
        self.nodes.iter().rposition(|node| node.parent.is_none())
    }
}

impl Node<'_> {
    /// A map or an agent: others work while it is expanded.
    pub(super) fn container(&self) -> bool {
        matches!(self.view.kind, Kind::Map | Kind::Agent)
    }

    pub(super) fn condenses(&self) -> bool {
        self.view.kind == Kind::Llm && self.label == CONDENSE
    }

    /// What a join or a map merges.
    pub(super) fn awaits(&self) -> &[usize] {
        if self.view.kind == Kind::Map { &self.children } else { &self.inputs }
    }

    /// When it was there to be waited for: ready, or for what never is, at its end.
    pub(super) fn there(&self) -> Ms {
        self.first_ready.unwrap_or(self.end)
    }

    /// From first ready to its claim.
    pub(super) fn waited(&self) -> Ms {
        self.started.map_or(0, |started| started - self.there())
    }

    /// What its attempts did; of a map or an agent, as if nothing else had been at work.
    pub(super) fn phases(&self) -> impl Iterator<Item = Phase> {
        let (end, first) = (self.end, self.there());
        let mut phases = [None; 4];
        if self.view.status == TaskStatus::Retrying {
            // the attempt that it started last has failed
            phases[0] = Some((Category::Retry, first, end));
        } else if self.first_ready.is_some() {
            let started = self.started.unwrap_or(end);
            phases[0] = Some((Category::Retry, first, self.ready));
            phases[1] = Some((Category::Queue, self.ready, started));
            let token = self.view.first_token_ms.map_or(end, |ms| started.saturating_add(ms).min(end));
            phases[2] = Some((self.works(), started, end));
            if self.works() == Category::FirstToken {
                phases[2] = Some((Category::FirstToken, started, token));
                phases[3] = Some((Category::Decode, token, end));
            }
        }
        phases.into_iter().flatten()
    }

    /// What its attempts do, or how a task without attempts counts.
    pub(super) fn works(&self) -> Category {
        match self.view.kind {
            Kind::Llm if self.condenses() => Category::Condense,
            Kind::Llm => Category::FirstToken,
            Kind::Tool => Category::Tool,
            Kind::Join => Category::Join,
            Kind::Map | Kind::Agent => Category::Dispatch,
        }
    }
}
