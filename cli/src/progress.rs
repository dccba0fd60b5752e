//! What happens in a run, told on standard error: a live line on a terminal, plain lines elsewhere.

use std::{
    collections::BTreeSet,
    io::{IsTerminal, Write, stderr},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use trireme_model::{Event, What};

use crate::exit::printable;

/// Names shown in the live line.
const MAX_NAMES: usize = 6;

/// Tells a run's events.
pub struct Progress {
    label: String,
    start: Option<u64>,
    done: usize,
    running: BTreeSet<String>,
    bar: Option<ProgressBar>,
    quiet: bool,
}

impl Progress {
    /// Tells events after `label`; `quiet` only shows the live line, and that only on a terminal.
    pub fn new(label: impl Into<String>, quiet: bool) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed_precise} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { label: label.into(), start: None, done: 0, running: BTreeSet::new(), bar, quiet }
    }

    /// Tells one event.
    pub fn event(&mut self, event: &Event) {
        let start = *self.start.get_or_insert(event.at);
        let at = event.at.saturating_sub(start);
        match &event.what {
            What::TaskStarted { task, .. } => {
                self.running.insert(task.to_string());
            }
            What::TaskSucceeded { task, .. }
            | What::TaskFailed { task, .. }
            | What::TaskSkipped { task }
            | What::TaskCancelled { task } => {
                self.done += 1;
                self.running.remove(task.as_str());
            }
            What::TaskRetrying { task, .. } | What::TaskLost { task } => {
                self.running.remove(task.as_str());
            }
            _ => {}
        }
        if let Some(bar) = &self.bar {
            let names: Vec<&str> = self.running.iter().take(MAX_NAMES).map(String::as_str).collect();
            let more = self.running.len().saturating_sub(MAX_NAMES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            bar.set_prefix(self.label.clone());
            bar.set_message(format!("{} tasks done; running: {}{more}", self.done, names.join(", ")));
        }
        if self.quiet {
            return;
        }
        if let Some(line) = line(&event.what) {
            let line = printable(&format!("{:>8.3}s {line}", at as f64 / 1000.0));
            match &self.bar {
                Some(bar) => bar.println(line),
                // a closed standard error must not end the run
                None => drop(writeln!(stderr(), "{line}")),
            }
        }
    }

    /// Removes the live line.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(what: &What) -> Option<String> {
    Some(match what {
        What::RunStarted { .. } => "run started".into(),
        What::TaskStarted { task, attempt: 1 } => format!("{task} started"),
        What::TaskStarted { task, attempt } => format!("{task} started, attempt {attempt}"),
        What::TaskRetrying { task, error, .. } => format!("{task} will be retried: {error:?}"),
        What::TaskLost { task } => format!("{task} lost its worker"),
        What::TaskAdded { task, label, .. } if label.is_empty() => format!("{task} added"),
        What::TaskAdded { task, label, .. } => format!("{task} added: {label}"),
        What::TaskExpanded { task, width: 0 } => format!("{task} at work"),
        What::TaskExpanded { task, width } => format!("{task} has {width} children"),
        What::TaskSucceeded { task, degraded: true } => format!("{task} done, degraded"),
        What::TaskSucceeded { task, .. } => format!("{task} done"),
        What::TaskFailed { task, error } => format!("{task} failed: {error:?}"),
        What::TaskSkipped { task } => format!("{task} skipped: an input failed"),
        What::TaskCancelled { task } => format!("{task} cancelled: not needed any more"),
        What::RunSucceeded {} => "run succeeded".into(),
        What::RunFailed { task: Some(task), error } => format!("run failed at {task}: {error:?}"),
        What::RunFailed { task: None, error } => format!("run failed: {error:?}"),
        What::RunCancelled {} => "run cancelled".into(),
        What::TaskDelta { .. } => return None,
    })
}
