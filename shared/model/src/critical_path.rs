//! Which tasks decided how long a run took.

use std::collections::HashMap;

use crate::{
    graph::Kind,
    id::TaskId,
    view::{RunView, TaskView},
};

/// The chain of tasks, first to last, each of which was the last input that the next one waited for. Its
/// end is the task that ended last among those that nobody waits for: the output, once a run has ended well.
pub fn critical_path(run: &RunView) -> Vec<TaskId> {
    let tasks: HashMap<&TaskId, &TaskView> = run.tasks.iter().map(|task| (&task.id, task)).collect();
    let ended = |task: &TaskView| task.ended_ms.unwrap_or(0);
    let awaited: std::collections::HashSet<&TaskId> =
        run.tasks.iter().flat_map(|task| &task.inputs).collect();
    let tops = run.tasks.iter().filter(|task| !awaited.contains(&task.id) && !is_child(task, &tasks));
    let mut at = tops.max_by_key(|task| ended(task));
    let mut path = Vec::new();
    while let Some(task) = at {
        path.push(task.id.clone());
        let child = (task.kind == Kind::Map).then(|| last_child(task, run)).flatten();
        path.extend(child.map(|child| child.id.clone()));
        // inputs that ended after this task did were not waited for: a join that needs only some
        let start = task.ready_ms.or(task.ended_ms).unwrap_or(u64::MAX);
        let inputs = task.inputs.iter().filter_map(|input| tasks.get(input).copied());
        at = inputs
            .filter(|input| input.ended_ms.is_some_and(|ended| ended <= start))
            .max_by_key(|input| ended(input))
            // each step goes to an input of an acyclic graph; the length check makes a bad view harmless
            .filter(|_| path.len() <= 2 * run.tasks.len());
    }
    // children were put after their map, and all is reversed below
    path.reverse();
    for at in 1..path.len() {
        if path[at - 1].split_child().is_some_and(|(parent, _)| parent == path[at].as_str()) {
            path.swap(at - 1, at);
        }
    }
    path
}

fn is_child(task: &TaskView, tasks: &HashMap<&TaskId, &TaskView>) -> bool {
    task.id.split_child().is_some_and(|(parent, _)| tasks.keys().any(|id| id.as_str() == parent))
}

fn last_child<'a>(map: &TaskView, run: &'a RunView) -> Option<&'a TaskView> {
    let children = run.tasks.iter().filter(|task| {
        task.id.split_child().is_some_and(|(parent, _)| parent == map.id.as_str())
            && task.ended_ms <= map.ended_ms
    });
    children.max_by_key(|task| task.ended_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::RunId,
        run::{RunStatus, TaskStatus, Usage},
    };

    fn task(id: &str, kind: Kind, ready: u64, ended: u64, inputs: &[&str]) -> TaskView {
        TaskView {
            id: TaskId::new(id).unwrap(),
            kind,
            pool: "tool".into(),
            status: TaskStatus::Succeeded,
            attempt: 1,
            degraded: false,
            queued_ms: Some(0),
            run_ms: Some(ended - ready),
            ready_ms: Some(ready),
            started_ms: Some(ready),
            ended_ms: Some(ended),
            inputs: inputs.iter().map(|id| TaskId::new(id).unwrap()).collect(),
            error: None,
        }
    }

    #[test]
    fn the_slowest_chain_and_a_maps_last_child() {
        let run = RunView {
            run_id: RunId::new("r").unwrap(),
            name: String::new(),
            status: RunStatus::Succeeded,
            degraded: false,
            output: None,
            error: None,
            created_ms: 1,
            ended_ms: Some(90),
            wall_ms: Some(89),
            deadline_ms: None,
            usage: Usage::default(),
            wasted: Usage::default(),
            tasks: vec![
                task("fast", Kind::Tool, 1, 10, &[]),
                task("slow", Kind::Tool, 1, 30, &[]),
                task("each", Kind::Map, 30, 80, &["slow", "fast"]),
                task("each/0", Kind::Llm, 31, 50, &[]),
                task("each/1", Kind::Llm, 31, 80, &[]),
                task("output", Kind::Tool, 80, 90, &["each", "fast"]),
            ],
        };
        let path: Vec<String> = critical_path(&run).iter().map(ToString::to_string).collect();
        assert_eq!(path, ["slow", "each", "each/1", "output"]);
    }
}
