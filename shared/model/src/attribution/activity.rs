//! What each task did at what time, for pictures of a run.

use super::{
    Category,
    timeline::{Node, Timeline},
};
use crate::{graph::Kind, id::Ms, view::RunView};

/// One task's time in its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// The agent or map that it is inside of, as an index into the run's tasks.
    pub parent: Option<usize>,
    /// When it began and ended, ms since the run was accepted: from ready, of a join from its first input's end;
    /// `None` if it never did.
    pub span: Option<(Ms, Ms)>,
    /// What it did: category, from, to; in order, without those that took no time. A map or agent at work only
    /// through its tasks has none.
    pub phases: Vec<(Category, Ms, Ms)>,
}

/// What each of the run's tasks did, in the order of the view, and the run's length.
pub fn activities(run: &RunView) -> (Ms, Vec<Activity>) {
    let timeline = Timeline::of(run);
    let of = |node: &Node| {
        let join = node.view.kind == Kind::Join;
        let ended = node.awaits().iter().map(|input| timeline.nodes[*input].end).min().unwrap_or(node.end);
        let from = if join { ended.min(node.end) } else { node.there() };
        // what never began was cancelled, or waits still
        let began = node.first_ready.is_some() || !node.cut;
        let mut phases: Vec<_> = node.phases().collect();
        if join && began {
            phases.push((Category::Join, from, node.end));
        }
        if node.container() {
            // its own attempt gives out the first task
            let first = node.children.iter().map(|child| timeline.nodes[*child].there()).min();
            for (category, _, to) in &mut phases {
                if *category == Category::Dispatch {
                    *to = (*to).min(first.unwrap_or(*to));
                }
            }
        }
        phases.retain(|(_, from, to)| from < to);
        Activity { parent: node.parent, span: began.then_some((from, node.end)), phases }
    };
    (timeline.wall, timeline.nodes.iter().map(of).collect())
}
