//! The graphs that are measured, as specs like any other.

use anyhow::anyhow;
use serde_json::{Value, json};
use trireme_model::{RunId, Submit};
use trireme_spec::Compiled;

use crate::pause;

/// `width` independent no-op tasks, each with a 256-byte argument, results recorded.
pub fn independent(width: usize) -> anyhow::Result<Compiled> {
    let pad = "x".repeat(240);
    let task = json!({"tool": {"name": "value", "args": {"value": pad}}});
    compile((0..width).map(|at| (format!("t{at}"), task.clone())).collect())
}

/// Source, ten tasks that sleep `ms` (0: no-ops), join.
pub fn fan_out(ms: u64) -> anyhow::Result<Compiled> {
    let mut tasks = vec![("source".to_owned(), json!({"tool": {"name": "noop"}}))];
    let tool =
        if ms == 0 { json!({"name": "noop"}) } else { json!({"name": pause::NAME, "args": {"ms": ms}}) };
    tasks.extend((0..10).map(|at| (format!("t{at}"), json!({"tool": tool, "after": ["source"]}))));
    let from: Vec<String> = (0..10).map(|at| format!("t{at}")).collect();
    tasks.push(("joined".to_owned(), json!({"join": {"from": from}})));
    compile(tasks)
}

/// `length` no-ops one after the other.
pub fn chain(length: usize) -> anyhow::Result<Compiled> {
    let task = |at: usize| match at {
        0 => json!({"tool": {"name": "noop"}}),
        _ => json!({"tool": {"name": "noop"}, "after": [format!("t{}", at - 1)]}),
    };
    compile((0..length).map(|at| (format!("t{at}"), task(at))).collect())
}

/// `width` independent calls of the simulated model.
pub fn calls(width: usize) -> anyhow::Result<Compiled> {
    let task = |at: usize| json!({"llm": {"model": "sim/second", "prompt": format!("Question {at}")}});
    compile((0..width).map(|at| (format!("t{at}"), task(at))).collect())
}

/// The run `id` of a compiled workload.
pub fn submit(compiled: &Compiled, id: &str) -> anyhow::Result<Submit> {
    Ok(compiled.submit(RunId::new(id)?, id))
}

fn compile(tasks: Vec<(String, Value)>) -> anyhow::Result<Compiled> {
    let spec = json!({"tasks": tasks.into_iter().collect::<serde_json::Map<_, _>>()}).to_string();
    trireme_spec::compile(&spec, &[], &trireme_spec::Permissive)
        .map_err(|errors| anyhow!("workload: {errors}"))
}
