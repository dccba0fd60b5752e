//! What a task does: its body and the values it refers to become one call.

mod agent;
mod llm;
mod map;
mod tool;

use std::sync::{Arc, Mutex, PoisonError};

use ahash::HashMap;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trireme_agent::Work;
use trireme_backend::Error;
use trireme_llm::Providers;
use trireme_model::{Assignment, Payload, TaskId};
use trireme_spec::{Bindings, Body, Call, RenderError};
use trireme_tool::Tools;

use crate::{
    attempt::Shared,
    outcome::{Ended, Failure, Spent},
    spans::Spans,
};

/// Bodies kept parsed. A run's tasks share few; what is over is parsed again.
const MAX_BODIES: usize = 4096;

/// Models and tools, and the parsed bodies of tasks. Cheap to clone.
#[derive(Clone)]
pub struct Executors {
    providers: Providers,
    tools: Tools,
    bodies: Arc<Mutex<HashMap<Payload, Arc<Body>>>>,
}

/// An attempt as an executor sees it.
pub(crate) struct Job<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) assignment: &'a Assignment,
    /// When it began, by our own clock.
    pub(crate) started: Instant,
    /// When the task's time is up, by our own clock.
    pub(crate) deadline: Option<Instant>,
    /// Cancelled when the attempt must stop.
    pub(crate) stop: CancellationToken,
    /// Its spans, where it is traced.
    pub(crate) spans: Option<&'a Spans>,
    /// Where the executor says what it costs.
    pub(crate) spent: &'a Spent,
}

impl Executors {
    /// Executes tasks with these models and tools.
    pub fn new(providers: Providers, tools: Tools) -> Self {
        Self { providers, tools, bodies: Arc::default() }
    }

    pub(crate) async fn execute(&self, job: &Job<'_>) -> Ended {
        self.call(job).await.unwrap_or_else(Ended::Failed)
    }

    async fn call(&self, job: &Job<'_>) -> Result<Ended, Failure> {
        if let Some(work) = Work::of_body(&job.assignment.body) {
            return Box::pin(agent::work(self, job, work)).await;
        }
        let body = self.body(&job.assignment.body)?;
        let bindings = bindings(job, &body).await?;
        match body.call(&bindings)? {
            // the rare and large futures are boxed, so that every attempt's stays small
            Call::Llm(call) => Box::pin(llm::call(&self.providers, &self.tools, job, *call)).await,
            Call::Tool { name, args } => tool::call(&self.tools, job, &name, args).await,
            Call::Agent(call) => agent::begin(job, *call),
            Call::Map { items } => Box::pin(map::expand(job, items)).await,
        }
    }

    fn body(&self, payload: &Payload) -> Result<Arc<Body>, RenderError> {
        // a panic elsewhere can't leave a cache of immutable values wrong
        let lock = || self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(body) = lock().get(payload) {
            return Ok(body.clone());
        }
        let body = Arc::new(Body::parse(payload)?);
        let mut bodies = lock();
        if bodies.len() >= MAX_BODIES {
            bodies.clear();
        }
        bodies.insert(payload.clone(), body.clone());
        Ok(body)
    }
}

/// What the body may refer to: only what it does refer to is read.
async fn bindings(job: &Job<'_>, body: &Body) -> Result<Bindings, Failure> {
    let assignment = job.assignment;
    let child = assignment.arg.is_some();
    let wanted: Vec<TaskId> = assignment.inputs.iter().filter(|id| body.reads(id, child)).cloned().collect();
    let read = || job.shared.values.get(&assignment.run, &wanted);
    let values = if wanted.is_empty() { Vec::new() } else { job.shared.read(read).await? };
    let values = wanted.into_iter().zip(values).filter_map(|(id, value)| Some((id, value?))).collect();
    let index = assignment.arg.as_ref().and_then(|_| assignment.task.split_child()).map(|(_, index)| index);
    Ok(Bindings { input: job.shared.input(assignment).await?, values, item: assignment.arg.clone(), index })
}

impl From<RenderError> for Failure {
    fn from(error: RenderError) -> Self {
        Self::permanent(error.class(), error.to_string())
    }
}

impl From<Error> for Failure {
    /// What gets better by repeating was repeated already.
    fn from(error: Error) -> Self {
        Self::permanent("store_refused", error.to_string())
    }
}
