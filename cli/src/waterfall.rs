//! A finished run as text: one line per task on the run's time axis, waiting light, running solid, the
//! critical path marked.

use std::{collections::HashSet, fmt::Write};

use trireme_model::{TaskId, TaskStatus, critical_path::critical_path, view::RunView};

/// Width of the time axis in characters.
const AXIS: usize = 48;
/// Tasks shown; more are counted.
const MAX_LINES: usize = 200;

/// Draws `run`. `colour` uses ANSI colours.
pub fn draw(run: &RunView, colour: bool) -> String {
    let path: HashSet<TaskId> = critical_path(run).into_iter().collect();
    let start = run.created_ms;
    let end = run.ended_ms.unwrap_or_else(|| {
        run.tasks.iter().filter_map(|task| task.ended_ms.or(task.started_ms)).max().unwrap_or(start)
    });
    let span = end.saturating_sub(start).max(1);
    let width = run.tasks.iter().map(|task| task.id.as_str().len()).max().unwrap_or(4).clamp(4, 28);
    let mut out = String::new();
    let wall = format!("{:.2} s", span as f64 / 1000.0);
    let _ =
        writeln!(out, "{:width$}  {:5} |0 s{:>rest$}|   wait    run", "task", "kind", wall, rest = AXIS - 3);
    let column = |time: u64| -> usize {
        usize::try_from(time.saturating_sub(start) * AXIS as u64 / span).unwrap_or(AXIS).min(AXIS)
    };
    for task in run.tasks.iter().take(MAX_LINES) {
        let critical = path.contains(&task.id);
        let kind = format!("{:?}", task.kind).to_lowercase();
        let mut bar = vec![' '; AXIS];
        let ended = task.ended_ms.unwrap_or(end);
        if let (Some(ready), Some(started)) = (task.ready_ms, task.started_ms) {
            bar[column(ready)..column(started)].fill('.');
            let (from, to) = (column(started).min(AXIS - 1), column(ended));
            bar[from..to.max(from + 1)].fill(if critical { '#' } else { '=' });
        } else if task.ended_ms.is_some() {
            bar[column(ended).min(AXIS - 1)] = '|';
        }
        let mark = match task.status {
            TaskStatus::Succeeded if task.degraded => " degraded",
            TaskStatus::Succeeded => "",
            TaskStatus::Failed => " failed",
            TaskStatus::Cancelled => " cancelled",
            TaskStatus::Skipped => " skipped",
            _ => " open",
        };
        let shown: String = shorten(task.id.as_str(), width);
        let bar: String = bar.into_iter().collect();
        let bar = match (colour, critical) {
            (true, true) => format!("\x1b[33m{bar}\x1b[0m"),
            (true, false) => format!("\x1b[36m{bar}\x1b[0m"),
            _ => bar,
        };
        let _ = writeln!(
            out,
            "{shown:width$}  {kind:5} |{bar}| {} {}{}{mark}",
            ms(task.queued_ms),
            ms(task.run_ms),
            if critical { " *" } else { "  " },
        );
    }
    if run.tasks.len() > MAX_LINES {
        let _ = writeln!(out, "... and {} more tasks", run.tasks.len() - MAX_LINES);
    }
    let _ = writeln!(out, "* critical path; . waiting for a worker, # = running, | a join that fired");
    out
}

fn ms(time: Option<u64>) -> String {
    time.map_or_else(|| " ".repeat(7), |ms| format!("{ms:>4} ms"))
}

/// Keeps the end of a long path: that is where tasks differ.
fn shorten(id: &str, width: usize) -> String {
    if id.len() <= width {
        return id.to_owned();
    }
    format!("..{}", &id[id.len() + 2 - width..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_drawn_on_its_own_time_axis() {
        let run: RunView = serde_json::from_value(serde_json::json!({
            "run_id": "r", "name": "", "status": "succeeded", "degraded": false, "output": null, "error": null,
            "created_ms": 1000, "ended_ms": 2000, "wall_ms": 1000, "deadline_ms": null,
            "usage": {}, "wasted": {},
            "tasks": [
                {"id": "a", "kind": "tool", "pool": "tool", "status": "succeeded", "attempt": 1,
                 "degraded": false, "queued_ms": 500, "run_ms": 500, "ready_ms": 1000, "started_ms": 1500,
                 "ended_ms": 2000, "inputs": [], "error": null},
                {"id": "output", "kind": "join", "pool": "", "status": "succeeded", "attempt": 0,
                 "degraded": true, "queued_ms": null, "run_ms": null, "ready_ms": null, "started_ms": null,
                 "ended_ms": 2000, "inputs": ["a"], "error": null},
            ],
        }))
        .unwrap();
        let drawn = draw(&run, false);
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(
            lines[1],
            format!("a       tool  |{}{}|  500 ms  500 ms *", ".".repeat(24), "#".repeat(24))
        );
        assert!(lines[2].contains('|') && lines[2].ends_with("* degraded"), "{}", lines[2]);
        assert!(!drawn.contains('\x1b'));
        assert!(draw(&run, true).contains('\x1b'));
    }

    #[test]
    fn a_long_id_keeps_its_end() {
        assert_eq!(shorten("research/step-2/call-0", 10), "..2/call-0");
    }
}
