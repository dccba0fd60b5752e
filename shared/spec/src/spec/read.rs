//! Reads the spec's head and what every task may set.

use trireme_model::{Payload, Priority, limits::MAX_TASKS};

use super::{
    BUDGET, DEFAULTS, MAX_ATTEMPTS, MAX_BACKOFF_MS, Name, RESERVED, RETRY, SPEC, Settings, Spec, TASK, Task,
    Work, agent, work,
};
use crate::{
    fields::{Fields, choice, duration, integer, items, name, number, object, pool},
    problem::{Report, quoted},
    source::{Data, Entry, Node, join},
    template::has_template,
};

const PRIORITIES: &[(&str, Priority)] = &[("normal", Priority::Normal), ("high", Priority::High)];

/// The id of the one task of a run that is an agent.
const AGENT_TASK: &str = "agent";

/// Reads a whole spec; `None` when there are no tasks to speak of.
pub(super) fn spec(root: &Node, report: &mut Report) -> Option<Spec> {
    let fields = Fields::of(root, "", SPEC, report)?;
    let budget = fields.read("budget", report, |node, path, report| Fields::of(node, path, BUDGET, report));
    let (tokens, usd) = budget.map_or((None, None), |budget| {
        let tokens =
            budget.read("tokens", report, |node, path, report| integer(node, path, 1..=u64::MAX, report));
        let usd =
            budget.read("usd", report, |node, path, report| number(node, path, 0.000_001..=1e9, report));
        (tokens, usd)
    });
    let mut spec = Spec {
        name: fields.read("name", report, name).unwrap_or_default(),
        input: fields.read("input", report, input).unwrap_or_default(),
        deadline: fields.read("deadline", report, duration),
        tokens,
        // at most 1e15, which a u64 holds
        usd_micros: usd.map(|usd| (usd * 1e6).round() as u64),
        models: fields.read("models", report, models).unwrap_or_default(),
        defaults: Settings::default(),
        tasks: Vec::new(),
        output: fields.get("output").map(|(node, _)| node.clone()),
    };
    if let Some((node, path)) = fields.get("defaults")
        && let Some(defaults) = Fields::of(node, &path, DEFAULTS, report)
    {
        spec.defaults = settings(&defaults, report);
    }
    let (node, path) = match (fields.get("tasks"), fields.get("agent")) {
        (Some(tasks), None) => tasks,
        (None, Some((node, path))) => {
            alone(&mut spec, node, &path, report);
            return Some(spec);
        }
        (tasks, _) => {
            let found = if tasks.is_some() { "has both" } else { "has neither" };
            report.add(
                "",
                Some(root.place),
                format!("a run has either `tasks` or `agent`, this one {found}"),
            );
            return None;
        }
    };
    let tasks = object(node, &path, report)?;
    if tasks.is_empty() {
        report.add(&path, Some(node.place), "a run needs at least one task");
    }
    // the hidden output task counts as well
    if tasks.len() >= MAX_TASKS {
        let message = format!("{} tasks are over the limit of {}", tasks.len(), MAX_TASKS - 1);
        report.add(&path, Some(node.place), message);
        return None;
    }
    spec.tasks = tasks.iter().map(|entry| task(entry, &path, report)).collect();
    Some(spec)
}

/// A run that is one agent: a task of that name, whose value is the output, with the run's time as its own.
fn alone(spec: &mut Spec, node: &Node, path: &str, report: &mut Report) {
    let work = agent::agent(node, path, report).map_or(Work::Broken, |agent| Work::Agent(Box::new(agent)));
    let settings = Settings { timeout: spec.deadline, ..Settings::default() };
    spec.tasks =
        vec![Task { id: AGENT_TASK.to_owned(), place: node.place, work, settings, after: Vec::new() }];
    let value = || Node { place: node.place, data: Data::Text(format!("{{{{ {AGENT_TASK} }}}}")) };
    spec.output.get_or_insert_with(value);
}

fn input(node: &Node, path: &str, report: &mut Report) -> Option<Vec<(String, Payload)>> {
    let entries = object(node, path, report)?;
    for entry in entries {
        check_name(&entry.key, &join(path, &entry.key), entry, report);
    }
    Some(entries.iter().map(|entry| (entry.key.clone(), entry.value.payload())).collect())
}

fn models(node: &Node, path: &str, report: &mut Report) -> Option<Vec<(String, String, crate::Place)>> {
    let entries = object(node, path, report)?;
    let mut models = Vec::new();
    for entry in entries {
        let path = join(path, &entry.key);
        check_name(&entry.key, &path, entry, report);
        if let Some(model) = name(&entry.value, &path, report) {
            models.push((entry.key.clone(), model, entry.value.place));
        }
    }
    Some(models)
}

fn check_name(key: &str, path: &str, entry: &Entry, report: &mut Report) {
    let bytes = key.len();
    if !(1..=crate::MAX_NAME_BYTES).contains(&bytes) {
        let message = format!("a name has 1 to {} bytes, this one {bytes}", crate::MAX_NAME_BYTES);
        report.add(path, Some(entry.place), message);
    }
}

fn task(entry: &Entry, base: &str, report: &mut Report) -> Task {
    let path = join(base, &entry.key);
    check_id(&entry.key, &path, entry, report);
    let mut task = Task {
        id: entry.key.clone(),
        place: entry.place,
        work: Work::Broken,
        settings: Settings::default(),
        after: Vec::new(),
    };
    let Some(fields) = Fields::of(&entry.value, &path, TASK, report) else { return task };
    task.settings = settings(&fields, report);
    task.after = fields.read("after", report, names).unwrap_or_default();
    task.work = work::of_task(&fields, report);
    if matches!(task.work, Work::Join(_)) {
        for (field, instead) in [
            ("timeout", "set `within` in the join"),
            ("retry", "no worker runs it"),
            ("pool", "no worker runs it"),
            ("priority", "no worker runs it"),
            ("after", "name the task in `from`"),
        ] {
            if let Some((node, path)) = fields.get(field) {
                report.add(path, Some(node.place), format!("a join has no `{field}`: {instead}"));
            }
        }
    }
    task
}

fn check_id(id: &str, path: &str, entry: &Entry, report: &mut Report) {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let starts = id.bytes().next().is_some_and(|first| word(first) && !first.is_ascii_digit());
    if !starts || id.len() > 64 || !id.bytes().all(word) {
        let message = format!(
            "{} can't be a task's id: a letter or `_`, then up to 63 letters, digits or `_` (templates use it as a name)",
            quoted(id)
        );
        report.add(path, Some(entry.place), message);
    } else if RESERVED.contains(&id) {
        let message = format!("`{id}` can't be a task's id: it has a meaning in templates");
        report.add(path, Some(entry.place), message);
    }
}

/// Reads what any task may set; fields that do not apply were refused before.
pub(super) fn settings(fields: &Fields<'_>, report: &mut Report) -> Settings {
    let retry = fields.read("retry", report, |node, path, report| Fields::of(node, path, RETRY, report));
    let (mut attempts, mut backoff) = (None, None);
    if let Some(retry) = retry {
        attempts = retry
            .read("attempts", report, |node, path, report| {
                integer(node, path, 1..=MAX_ATTEMPTS.into(), report)
            })
            .map(|attempts| attempts as u32);
        backoff = retry.read("backoff", report, duration);
        if let (Some(over @ MAX_BACKOFF_MS..), Some((node, path))) = (backoff, retry.get("backoff"))
            && over > MAX_BACKOFF_MS
        {
            report.add(path, Some(node.place), format!("a back-off is at most {}s", MAX_BACKOFF_MS / 1000));
        }
    }
    Settings {
        timeout: fields.read("timeout", report, duration),
        fallback: fields.read("fallback", report, fixed),
        attempts,
        backoff,
        pool: fields.read("pool", report, pool),
        priority: fields
            .read("priority", report, |node, path, report| choice(node, path, PRIORITIES, report)),
    }
}

/// A value without templates in it.
pub(super) fn fixed(node: &Node, path: &str, report: &mut Report) -> Option<Payload> {
    if has_template(&node.value()) {
        report.add(path, Some(node.place), "this is a plain value: templates are not filled in here");
    }
    Some(node.payload())
}

/// A list of names.
pub(super) fn names(node: &Node, path: &str, report: &mut Report) -> Option<Vec<Name>> {
    let items = items(node, path, report)?;
    let mut names = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let path = format!("{path}[{at}]");
        if let Some(text) = name(item, &path, report) {
            names.push(Name { text, path, place: item.place });
        }
    }
    Some(names)
}
