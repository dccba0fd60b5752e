//! Coordinator duties and a worker in one process on the embedded backend.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trireme_backend::Backend;
use trireme_backend_embedded::Embedded;
use trireme_coordinator::{Sweeper, Teller};
use trireme_llm::Providers;
use trireme_telemetry::Traces;
use trireme_tool::Tools;
use trireme_worker::{Executors, Metrics, Worker};

use crate::{
    exit::{Code, Failure},
    settings::Settings,
};

/// How long sending the last spans may take.
pub const FLUSH: Duration = Duration::from_secs(3);

/// What executes tasks, and what checks specs before they run.
#[derive(Clone)]
pub struct Capabilities {
    /// Model providers.
    pub providers: Providers,
    /// Tools.
    pub tools: Tools,
}

/// A running stack.
pub struct Stack {
    /// Its store.
    pub backend: Arc<dyn Backend>,
    /// What its worker can do.
    pub capabilities: Capabilities,
    /// Its metrics.
    pub registry: prometheus::Registry,
    /// Where its spans go.
    pub traces: Traces,
    shutdown: CancellationToken,
    parts: JoinSet<Result<(), Failure>>,
}

impl Capabilities {
    /// Builds providers and tools as `settings` say.
    pub async fn new(settings: &Settings) -> Result<Self, Failure> {
        let providers = Providers::new(settings.llm()).map_err(|error| Failure::usage(format!("{error}")))?;
        let tools = Tools::builder().builtin().config(settings.tool()).build().await;
        let tools = tools.map_err(|error| Failure::usage(format!("{error}")))?;
        Ok(Self { providers, tools })
    }

    /// What [`Capabilities::new`] would refuse, without starting anything.
    pub fn check(settings: &Settings) -> Result<(), Failure> {
        Providers::new(settings.llm()).map_err(|error| Failure::usage(format!("{error}")))?;
        let tools = Tools::builder().builtin().config(settings.tool());
        tools.check().map_err(|error| Failure::usage(format!("{error}")))
    }

    /// The worker's side of it.
    pub fn executors(&self) -> Executors {
        Executors::new(self.providers.clone(), self.tools.clone())
    }
}

impl Stack {
    /// Starts a worker on a new embedded backend. Retries and deadlines need a sweeper beside it:
    /// [`Stack::sweep`], or a coordinator.
    pub async fn start(settings: &Settings) -> Result<Self, Failure> {
        let capabilities = Capabilities::new(settings).await?;
        let backend: Arc<dyn Backend> = Arc::new(Embedded::new(Default::default()));
        let registry = prometheus::Registry::new();
        let metrics = Metrics::new(&registry).map_err(anyhow::Error::from)?;
        let traces = Traces::start(&settings.telemetry, "trireme", &registry).map_err(Failure::usage)?;
        let executors = capabilities.executors();
        let worker =
            Worker::new(settings.worker.clone(), backend.clone(), executors, metrics, traces.clone())
                .map_err(Failure::usage)?;
        let shutdown = CancellationToken::new();
        let mut parts = JoinSet::new();
        let token = shutdown.clone();
        parts.spawn(async move {
            worker.run(token).await.map_err(|error| Failure::new(Code::Unavailable, error))
        });
        Ok(Self { backend, capabilities, registry, traces, shutdown, parts })
    }

    /// Looks at what is due, as a coordinator does every `interval`, and tells of what has ended.
    pub fn sweep(&mut self, interval: Duration) -> Result<(), Failure> {
        let metrics = trireme_coordinator::Metrics::register(&self.registry).map_err(anyhow::Error::from)?;
        let sweeper = Sweeper::new(self.backend.clone(), interval, metrics);
        self.add(|token| async move {
            sweeper.run(token).await;
            Ok(())
        });
        let teller = Teller::new(self.backend.clone(), self.traces.clone());
        self.add(|token| async move {
            teller.run(token).await;
            Ok(())
        });
        Ok(())
    }

    /// Adds a part that runs until the stack stops.
    pub fn add<F>(&mut self, part: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.parts.spawn(part(self.shutdown.clone()));
    }

    /// Waits until a part ends, which it only does when it fails or is told to.
    pub async fn wait(&mut self) -> Result<(), Failure> {
        match self.parts.join_next().await {
            Some(Ok(result)) => result,
            Some(Err(error)) => Err(Failure::new(Code::Internal, error)),
            None => Ok(()),
        }
    }

    /// Stops all parts and waits for them.
    pub async fn stop(mut self) -> Result<(), Failure> {
        self.shutdown.cancel();
        let mut result = Ok(());
        while let Some(part) = self.parts.join_next().await {
            let part = part.unwrap_or_else(|error| Err(Failure::new(Code::Internal, error)));
            result = result.and(part);
        }
        self.capabilities.tools.shutdown().await;
        self.backend.close().await;
        self.traces.close(FLUSH).await;
        result
    }
}
