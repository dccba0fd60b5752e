//! The hidden last task: the run's output.
//!
//! Absent, the output is an object of all tasks that nobody waits for; as one reference to a task it is that
//! task's value. Both are joins, which fire inside the store without a worker. Anything else is a call of the
//! built-in tool `value`. Every task that the output does not refer to is waited for all the same: a run ends
//! when all its work has.

use std::collections::{HashMap, HashSet};

use trireme_model::{
    Exec, JoinPolicy, Kind, Need, OnMiss, Payload, Priority, TaskId, TaskSpec,
    merge::{Form, Merge},
};

use super::{Compiler, Inputs, OUTPUT};
use crate::{
    body::{ToolWire, Wire},
    problem::Place,
    source::{Data, Node},
    spec::{ATTEMPTS, BACKOFF_MS},
    template::{Part, analyse::analyse},
};

/// The built-in tool that gives back its argument.
const VALUE: &str = "value";
/// The pool of an output that waits for nothing with a pool.
const POOL: &str = "tool";

impl Compiler<'_> {
    pub(super) fn output(&mut self, tasks: &[TaskSpec]) -> TaskSpec {
        let sinks = sinks(tasks);
        let mut inputs = Inputs::default();
        let Some(output) = &self.spec.output else {
            for sink in &sinks {
                inputs.add(sink.as_str());
            }
            let names = inputs.ids.iter().map(ToString::to_string).collect();
            return join(inputs.ids, Merge { form: Form::Object, names, default: None });
        };
        let place: Place = output.place;
        let whole = self.whole(output);
        if whole.is_none() {
            self.templates(output, OUTPUT, false, &mut inputs);
        }
        if let Some(task) = whole {
            // the wanted one first: it is what `first` takes of inputs that are all there
            inputs.add(&task);
            sinks.iter().for_each(|sink| inputs.add(sink.as_str()));
            return join(inputs.ids, Merge { form: Form::First, ..Merge::default() });
        }
        let pool = pool(&inputs.ids, tasks);
        sinks.iter().for_each(|sink| inputs.add(sink.as_str()));
        if output.payload().len() > crate::MAX_TEXT_BYTES {
            self.report.add(OUTPUT, Some(place), "the output's template is too large");
        }
        let args = Payload::from_json([b"{\"value\":", output.payload().as_bytes().as_ref(), b"}"].concat());
        let wire = Wire { tool: Some(ToolWire { name: VALUE.to_owned(), args }), ..Wire::default() };
        TaskSpec {
            id: id(),
            label: String::new(),
            exec: exec(Kind::Tool, pool),
            inputs: inputs.ids,
            policy: None,
            children: None,
            body: Payload::of(&wire),
        }
    }

    /// The task whose whole value is the output, if it is nothing but a reference to one.
    fn whole(&self, output: &Node) -> Option<String> {
        let Data::Text(text) = &output.data else { return None };
        match analyse(text).ok()?.parts?.as_slice() {
            [Part::Path(path)] if path.steps.is_empty() && self.index.contains_key(path.root.as_str()) => {
                Some(path.root.clone())
            }
            _ => None,
        }
    }
}

fn id() -> TaskId {
    TaskId::new(OUTPUT).unwrap_or_else(|_| unreachable!("`output` is an id"))
}

fn exec(kind: Kind, pool: String) -> Exec {
    Exec {
        kind,
        pool,
        priority: Priority::Normal,
        timeout: None,
        max_attempts: ATTEMPTS,
        backoff: BACKOFF_MS,
        paid: false,
        fallback: None,
    }
}

fn join(inputs: Vec<TaskId>, merge: Merge) -> TaskSpec {
    TaskSpec {
        id: id(),
        label: String::new(),
        exec: exec(Kind::Join, String::new()),
        inputs,
        policy: Some(JoinPolicy { need: Need::All, within: None, on_miss: OnMiss::Fail }),
        children: None,
        body: Payload::of(&Wire { merge: Some(merge), ..Wire::default() }),
    }
}

/// The tasks that nobody waits for. Where there is none, everything runs in circles: any task will do to find
/// the circle by.
fn sinks(tasks: &[TaskSpec]) -> Vec<TaskId> {
    let waited: HashSet<&TaskId> = tasks.iter().flat_map(|task| &task.inputs).collect();
    let sinks: Vec<TaskId> =
        tasks.iter().map(|task| &task.id).filter(|id| !waited.contains(id)).cloned().collect();
    if sinks.is_empty() { tasks.last().map(|task| task.id.clone()).into_iter().collect() } else { sinks }
}

/// The pool of the last task that a worker runs among `inputs` or, through joins, below them: its worker can go
/// on with the output at once.
fn pool(inputs: &[TaskId], tasks: &[TaskSpec]) -> String {
    let by_id: HashMap<&TaskId, (usize, &TaskSpec)> =
        tasks.iter().enumerate().map(|(at, task)| (&task.id, (at, task))).collect();
    let mut seen = HashSet::new();
    let mut open: Vec<&TaskId> = inputs.iter().collect();
    let mut last: Option<(usize, &TaskSpec)> = None;
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        match by_id.get(id) {
            Some((_, task)) if task.exec.kind == Kind::Join => open.extend(&task.inputs),
            Some(found) if last.is_none_or(|(at, _)| at < found.0) => last = Some(*found),
            _ => {}
        }
    }
    last.map_or_else(|| POOL.to_owned(), |(_, task)| task.exec.pool.clone())
}
