//! A run as text: one line per task on the run's time axis, what it did at each time, the critical path marked; then
//! where the run's time went and what would have made it shorter.

mod account;

use std::{collections::HashSet, fmt::Write};

use trireme_model::{
    Ms, TaskId, TaskStatus,
    attribution::{Activity, Attribution, Category, activities},
    view::{RunView, TaskView},
};

pub use account::account;

/// Width of the time axis in characters.
const AXIS: usize = 48;
/// Tasks shown; more are counted. Those of the critical path go first.
const MAX_LINES: usize = 200;
/// Longest name shown.
const MAX_NAME: usize = 32;
/// Levels of agents and maps that are indented; the engine's own bound on agents is eight.
const MAX_DEPTH: usize = 10;

/// Draws `run`. `colour` uses ANSI colours.
pub fn draw(run: &RunView, found: &Attribution, colour: bool) -> String {
    let (wall, activities) = activities(run);
    let critical = critical(run, &activities, found);
    let shown = shown(&critical);
    let names: Vec<String> = shown.iter().map(|at| name(run, &activities, *at)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(4).clamp(4, MAX_NAME);
    let mut out = String::new();
    let end = seconds(wall);
    let _ = writeln!(
        out,
        "{:width$}  {:5} |0 s{end:>rest$}|       wait        run      slack",
        "task",
        "kind",
        rest = AXIS - 3
    );
    for (at, name) in shown.iter().zip(&names) {
        let (task, activity) = (&run.tasks[*at], &activities[*at]);
        let critical = critical[*at];
        let bar = bar(activity, wall);
        let bar = match (colour, critical) {
            (true, true) => format!("\x1b[33m{bar}\x1b[0m"),
            (true, false) => format!("\x1b[36m{bar}\x1b[0m"),
            _ => bar,
        };
        let line = format!(
            "{:width$}  {:5} |{bar}|{}{}{}{}{}",
            shorten(name, width),
            format!("{:?}", task.kind).to_lowercase(),
            ms(task.queued_ms),
            ms(task.run_ms),
            ms(found.slack_ms.get(&task.id).copied()),
            if critical { " *" } else { "" },
            mark(task),
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }
    if run.tasks.len() > shown.len() {
        let _ = writeln!(out, "... and {} more tasks", run.tasks.len() - shown.len());
    }
    out.push_str(
        "* critical path; . waiting for a worker, : giving out work, - until the first token, = writing, # tool,\n\
         % condensing, x retries, _ at work through its tasks, + a join's wait, | in no time at all\n",
    );
    out
}

/// Which tasks are on the critical path, or have some inside that are.
pub fn critical(run: &RunView, activities: &[Activity], found: &Attribution) -> Vec<bool> {
    let path: HashSet<&TaskId> = found.path.iter().map(|segment| &segment.task).collect();
    let mut critical: Vec<bool> = run.tasks.iter().map(|task| path.contains(&task.id)).collect();
    // what is inside stands behind
    for at in (0..critical.len()).rev() {
        if let Some(parent) = activities[at].parent.filter(|_| critical[at]) {
            critical[parent] = true;
        }
    }
    critical
}

/// The tasks that are drawn, in the order of the run.
fn shown(critical: &[bool]) -> Vec<usize> {
    let mut all: Vec<usize> = (0..critical.len()).collect();
    // stable: what is cut off is the end of the others, then the end of the path
    all.sort_by_key(|at| !critical[*at]);
    all.truncate(MAX_LINES);
    all.sort_unstable();
    all
}

/// The id, without that of its agent, indented below what it is inside of.
fn name(run: &RunView, activities: &[Activity], at: usize) -> String {
    let task = &run.tasks[at];
    let parent = activities[at].parent;
    let depth = std::iter::successors(parent, |at| activities[*at].parent).take(MAX_DEPTH).count();
    let owner = task.owner.as_ref().map_or("", |owner| owner.as_str());
    let own = task.id.as_str().strip_prefix(owner).unwrap_or(task.id.as_str());
    format!("{}{}", "  ".repeat(depth), own.trim_start_matches('/'))
}

fn bar(activity: &Activity, wall: Ms) -> String {
    let column = |time: Ms| usize::try_from(time * AXIS as u64 / wall.max(1)).unwrap_or(AXIS).min(AXIS);
    let mut bar = [' '; AXIS];
    let mut fill = |from: Ms, to: Ms, with: char| {
        // whatever took its time is seen
        let from = column(from).min(AXIS - 1);
        bar[from..column(to).max(from + 1)].fill(with);
    };
    let Some((from, to)) = activity.span else { return bar.iter().collect() };
    let attempt = activity.phases.last().map_or(from, |(.., end)| *end);
    if attempt < to {
        fill(attempt, to, '_');
    }
    // a wait shorter than a column must not hide what followed it
    for (category, from, to) in &activity.phases {
        fill(*from, *to, letter(*category));
    }
    if activity.phases.iter().all(|(category, ..)| *category == Category::Join) {
        fill(to, to, '|');
    }
    bar.iter().collect()
}

fn letter(category: Category) -> char {
    match category {
        Category::Queue => '.',
        Category::Dispatch => ':',
        Category::FirstToken => '-',
        Category::Decode => '=',
        Category::Tool => '#',
        Category::Join => '+',
        Category::Condense => '%',
        Category::Retry => 'x',
    }
}

fn mark(task: &TaskView) -> &'static str {
    match task.status {
        TaskStatus::Succeeded if task.degraded => " degraded",
        TaskStatus::Succeeded => "",
        TaskStatus::Failed => " failed",
        TaskStatus::Cancelled => " cancelled",
        TaskStatus::Skipped => " skipped",
        _ => " open",
    }
}

fn ms(time: Option<Ms>) -> String {
    time.map_or_else(|| " ".repeat(11), |ms| format!("{ms:>8} ms"))
}

fn seconds(ms: Ms) -> String {
    format!("{:.2} s", ms as f64 / 1000.0)
}

/// Keeps the end of a long name: that is where tasks differ.
fn shorten(name: &str, width: usize) -> String {
    if name.len() <= width {
        return name.to_owned();
    }
    let indent = name.len() - name.trim_start().len();
    // ids are ASCII, so every index is a character's
    let kept = width.saturating_sub(indent + 2);
    format!("{}..{}", &name[..indent], &name[name.len() - kept..])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use trireme_model::attribution::attribution;

    use super::*;

    fn run(wall: u64, tasks: Value) -> RunView {
        serde_json::from_value(json!({
            "run_id": "r", "name": "", "status": "succeeded", "degraded": false, "output": null, "error": null,
            "created_ms": 1000, "ended_ms": 1000 + wall, "wall_ms": wall, "deadline_ms": null,
            "usage": {}, "wasted": {}, "tasks": tasks,
        }))
        .unwrap()
    }

    fn task(id: &str, kind: &str, [ready, started, ended]: [u64; 3], inputs: &[&str]) -> Value {
        json!({
            "id": id, "kind": kind, "label": id, "pool": "p", "status": "succeeded", "attempt": 1, "degraded": false,
            "queued_ms": started - ready, "run_ms": ended - started, "first_ready_ms": 1000 + ready,
            "ready_ms": 1000 + ready, "started_ms": 1000 + started, "ended_ms": 1000 + ended, "inputs": inputs,
            "error": null,
        })
    }

    fn join(id: &str, ended: u64, inputs: &[&str]) -> Value {
        json!({
            "id": id, "kind": "join", "pool": "", "status": "succeeded", "attempt": 0, "degraded": true,
            "queued_ms": null, "run_ms": null, "ready_ms": null, "started_ms": null, "ended_ms": 1000 + ended,
            "inputs": inputs, "error": null,
        })
    }

    #[test]
    fn a_run_is_drawn_on_its_own_time_axis() {
        let tasks = json!([
            task("a", "tool", [0, 480, 960], &[]),
            task("b", "tool", [0, 0, 480], &[]),
            join("output", 960, &["a", "b"]),
        ]);
        let run = run(960, tasks);
        let found = attribution(&run);
        let drawn = draw(&run, &found, false);
        let lines: Vec<&str> = drawn.lines().collect();
        let bar = format!("{}{}", ".".repeat(24), "#".repeat(24));
        assert_eq!(lines[1], format!("a       tool  |{bar}|     480 ms     480 ms       0 ms *"));
        let bar = format!("{}{}", "#".repeat(24), " ".repeat(24));
        assert_eq!(lines[2], format!("b       tool  |{bar}|       0 ms     480 ms     480 ms"));
        let bar = format!("{}{}|", " ".repeat(24), "+".repeat(23));
        assert_eq!(lines[3], format!("output  join  |{bar}|{}       0 ms * degraded", " ".repeat(22)));
        assert!(!drawn.contains('\x1b'));
        assert!(draw(&run, &found, true).contains('\x1b'));
    }

    #[test]
    fn what_is_inside_an_agent_stands_indented_below_it() {
        let mut step = task("research/step-0", "llm", [10, 10, 480], &[]);
        step["owner"] = json!("research");
        step["first_token_ms"] = json!(230);
        let mut call = task("research/step-0/call-0", "tool", [300, 300, 470], &[]);
        call["owner"] = json!("research");
        let run = run(480, json!([task("research", "agent", [0, 0, 480], &[]), step, call]));
        let drawn = draw(&run, &attribution(&run), false);
        let lines: Vec<&str> = drawn.lines().collect();
        assert!(lines[1].starts_with(&format!("research         agent |:{}|", "_".repeat(47))), "{drawn}");
        let bar = format!(" {}{}", "-".repeat(23), "=".repeat(24));
        assert!(lines[2].starts_with(&format!("  step-0         llm   |{bar}|")), "{drawn}");
        assert!(lines[3].starts_with("  step-0/call-0  tool  |"), "{drawn}");
    }

    #[test]
    fn many_tasks_are_counted_but_for_those_of_the_critical_path() {
        let mut tasks: Vec<Value> =
            (0..500).map(|at| task(&format!("t{at}"), "tool", [0, 0, 100 + at], &[])).collect();
        let inputs: Vec<String> = (0..500).map(|at| format!("t{at}")).collect();
        tasks.push(join("output", 599, &inputs.iter().map(String::as_str).collect::<Vec<_>>()));
        let run = run(599, json!(tasks));
        let drawn = draw(&run, &attribution(&run), false);
        assert_eq!(drawn.lines().count(), 1 + MAX_LINES + 1 + 2);
        assert!(drawn.contains("\nt499 ") && !drawn.contains("\nt498 "), "{drawn}");
        assert!(drawn.contains("... and 301 more tasks"), "{drawn}");
    }

    #[test]
    fn a_long_name_keeps_its_indentation_and_its_end() {
        assert_eq!(shorten("research/step-2/call-0", 10), "..2/call-0");
        assert_eq!(shorten("  research/step-2/call-0", 12), "  ..2/call-0");
    }
}
