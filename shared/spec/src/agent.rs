//! An agent as a worker executes it: its goal rendered, its defaults filled in.

use std::{collections::BTreeMap, ops::RangeInclusive};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use trireme_model::{Ms, OnMiss};

/// Model turns of one agent, unless it says otherwise.
pub const MAX_STEPS: u32 = 20;
/// Most model turns that an agent may ask for.
pub const STEPS_LIMIT: u32 = 500;
/// Plans after the first, unless the agent says otherwise.
pub const MAX_REPLANS: u32 = 2;
/// Most plans after the first that an agent may ask for.
pub const REPLANS_LIMIT: u32 = 20;
/// Agents inside agents: the outermost is at depth 1.
pub const MAX_AGENT_DEPTH: usize = 4;
/// Bytes of a tool's output that the model sees, unless the agent says otherwise; the rest it can read by handle.
pub const ELIDE_OVER: u32 = 8 * 1024;
/// Prompt tokens over which an agent's history is condensed, unless the agent says otherwise.
pub const CONDENSE_OVER: u32 = 32_000;

/// Sub-agents of one agent, those of its sub-agents included.
pub const MAX_SUB_AGENTS: usize = 100;
/// Tools and sub-agents that one model is offered: the most that OpenAI takes.
pub const MAX_TOOLS: usize = 128;
/// Bytes of a sub-agent's description: OpenAI takes 1,024 characters of a function's.
pub const MAX_DESCRIPTION_BYTES: usize = 1024;
/// The tool that gives back what was elided or cleared; every agent of `react` that calls anything has it.
pub const READ_RESULT: &str = "read_result";
/// Longest name of a tool that providers take.
const MAX_CALLABLE: usize = 64;
/// What an agent may set as bytes of a tool's output that the model sees.
pub const ELIDE_OVER_LIMITS: RangeInclusive<u32> = 256..=1024 * 1024;
/// What it may set as prompt tokens over which its history is condensed.
pub const CONDENSE_OVER_LIMITS: RangeInclusive<u32> = 500..=10_000_000;

/// A tool's name as providers take it: at most 64 of `[A-Za-z0-9_-]`, anything else becomes `_`.
pub fn callable(name: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    name.chars().take(MAX_CALLABLE).map(word).collect()
}

/// How an agent decides what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Turn by turn: the model calls tools, sees what they gave, and goes on.
    #[default]
    React,
    /// One call emits a graph of tool calls; a joiner answers from their results or asks for another plan.
    Plan,
}

/// An agent with everything rendered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentCall {
    /// What it is to do.
    pub goal: String,
    /// Added to the instructions that the strategy gives.
    pub system: Option<String>,
    /// How it decides.
    pub strategy: Strategy,
    /// Names of the tools on offer, sorted and without repeats.
    pub tools: Vec<String>,
    /// Agents that it may call like tools, by name.
    pub agents: BTreeMap<String, SubAgent>,
    /// Which model does what.
    pub models: Models,
    /// Most tokens that each role may generate.
    pub max_tokens: MaxTokens,
    /// Sampling temperature, 0 to 2.
    pub temperature: Option<f64>,
    /// Model turns (react), or planner and joiner calls (plan), before it must answer.
    pub max_steps: u32,
    /// Plans after the first.
    pub max_replans: u32,
    /// JSON schema of the answer.
    pub output_schema: Option<Value>,
    /// How the results of one turn's calls, or of one plan, are joined.
    pub turn: Turn,
    /// How its history is kept short.
    pub context: Context,
    /// Whether token deltas go to the run's events.
    pub stream: bool,
}

impl AgentCall {
    /// The model that decides what it does.
    pub fn leading_model(&self) -> &str {
        match self.strategy {
            Strategy::React => &self.models.step,
            Strategy::Plan => &self.models.planner,
        }
    }
}

/// An agent that another may call like a tool, with one argument: the task as text, which becomes its goal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubAgent {
    /// What it is good for; the calling model reads it.
    pub description: String,
    /// What it is; the goal is empty until it is called.
    pub agent: AgentCall,
}

/// The models of an agent's roles, each an alias or `provider/model`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Models {
    /// Takes the turns of `react`, and the reasoning nodes of a plan.
    pub step: String,
    /// Writes plans.
    pub planner: String,
    /// Answers from a plan's results or asks for another plan.
    pub joiner: String,
    /// Answers when a limit ends the agent.
    pub answer: String,
    /// Condenses history.
    pub condenser: String,
}

/// Most tokens to generate, by role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MaxTokens {
    /// A turn of `react`, or a reasoning node.
    pub step: Option<u32>,
    /// A plan.
    pub planner: Option<u32>,
    /// A joiner's answer.
    pub joiner: Option<u32>,
    /// The last answer at a limit.
    pub answer: Option<u32>,
    /// A summary.
    pub condenser: Option<u32>,
}

/// The join of a turn's tool calls, or of a plan's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// From the first call becoming ready; then the model goes on with what there is.
    pub within: Option<Ms>,
    /// `partial` (the default): the model is told what is missing; `fail`: the agent fails.
    pub on_miss: OnMiss,
}

/// How an agent's history is kept short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Bytes of a tool's output that go into the history.
    pub elide_over: u32,
    /// Prompt tokens over which older turns are condensed, off the critical path.
    pub condense_over: u32,
}
