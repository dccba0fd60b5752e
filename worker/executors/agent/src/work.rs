//! The bodies of an agent's tasks, and their ids.
//!
//! ```text
//! research                    the agent: expands into its first task
//! research/step-0             a turn of react: asks the model
//! research/step-0/search-1f0c a tool call of that turn, by tool and arguments
//! research/step-0/join        waits for the turn's calls
//! research/step-1             the next turn, behind the join
//! research/condense-4         condenses turns that step 4 saw, beside the others
//! research/plan-0             writes a plan
//! research/plan-0/2-9a3e      its node 2
//! research/plan-0/join        waits for the nodes that the plan names
//! research/join-0             answers from them, or asks for another plan
//! research/answer             the last answer, where it takes a call of its own
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use trireme_model::{Payload, TaskId};
use trireme_spec::agent::{AgentCall, callable};

use crate::record::Seen;

/// Longest part of a tool's name in a task's id.
const MAX_NAME: usize = 24;

/// What a task of an agent does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Be an agent, called like a tool: its goal is the argument `task`.
    Agent {
        /// Which agent; its goal is empty.
        agent: Box<AgentCall>,
        /// The call's arguments.
        arguments: Arguments,
    },
    /// Take a turn.
    Step {
        /// The agent.
        agent: TaskId,
        /// Which turn, from 0.
        turn: u32,
        /// This turn answers, for this reason.
        last: Option<Finish>,
        /// Of the first turn: the agent's settings. Later ones find them in its record.
        config: Option<Box<AgentCall>>,
    },
    /// Write a plan.
    Plan {
        /// The agent.
        agent: TaskId,
        /// Which plan, from 0.
        round: u32,
        /// Of the first plan: the agent's settings.
        config: Option<Box<AgentCall>>,
    },
    /// Answer from a plan's results, or ask for another plan.
    Join {
        /// The agent.
        agent: TaskId,
        /// Which plan.
        round: u32,
        /// This call answers, for this reason.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last: Option<Finish>,
    },
    /// Ask a model about earlier results.
    Think {
        /// The model.
        model: String,
        /// Most tokens to generate.
        max_tokens: Option<u32>,
        /// Sampling temperature.
        temperature: Option<f64>,
        /// `prompt`, and whatever else it is about.
        arguments: Arguments,
    },
    /// Call a tool.
    Call {
        /// The agent, whose results it may read.
        agent: TaskId,
        /// The tool.
        tool: String,
        /// The call's arguments.
        arguments: Arguments,
    },
    /// Condense part of a history.
    Condense {
        /// The agent.
        agent: TaskId,
        /// What the history was when this began.
        seen: Seen,
        /// Turns before this one are condensed.
        upto: u32,
    },
}

/// Arguments as the model wrote them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Arguments {
    /// An object.
    pub args: Value,
    /// Of a plan's node, whose arguments may refer to results: the tasks of the nodes that they refer to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<BTreeMap<u32, TaskId>>,
}

/// Why an agent answered when it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// It knew enough.
    Answer,
    /// It went in circles.
    Stuck,
    /// It used up its turns or plans.
    MaxSteps,
    /// The run's budget was used up.
    Budget,
    /// Its time was nearly up.
    Deadline,
    /// The answer reached the limit of tokens.
    Length,
}

#[derive(Serialize, Deserialize)]
struct Body {
    work: Work,
}

impl Work {
    /// As a task's body.
    pub fn body(self) -> Payload {
        Payload::of(&Body { work: self })
    }

    /// Reads a body; `None` when it is not one of an agent's tasks.
    pub fn of_body(body: &Payload) -> Option<Result<Self, serde_json::Error>> {
        body.as_bytes().starts_with(b"{\"work\":").then(|| body.parse::<Body>().map(|body| body.work))
    }
}

impl Arguments {
    /// Arguments in which nothing is a reference.
    pub fn plain(args: Value) -> Self {
        Self { args, ..Self::default() }
    }
}

/// Ids below an agent's. All are made of characters that ids allow; one that grows too long is `None`, which only
/// happens to agents nested under very long names.
pub mod ids {
    use super::{MAX_NAME, TaskId, callable};

    fn below(parent: &TaskId, name: &str) -> Option<TaskId> {
        TaskId::new(format!("{parent}/{name}")).ok()
    }

    /// A turn.
    pub fn step(agent: &TaskId, turn: u32) -> Option<TaskId> {
        below(agent, &format!("step-{turn}"))
    }

    /// A plan.
    pub fn plan(agent: &TaskId, round: u32) -> Option<TaskId> {
        below(agent, &format!("plan-{round}"))
    }

    /// The joiner of a plan.
    pub fn joiner(agent: &TaskId, round: u32) -> Option<TaskId> {
        below(agent, &format!("join-{round}"))
    }

    /// The last answer, where another model than that of the turns gives it, or where a joiner asked for one plan too
    /// many.
    pub fn answer(agent: &TaskId) -> Option<TaskId> {
        below(agent, "answer")
    }

    /// A summary that was begun at `turn`.
    pub fn condense(agent: &TaskId, turn: u32) -> Option<TaskId> {
        below(agent, &format!("condense-{turn}"))
    }

    /// The join behind a turn or a plan.
    pub fn join(of: &TaskId) -> Option<TaskId> {
        below(of, "join")
    }

    /// A join that makes a call wait for another one's end, however that ends.
    pub fn after(of: &TaskId, key: &str) -> Option<TaskId> {
        below(of, &format!("after-{key}"))
    }

    /// A call of a turn: the same tool with the same arguments has the same id.
    pub fn call(step: &TaskId, tool: &str, key: &str) -> Option<TaskId> {
        let name: String = callable(tool).chars().take(MAX_NAME).collect();
        below(step, &format!("{name}-{key}"))
    }

    /// A node of a plan.
    pub fn node(plan: &TaskId, number: u32, key: &str) -> Option<TaskId> {
        below(plan, &format!("{number}-{key}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_told_from_a_specs() {
        let agent = TaskId::new("a").unwrap();
        let work = Work::Join { agent: agent.clone(), round: 1, last: None };
        assert_eq!(Work::of_body(&work.clone().body()).unwrap().unwrap(), work);
        assert!(Work::of_body(&Payload::from_json(r#"{"tool":{"name":"x"}}"#)).is_none());
        assert!(Work::of_body(&Payload::from_json(r#"{"work":{"dance":{}}}"#)).unwrap().is_err());
        assert_eq!(ids::call(&agent, "time.now", "1f").unwrap().as_str(), "a/time_now-1f");
    }
}
