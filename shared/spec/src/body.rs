//! What a worker executes: a task's body and the recorded values become a concrete call.

mod agent;
mod reads;
mod wire;

use serde_json::Value;
use trireme_model::{Payload, TaskId, limits::MAX_WIDTH, merge::Merge};

use self::agent::Agent;
use crate::{
    agent::AgentCall,
    template::{Json, Text, path, scope::Scope},
};

pub(crate) use wire::{AgentWire, LlmWire, MapWire, MessageWire, ToolWire, Wire};

/// A task's body, its templates parsed. Parsing costs some microseconds per template, so keep it for as long
/// as the same body comes back: all children of a map share one.
#[derive(Debug)]
pub struct Body(Work);

#[derive(Debug)]
enum Work {
    Llm(Box<Llm>),
    Tool { name: String, args: Json },
    Map { over: Json, each: Box<Work> },
    Agent(Box<Agent>),
    Join,
}

#[derive(Debug)]
struct Llm {
    model: Text,
    aliases: Vec<(String, String)>,
    system: Option<Text>,
    messages: Vec<(Role, Text)>,
    max_tokens: Option<u32>,
    temperature: Option<f64>,
    stop: Vec<Text>,
    schema: Option<Value>,
    tools: Vec<String>,
    stream: bool,
}

/// What is known when a task starts.
#[derive(Debug, Clone, Default)]
pub struct Bindings {
    /// The run's input, a JSON object.
    pub input: Payload,
    /// The values of the task's inputs; those that have none are left out.
    pub values: Vec<(TaskId, Payload)>,
    /// The item of a map's child; without it, a map's body gives the map's own call.
    pub item: Option<Payload>,
    /// Its position, from 0.
    pub index: Option<u32>,
}

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions.
    System,
    /// The one who asks.
    User,
    /// The model, in an earlier turn.
    Assistant,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What it says.
    pub content: String,
}

/// A call of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct LlmCall {
    /// `provider/model`, or an alias from configuration.
    pub model: String,
    /// System prompt.
    pub system: Option<String>,
    /// The conversation, oldest first; at least one.
    pub messages: Vec<Message>,
    /// Most tokens to generate.
    pub max_tokens: Option<u32>,
    /// Sampling temperature, 0 to 2.
    pub temperature: Option<f64>,
    /// Strings that end generation.
    pub stop: Vec<String>,
    /// JSON schema of the answer.
    pub schema: Option<Value>,
    /// Names of the tools on offer; calls of them are returned, not executed.
    pub tools: Vec<String>,
    /// Whether token deltas go to the run's events.
    pub stream: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// Ask a model.
    Llm(Box<LlmCall>),
    /// Call a tool.
    Tool {
        /// Its name.
        name: String,
        /// Its arguments.
        args: Value,
    },
    /// Begin or go on with an agent.
    Agent(Box<AgentCall>),
    /// Expand into one child per item.
    Map {
        /// At most [`MAX_WIDTH`] of them.
        items: Vec<Payload>,
    },
}

/// Why a body gives no call. None of these gets better by trying again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The body is not one that this version writes, or it is a join's, which nobody executes.
    #[error("the task's body can't be executed: {0}")]
    Body(String),
    /// A reference leads nowhere.
    #[error("{place}: {reason}")]
    Missing {
        /// The field of the body.
        place: String,
        /// What does not exist, and what does.
        reason: String,
    },
    /// An operation in a template failed.
    #[error("{place}: {reason}")]
    Template {
        /// The field of the body.
        place: String,
        /// Which one, and why.
        reason: String,
    },
    /// A template used up its fuel.
    #[error("{place}: the template takes too many steps")]
    Endless {
        /// The field of the body.
        place: String,
    },
    /// A rendered text over [`MAX_RENDERED_BYTES`](crate::MAX_RENDERED_BYTES).
    #[error("{place}: the rendered text is over the limit of {} bytes", crate::MAX_RENDERED_BYTES)]
    TooLarge {
        /// The field of the body.
        place: String,
    },
    /// A map's `over` is not a list.
    #[error("over: expected a list, got {got}")]
    NotAList {
        /// What it is.
        got: &'static str,
    },
    /// A map's `over` has too many items.
    #[error("over: {got} items are over the limit of {MAX_WIDTH}")]
    TooWide {
        /// How many.
        got: usize,
    },
}

impl RenderError {
    /// A short word for what happened, for a task's error.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Body(_) => "invalid_body",
            Self::Missing { .. } => "missing_reference",
            Self::Template { .. } => "template",
            Self::Endless { .. } => "template_endless",
            Self::TooLarge { .. } => "template_too_large",
            Self::NotAList { .. } => "not_a_list",
            Self::TooWide { .. } => "too_wide",
        }
    }
}

impl Body {
    /// Reads a body as it stands in a task.
    pub fn parse(body: &Payload) -> Result<Self, RenderError> {
        let wire: Wire = body.parse().map_err(|error| RenderError::Body(error.to_string()))?;
        Work::of(wire).map(Self).map_err(RenderError::Body)
    }

    /// Fills in the templates. The body of a map gives its items, or, where `bindings` have an item, the call of
    /// that child.
    pub fn call(&self, bindings: &Bindings) -> Result<Call, RenderError> {
        let scope = Scope::new(bindings);
        match &self.0 {
            Work::Map { each, .. } if bindings.item.is_some() => each.call(&scope),
            work => work.call(&scope),
        }
    }

    /// Whether token deltas of its call go to the run's events.
    pub fn streams(&self) -> bool {
        let work = if let Work::Map { each, .. } = &self.0 { each } else { &self.0 };
        match work {
            Work::Llm(llm) => llm.stream,
            Work::Agent(agent) => agent.streams(),
            _ => false,
        }
    }
}

impl Work {
    fn of(wire: Wire) -> Result<Self, String> {
        match wire {
            Wire { llm: Some(llm), tool: None, map: None, agent: None, .. } => {
                Llm::of(llm).map(|llm| Self::Llm(Box::new(llm)))
            }
            Wire { llm: None, tool: Some(tool), map: None, agent: None, .. } => {
                let args = tool.args.parse().map_err(|error| error.to_string())?;
                Ok(Self::Tool { name: tool.name, args: Json::parse(args)? })
            }
            Wire { llm: None, tool: None, map: Some(map), agent: None, .. } => {
                let over = map.over.parse().map_err(|error| error.to_string())?;
                Ok(Self::Map { over: Json::parse(over)?, each: Box::new(Self::of(*map.each)?) })
            }
            Wire { llm: None, tool: None, map: None, agent: Some(agent), .. } => {
                Agent::of(agent).map(|agent| Self::Agent(Box::new(agent)))
            }
            Wire { llm: None, tool: None, map: None, agent: None, merge: Some(Merge { .. }) } => {
                Ok(Self::Join)
            }
            _ => Err("it is none of llm, tool, map, agent and join".to_owned()),
        }
    }

    fn call(&self, scope: &Scope<'_>) -> Result<Call, RenderError> {
        match self {
            Self::Llm(llm) => llm.call(scope).map(|call| Call::Llm(Box::new(call))),
            Self::Tool { name, args } => {
                Ok(Call::Tool { name: name.clone(), args: args.render(scope, "args")? })
            }
            Self::Agent(agent) => agent.call(scope).map(|call| Call::Agent(Box::new(call))),
            Self::Map { over, .. } => items(over, scope).map(|items| Call::Map { items }),
            Self::Join => Err(RenderError::Body("a join fires by itself".to_owned())),
        }
    }
}

fn items(over: &Json, scope: &Scope<'_>) -> Result<Vec<Payload>, RenderError> {
    // a reference is split as raw text, so that its items keep every digit
    let list = match over {
        Json::Text(text) => text.json(scope, "over")?,
        other => Payload::of(&other.render(scope, "over")?),
    };
    let text = list.as_bytes();
    if text.first() != Some(&b'[') {
        return Err(RenderError::NotAList { got: path::kind(text.first()) });
    }
    let items: Vec<Payload> = list.parse().map_err(|error: serde_json::Error| RenderError::Template {
        place: "over".to_owned(),
        reason: format!("the list can't be read: {error}"),
    })?;
    if items.len() > MAX_WIDTH as usize {
        return Err(RenderError::TooWide { got: items.len() });
    }
    Ok(items)
}

impl Llm {
    fn of(wire: LlmWire) -> Result<Self, String> {
        Ok(Self {
            model: Text::parse(wire.model)?,
            aliases: wire.aliases,
            system: wire.system.map(Text::parse).transpose()?,
            messages: wire
                .messages
                .into_iter()
                .map(|message| Ok((message.role, Text::parse(message.content)?)))
                .collect::<Result<_, String>>()?,
            max_tokens: wire.max_tokens,
            temperature: wire.temperature,
            stop: wire.stop.into_iter().map(Text::parse).collect::<Result<_, _>>()?,
            schema: wire
                .schema
                .map(|schema| schema.parse())
                .transpose()
                .map_err(|error| error.to_string())?,
            tools: wire.tools,
            stream: wire.stream,
        })
    }

    fn call(&self, scope: &Scope<'_>) -> Result<LlmCall, RenderError> {
        let model = self.model.render(scope, "model")?;
        let model = match self.aliases.iter().find(|(alias, _)| *alias == model) {
            Some((_, target)) => target.clone(),
            None => model,
        };
        let mut messages = Vec::with_capacity(self.messages.len());
        for (at, (role, content)) in self.messages.iter().enumerate() {
            let place = if self.messages.len() == 1 {
                "prompt".to_owned()
            } else {
                format!("messages[{at}].content")
            };
            messages.push(Message { role: *role, content: content.render(scope, &place)? });
        }
        Ok(LlmCall {
            model,
            system: self.system.as_ref().map(|system| system.render(scope, "system")).transpose()?,
            messages,
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            stop: self.stop.iter().map(|stop| stop.render(scope, "stop")).collect::<Result<_, _>>()?,
            schema: self.schema.clone(),
            tools: self.tools.clone(),
            stream: self.stream,
        })
    }
}

impl Role {
    /// All of them, as specs write them.
    pub(crate) const NAMES: &'static [(&'static str, Self)] =
        &[("system", Self::System), ("user", Self::User), ("assistant", Self::Assistant)];
}
