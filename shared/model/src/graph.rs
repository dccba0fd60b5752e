//! The graph of a run as the engine sees it: who waits for whom, join policies, limits. What a task
//! *does* is an opaque body that only workers read.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::{
    id::{Ms, TaskId},
    limits::{MAX_EDGES, MAX_LABEL, MAX_TASKS},
    payload::Payload,
};

/// What kind of work a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One call of a language model.
    Llm,
    /// One call of a tool.
    Tool,
    /// A merge point; it fires inside the store and is never executed.
    Join,
    /// Expands into one child per item and merges their results.
    Map,
    /// A task that extends its own graph while it runs.
    Agent,
}

/// Which of a pool's queues a task's hint goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// The default.
    #[default]
    Normal,
    /// Taken before normal work by a worker with a free slot.
    High,
}

/// How many inputs a join needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// Every input.
    All,
    /// This many inputs; `any` is 1.
    Count(u32),
}

/// What a join does when it can't have what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMiss {
    /// The join fails at once.
    Fail,
    /// It fires, degraded, with the inputs there are once nothing more can come.
    Partial,
    /// As `Partial`; the missing inputs take the default value that stands in the join's body.
    Default,
}

/// The policy of a join or of a map over its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinPolicy {
    /// How many inputs it needs.
    pub need: Need,
    /// Time limit in ms; from its first input becoming ready (join) or from the map becoming ready.
    pub within: Option<Ms>,
    /// What happens on a miss.
    pub on_miss: OnMiss,
}

/// How a task is executed: the part that a map's children take over from their map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// What kind of work it is.
    pub kind: Kind,
    /// The class of workers that executes it: 1 to 64 of `[a-z0-9_-]`.
    pub pool: String,
    /// Which queue of the pool.
    pub priority: Priority,
    /// Time limit in ms from becoming ready to a result, retries and queue wait included.
    pub timeout: Option<Ms>,
    /// Attempts that may fail in a retryable way before the task fails.
    pub max_attempts: u32,
    /// Base of the exponential back-off, in ms.
    pub backoff: Ms,
    /// Whether it spends the run's budget, so that claiming it needs some left.
    pub paid: bool,
    /// The result it gets, degraded, when it fails.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::payload::given")]
    pub fallback: Option<Payload>,
}

/// What the children of a map have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Children {
    /// How each child is executed.
    pub exec: Exec,
    /// How many may be ready or running at once.
    pub at_once: u32,
}

/// One task of a submitted graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Unique within the graph.
    pub id: TaskId,
    /// What it calls, for people: the name of a tool, model or agent; at most [`MAX_LABEL`] bytes.
    #[serde(default)]
    pub label: String,
    /// How it is executed (of a join only `kind` and `fallback` matter).
    pub exec: Exec,
    /// The tasks whose results it needs, in order, without repeats.
    pub inputs: Vec<TaskId>,
    /// For `join` and `map`.
    pub policy: Option<JoinPolicy>,
    /// For `map`.
    pub children: Option<Children>,
    /// What the worker executes; for a join, how its value is merged.
    pub body: Payload,
}

/// A task that a running attempt adds to its run. It belongs to an agent (its owner): it ends with it at the
/// latest, and so does its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Its id begins with its owner's and a slash; its inputs belong to the same owner. Never a map.
    pub spec: TaskSpec,
    /// Its owner fails with it.
    pub vital: bool,
    /// What it must not touch at the same time as another task of the run; only of a tool call, 1 to
    /// [`MAX_RESOURCE`](crate::limits::MAX_RESOURCE) bytes.
    pub resource: Option<String>,
}

/// A checked graph: unique ids, known inputs, no cycle, within the limits; the last task is the output,
/// and every other task leads to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<TaskSpec>", into = "Vec<TaskSpec>")]
pub struct Graph {
    tasks: Vec<TaskSpec>,
}

/// Why a list of tasks is not a graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGraph {
    /// Nothing to do.
    #[error("a graph needs at least one task")]
    Empty,
    /// Over [`MAX_TASKS`].
    #[error("{0} tasks are over the limit of {MAX_TASKS}")]
    TooManyTasks(usize),
    /// Over [`MAX_EDGES`].
    #[error("{0} edges are over the limit of {MAX_EDGES}")]
    TooManyEdges(usize),
    /// Two tasks of one name, or one that would be a map's child.
    #[error("task {0} stands twice")]
    Duplicate(TaskId),
    /// An input that is no task, or stands twice.
    #[error("task {task} has the input {input}, which is unknown or stands twice")]
    Input {
        /// The task that names it.
        task: TaskId,
        /// The input named.
        input: TaskId,
    },
    /// Tasks that wait for each other, in order; the first follows the last.
    #[error("tasks wait for each other in a cycle: {}", .0.iter().map(TaskId::as_str).collect::<Vec<_>>().join(" -> "))]
    Cycle(Vec<TaskId>),
    /// A join without inputs or policy, a map without policy or children, either where it has no place, or a
    /// label that is too long.
    #[error("task {0} has parts that do not fit its kind")]
    Shape(TaskId),
    /// `need` over the number of inputs.
    #[error("join {task} needs {need} of {inputs} inputs")]
    Need {
        /// The join.
        task: TaskId,
        /// How many it asks for.
        need: u32,
        /// How many it has.
        inputs: usize,
    },
    /// A task that the output does not wait for.
    #[error("the output does not wait for task {0}")]
    Loose(TaskId),
}

impl Graph {
    /// Checks `tasks`.
    pub fn new(tasks: Vec<TaskSpec>) -> Result<Self, InvalidGraph> {
        let Some(output) = tasks.last() else { return Err(InvalidGraph::Empty) };
        if tasks.len() > MAX_TASKS {
            return Err(InvalidGraph::TooManyTasks(tasks.len()));
        }
        let edges = tasks.iter().map(|task| task.inputs.len()).sum();
        if edges > MAX_EDGES {
            return Err(InvalidGraph::TooManyEdges(edges));
        }
        let mut index: HashMap<&str, usize> = HashMap::with_capacity(tasks.len());
        for (at, task) in tasks.iter().enumerate() {
            if index.insert(task.id.as_str(), at).is_some() {
                return Err(InvalidGraph::Duplicate(task.id.clone()));
            }
        }
        let mut needed: HashSet<&TaskId> = HashSet::from([&output.id]);
        for task in &tasks {
            check_shape(task)?;
            if let Some((parent, _)) = task.id.split_child()
                && index.get(parent).is_some_and(|at| tasks[*at].children.is_some())
            {
                return Err(InvalidGraph::Duplicate(task.id.clone()));
            }
            let mut seen = HashSet::new();
            for input in &task.inputs {
                if !index.contains_key(input.as_str()) || !seen.insert(input) {
                    return Err(InvalidGraph::Input { task: task.id.clone(), input: input.clone() });
                }
                needed.insert(input);
            }
        }
        find_cycle(&tasks, &index)?;
        if let Some(loose) = tasks.iter().find(|task| !needed.contains(&task.id)) {
            return Err(InvalidGraph::Loose(loose.id.clone()));
        }
        Ok(Self { tasks })
    }

    /// The tasks, in the order given; the last is the output.
    pub fn tasks(&self) -> &[TaskSpec] {
        &self.tasks
    }
}

pub(crate) fn check_shape(task: &TaskSpec) -> Result<(), InvalidGraph> {
    let fits = match task.exec.kind {
        Kind::Join => task.policy.is_some() && task.children.is_none() && !task.inputs.is_empty(),
        Kind::Map => task.policy.is_some() && task.children.as_ref().is_some_and(|c| c.at_once > 0),
        _ => task.policy.is_none() && task.children.is_none(),
    };
    if !fits || task.exec.max_attempts == 0 || task.label.len() > MAX_LABEL {
        return Err(InvalidGraph::Shape(task.id.clone()));
    }
    match task.policy {
        Some(JoinPolicy { need: Need::Count(need), .. })
            if task.exec.kind == Kind::Join && (need == 0 || need as usize > task.inputs.len()) =>
        {
            Err(InvalidGraph::Need { task: task.id.clone(), need, inputs: task.inputs.len() })
        }
        _ => Ok(()),
    }
}

/// Depth-first search with an explicit stack: a chain of 10,000 tasks must not overflow ours.
fn find_cycle(tasks: &[TaskSpec], index: &HashMap<&str, usize>) -> Result<(), InvalidGraph> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Closed,
    }
    let mut marks = vec![Mark::New; tasks.len()];
    for root in 0..tasks.len() {
        let mut stack = vec![(root, 0)];
        if marks[root] != Mark::New {
            continue;
        }
        marks[root] = Mark::Open;
        while let Some((at, edge)) = stack.pop() {
            let Some(input) = tasks[at].inputs.get(edge) else {
                marks[at] = Mark::Closed;
                continue;
            };
            stack.push((at, edge + 1));
            let next = index[input.as_str()];
            match marks[next] {
                Mark::Closed => {}
                Mark::New => {
                    marks[next] = Mark::Open;
                    stack.push((next, 0));
                }
                Mark::Open => {
                    let from = stack.iter().position(|(open, _)| *open == next).unwrap_or(0);
                    // the stack runs from a task to what it waits for; a cycle reads in the order of work
                    let cycle = stack[from..].iter().rev().map(|(open, _)| tasks[*open].id.clone());
                    return Err(InvalidGraph::Cycle(cycle.collect()));
                }
            }
        }
    }
    Ok(())
}

impl TryFrom<Vec<TaskSpec>> for Graph {
    type Error = InvalidGraph;
    fn try_from(tasks: Vec<TaskSpec>) -> Result<Self, InvalidGraph> {
        Self::new(tasks)
    }
}

impl From<Graph> for Vec<TaskSpec> {
    fn from(graph: Graph) -> Self {
        graph.tasks
    }
}

impl JoinPolicy {
    /// How many of `inputs` must succeed.
    pub fn needed(&self, inputs: u32) -> u32 {
        match self.need {
            Need::All => inputs,
            Need::Count(count) => count,
        }
    }
}
