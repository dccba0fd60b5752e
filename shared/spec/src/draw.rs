//! The derived graph for people: as text, level by level, and as Mermaid.

use std::{collections::HashMap, fmt::Write};

use trireme_model::{JoinPolicy, Kind, Need, OnMiss, TaskId, TaskSpec};

use crate::{
    Compiled, OUTPUT,
    agent::{AgentCall, Strategy},
    body::Wire,
    problem::visible,
};

/// Tools, and agents, that the drawing of an agent names; more are counted.
const NAMED: usize = 5;

impl Compiled {
    /// The graph as text: tasks of one level wait for nothing but the levels before, so they may run at once.
    pub fn tree(&self) -> String {
        let tasks = self.graph.tasks();
        let levels = levels(tasks);
        let mut by_level: Vec<Vec<&TaskSpec>> = Vec::new();
        for task in tasks {
            let level = levels.get(&task.id).copied().unwrap_or(0);
            // at most as many levels as tasks
            by_level.resize(by_level.len().max(level + 1), Vec::new());
            by_level[level].push(task);
        }
        let edges: usize = tasks.iter().map(|task| task.inputs.len()).sum();
        let depth = by_level.len();
        let name = if self.name.is_empty() { "run".to_owned() } else { visible(&self.name) };
        let mut text = format!("{name}: {} tasks, {edges} edges, {depth} levels\n", tasks.len());
        let wide = tasks.iter().map(|task| task.id.as_str().len()).max().unwrap_or(0);
        let what: HashMap<&TaskId, String> = tasks.iter().map(|task| (&task.id, what(task))).collect();
        let broad = what.values().map(|what| what.chars().count()).max().unwrap_or(0);
        for (level, here) in by_level.iter().enumerate() {
            let many = if here.len() > 1 { format!(" ({} at once)", here.len()) } else { String::new() };
            // writing into a String can't fail
            let _ = writeln!(text, "level {}{many}", level + 1);
            for task in here {
                let inputs: Vec<&str> = task.inputs.iter().map(TaskId::as_str).collect();
                let from =
                    if inputs.is_empty() { String::new() } else { format!("<- {}", inputs.join(", ")) };
                let line = format!("  {:wide$}  {:broad$}  {from}", task.id.as_str(), what[&task.id]);
                let _ = writeln!(text, "{}", line.trim_end());
            }
        }
        text
    }

    /// The graph as a Mermaid flowchart.
    pub fn mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        for task in self.graph.tasks() {
            let (open, close) = match task.exec.kind {
                Kind::Join => ("{{", "}}"),
                Kind::Map => ("[[", "]]"),
                _ => ("[", "]"),
            };
            // ids get a prefix, since words such as `end` mean something to Mermaid
            let label = format!("{}: {}", task.id, what(task)).replace(['"', '<', '>'], "'");
            let _ = writeln!(text, "  t_{}{open}\"{label}\"{close}", task.id);
        }
        for task in self.graph.tasks() {
            for input in &task.inputs {
                let _ = writeln!(text, "  t_{input} --> t_{}", task.id);
            }
        }
        text
    }
}

/// The longest way from a task without inputs, for each task.
fn levels(tasks: &[TaskSpec]) -> HashMap<&TaskId, usize> {
    let mut waiting: HashMap<&TaskId, usize> = HashMap::with_capacity(tasks.len());
    let mut successors: HashMap<&TaskId, Vec<&TaskId>> = HashMap::new();
    for task in tasks {
        waiting.insert(&task.id, task.inputs.len());
        for input in &task.inputs {
            successors.entry(input).or_default().push(&task.id);
        }
    }
    let mut levels: HashMap<&TaskId, usize> = HashMap::with_capacity(tasks.len());
    let mut open: Vec<&TaskId> =
        tasks.iter().filter(|task| task.inputs.is_empty()).map(|task| &task.id).collect();
    while let Some(id) = open.pop() {
        let level = *levels.entry(id).or_insert(0);
        for next in successors.get(id).into_iter().flatten() {
            let reached = levels.entry(next).or_insert(0);
            *reached = (*reached).max(level + 1);
            if let Some(missing) = waiting.get_mut(next) {
                *missing -= 1;
                if *missing == 0 {
                    open.push(next);
                }
            }
        }
    }
    levels
}

/// What a task does, in a few words.
fn what(task: &TaskSpec) -> String {
    let wire: Wire = task.body.parse().unwrap_or_default();
    let policy = task.policy.map(|policy| policy_of(&policy)).unwrap_or_default();
    let what = match (task.exec.kind, &wire.map) {
        (Kind::Join, _) if task.id.as_str() == OUTPUT => "the run's output".to_owned(),
        (Kind::Tool, _) if task.id.as_str() == OUTPUT => "the run's output, a template".to_owned(),
        (Kind::Join, _) => format!("join, {policy}"),
        (_, Some(map)) => {
            let at_once = task.children.as_ref().map_or(0, |children| children.at_once);
            format!("map of {}, {at_once} at once, {policy}", call(&map.each))
        }
        _ => call(&wire),
    };
    visible(&what)
}

fn call(wire: &Wire) -> String {
    match wire {
        Wire { llm: Some(llm), .. } => {
            format!("llm {}{}", llm.model, if llm.stream { ", streamed" } else { "" })
        }
        Wire { tool: Some(tool), .. } => format!("tool {}", tool.name),
        Wire { agent: Some(agent), .. } => agent_of(&agent.call),
        _ => "unknown".to_owned(),
    }
}

fn agent_of(agent: &AgentCall) -> String {
    let strategy = match agent.strategy {
        Strategy::React => "react",
        Strategy::Plan => "plan",
    };
    let model = agent.leading_model();
    let tools = names("tools", agent.tools.iter());
    format!("agent {model}, {strategy}{tools}{}", names("agents", agent.agents.keys()))
}

fn names<'n>(what: &str, names: impl ExactSizeIterator<Item = &'n String>) -> String {
    let (all, mut text) = (names.len(), String::new());
    for (at, name) in names.take(NAMED).enumerate() {
        text.push_str(if at == 0 { ", " } else { " " });
        if at == 0 {
            text.push_str(what);
            text.push(' ');
        }
        text.push_str(name);
    }
    if all > NAMED {
        let _ = write!(text, " and {} more", all - NAMED);
    }
    text
}

fn policy_of(policy: &JoinPolicy) -> String {
    let mut text = match policy.need {
        Need::All => "need all".to_owned(),
        Need::Count(1) => "need any".to_owned(),
        Need::Count(count) => format!("need {count}"),
    };
    if let Some(within) = policy.within {
        let _ =
            write!(text, " within {}", humantime::format_duration(std::time::Duration::from_millis(within)));
    }
    match policy.on_miss {
        OnMiss::Fail => {}
        OnMiss::Partial => text.push_str(", else partial"),
        OnMiss::Default => text.push_str(", else default"),
    }
    text
}
