//! `trireme run`: a graph from acceptance to its end in this process.

use std::sync::Arc;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use trireme_backend::{Backend, output};
use trireme_model::{
    Event, RunId, RunStatus, Submit, Trace,
    attribution::{Attributed, attribution},
    view::RunView,
};
use trireme_spec::Compiled;

use crate::{
    check,
    client::finish,
    command::Run,
    exit::{Code, Failure, note, say},
    progress::Progress,
    settings::Settings,
    signal, source,
    stack::Stack,
    trace, waterfall,
};

/// Events read at a time.
const PAGE: usize = 500;

/// Runs `args.file` and prints its output.
pub async fn run(args: Run, mut settings: Settings) -> Result<(), Failure> {
    let text = source::read(&args.file)?;
    if args.sequential {
        settings.worker.slots = Some(1);
    }
    let mut stack = Stack::start(&settings).await?;
    stack.sweep(settings.coordinator.sweep_interval)?;
    let prepare = || {
        let compiled = check::compile(&args.file, &text, &args.inputs, &stack.capabilities)?;
        served(&compiled, &settings)?;
        Ok((compiled, args.trace.as_deref().map(trace::Output::create).transpose()?))
    };
    let (compiled, traced) = match prepare() {
        Ok(prepared) => prepared,
        Err(failure) => {
            stack.stop().await?;
            return Err(failure);
        }
    };
    let mut progress = Progress::new(compiled.name.clone(), false);
    // as CI systems and test runners hand it to what they start
    let trace = stack.traces.begin(std::env::var("TRACEPARENT").ok().as_deref());
    let view = execute(&stack.backend, &compiled, trace, &mut progress, &signal::shutdown()?).await?;
    progress.finish();
    let mut left = stack.stop().await;
    if args.waterfall || traced.is_some() {
        let found = attribution(&view);
        if args.waterfall {
            note(format_args!("{}\n{}", waterfall::draw(&view, &found, false), waterfall::account(&found)));
        }
        if let Some(traced) = traced {
            left = left.and(traced.write(&view, &found));
        }
    }
    // whatever else went wrong: the output was paid for
    let ended = if args.json {
        say(serde_json::to_string(&Attributed::from(view.clone())).map_err(anyhow::Error::from)?);
        match view.status {
            RunStatus::Succeeded => Ok(()),
            _ => Err(Failure::new(Code::RunFailed, "")),
        }
    } else {
        finish(&view, false)
    };
    ended.and(left)
}

/// A task of a pool that nobody serves would wait for ever.
fn served(compiled: &Compiled, settings: &Settings) -> Result<(), Failure> {
    let pools: Vec<&str> = settings.worker.pools.iter().map(|pool| pool.name.as_str()).collect();
    let lost = |pool: &str| !pool.is_empty() && !pools.contains(&pool);
    for task in compiled.graph.tasks() {
        let child = task.children.as_ref().map(|children| children.exec.pool.as_str());
        if let Some(pool) =
            [Some(task.exec.pool.as_str()), child].into_iter().flatten().find(|pool| lost(pool))
        {
            return Err(Failure::usage(format!(
                "tasks.{}: nobody serves the pool `{pool}` here, only {}; add it to worker.pools in the configuration",
                task.id,
                pools.join(", "),
            )));
        }
    }
    Ok(())
}

/// Submits `compiled`, tells `progress` every event, and gives the run as it ended; cancels it on `interrupt`.
pub async fn execute(
    backend: &Arc<dyn Backend>,
    compiled: &Compiled,
    trace: Option<Trace>,
    progress: &mut Progress,
    interrupt: &CancellationToken,
) -> Result<RunView, Failure> {
    let id = RunId::new(uuid::Uuid::now_v7().simple().to_string()).map_err(anyhow::Error::from)?;
    let submit = Submit { trace, ..compiled.submit(id.clone(), "") };
    backend.submit(submit).await?;
    let ended = follow(backend, &id, |event| progress.event(event));
    let mut ended = std::pin::pin!(ended);
    tokio::select! {
        ended = &mut ended => ended?,
        () = interrupt.cancelled() => {
            backend.cancel(&id).await?;
            ended.await?;
        }
    }
    view(backend, &id).await
}

/// Gives every event of a run to `tell`, until its last.
async fn follow(
    backend: &Arc<dyn Backend>,
    run: &RunId,
    mut tell: impl FnMut(&Event),
) -> Result<(), Failure> {
    let mut watch = backend.watch(run).await?;
    let mut next = 0;
    loop {
        let Some(page) = backend.events(run, next, PAGE).await? else {
            return Err(Failure::new(Code::Internal, format!("run {run} is gone")));
        };
        let last = page.events.iter().any(|(_, event)| event.what.ends_run());
        for (sequence, event) in &page.events {
            tell(event);
            next = sequence + 1;
        }
        if last {
            return Ok(());
        }
        if next >= page.length {
            watch.changed().await;
        }
    }
}

/// A run with its output.
async fn view(backend: &Arc<dyn Backend>, id: &RunId) -> Result<RunView, Failure> {
    let run = backend.run(id).await?;
    let run = run.ok_or_else(|| Failure::new(Code::Internal, json!({"run": id, "problem": "gone"})))?;
    let mut view = run.view();
    if view.status == RunStatus::Succeeded {
        view.output = output(backend, id, run.output()).await?;
    }
    Ok(view)
}
