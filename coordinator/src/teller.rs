//! Sends the spans of whole runs, and of their joins, maps and agents, when a run has ended.
//!
//! Nobody lives as long as a run does, so that these spans are made from what the store knows in the end; their ids
//! follow from the run and the task, so that everybody else has named them as parents all the while. A coordinator
//! takes runs that have ended, sends their spans and only then says so in the store. If it dies in between, another
//! one takes them again and sends the same spans with the same ids. What a killed worker does not send is the spans
//! of its attempts, below which there is nothing.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use trireme_backend::{Backend, Ending, Error, Part};
use trireme_model::{Kind, RunStatus, TaskStatus};
use trireme_telemetry::traces::{Span, Traces, run_span, task_span};

/// Pause between two looks: what has ended is seen this much later at most.
const EVERY: Duration = Duration::from_secs(1);
/// How long sending may take before the store is told that it is done: then the collector is away, and the spans
/// are given up.
const SEND: Duration = Duration::from_secs(15);
/// Spans handed over at once.
const PIECE: usize = 256;
/// How long the last look may take when the process ends.
const LAST: Duration = Duration::from_secs(3);

/// Tells of runs that have ended.
pub struct Teller {
    backend: Arc<dyn Backend>,
    traces: Traces,
}

impl Teller {
    /// Tells `traces` of the runs of `backend`.
    pub fn new(backend: Arc<dyn Backend>, traces: Traces) -> Self {
        Self { backend, traces }
    }

    /// Runs until `shutdown`, and looks once more then; at once over where nothing is traced. Errors only make it
    /// wait.
    pub async fn run(self, shutdown: CancellationToken) {
        if !self.traces.is_on() {
            return;
        }
        let mut failing = false;
        loop {
            // nobody waits for a collector that is away when the process is to end: what was handed over is sent by
            // then or given up, and what the store was not told of comes again elsewhere when the lock has run out
            let looked = tokio::select! {
                looked = self.look() => Some(looked),
                () = shutdown.cancelled() => None,
            };
            let more = match looked {
                None => false,
                Some(Ok(more)) => {
                    failing = false;
                    more
                }
                Some(Err(error)) => {
                    if !failing {
                        tracing::warn!(%error, "the ends of runs can't be read; trying again");
                    }
                    failing = true;
                    false
                }
            };
            tokio::select! {
                () = sleep(if more { Duration::ZERO } else { EVERY }) => {}
                () = shutdown.cancelled() => {}
            }
            if shutdown.is_cancelled() {
                // what ended in this process's last second; if it takes too long, another coordinator does it
                let _ = timeout(LAST, self.look()).await;
                break;
            }
        }
    }

    /// Whether there is more to tell of.
    async fn look(&self) -> Result<bool, Error> {
        let endings = self.backend.ended().await?;
        for ending in &endings.runs {
            self.tell(ending);
        }
        if !endings.runs.is_empty() {
            self.traces.flush(SEND).await;
        }
        self.backend.mark_ended(endings.mark).await?;
        Ok(endings.more)
    }

    fn tell(&self, ending: &Ending) {
        let Some(group) = self.traces.group(Some(&ending.trace)) else { return };
        let run = ending.run.as_str();
        let name = match &*ending.name {
            "" => "invoke_workflow".to_owned(),
            name => format!("invoke_workflow {name}"),
        };
        let mut whole = Span::of(run_span(&ending.run), ending.trace.parent, name, ending.created);
        let tokens = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        whole
            .set("gen_ai.operation.name", "invoke_workflow")
            .set("gen_ai.conversation.id", run)
            .set("gen_ai.usage.input_tokens", tokens(ending.usage.input_tokens))
            .set("gen_ai.usage.output_tokens", tokens(ending.usage.output_tokens))
            .set("gen_ai.usage.cache_read.input_tokens", tokens(ending.usage.cached_tokens))
            .set("trireme.run.id", run)
            .set("trireme.run.status", status(ending.status))
            .set("trireme.calls", tokens(ending.usage.calls))
            .set("trireme.cost.usd", ending.usage.usd_micros as f64 / 1e6)
            .set("trireme.degraded", ending.degraded);
        if !ending.name.is_empty() {
            whole.set("gen_ai.workflow.name", &*ending.name);
        }
        if ending.status == RunStatus::Failed {
            let class = ending.error.clone().filter(|class| !class.is_empty());
            whole.fail(class.unwrap_or_else(|| "failed".to_owned()));
        }
        group.finish_at(whole, Span::time(ending.ended));
        // in pieces that the queue takes; what is above comes before what is below it
        for piece in ending.parts.chunks(PIECE) {
            let (Some(group), [first, others @ ..]) = (self.traces.group(Some(&ending.trace)), piece) else {
                return;
            };
            for part in others {
                group.end_at(span(ending, part), Span::time(part.ended));
            }
            group.finish_at(span(ending, first), Span::time(first.ended));
        }
    }
}

fn span(ending: &Ending, part: &Part) -> Span {
    let parent =
        part.owner.as_ref().map_or_else(|| run_span(&ending.run), |owner| task_span(&ending.run, owner));
    let task = part.task.as_str();
    // the last piece of an id that is no number: of a map's children all have the map's name
    let label = task.rsplit('/').find(|piece| piece.parse::<u32>().is_err()).unwrap_or(task);
    let name = match part.kind {
        Kind::Agent => format!("invoke_agent {label}"),
        Kind::Map => format!("map {label}"),
        _ => format!("join {label}"),
    };
    let mut span = Span::of(task_span(&ending.run, &part.task), parent, name, part.begun);
    span.set("trireme.run.id", ending.run.as_str())
        .set("trireme.task.id", task)
        .set("trireme.degraded", part.degraded);
    if part.kind == Kind::Agent {
        span.set("gen_ai.operation.name", "invoke_agent")
            .set("gen_ai.agent.name", label)
            .set("gen_ai.agent.id", format!("{}/{}", ending.run, part.task))
            .set("gen_ai.conversation.id", ending.run.as_str());
    } else {
        span.set("trireme.done", i64::from(part.done)).set("trireme.missed", i64::from(part.missed));
    }
    match part.status {
        TaskStatus::Succeeded => {}
        TaskStatus::Failed => span.fail("failed"),
        _ => drop(span.set("trireme.outcome", "cancelled")),
    }
    span
}

fn status(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Running => "running",
        RunStatus::Succeeded => "succeeded",
        RunStatus::Failed => "failed",
        RunStatus::Cancelled => "cancelled",
    }
}
