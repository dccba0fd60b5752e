//! What an agent's tasks record: everything that the next one needs, on whichever worker it runs.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use trireme_model::{Ms, TaskId};
use trireme_spec::agent::AgentCall;

/// The result of a turn that did not answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepRecord {
    /// Of the first turn: what all turns need.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<First>,
    /// What the model was shown of the turn before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub observed: Vec<Observed>,
    /// What it was told besides, when it seemed stuck.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nudge: Option<String>,
    /// Which history it saw.
    pub seen: Seen,
    /// A summary that is being made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condensing: Option<Condensing>,
    /// What the model said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// What it called.
    pub calls: Vec<Called>,
    /// Tokens of its prompt.
    pub prompt_tokens: u64,
    /// How long it took.
    pub took_ms: Ms,
}

/// What the first task of an agent records for those that follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct First {
    /// The agent's settings.
    pub agent: AgentCall,
    /// How much time the agent had when it began; `None` for no limit.
    pub time: Option<Ms>,
}

/// Which part of the past a turn saw. A turn's record is written once, by whoever holds the turn: that write is the
/// compare-and-set by which a summary replaces what it stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    /// The task whose result stands for the turns before `from`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<TaskId>,
    /// The first turn that is shown.
    pub from: u32,
    /// The observations of turns before this one are cleared.
    pub cleared: u32,
}

impl Seen {
    /// The history with `made` swapped in, if it is still the one that `made` began with; else as it is.
    #[must_use]
    pub fn condensed(self, made: &Condensing) -> Self {
        if made.seen != self {
            return self;
        }
        Self { summary: Some(made.task.clone()), from: made.upto, cleared: self.cleared }
    }
}

/// A summary that is being made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condensing {
    /// The task that makes it.
    pub task: TaskId,
    /// Turns before this one are in it.
    pub upto: u32,
    /// The history that it began with.
    pub seen: Seen,
}

/// The result of a call as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The provider's id of the call.
    pub id: String,
    /// The result as text, elided if it was long.
    pub content: String,
    /// Hash of the whole result, by which repetitions show.
    #[serde(default)]
    pub key: String,
    /// The call failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub error: bool,
    /// Where the whole result is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
}

/// A call that a turn asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Called {
    /// The provider's id of the call.
    pub id: String,
    /// The tool's name as the model knows it.
    pub name: String,
    /// The arguments.
    pub arguments: Value,
    /// The task that makes the call; none if it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
}

/// Why a call was not made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// `denied`, `unknown_tool`, `invalid_args`, `args_too_large`, `too_many_calls`, ...
    pub class: String,
    /// What was wrong and what would be right; the model reads it.
    pub message: String,
}

/// The result of a planner call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanRecord {
    /// Of the first plan: what all that follows needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<First>,
    /// The nodes, in the plan's order.
    pub nodes: Vec<PlanNode>,
    /// What was wrong with the plan.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// What the planner said instead of a plan.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// How long it took.
    pub took_ms: Ms,
}

/// A node of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanNode {
    /// Its number.
    pub number: u32,
    /// The tool, agent, or `think`.
    pub tool: String,
    /// As the planner wrote them.
    pub args: Value,
    /// The task that does it; of an earlier plan if that has done the same.
    pub task: TaskId,
}

/// The result of a joiner that asks for another plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRecord {
    /// What is missing.
    pub replan: String,
    /// How long it took.
    pub took_ms: Ms,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_swapped_in_only_for_the_history_that_it_was_made_of() {
        let task = |name: &str| TaskId::new(name).unwrap();
        let seen = Seen { summary: None, from: 0, cleared: 4 };
        let made = Condensing { task: task("a/condense-5"), upto: 4, seen: seen.clone() };
        let swapped = seen.clone().condensed(&made);
        assert_eq!(swapped, Seen { summary: Some(task("a/condense-5")), from: 4, cleared: 4 });
        // cleared, or condensed by another, meanwhile
        let others = [Seen { cleared: 8, ..seen.clone() }, Seen { from: 3, ..seen }, swapped];
        for other in others {
            assert_eq!(other.clone().condensed(&made), other);
        }
    }
}
