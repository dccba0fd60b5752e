//! What an agent may call: its tools, other agents, and the tool that reads what was elided.

use serde_json::{Value, json};
use trireme_agent::prompt;
use trireme_llm::Tool;
use trireme_spec::agent::{AgentCall, READ_RESULT, SubAgent, callable};
use trireme_tool::{Effect, Tools};

use crate::outcome::Failure;

/// Something that an agent may call.
pub(super) struct Offer {
    /// The name that the model knows: of `[A-Za-z0-9_-]`, as providers ask for.
    pub(super) name: String,
    pub(super) description: String,
    pub(super) parameters: Value,
    pub(super) effect: Effect,
    pub(super) target: Target,
    /// Bytes that the task of a call has besides its arguments: an agent's settings.
    pub(super) weight: usize,
}

/// What lies behind a name.
pub(super) enum Target {
    Tool(String),
    Agent(Box<AgentCall>),
    ReadResult,
}

/// Everything that `agent` may call, sorted by name: the list is the first thing in every prompt.
pub(super) async fn offers(tools: &Tools, agent: &AgentCall) -> Result<Vec<Offer>, Failure> {
    let mut offers = Vec::with_capacity(agent.tools.len() + agent.agents.len() + 1);
    for tool in &agent.tools {
        let spec = tools.describe(tool).await.map_err(|error| {
            Failure::permanent("unknown_tool", format!("the agent's tool {tool:?} can't be had: {error}"))
        })?;
        offers.push(Offer {
            name: callable(&spec.name),
            description: spec.description,
            parameters: spec.args,
            effect: spec.effect,
            target: Target::Tool(spec.name),
            weight: 0,
        });
    }
    for (name, SubAgent { description, agent }) in &agent.agents {
        offers.push(Offer {
            name: name.clone(),
            description: description.clone(),
            parameters: json!({
                "type": "object",
                "properties": {"task": {"type": "string", "description": "what it is to do, complete in itself"}},
                "required": ["task"],
                "additionalProperties": false,
            }),
            effect: effect_of(tools, agent),
            target: Target::Agent(Box::new(agent.clone())),
            weight: serde_json::to_string(agent).map_or(0, |text| text.len()),
        });
    }
    if !offers.is_empty() {
        offers.push(Offer {
            name: READ_RESULT.to_owned(),
            description: "Reads more of a result that was shortened.".to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "handle": {"type": "string", "description": "as given where the result was shortened"},
                    "offset": {"type": "integer", "minimum": 0, "description": "first byte, 0 by default"},
                },
                "required": ["handle"],
                "additionalProperties": false,
            }),
            effect: Effect::Pure,
            target: Target::ReadResult,
            weight: 0,
        });
    }
    offers.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = offers.windows(2).find(|pair| pair[0].name == pair[1].name) {
        let text = format!("two of the agent's tools are both {:?} to the model", pair[0].name);
        return Err(Failure::permanent("tool_names_clash", text));
    }
    Ok(offers)
}

/// An agent may do whatever its tools may.
fn effect_of(tools: &Tools, agent: &AgentCall) -> Effect {
    let writes = |name: &String| tools.get(name).is_none_or(|tool| tool.spec().effect == Effect::Write);
    let inner = |sub: &SubAgent| effect_of(tools, &sub.agent) == Effect::Write;
    if agent.tools.iter().any(writes) || agent.agents.values().any(inner) {
        Effect::Write
    } else {
        Effect::Read
    }
}

impl Offer {
    /// As it stands in a request.
    pub(super) fn tool(&self) -> Tool {
        Tool {
            name: self.name.clone(),
            description: self.description.clone(),
            parameters: self.parameters.clone(),
        }
    }

    /// As a planner is told of it.
    pub(super) fn prompt(&self) -> prompt::Offer<'_> {
        prompt::Offer { name: &self.name, description: &self.description, parameters: &self.parameters }
    }
}
