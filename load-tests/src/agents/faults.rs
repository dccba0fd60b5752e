//! The product under faults, against itself without them: the same items, in the same invocation, on the cluster backend
//! with worker processes.
//!
//! - **Workers are killed** with SIGKILL, one of three each time that a fifth of the items has begun (`--kills`), and
//!   started again. What they were at is taken up when its lease of up to 10 s has run out.
//! - **Every hint comes twice**: whoever receives one publishes it once more, for any worker to get.
//! - **Hints and results overtake each other**: each is held back for a random time (see [`tap`]).

mod tap;

use serde_json::{Value, json};
use trireme_model::{Kind, Run, TaskStatus};

use super::{
    report::{COMMON, Measured, interval, table, times},
    statistics::{median, quantile, ratio_of_medians},
    suite::Suite,
};
pub(super) use tap::Tap;

/// Runs in which some attempt was lost.
fn hit(runs: &[Run]) -> usize {
    runs.iter().filter(|run| run.tasks.values().any(|task| task.lost > 0)).count()
}

/// The tools of a run in the order in which their results were recorded.
fn results(run: &Run) -> Vec<&str> {
    let tool = |task: &trireme_model::Task| {
        task.status == TaskStatus::Succeeded
            && task.spec.as_ref().is_some_and(|spec| spec.exec.kind == Kind::Tool)
    };
    let mut tools: Vec<_> = run.tasks.iter().filter(|(_, task)| tool(task)).collect();
    tools.sort_by_key(|(id, task)| (task.ended_at, id.as_str()));
    tools.into_iter().map(|(id, _)| id.as_str()).collect()
}

/// Runs whose results were recorded in another order than in the clean run of the same item.
fn reordered(clean: &[Run], faulty: &[Run]) -> usize {
    clean.iter().zip(faulty).filter(|(clean, faulty)| results(clean) != results(faulty)).count()
}

/// A table of the clean and the faulty fleet.
pub(super) fn text(suite: &Suite, [clean, faulty]: &[Measured; 2], how: &str, seed: u64) -> String {
    let header = ["worker processes", "median s", "p90 s", "time vs clean [95 %]"];
    let header: Vec<String> = header
        .into_iter()
        .chain(COMMON)
        .chain(["kills", "runs hit", "in another order"])
        .map(str::to_owned)
        .collect();
    let row = |one: &Measured| {
        let walls = one.walls();
        let ratio = ratio_of_medians(&walls, &clean.walls(), seed);
        let mut row = vec![
            one.system.clone(),
            format!("{:.3}", median(&walls)),
            format!("{:.3}", quantile(&walls, 0.9)),
            times(ratio),
        ];
        row.extend(one.columns(suite, clean));
        row.extend([one.kills, hit(&one.runs), reordered(&clean.runs, &one.runs)].map(|n| n.to_string()));
        row
    };
    format!(
        "\n({}) {}, {} items, {how}\n{}{}{}",
        suite.name,
        suite.title,
        suite.items.len(),
        table(&header, &[row(clean), row(faulty)]),
        clean.examples(suite),
        faulty.examples(suite)
    )
}

/// The same as JSON lines.
pub(super) fn lines(suite: &Suite, [clean, faulty]: &[Measured; 2], seed: u64) -> Vec<Value> {
    let line = |one: &Measured| {
        let mut line = one.fields(suite, clean);
        line["part"] = json!("faults");
        line["time_vs_clean"] = interval(ratio_of_medians(&one.walls(), &clean.walls(), seed));
        line["kills"] = json!(one.kills);
        line["runs_hit"] = json!(hit(&one.runs));
        line["runs_in_another_order"] = json!(reordered(&clean.runs, &one.runs));
        line
    };
    vec![line(clean), line(faulty)]
}
