//! What can be wrong with a plan, each with its own kind: the planner is told in these words.

/// One fault of a plan. Text taken from the model is cut to 120 characters, but for [`Problem::PlainText`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not among the tools on offer.
    #[error("node {number}: there is no tool `{tool}`")]
    UnknownTool {
        /// The node.
        number: u32,
        /// What it names.
        tool: String,
    },
    /// Nodes are numbered from 1.
    #[error("a call of `{tool}` has a number that is not positive")]
    Number {
        /// What it calls.
        tool: String,
    },
    /// The number stands for another node, of this plan or an earlier one.
    #[error("node {number}: this number is taken")]
    Duplicate {
        /// The number.
        number: u32,
    },
    /// Arguments that are not a JSON object.
    #[error("node {number}: the arguments of `{tool}` must be a JSON object")]
    NotAnObject {
        /// The node.
        number: u32,
        /// What it calls.
        tool: String,
    },
    /// Arguments that look like an object and are no JSON.
    #[error("node {number}: the arguments are not JSON: {reason}")]
    NotJson {
        /// The node.
        number: u32,
        /// The parser's words.
        reason: String,
    },
    /// The plan ends within a node's arguments. They are not closed by guessing: the text may have been cut.
    #[error("node {number}: the plan ends within its arguments")]
    Unclosed {
        /// The node.
        number: u32,
    },
    /// Over [`super::MAX_ARGUMENTS`].
    #[error("node {number}: the arguments have {bytes} bytes, more than {}", super::MAX_ARGUMENTS)]
    TooLarge {
        /// The node.
        number: u32,
        /// Their size.
        bytes: usize,
    },
    /// A reference to the node itself.
    #[error("node {number}: it refers to itself")]
    SelfReference {
        /// The node.
        number: u32,
    },
    /// A reference to a number that has not come yet. Cycles have at least one of these.
    #[error("node {number}: it refers to node {to}, which has not come yet")]
    ForwardReference {
        /// The node.
        number: u32,
        /// The node it refers to.
        to: u32,
    },
    /// A reference to a lower number that no node has.
    #[error("node {number}: it refers to node {to}, which does not exist")]
    UnknownReference {
        /// The node.
        number: u32,
        /// The node it refers to.
        to: u32,
    },
    /// A reference to a node that was itself a problem.
    #[error("node {number}: it refers to node {to}, which is not usable")]
    BadReference {
        /// The node.
        number: u32,
        /// The node it refers to.
        to: u32,
    },
    /// The plan goes on past its limit; said once, what follows is dropped.
    #[error("the plan has more than {limit} nodes")]
    TooManyNodes {
        /// [`super::Known::max_nodes`].
        limit: usize,
    },
    /// The join names a node that does not exist or is not usable; it is left out.
    #[error("the join names node {node}, which does not exist or is not usable")]
    JoinUnknown {
        /// The node.
        node: u32,
    },
    /// The join needs more nodes than it names; it needs all of them.
    #[error("the join needs {need} of {of} nodes")]
    JoinNeed {
        /// As written.
        need: u32,
        /// How many usable nodes it names.
        of: usize,
    },
    /// No usable node, and no join over nodes of earlier plans.
    #[error("the plan is empty")]
    Empty,
    /// Text with nothing of a plan in it: perhaps the answer.
    #[error("text instead of a plan")]
    PlainText {
        /// The text, trimmed.
        text: String,
        /// There was more than [`super::MAX_PREAMBLE`]; `text` is its beginning.
        cut: bool,
    },
}

/// The first 120 characters.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(120).collect()
}
