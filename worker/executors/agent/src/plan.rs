//! Plans: a graph of tool calls in a terse grammar (output tokens are time), read while the model still writes it.
//!
//! ```text
//! 1 search {"q":"population of France"}
//! 2 calculator {"expression":"${1.value} * 2"}
//! 3 think {"prompt":"Which is larger?","a":"$1.items[0].title","b":"$2"}
//! join 2 3          all of them; also `join` = every node, `join any 2 3`, `join 2 of 1 2 3`
//! ```
//!
//! ```text
//!  stream --push--> head: is this line a node, the join, or text? --> arguments: until their bracket closes
//!                                                                         |
//!        Item::Node | Item::Join | Item::Problem <-- checks: tool, number, references <--+
//! ```
//!
//! A node's number is the model's label for it, and numbering goes on over replans. A string of the arguments
//! that is `$N` or `$N.field[0].x` as a whole is a typed reference; `${N.path}` inside a longer string is
//! interpolated as text; `$$` is a dollar sign, and so is every other `$`: "$5 bill" depends on nothing.
//!
//! A node is emitted at the byte that closes its arguments. What comes out does not depend on how the stream
//! was cut into pieces. Where models slip the reader is lenient: `1.`, `1)`, `1:`, `tool({...})`, arguments over
//! several lines, text and code fences around the lines, trailing commas, two nodes on a line. Arguments that
//! never close end where the next line of the plan begins.

mod head;
mod parser;
mod problem;
mod reference;
mod resolve;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use parser::PlanParser;
pub use problem::Problem;
pub use reference::{Reference, Segment, references};
pub use resolve::{MAX_RESOLVED, Unresolved, resolve};
use serde_json::Value;
use trireme_model::Need;

/// The reasoning node that every plan may use, next to the tools on offer.
pub const THINK: &str = "think";
/// Most bytes of one node's arguments: as of a call outside of plans.
pub const MAX_ARGUMENTS: usize = 1 << 20;
/// Most bytes of text before the first line of a plan; behind them no plan is looked for. Some 16,000 tokens.
pub const MAX_PREAMBLE: usize = 64 * 1024;

/// What a plan may refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Names of the tools on offer; [`THINK`] is always one.
    pub tools: BTreeSet<String>,
    /// Numbers of the nodes of earlier plans.
    pub nodes: BTreeSet<u32>,
    /// Most nodes of this plan.
    pub max_nodes: usize,
}

/// One thing that a plan says.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A node whose arguments have closed and whose references are all known.
    Node(Node),
    /// The end of the plan; the last item but for problems.
    Join(Join),
    /// Something that is not as it should be; the rest of the plan is read all the same.
    Problem(Problem),
}

/// A call of a tool, or a reasoning step.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The model's label for it, from 1.
    pub number: u32,
    /// A tool on offer, or [`THINK`].
    pub tool: String,
    /// A JSON object, its references as written.
    pub args: Value,
    /// The references in `args`, in the order of the text.
    pub references: Vec<Reference>,
}

impl Node {
    /// The nodes whose results this one needs.
    pub fn needs(&self) -> BTreeSet<u32> {
        self.references.iter().map(|r| r.number).collect()
    }
}

/// What the plan's answer is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// In the order of the plan, without repeats; nodes of earlier plans where it names them.
    pub nodes: Vec<u32>,
    /// How many of them it needs; never more than there are.
    pub need: Need,
    /// The plan ended without a join: this one is over all its nodes.
    pub implicit: bool,
}
