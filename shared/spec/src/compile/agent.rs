//! Makes the body of an agent: as the worker will have it, its texts still templates.

use std::collections::BTreeMap;

use super::{Compiler, Inputs};
use crate::{
    agent::{AgentCall, Models, SubAgent},
    body::{AgentWire, Wire},
    problem::Place,
    spec::{self, Source},
    template::is_template,
};

/// Alias and what it stands for.
type Aliases = Vec<(String, String)>;

impl<'s> Compiler<'s> {
    pub(super) fn agent(&mut self, agent: &'s spec::Agent, inputs: &mut Inputs) -> Wire {
        let mut aliases = Vec::new();
        if let Some(goal) = &agent.goal {
            self.source(goal, false, inputs);
        }
        let call = self.agent_call(agent, "", &mut aliases, inputs);
        Wire { agent: Some(AgentWire { aliases, call }), ..Wire::default() }
    }

    /// `around` is the model of the agent that may call this one.
    fn agent_call(
        &mut self,
        agent: &'s spec::Agent,
        around: &str,
        aliases: &mut Aliases,
        inputs: &mut Inputs,
    ) -> AgentCall {
        let model = match &agent.model {
            Some(own) => self.agent_model(own, aliases, inputs),
            None => around.to_owned(),
        };
        let [step, planner, joiner, answer, condenser] = agent.models.each_ref().map(|role| match role {
            Some(own) => self.agent_model(own, aliases, inputs),
            None => model.clone(),
        });
        if let Some(system) = &agent.system {
            self.source(system, false, inputs);
        }
        for tool in &agent.tools {
            self.check_tool(&tool.text, &tool.path, tool.place);
        }
        let mut tools: Vec<String> = agent.tools.iter().map(|tool| tool.text.clone()).collect();
        tools.sort_unstable();
        tools.dedup();
        let output_schema = agent.output_schema.as_ref().map(|schema| {
            self.schema(schema);
            schema.0.value()
        });
        let agents: BTreeMap<String, SubAgent> = agent
            .agents
            .iter()
            .map(|sub| {
                let call = self.agent_call(&sub.agent, &model, aliases, inputs);
                (sub.name.clone(), SubAgent { description: sub.description.clone(), agent: call })
            })
            .collect();
        let text = |source: &Source| source.text.clone();
        AgentCall {
            goal: agent.goal.as_ref().map(text).unwrap_or_default(),
            system: agent.system.as_ref().map(text),
            strategy: agent.strategy,
            tools,
            agents,
            models: Models { step, planner, joiner, answer, condenser },
            max_tokens: agent.max_tokens,
            temperature: agent.temperature,
            max_steps: agent.max_steps,
            max_replans: agent.max_replans,
            output_schema,
            turn: agent.turn,
            context: agent.context,
            stream: agent.stream,
        }
    }

    fn agent_model(&mut self, model: &Source, aliases: &mut Aliases, inputs: &mut Inputs) -> String {
        let (model, own) = self.model(model, false, inputs);
        // all templates get the same ones
        if aliases.is_empty() {
            *aliases = own;
        }
        model
    }

    /// A tool on offer to a model.
    pub(super) fn check_tool(&mut self, tool: &str, path: &str, place: Place) {
        let known = if is_template(tool) {
            Err("a tool's name can't be a template".to_owned())
        } else {
            self.checker.tool(tool)
        };
        if let Err(message) = known {
            self.report.add(path, Some(place), message);
        }
    }
}
