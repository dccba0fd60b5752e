//! Turns a spec into a graph: derives who waits for whom, and checks every name.

mod agent;
mod output;
mod refer;
mod schema;
mod work;

use std::collections::HashMap;

use trireme_model::{
    Budget, Caller, Exec, Graph, InvalidGraph, Kind, Ms, Payload, Priority, RunId, Submit, TaskId, TaskSpec,
    limits::{MAX_EDGES, MAX_LABEL},
};

use crate::{
    Checker,
    body::Wire,
    problem::{Invalid, Report, quoted},
    source::join,
    spec::{
        AGENT_TIMEOUT_MS, ATTEMPTS, BACKOFF_MS, LLM_TIMEOUT_MS, Name, Settings, Spec, TOOL_TIMEOUT_MS, Work,
    },
};

/// The id of the hidden last task.
pub const OUTPUT: &str = "output";

/// A spec that was checked, ready to be submitted.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// A label for people; may be empty.
    pub name: String,
    /// What to do; the hidden last task [`OUTPUT`] has the run's output.
    pub graph: Graph,
    /// The run's input, a JSON object.
    pub input: Payload,
    /// Time limit of the whole run, in ms.
    pub deadline: Option<Ms>,
    /// What it may spend.
    pub budget: Budget,
}

/// Reads and compiles a spec, YAML or JSON. `inputs` are `key=value` and go over the spec's own; see
/// [`Spec::set_input`]. The answer to a bad spec names every problem found.
pub fn compile(text: &str, inputs: &[String], checker: &dyn Checker) -> Result<Compiled, Invalid> {
    let mut report = Report::default();
    let spec = Spec::read(text, &mut report)?;
    let Some(mut spec) = spec else {
        report.finish()?;
        return Err(Invalid::one("", None, "the spec can't be read"));
    };
    for input in inputs {
        if let Err(invalid) = spec.set_input(input) {
            report.extend(invalid.problems);
        }
    }
    spec.compile_into(checker, report)
}

impl Spec {
    /// Checks the spec as a whole and makes it a graph.
    pub fn compile(&self, checker: &dyn Checker) -> Result<Compiled, Invalid> {
        self.compile_into(checker, Report::default())
    }

    fn compile_into(&self, checker: &dyn Checker, mut report: Report) -> Result<Compiled, Invalid> {
        let graph = Compiler::new(self, checker, &mut report).graph();
        report.finish()?;
        let graph = graph.ok_or_else(|| Invalid::one("tasks", None, "the tasks make no graph"))?;
        let mut input = String::from("{");
        for (at, (key, value)) in self.input.iter().enumerate() {
            if at > 0 {
                input.push(',');
            }
            crate::source::write_text(key, &mut input);
            input.push(':');
            input.push_str(&String::from_utf8_lossy(value.as_bytes()));
        }
        input.push('}');
        Ok(Compiled {
            name: self.name.clone(),
            graph,
            input: Payload::from_json(input),
            deadline: self.deadline,
            budget: Budget { tokens: self.tokens, usd_micros: self.usd_micros },
        })
    }
}

impl Compiled {
    /// The request that starts it, untraced. `fingerprint` tells a repeated request from another one.
    pub fn submit(&self, run: RunId, fingerprint: impl Into<String>) -> Submit {
        Submit {
            run,
            caller: Caller::default(),
            name: self.name.clone(),
            fingerprint: fingerprint.into(),
            graph: self.graph.clone(),
            input: self.input.clone(),
            deadline: self.deadline,
            budget: self.budget,
            keep: Default::default(),
            trace: None,
        }
    }
}

struct Compiler<'s> {
    spec: &'s Spec,
    checker: &'s dyn Checker,
    report: &'s mut Report,
    /// Position of each task.
    index: HashMap<&'s str, usize>,
    /// Models that were checked.
    models: HashMap<String, bool>,
    schemas: schema::Schemas,
}

/// What a task waits for, as it is found: in order, without repeats.
#[derive(Debug, Default)]
struct Inputs {
    ids: Vec<TaskId>,
    seen: std::collections::HashSet<TaskId>,
}

impl Inputs {
    fn add(&mut self, id: &str) {
        // ids that are no ids were reported where their task stands
        if let Ok(id) = TaskId::new(id)
            && self.seen.insert(id.clone())
        {
            self.ids.push(id);
        }
    }
}

impl<'s> Compiler<'s> {
    fn new(spec: &'s Spec, checker: &'s dyn Checker, report: &'s mut Report) -> Self {
        let index = spec.tasks.iter().enumerate().map(|(at, task)| (task.id.as_str(), at)).collect();
        Self { spec, checker, report, index, models: HashMap::new(), schemas: Default::default() }
    }

    fn graph(mut self) -> Option<Graph> {
        let spec = self.spec;
        for (alias, model, place) in &spec.models {
            self.check_model(model, &join("models", alias), *place);
        }
        let mut tasks: Vec<TaskSpec> = spec.tasks.iter().filter_map(|task| self.task(task)).collect();
        let output = self.output(&tasks);
        tasks.push(output);
        let edges: usize = tasks.iter().map(|task| task.inputs.len()).sum();
        if edges > MAX_EDGES {
            self.report.add("tasks", None, format!("{edges} edges are over the limit of {MAX_EDGES}"));
            return None;
        }
        match Graph::new(tasks) {
            Ok(graph) => Some(graph),
            Err(InvalidGraph::Cycle(cycle)) => {
                let place =
                    cycle.first().and_then(|id| self.index.get(id.as_str())).map(|at| spec.tasks[*at].place);
                self.report.add("tasks", place, describe_cycle(&cycle));
                None
            }
            // with problems reported before, tasks are missing from the list and nothing else is to be learnt
            Err(_) if !self.report.is_empty() => None,
            Err(error) => {
                self.report.add("tasks", None, error.to_string());
                None
            }
        }
    }

    fn task(&mut self, task: &'s crate::spec::Task) -> Option<TaskSpec> {
        let mut inputs = Inputs::default();
        let (kind, wire, policy, children) = match &task.work {
            Work::Broken => return None,
            Work::Llm(llm) => (Kind::Llm, self.llm(llm, false, &mut inputs), None, None),
            Work::Tool(tool) => (Kind::Tool, self.tool(tool, false, &mut inputs), None, None),
            Work::Join(join) => (Kind::Join, self.join(join, &mut inputs), Some(join.gather.policy), None),
            Work::Agent(agent) => (Kind::Agent, self.agent(agent, &mut inputs), None, None),
            Work::Map(map) => {
                let (wire, children) = self.map(map, &task.settings, &mut inputs);
                (Kind::Map, wire, Some(map.gather.policy), Some(children))
            }
        };
        for name in &task.after {
            self.refer(name, &mut inputs);
        }
        let id = TaskId::new(&task.id).ok()?;
        let exec = self.exec(kind, &task.settings, None);
        // a join over a name that does not exist can't be held to its `need`: that was reported already
        let (label, body) = (label(&wire), Payload::of(&wire));
        Some(TaskSpec { id, label, exec, inputs: inputs.ids, policy, children, body })
    }

    /// A name that must be a task's.
    fn refer(&mut self, name: &Name, inputs: &mut Inputs) {
        if self.index.contains_key(name.text.as_str()) {
            inputs.add(&name.text);
            return;
        }
        let hint = self.report.hint(&name.text, self.spec.tasks.iter().map(|task| task.id.as_str()));
        self.report.add(&name.path, Some(name.place), format!("unknown task {}{hint}", quoted(&name.text)));
    }

    /// How a task is executed: its own settings, else those of the map around it, else the spec's defaults.
    fn exec(&self, kind: Kind, own: &Settings, around: Option<&Settings>) -> Exec {
        let defaults = &self.spec.defaults;
        let timeout = match kind {
            Kind::Llm => Some(own.timeout.or(defaults.timeout).unwrap_or(LLM_TIMEOUT_MS)),
            Kind::Tool => Some(own.timeout.or(defaults.timeout).unwrap_or(TOOL_TIMEOUT_MS)),
            // defaults are of single calls
            Kind::Agent => Some(own.timeout.unwrap_or(AGENT_TIMEOUT_MS)),
            // a map's children have limits of their own
            _ => own.timeout,
        };
        let pool = match kind {
            Kind::Join => String::new(),
            Kind::Llm | Kind::Agent => own.pool.clone().unwrap_or_else(|| "llm".to_owned()),
            _ => own.pool.clone().unwrap_or_else(|| "tool".to_owned()),
        };
        let attempts = own.attempts.or(around.and_then(|map| map.attempts)).or(defaults.attempts);
        let backoff = own.backoff.or(around.and_then(|map| map.backoff)).or(defaults.backoff);
        let priority = own.priority.or(around.and_then(|map| map.priority)).or(defaults.priority);
        Exec {
            kind,
            pool,
            priority: priority.unwrap_or(Priority::Normal),
            timeout,
            max_attempts: attempts.unwrap_or(ATTEMPTS),
            backoff: backoff.unwrap_or(BACKOFF_MS),
            // an agent's steps are paid, each by itself
            paid: kind == Kind::Llm,
            fallback: own.fallback.clone(),
        }
    }
}

/// What a task calls, for people: its tool, or its model; of a map, that of its children.
fn label(wire: &Wire) -> String {
    let name = match wire {
        Wire { llm: Some(llm), .. } => llm.model.as_str(),
        Wire { tool: Some(tool), .. } => &tool.name,
        Wire { agent: Some(agent), .. } => agent.call.leading_model(),
        Wire { map: Some(map), .. } => return label(&map.each),
        _ => return String::new(),
    };
    let end = (0..=name.len().min(MAX_LABEL)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name[..end].to_owned()
}

fn describe_cycle(cycle: &[TaskId]) -> String {
    let mut names: Vec<&str> = cycle.iter().map(TaskId::as_str).collect();
    if let [own] = names.as_slice() {
        return format!("task `{own}` waits for itself");
    }
    names.extend(names.first().copied());
    format!("tasks wait for each other in a cycle: {}", names.join(" -> "))
}
