//! What a log line is about: put on every line that is written inside, at no cost until one is.

use std::fmt;

use trireme_model::{RunId, TaskId};

tokio::task_local! {
    static CURRENT: About;
}

/// A run, a task of it, and the span that stands for the work on it.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The run.
    pub run: Option<RunId>,
    /// The task.
    pub task: Option<TaskId>,
    /// Which attempt of it, from 1; 0 for none.
    pub attempt: u32,
    /// Trace and span, where the run is traced.
    pub span: Option<(u128, u64)>,
}

impl About {
    /// Runs `work`; what it logs is about this.
    pub fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }

    /// Calls `write` with name and value of each field of what is being worked on.
    pub(crate) fn fields(mut write: impl FnMut(&'static str, &dyn fmt::Display)) {
        // outside of any work there is nothing to say
        let _ = CURRENT.try_with(|about| {
            if let Some(run) = &about.run {
                write("run", run);
            }
            if let Some(task) = &about.task {
                write("task", task);
            }
            if about.attempt > 0 {
                write("attempt", &about.attempt);
            }
            if let Some((trace, span)) = about.span {
                write("trace_id", &format_args!("{trace:032x}"));
                write("span_id", &format_args!("{span:016x}"));
            }
        });
    }
}
