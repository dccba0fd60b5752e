//! The least a worker can be: claims what it is told of, and completes it when the test lets it.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, sync::DropGuard};
use trireme_backend::{Backend, Delta};
use trireme_model::{
    Assignment, Claim, Claimed, Complete, Completed, Fail, Failed, FailureClass, Outcome, Payload, RunId,
    TaskId, Usage,
};

use super::server::POOL;

pub struct Worker {
    /// One permit lets one task complete.
    pub steps: Arc<Semaphore>,
    _guard: DropGuard,
}

impl Worker {
    /// A worker that completes everything at once.
    pub fn free(backend: Arc<dyn Backend>) -> Self {
        let worker = Self::stepped(backend);
        worker.steps.add_permits(1_000_000);
        worker
    }

    /// A worker that completes a task for every permit of `steps`.
    pub fn stepped(backend: Arc<dyn Backend>) -> Self {
        let steps = Arc::new(Semaphore::new(0));
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(work(backend, steps.clone())));
        Self { steps, _guard: stop.drop_guard() }
    }
}

async fn work(backend: Arc<dyn Backend>, steps: Arc<Semaphore>) {
    let mut deliveries = backend.consume(vec![(POOL.to_owned(), 16)]).await.unwrap();
    while let Some(delivery) = deliveries.next().await {
        let (backend, steps) = (backend.clone(), steps.clone());
        tokio::spawn(async move {
            let claim = Claim {
                run: delivery.run.clone(),
                task: delivery.task.clone(),
                claim: format!("c-{}-{}", delivery.run, delivery.task),
                has_input: true,
            };
            if let Claimed::Run(assignment) = backend.claim(claim).await.unwrap() {
                steps.acquire().await.unwrap().forget();
                complete(&*backend, *assignment).await;
            }
            delivery.ack.done();
        });
    }
}

/// Streams two deltas and records `{"task": id}`.
async fn complete(backend: &dyn Backend, assignment: Assignment) {
    let Assignment { run, task, token, attempt, .. } = assignment;
    let delta = |text: &str| Delta { run: run.clone(), task: task.clone(), attempt, text: text.into() };
    backend.append(vec![delta("one\n"), delta("two")]).await.unwrap();
    let result = Payload::of(&serde_json::json!({"task": task.as_str()}));
    let (outcome, tasks) = (Outcome::Result(result), Vec::new());
    let complete =
        Complete { run, task, token, outcome, tasks, first_token: None, usage: Usage::default(), next: None };
    let completed = backend.complete(complete).await.unwrap();
    assert!(matches!(completed, Completed::Recorded { .. } | Completed::Cancelled), "{completed:?}");
}

/// Claims the task `a` of a run and fails it for good.
pub async fn fail(backend: &dyn Backend, run: &str) {
    let (run, task) = (RunId::new(run).unwrap(), TaskId::new("a").unwrap());
    let claim = Claim { run: run.clone(), task: task.clone(), claim: "c".into(), has_input: true };
    let Claimed::Run(assignment) = backend.claim(claim).await.unwrap() else {
        panic!("{run} has no such task")
    };
    let fail = Fail {
        run,
        task,
        token: assignment.token,
        class: FailureClass::Permanent,
        error: Payload::of(&serde_json::json!({"class": "permanent", "message": "no"})),
        retry_after: None,
        jitter: 0,
        usage: Usage::default(),
    };
    assert_eq!(backend.fail(fail).await.unwrap(), Failed::Ended);
}
