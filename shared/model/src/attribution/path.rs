//! The critical path: from the run's end along what each task waited for last, to its beginning.

use super::{
    Category, Segment,
    cause::{Cause, Causes},
    timeline::Timeline,
};
use crate::{graph::Kind, id::Ms};

/// A part of the path.
pub(super) struct Stretch {
    pub(super) node: usize,
    pub(super) category: Category,
    pub(super) from: Ms,
    pub(super) to: Ms,
}

impl Stretch {
    pub(super) fn segment(&self, timeline: &Timeline) -> Segment {
        Segment {
            task: timeline.nodes[self.node].view.id.clone(),
            category: self.category,
            from_ms: self.from,
            ms: self.to - self.from,
        }
    }
}

/// The walk: everything after `cursor` has its stretch.
struct Walk {
    cursor: Ms,
    /// Last to first.
    path: Vec<Stretch>,
}

impl Walk {
    /// Gives `node` the time from `from` up to the cursor.
    fn take(&mut self, node: usize, category: Category, from: Ms) {
        if from < self.cursor {
            self.path.push(Stretch { node, category, from, to: self.cursor });
            self.cursor = from;
        }
    }
}

/// The path, first to last; it covers 0 to the run's end, each time once.
pub(super) fn walk(timeline: &Timeline, causes: &Causes) -> Vec<Stretch> {
    let nodes = &timeline.nodes;
    let mut walk = Walk { cursor: timeline.wall, path: Vec::new() };
    let mut cause = causes.run;
    let mut last = timeline.output().unwrap_or(0);
    // each task is met at most at its end and in its attempt; the bound makes a view with a cycle harmless
    for _ in 0..=2 * nodes.len() {
        // between what was waited for and the waiting
        let gap = match nodes.get(last).map(|node| node.view.kind) {
            Some(Kind::Join | Kind::Map) => Category::Join,
            _ => Category::Dispatch,
        };
        let (at, whole) = match cause {
            Cause::Run => break,
            Cause::End(at) => {
                walk.take(last, gap, nodes[at].end);
                (at, true)
            }
            Cause::Attempt(at, time) => {
                walk.take(last, gap, time);
                (at, false)
            }
        };
        last = at;
        if let Some(inside) = causes.inside[at].filter(|_| whole) {
            cause = inside;
            continue;
        }
        let node = &nodes[at];
        let before = walk.path.len();
        let phases: Vec<_> = node.phases().collect();
        for (category, from, _) in phases.into_iter().rev() {
            walk.take(at, category, from);
        }
        if walk.path.len() == before && !node.container() {
            walk.path.push(Stretch { node: at, category: node.works(), from: walk.cursor, to: walk.cursor });
        }
        cause = causes.start[at];
    }
    if !nodes.is_empty() {
        // from acceptance until the first task was ready
        walk.take(last, Category::Dispatch, 0);
    }
    walk.path.reverse();
    walk.path.dedup_by(|later, earlier| {
        let same = later.node == earlier.node && later.category == earlier.category;
        if same {
            earlier.to = later.to;
        }
        same
    });
    walk.path
}
