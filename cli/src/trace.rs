//! A run as a trace that `chrome://tracing` and <https://ui.perfetto.dev> open.
//!
//! The format is the Trace Event Format, JSON Object Format
//! (<https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>): `X` complete events with `ts`
//! and `dur` in microseconds, `M` metadata, `s` and `f` flow events. Slices of one `tid` must nest (said there, and in
//! Perfetto's docs/getting-started/other-formats.md), so tasks at work at the same time get lanes of their own.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
    fs::File,
    io::Write,
    path::Path,
};

use serde_json::{Value, json};
use trireme_model::{
    Ms, TaskId,
    attribution::{Activity, Attribution, activities},
    view::{RunView, TaskView},
};

use crate::{exit::Failure, waterfall};

/// The one process of a trace: the run.
const PID: u64 = 1;

/// Where a trace goes: opened before there is one, so that no run is paid for whose trace can't be written.
pub struct Output<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> Output<'a> {
    /// Makes `path`, or empties it.
    pub fn create(path: &'a Path) -> Result<Self, Failure> {
        match File::create(path) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => Err(Failure::usage(format!("--trace {}: {error}", path.display()))),
        }
    }

    /// Writes the trace of `run`.
    pub fn write(mut self, run: &RunView, found: &Attribution) -> Result<(), Failure> {
        let text = serde_json::to_vec(&trace(run, found)).map_err(anyhow::Error::from)?;
        let written = self.file.write_all(&text);
        written.map_err(|error| Failure::usage(format!("--trace {}: {error}", self.path.display())))
    }
}

/// Where a task's slice lies: its lane, and from when to when in microseconds of the run.
#[derive(Clone, Copy)]
struct Slice {
    lane: usize,
    from: u64,
    to: u64,
}

/// The trace of `run`: a slice per task that began, with slices inside for what it did, and arrows along the critical
/// path. Time 0 is the run's acceptance.
pub fn trace(run: &RunView, found: &Attribution) -> Value {
    let (_, activities) = activities(run);
    let slices = lay_out(&activities);
    let critical = waterfall::critical(run, &activities, found);
    let mut events = named(run, slices.iter().flatten().map(|slice| slice.lane + 1).max().unwrap_or(0));
    for (at, (task, activity)) in run.tasks.iter().zip(&activities).enumerate() {
        let Some(slice) = &slices[at] else { continue };
        let args = json!({
            "label": task.label,
            "status": task.status,
            "attempt": task.attempt,
            "degraded": task.degraded,
            "owner": task.owner,
            "pool": task.pool,
            "critical": critical[at],
            "slack_ms": found.slack_ms.get(&task.id),
        });
        events.push(complete(task.id.as_str(), &kind(task), *slice, args));
        for (category, from, to) in &activity.phases {
            let inside = Slice { from: micros(*from), to: micros(*to), ..*slice };
            events.push(complete(category.name(), "phase", inside, json!({})));
        }
    }
    events.extend(arrows(run, found, &slices));
    json!({
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "run_id": run.run_id,
            "name": run.name,
            "status": run.status,
            "created_ms": run.created_ms,
            "wall_ms": found.wall_ms,
            "categories_ms": found.categories,
        },
    })
}

fn micros(ms: Ms) -> u64 {
    ms.saturating_mul(1000)
}

fn kind(task: &TaskView) -> String {
    format!("{:?}", task.kind).to_lowercase()
}

/// Gives each task that began the lowest lane that is free all along it.
fn lay_out(activities: &[Activity]) -> Vec<Option<Slice>> {
    let mut slices = vec![None; activities.len()];
    let mut begun: Vec<(Ms, usize)> =
        activities.iter().enumerate().filter_map(|(at, a)| Some((a.span?.0, at))).collect();
    begun.sort_unstable();
    let (mut free, mut busy, mut lanes) = (BTreeSet::new(), BinaryHeap::new(), 0);
    for (start, at) in begun {
        let from = micros(start);
        while let Some(Reverse((to, lane))) = busy.peek().copied()
            && to <= from
        {
            busy.pop();
            free.insert(lane);
        }
        let lane = free.pop_first().unwrap_or_else(|| {
            lanes += 1;
            lanes - 1
        });
        // a join may take no time at all; a slice without length can't be seen, nor can an arrow reach it
        let to = activities[at].span.map_or(from, |(_, end)| micros(end)).max(from + 1);
        busy.push(Reverse((to, lane)));
        slices[at] = Some(Slice { lane, from, to });
    }
    slices
}

fn complete(name: &str, category: &str, slice: Slice, args: Value) -> Value {
    json!({
        "ph": "X", "name": name, "cat": category, "pid": PID, "tid": slice.lane + 1,
        "ts": slice.from, "dur": slice.to - slice.from, "args": args,
    })
}

/// The names of the process and its lanes.
fn named(run: &RunView, lanes: usize) -> Vec<Value> {
    let name =
        if run.name.is_empty() { run.run_id.to_string() } else { format!("{} ({})", run.name, run.run_id) };
    let meta = |name: &str, tid: usize, args: Value| json!({"ph": "M", "name": name, "pid": PID, "tid": tid, "args": args});
    let mut events = vec![meta("process_name", 0, json!({"name": format!("run {name}")}))];
    for lane in 1..=lanes {
        events.push(meta("thread_name", lane, json!({"name": format!("lane {lane}")})));
        events.push(meta("thread_sort_index", lane, json!({"sort_index": lane})));
    }
    events
}

/// An arrow from each task of the critical path to the next.
fn arrows(run: &RunView, found: &Attribution, slices: &[Option<Slice>]) -> Vec<Value> {
    let index: HashMap<&TaskId, usize> =
        run.tasks.iter().enumerate().map(|(at, task)| (&task.id, at)).collect();
    let slice = |task: &TaskId| index.get(task).and_then(|at| slices[*at]);
    let mut events = Vec::new();
    for pair in found.path.windows(2) {
        let [before, after] = pair else { continue };
        let (Some(source), Some(target)) = (slice(&before.task), slice(&after.task)) else { continue };
        if before.task == after.task {
            continue;
        }
        let at = micros(after.from_ms);
        // an arrow binds to the slice around its time, and the slice that ends at a time is not around it
        let leaves = at.saturating_sub(1).clamp(source.from, source.to - 1);
        let arrives = at.clamp(target.from, target.to - 1).max(leaves);
        let flow = |phase: &str, slice: Slice, time: u64| {
            json!({
                "ph": phase, "id": events.len() / 2 + 1, "name": "critical path", "cat": "critical",
                "pid": PID, "tid": slice.lane + 1, "ts": time,
            })
        };
        let (start, mut end) = (flow("s", source, leaves), flow("f", target, arrives));
        end["bp"] = json!("e");
        events.extend([start, end]);
    }
    events
}

#[cfg(test)]
mod tests;
