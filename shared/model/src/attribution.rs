//! Where a run's time went: which task and which kind of work each millisecond waited for, how much longer every
//! task could have taken, and what a faster tool or model would have changed.
//!
//! ```text
//! view -> timeline   its tasks on one clock, from 0 to the run's length
//!      -> cause      what each task waited for last
//!      -> path       the walk from the run's end along the causes: every millisecond once
//!      -> schedule   the rules that the times followed -> slack, and the run again with something faster
//! ```
//!
//! Everything takes time linear in tasks and inputs, but for a sort.

mod activity;
mod cause;
mod path;
mod schedule;
mod timeline;
mod what_if;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    graph::Kind,
    id::{Ms, TaskId},
    view::RunView,
};

pub use self::activity::{Activity, activities};
use self::{cause::Causes, schedule::Schedule, timeline::Timeline};

/// The label of the calls that condense an agent's history.
pub const CONDENSE: &str = "condense";

/// What a run waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// A ready task waited for a worker: from ready to its claim.
    Queue,
    /// The engine moved on: from the end of an input until ready, and the attempts of maps and agents, which only
    /// give out work.
    Dispatch,
    /// A model read its prompt: from the claim to the first token. A call without a recorded first token (it did
    /// not succeed, or was not streamed) counts here as a whole.
    FirstToken,
    /// A model wrote: from its first token to its end.
    Decode,
    /// A tool worked.
    Tool,
    /// A join or a map waited beyond the last input that it took, until its window closed.
    Join,
    /// A model condensed an agent's history.
    Condense,
    /// Attempts that failed, were lost or were handed back, and the waits between them: from first ready to last
    /// ready.
    Retry,
}

/// Milliseconds by category.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Split {
    /// See [`Category::Queue`].
    pub queue: Ms,
    /// See [`Category::Dispatch`].
    pub dispatch: Ms,
    /// See [`Category::FirstToken`].
    pub first_token: Ms,
    /// See [`Category::Decode`].
    pub decode: Ms,
    /// See [`Category::Tool`].
    pub tool: Ms,
    /// See [`Category::Join`].
    pub join: Ms,
    /// See [`Category::Condense`].
    pub condense: Ms,
    /// See [`Category::Retry`].
    pub retry: Ms,
}

/// A stretch of the critical path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The task that was waited for.
    pub task: TaskId,
    /// What it did.
    pub category: Category,
    /// When it began, ms since the run was accepted.
    pub from_ms: Ms,
    /// How long it took; 0 for a task that the path goes through in no time.
    pub ms: Ms,
}

/// What a run would have gained from one tool or model at half its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhatIf {
    /// The tool or model.
    pub label: String,
    /// Which of both.
    pub kind: Kind,
    /// Its part of the wall time on the critical path, 0 to 1.
    pub share_of_wall: f64,
    /// How much shorter the run would have been, in percent.
    pub half_time_gain_percent: f64,
}

/// Where the time of one run went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attribution {
    /// From acceptance to the run's end; of a run that goes on, to the last thing that is known of it.
    pub wall_ms: Ms,
    /// The wall time by category; it adds up to `wall_ms` exactly.
    pub categories: Split,
    /// The critical path, first to last, without gaps from 0 to `wall_ms`.
    pub path: Vec<Segment>,
    /// How much longer each task that has ended could have taken, by itself, without the run ending later; at least, as
    /// joins keep to the inputs that they took.
    pub slack_ms: BTreeMap<TaskId, Ms>,
    /// By gain, largest first; at most [`MAX_WHAT_IFS`]. Empty unless the run ended with its output.
    pub what_if: Vec<WhatIf>,
}

/// Tools and models that [`Attribution::what_if`] looks at: those with the largest part of the path.
pub const MAX_WHAT_IFS: usize = 20;

/// A run as its users see it, and where its time went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attributed {
    /// The run.
    #[serde(flatten)]
    pub run: RunView,
    /// Where its time went.
    pub attribution: Attribution,
}

/// Finds where the time of `run` went.
pub fn attribution(run: &RunView) -> Attribution {
    let timeline = Timeline::of(run);
    let causes = Causes::of(&timeline);
    let path = path::walk(&timeline, &causes);
    let schedule = Schedule::of(&timeline, &causes);
    let mut categories = Split::default();
    for stretch in &path {
        *categories.of_mut(stretch.category) += stretch.to - stretch.from;
    }
    let slack = schedule.slack();
    let ended = timeline.nodes.iter().zip(&slack).filter(|(node, _)| !node.cut);
    Attribution {
        wall_ms: timeline.wall,
        categories,
        slack_ms: ended.map(|(node, slack)| (node.view.id.clone(), *slack)).collect(),
        what_if: what_if::ask(&timeline, &causes, &path, &schedule),
        path: path.iter().map(|stretch| stretch.segment(&timeline)).collect(),
    }
}

impl From<RunView> for Attributed {
    fn from(run: RunView) -> Self {
        Self { attribution: attribution(&run), run }
    }
}

impl Category {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 8] = [
        Self::Queue,
        Self::Dispatch,
        Self::FirstToken,
        Self::Decode,
        Self::Tool,
        Self::Join,
        Self::Condense,
        Self::Retry,
    ];

    /// Its name as it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Dispatch => "dispatch",
            Self::FirstToken => "first_token",
            Self::Decode => "decode",
            Self::Tool => "tool",
            Self::Join => "join",
            Self::Condense => "condense",
            Self::Retry => "retry",
        }
    }
}

impl Split {
    /// The time of one category.
    pub fn of(&self, category: Category) -> Ms {
        let mut copy = *self;
        *copy.of_mut(category)
    }

    /// All categories together.
    pub fn total(&self) -> Ms {
        Category::ALL.into_iter().map(|category| self.of(category)).sum()
    }

    fn of_mut(&mut self, category: Category) -> &mut Ms {
        match category {
            Category::Queue => &mut self.queue,
            Category::Dispatch => &mut self.dispatch,
            Category::FirstToken => &mut self.first_token,
            Category::Decode => &mut self.decode,
            Category::Tool => &mut self.tool,
            Category::Join => &mut self.join,
            Category::Condense => &mut self.condense,
            Category::Retry => &mut self.retry,
        }
    }
}
