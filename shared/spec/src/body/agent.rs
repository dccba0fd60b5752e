//! An agent's body: everything as the call will have it, but the texts still to be rendered.

use crate::{
    MAX_NAME_BYTES, MAX_RENDERED_BYTES, RenderError,
    agent::{AgentCall, Models, SubAgent},
    body::wire::AgentWire,
    template::{Text, scope::Scope},
};

#[derive(Debug)]
pub(super) struct Agent {
    aliases: Vec<(String, String)>,
    role: Template,
}

/// One agent, the outermost or one inside it.
#[derive(Debug)]
struct Template {
    goal: Text,
    system: Option<Text>,
    /// In the order of the fields of [`Models`].
    models: [Text; 5],
    /// Name, description, agent.
    agents: Vec<(String, String, Template)>,
    /// All the rest, without sub-agents.
    rest: AgentCall,
}

/// Renders the templates of one agent and of those inside it.
struct Rendering<'a> {
    scope: &'a Scope<'a>,
    aliases: &'a [(String, String)],
    /// Bytes that goals and systems may still have, all together: sub-agents are many, and their results small.
    left: usize,
}

impl Agent {
    pub fn of(wire: AgentWire) -> Result<Self, String> {
        Ok(Self { aliases: wire.aliases, role: Template::of(wire.call)? })
    }

    pub fn streams(&self) -> bool {
        self.role.rest.stream
    }

    pub fn call(&self, scope: &Scope<'_>) -> Result<AgentCall, RenderError> {
        Rendering { scope, aliases: &self.aliases, left: MAX_RENDERED_BYTES }.agent(&self.role, "")
    }

    pub fn any_text(&self, found: &dyn Fn(&Text) -> bool) -> bool {
        self.role.any_text(found)
    }
}

impl Template {
    fn of(mut call: AgentCall) -> Result<Self, String> {
        let Models { step, planner, joiner, answer, condenser } = call.models.clone();
        let text = Text::parse;
        let agents = std::mem::take(&mut call.agents).into_iter();
        Ok(Self {
            goal: text(std::mem::take(&mut call.goal))?,
            system: call.system.take().map(text).transpose()?,
            models: [text(step)?, text(planner)?, text(joiner)?, text(answer)?, text(condenser)?],
            agents: agents
                .map(|(name, sub)| Ok((name, sub.description, Self::of(sub.agent)?)))
                .collect::<Result<_, String>>()?,
            rest: call,
        })
    }

    fn any_text(&self, found: &dyn Fn(&Text) -> bool) -> bool {
        let mut texts = self.models.iter().chain(&self.system).chain([&self.goal]);
        texts.any(found) || self.agents.iter().any(|(_, _, agent)| agent.any_text(found))
    }
}

impl Rendering<'_> {
    /// `base` is the path of the agent in the outermost one.
    fn agent(&mut self, agent: &Template, base: &str) -> Result<AgentCall, RenderError> {
        let place = |name: &str| format!("{base}{name}");
        let [step, planner, joiner, answer, condenser] = &agent.models;
        let mut call = AgentCall {
            goal: self.text(&agent.goal, place("goal"))?,
            models: Models {
                step: self.model(step, place("models.step"))?,
                planner: self.model(planner, place("models.planner"))?,
                joiner: self.model(joiner, place("models.joiner"))?,
                answer: self.model(answer, place("models.answer"))?,
                condenser: self.model(condenser, place("models.condenser"))?,
            },
            ..agent.rest.clone()
        };
        if let Some(system) = &agent.system {
            call.system = Some(self.text(system, place("system"))?);
        }
        for (name, description, agent) in &agent.agents {
            let agent = self.agent(agent, &place(&format!("agents.{name}.")))?;
            call.agents.insert(name.clone(), SubAgent { description: description.clone(), agent });
        }
        Ok(call)
    }

    fn text(&mut self, text: &Text, place: String) -> Result<String, RenderError> {
        let text = text.render(self.scope, &place)?;
        match self.left.checked_sub(text.len()) {
            Some(left) => self.left = left,
            None => return Err(RenderError::TooLarge { place }),
        }
        Ok(text)
    }

    fn model(&self, model: &Text, place: String) -> Result<String, RenderError> {
        let model = model.render(self.scope, &place)?;
        if let Some((_, target)) = self.aliases.iter().find(|(alias, _)| *alias == model) {
            return Ok(target.clone());
        }
        if !(1..=MAX_NAME_BYTES).contains(&model.len()) {
            let bytes = model.len();
            let reason = format!("a name has 1 to {MAX_NAME_BYTES} bytes, this one {bytes}");
            return Err(RenderError::Template { place, reason });
        }
        Ok(model)
    }
}
