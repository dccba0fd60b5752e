//! The product: its embedded backend, or RabbitMQ and Redis, with a worker in this process or several in their own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trireme_backend::Backend;
use trireme_backend_embedded::Embedded;
use trireme_coordinator::Sweeper;
use trireme_llm::Providers;
use trireme_model::{Run, RunId, RunStatus};
use trireme_test_servers::{PrivateRabbit, PrivateRedis};
use trireme_tool::Tools;

use super::{
    Outcome, calibration, suite,
    workers::{self, Workers},
};
use crate::cpu::seconds_of;

/// A run that takes longer than this failed.
const RUN_LIMIT: Duration = Duration::from_secs(180);

/// Where runs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// In memory.
    Embedded,
    /// In private RabbitMQ and Redis servers.
    Cluster,
    /// The same, with workers in processes of their own, and between them and their backend the faults of a seed.
    Processes(Option<u64>),
}

/// A backend with workers that have the tools of one suite.
pub(super) struct Product {
    backend: Arc<dyn Backend>,
    shutdown: CancellationToken,
    parts: Vec<tokio::task::JoinHandle<anyhow::Result<()>>>,
    /// Those in processes of their own.
    pub(super) workers: Option<Arc<Workers>>,
    servers: Option<(PrivateRabbit, PrivateRedis)>,
}

/// The simulated models at `base`, as `sim/...`.
pub(super) fn providers(base: &str) -> anyhow::Result<Providers> {
    let provider = json!({"api": "openai", "base_url": format!("{base}/v1"), "api_key": "simulated"});
    let mut config = trireme_llm::Config::default();
    config.providers.insert("sim".into(), serde_json::from_value(provider)?);
    Ok(Providers::new(config)?)
}

/// The tools of `suite` as HTTP tools at `base`, all of which only read.
pub(super) async fn tools(base: &str, suite: &suite::Suite) -> anyhow::Result<Tools> {
    let mut config = trireme_tool::Config::default();
    for tool in &suite.tools {
        let declared = json!({
            "description": tool.description, "method": "POST", "url": format!("{base}/tools/{}", tool.name),
            "args": tool.parameters, "effect": "read", "timeout": "2m",
        });
        config.tools.insert(tool.name.clone(), serde_json::from_value(declared)?);
    }
    Ok(Tools::builder().builtin().config(config).build().await?)
}

/// How the product is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style<'a> {
    /// `react` or `plan`.
    pub(super) strategy: &'a str,
    /// Asks for the answer by a schema, which leaves reasoning out of it.
    pub(super) terse: bool,
    /// How many times shorter than calibrated latencies are.
    pub(super) speed: f64,
}

/// The run that pursues the goal of `item`.
pub(super) fn spec(suite: &suite::Suite, item: &suite::Item, style: Style<'_>) -> Value {
    let model = |name: &str| format!("sim/{name}");
    let tools: Vec<&str> = suite.tools.iter().map(|tool| tool.name.as_str()).collect();
    let mut agent = json!({
        "goal": item.goal, "system": suite::system(), "tools": tools, "strategy": style.strategy, "max_steps": 40,
        "model": model(calibration::BEST),
        // Which model does what is the agent's setting: the small one does all, the best answers at a limit.
        "models": {
            "step": model(calibration::SMALL), "planner": model(calibration::SMALL),
            "joiner": model(calibration::SMALL), "condenser": model(calibration::SMALL),
        },
    });
    if style.terse {
        let answer = json!({"answer": {"type": ["string", "number"]}});
        agent["output_schema"] = json!({"type": "object", "properties": answer, "required": ["answer"]});
    }
    if let Some(within) = suite.within {
        agent["turn"] = json!({"within": format!("{}ms", within.div_f64(style.speed).as_millis())});
    }
    json!({"agent": agent})
}

impl Product {
    /// Starts a backend of `kind` and a worker with the tools of `suite` at the simulator `base`.
    pub(super) async fn start(kind: Kind, base: &str, suite: &suite::Suite) -> anyhow::Result<Self> {
        let (backend, servers): (Arc<dyn Backend>, _) = match kind {
            Kind::Embedded => (Arc::new(Embedded::new(Default::default())), None),
            Kind::Cluster | Kind::Processes(_) => {
                let rabbit = PrivateRabbit::start()?;
                let redis = PrivateRedis::start(&[("appendonly", "yes"), ("appendfsync", "everysec")])?;
                let backend = workers::connect(&rabbit.url(), &redis.url()).await?;
                (Arc::new(backend), Some((rabbit, redis)))
            }
        };
        let registry = prometheus::Registry::new();
        let shutdown = CancellationToken::new();
        let sweeping = trireme_coordinator::Metrics::register(&registry)?;
        let sweeper = Sweeper::new(backend.clone(), Duration::from_millis(100), sweeping);
        let swept = sweeper.run(shutdown.clone());
        let mut parts = vec![tokio::spawn(async move {
            swept.await;
            Ok(())
        })];
        let workers = match (kind, &servers) {
            (Kind::Processes(faults), Some((rabbit, redis))) => {
                let urls = (rabbit.url(), redis.url());
                Some(Arc::new(Workers::start(urls, base, suite.name, faults)?))
            }
            _ => {
                let worker = workers::worker(backend.clone(), base, suite, &registry).await?;
                let working = worker.run(shutdown.clone());
                parts.push(tokio::spawn(async move { Ok(working.await?) }));
                None
            }
        };
        Ok(Self { backend, shutdown, parts, workers, servers })
    }

    /// CPU seconds that this process, the workers and the servers have used so far.
    pub(super) fn cpu_seconds(&self) -> f64 {
        let servers = self.servers.iter();
        let servers = servers.flat_map(|(rabbit, redis)| rabbit.pid().into_iter().chain([redis.pid()]));
        seconds_of(std::process::id())
            + servers.map(seconds_of).sum::<f64>()
            + self.workers.as_ref().map_or(0.0, |workers| workers.cpu_seconds())
    }

    /// The whole state of a run; `None` of one that was never accepted.
    pub(super) async fn state(&self, id: &str) -> anyhow::Result<Option<Run>> {
        Ok(self.backend.run(&RunId::new(id)?).await?)
    }

    /// Submits `spec` as run `id` and waits for its output.
    pub(super) async fn run(&self, id: &str, spec: &Value) -> Outcome {
        let start = Instant::now();
        let limit = tokio::time::timeout(RUN_LIMIT, self.output(id, spec));
        let output =
            limit.await.unwrap_or_else(|_| Err(anyhow!("run {id} did not end within {RUN_LIMIT:?}")));
        Outcome { wall: start.elapsed(), answer: output.map_err(|error| format!("{error:#}")) }
    }

    async fn output(&self, id: &str, spec: &Value) -> anyhow::Result<String> {
        let compiled = trireme_spec::compile(&spec.to_string(), &[], &trireme_spec::Permissive)
            .map_err(|problems| anyhow!("{problems}"))?;
        let run = RunId::new(id)?;
        self.backend.submit(compiled.submit(run.clone(), id)).await?;
        let mut watch = self.backend.watch(&run).await?;
        loop {
            match self.backend.summary(&run).await?.context("the run is gone")?.status {
                RunStatus::Running => watch.changed().await,
                RunStatus::Succeeded => break,
                other => {
                    let failed = self.backend.run(&run).await?.context("the run is gone")?.view();
                    bail!("ended as {other:?}: {}", serde_json::to_string(&failed.error)?)
                }
            }
        }
        let task = trireme_model::TaskId::new(trireme_spec::OUTPUT)?;
        let output = trireme_backend::output(&self.backend, &run, &task).await?.context("no output")?;
        Ok(match output.parse::<Value>()? {
            // An agent's result is its text, or an object that holds it.
            Value::String(text) => text,
            Value::Object(fields) if fields.contains_key("text") => {
                fields["text"].as_str().unwrap_or_default().to_owned()
            }
            other => other.to_string(),
        })
    }

    /// Stops the workers and the servers.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        for part in self.parts {
            part.await??;
        }
        if let Some(workers) = self.workers {
            tokio::task::spawn_blocking(move || workers.stop()).await??;
        }
        self.backend.close().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
