//! A run spec as it was written, read but not yet checked as a whole.

mod agent;
mod input;
mod read;
mod work;

pub use input::with_input;

use trireme_model::{JoinPolicy, Ms, Payload, Priority, limits::BACKOFF_CAP_MS, merge::Form};

use crate::{
    agent::{Context, MaxTokens, Strategy, Turn},
    body::Role,
    problem::{Invalid, Place, Report},
    source::{Node, parse},
};

/// Time limit of an `llm` task that names none. It counts from the task being ready, so it has room for a queue,
/// for two retries and for two workers that died with it.
pub const LLM_TIMEOUT_MS: Ms = 300_000;
/// Time limit of a `tool` task that names none.
pub const TOOL_TIMEOUT_MS: Ms = 120_000;
/// Time limit of an agent that names none: some tens of calls, each within its own.
pub const AGENT_TIMEOUT_MS: Ms = 1_800_000;
/// Attempts of a task that names none.
pub const ATTEMPTS: u32 = 3;
/// Most attempts a task may ask for.
pub const MAX_ATTEMPTS: u32 = 20;
/// Base of the exponential back-off of a task that names none.
pub const BACKOFF_MS: Ms = 200;
/// Largest base.
pub const MAX_BACKOFF_MS: Ms = BACKOFF_CAP_MS;
/// Children of a map that run at once, where it does not say.
pub const AT_ONCE: u32 = 256;

/// The objects of a spec and the fields that each may have. The reference names every one of them.
pub const FIELDS: &[(&str, &[&str])] = &[
    ("spec", SPEC),
    ("budget", BUDGET),
    ("defaults", DEFAULTS),
    ("retry", RETRY),
    ("task", TASK),
    ("llm", LLM),
    ("message", MESSAGE),
    ("tool", TOOL),
    ("join", JOIN),
    ("map", MAP),
    ("do", DO),
    ("agent", AGENT),
    ("sub-agent", SUB_AGENT),
    ("role", &ROLES),
    ("turn", TURN),
    ("context", CONTEXT),
];

const SPEC: &[&str] =
    &["name", "input", "deadline", "budget", "models", "defaults", "tasks", "agent", "output"];
const BUDGET: &[&str] = &["tokens", "usd"];
const DEFAULTS: &[&str] = &["timeout", "retry", "priority"];
const RETRY: &[&str] = &["attempts", "backoff"];
const TASK: &[&str] =
    &["llm", "tool", "join", "map", "agent", "timeout", "fallback", "retry", "pool", "priority", "after"];
const LLM: &[&str] = &[
    "model",
    "prompt",
    "messages",
    "system",
    "max_tokens",
    "temperature",
    "stop",
    "schema",
    "tools",
    "stream",
];
const MESSAGE: &[&str] = &["role", "content"];
const TOOL: &[&str] = &["name", "args"];
const JOIN: &[&str] = &["from", "need", "within", "on_miss", "default", "merge"];
const MAP: &[&str] = &["over", "do", "at_once", "need", "within", "on_miss", "default", "merge"];
const DO: &[&str] = &["llm", "tool", "timeout", "fallback", "retry", "pool"];
/// Fields of the outermost agent only, then of every agent, then of one inside another only.
const AGENTS: &[&str] = &[
    "goal",
    "stream",
    "model",
    "models",
    "tools",
    "agents",
    "strategy",
    "max_steps",
    "max_replans",
    "system",
    "output_schema",
    "max_tokens",
    "temperature",
    "turn",
    "context",
    "description",
];
const AGENT: &[&str] = AGENTS.split_at(AGENTS.len() - 1).0;
const SUB_AGENT: &[&str] = AGENTS.split_at(2).1;
/// What an agent's models do, in the order of the fields of [`Models`](crate::agent::Models).
const ROLES: [&str; 5] = ["step", "planner", "joiner", "answer", "condenser"];
const TURN: &[&str] = &["within", "on_miss"];
const CONTEXT: &[&str] = &["elide_over", "condense_over"];

/// A run spec.
#[derive(Debug)]
pub struct Spec {
    pub(crate) name: String,
    pub(crate) input: Vec<(String, Payload)>,
    pub(crate) deadline: Option<Ms>,
    pub(crate) tokens: Option<u64>,
    pub(crate) usd_micros: Option<u64>,
    pub(crate) models: Vec<(String, String, Place)>,
    pub(crate) defaults: Settings,
    pub(crate) tasks: Vec<Task>,
    pub(crate) output: Option<Node>,
}

/// What any task may set.
#[derive(Debug, Default, Clone)]
pub(crate) struct Settings {
    pub timeout: Option<Ms>,
    pub fallback: Option<Payload>,
    pub attempts: Option<u32>,
    pub backoff: Option<Ms>,
    pub pool: Option<String>,
    pub priority: Option<Priority>,
}

#[derive(Debug)]
pub(crate) struct Task {
    pub id: String,
    pub place: Place,
    pub work: Work,
    pub settings: Settings,
    pub after: Vec<Name>,
}

/// A name that stands for something else, and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub text: String,
    pub path: String,
    pub place: Place,
}

/// A template and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub text: String,
    pub path: String,
    pub place: Place,
}

#[derive(Debug)]
pub(crate) enum Work {
    Llm(Box<Llm>),
    Tool(Tool),
    Join(Join),
    Map(Box<Map>),
    Agent(Box<Agent>),
    /// Not readable; already reported.
    Broken,
}

#[derive(Debug)]
pub(crate) struct Llm {
    pub model: Source,
    pub system: Option<Source>,
    pub messages: Vec<(Role, Source)>,
    pub max_tokens: Option<u32>,
    pub temperature: Option<f64>,
    pub stop: Vec<Source>,
    pub schema: Option<Schema>,
    pub tools: Vec<Name>,
    pub stream: bool,
}

#[derive(Debug)]
pub(crate) struct Tool {
    pub name: Name,
    /// An object; `None` is an empty one.
    pub args: Option<(Node, String)>,
}

#[derive(Debug)]
pub(crate) struct Join {
    /// Name in the merged object, and task.
    pub from: Vec<(String, Name)>,
    pub gather: Gather,
}

#[derive(Debug)]
pub(crate) struct Map {
    pub over: (Node, String),
    pub each: Work,
    pub settings: Settings,
    pub at_once: u32,
    pub gather: Gather,
}

#[derive(Debug)]
pub(crate) struct Agent {
    /// Of the outermost; the others get theirs from the model that calls them.
    pub goal: Option<Source>,
    /// Of a sub-agent that names none, its parent's.
    pub model: Option<Source>,
    /// By role, in the order of [`ROLES`].
    pub models: [Option<Source>; 5],
    pub system: Option<Source>,
    pub strategy: Strategy,
    pub tools: Vec<Name>,
    pub agents: Vec<SubAgent>,
    pub max_tokens: MaxTokens,
    pub temperature: Option<f64>,
    pub max_steps: u32,
    pub max_replans: u32,
    pub output_schema: Option<Schema>,
    pub turn: Turn,
    pub context: Context,
    pub stream: bool,
}

#[derive(Debug)]
pub(crate) struct SubAgent {
    pub name: String,
    pub description: String,
    pub agent: Agent,
}

/// A JSON schema, an object, and its path.
pub(crate) type Schema = (Node, String);

/// When a join or a map has its value, and what it looks like.
#[derive(Debug)]
pub(crate) struct Gather {
    pub policy: JoinPolicy,
    pub form: Form,
    pub default: Option<Payload>,
}

impl Spec {
    /// Reads a spec, YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let mut report = Report::default();
        let spec = Self::read(text, &mut report)?;
        report.finish()?;
        // without a spec there is at least one problem
        spec.ok_or_else(|| Invalid::one("", None, "the spec can't be read"))
    }

    /// Reads as much of it as is readable.
    pub(crate) fn read(text: &str, report: &mut Report) -> Result<Option<Self>, Invalid> {
        let parsed = parse(text)?;
        report.extend(parsed.problems);
        Ok(read::spec(&parsed.root, report))
    }
}

/// Names that templates give a meaning of their own, or that belong to the engine.
pub(crate) const RESERVED: &[&str] = &[
    "input",
    "item",
    "index",
    "output",
    "loop",
    "self",
    "super",
    "caller",
    "varargs",
    "kwargs",
    "and",
    "or",
    "not",
    "in",
    "is",
    "if",
    "else",
    "elif",
    "endif",
    "for",
    "endfor",
    "set",
    "endset",
    "with",
    "endwith",
    "filter",
    "endfilter",
    "raw",
    "endraw",
    "macro",
    "endmacro",
    "call",
    "endcall",
    "do",
    "block",
    "endblock",
    "extends",
    "include",
    "import",
    "from",
    "as",
    "autoescape",
    "endautoescape",
    "recursive",
    "ignore",
    "missing",
    "true",
    "false",
    "none",
    "True",
    "False",
    "None",
    "range",
    "dict",
    "namespace",
    "debug",
];
