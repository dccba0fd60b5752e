//! `trireme run`: a graph from acceptance to its end in this process.

use std::sync::Arc;

use serde_json::json;
use trireme_backend::{Backend, output};
use trireme_model::{Event, RunId, RunStatus, Submit, view::RunView};
use trireme_spec::Compiled;

use crate::{
    check,
    client::finish,
    command::Run,
    exit::{Code, Failure, say},
    progress::Progress,
    settings::Settings,
    source,
    stack::Stack,
    waterfall,
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
    let compiled = match check::compile(&args.file, &text, &args.inputs, &stack.capabilities) {
        Ok(compiled) => compiled,
        Err(failure) => {
            stack.stop().await?;
            return Err(failure);
        }
    };
    let mut progress = Progress::new(compiled.name.clone(), false);
    let view = tokio::select! {
        view = execute(&stack.backend, &compiled, &mut progress) => view?,
        // an interrupted run leaves nothing behind: the backend lives in this process
        _ = tokio::signal::ctrl_c() => return Err(Failure::new(Code::RunFailed, "interrupted")),
    };
    progress.finish();
    stack.stop().await?;
    if args.waterfall {
        eprint!("{}", waterfall::draw(&view, false));
    }
    if args.json {
        say(serde_json::to_string(&view).map_err(anyhow::Error::from)?);
        return if view.status == RunStatus::Succeeded {
            Ok(())
        } else {
            Err(Failure::new(Code::RunFailed, ""))
        };
    }
    finish(&view, false)
}

/// Submits `compiled`, tells `progress` every event, and gives the run as it ended.
pub async fn execute(
    backend: &Arc<dyn Backend>,
    compiled: &Compiled,
    progress: &mut Progress,
) -> Result<RunView, Failure> {
    let id = RunId::new(uuid::Uuid::now_v7().simple().to_string()).map_err(anyhow::Error::from)?;
    let submit: Submit = compiled.submit(id.clone(), "");
    backend.submit(submit).await?;
    follow(backend, &id, |event| progress.event(event)).await?;
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
