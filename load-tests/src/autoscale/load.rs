//! An open loop of runs with one task each, and when each was started.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail};
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use trireme_backend::Backend;
use trireme_model::{RunId, RunStatus};
use trireme_spec::Compiled;

/// A run that takes longer than this is lost.
const RUN_LIMIT: Duration = Duration::from_secs(180);

/// What became of one task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Started {
    /// When its run was submitted, in seconds since the beginning.
    pub(super) at: f64,
    /// From ready to the start of its only attempt.
    pub(super) waited_ms: f64,
    /// Starts.
    pub(super) attempt: u32,
    /// Its run ended well.
    pub(super) succeeded: bool,
}

/// Submits runs at given rates.
pub(super) struct Load {
    backend: Arc<dyn Backend>,
    compiled: Compiled,
}

impl Load {
    /// Runs of one task that takes `work_ms`.
    pub(super) fn new(backend: Arc<dyn Backend>, work_ms: u64) -> anyhow::Result<Self> {
        let task = json!({"tool": {"name": "sleep", "args": {"ms": work_ms}}});
        let spec = json!({"tasks": {"work": task}}).to_string();
        let compiled = trireme_spec::compile(&spec, &[], &trireme_spec::Permissive)
            .map_err(|errors| anyhow!("workload: {errors}"))?;
        Ok(Self { backend, compiled })
    }

    /// Goes through phases of so many seconds with so many runs a second each; waits for the end of all runs.
    ///
    /// Measured from when a run was due, so that a slow system can't hide behind late submits.
    pub(super) async fn run(self, phases: Vec<(u64, f64)>) -> anyhow::Result<Vec<Started>> {
        let begin = Instant::now();
        let (mut runs, mut from, mut number) = (JoinSet::new(), 0.0, 0_u64);
        for (seconds, rate) in phases {
            for at in 0..(seconds as f64 * rate) as u64 {
                let due = from + at as f64 / rate;
                number += 1;
                let run = RunId::new(format!("autoscale-{}-{number}", std::process::id()))?;
                let submit = self.compiled.submit(run.clone(), run.to_string());
                let backend = self.backend.clone();
                runs.spawn(async move {
                    sleep_until(begin + Duration::from_secs_f64(due)).await;
                    backend.submit(submit).await?;
                    ended(&backend, &run, due).await
                });
            }
            from += seconds as f64;
        }
        let mut started = Vec::with_capacity(runs.len());
        while let Some(run) = runs.join_next().await {
            started.push(run??);
        }
        started.sort_by(|a, b| a.at.total_cmp(&b.at));
        Ok(started)
    }
}

async fn ended(backend: &Arc<dyn Backend>, run: &RunId, at: f64) -> anyhow::Result<Started> {
    let limit = Instant::now() + RUN_LIMIT;
    let mut watch = backend.watch(run).await?;
    while backend.summary(run).await?.context("the run is gone")?.status == RunStatus::Running {
        tokio::select! {
            () = watch.changed() => {}
            () = sleep_until(limit) => bail!("run {run} was lost: it did not end within {RUN_LIMIT:?}"),
        }
    }
    let view = backend.run(run).await?.context("the run is gone")?.view();
    let task = view.tasks.iter().find(|task| task.id.as_str() == "work").context("the task is gone")?;
    Ok(Started {
        at,
        waited_ms: task.queued_ms.context("the task was never started")? as f64,
        attempt: task.attempt,
        succeeded: view.status == RunStatus::Succeeded,
    })
}

/// The waits of tasks by windows of so many seconds, with the beginning of each.
pub(super) fn windows(started: &[Started], seconds: f64) -> Vec<(f64, Vec<f64>)> {
    let mut windows = BTreeMap::<u64, Vec<f64>>::new();
    for task in started {
        windows.entry((task.at / seconds) as u64).or_default().push(task.waited_ms);
    }
    windows.into_iter().map(|(at, waits)| (at as f64 * seconds, waits)).collect()
}
