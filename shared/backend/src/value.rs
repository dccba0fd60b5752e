//! The values of tasks: results as they are, joins and maps merged from what they froze.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use ahash::HashMap;
use trireme_model::{
    Payload, RunId, TaskId,
    merge::{Merge, frozen},
};

use crate::{Backend, Error, Recorded};

/// Results read in one call: bounds the reply of a wide map.
const READ_CHUNK: usize = 256;
/// Joins over joins that are followed.
const MAX_DEPTH: usize = 64;

/// Reads values of tasks and keeps recent ones. Results never change once recorded, so nothing goes stale.
#[derive(Clone)]
pub struct Values {
    backend: Arc<dyn Backend>,
    cache: Arc<Mutex<Cache>>,
}

struct Cache {
    values: HashMap<(RunId, TaskId), Payload>,
    order: VecDeque<(RunId, TaskId)>,
    bytes: usize,
    limit: usize,
}

impl Values {
    /// Reads from `backend` and caches up to `limit` bytes.
    pub fn new(backend: Arc<dyn Backend>, limit: usize) -> Self {
        let cache = Cache { values: HashMap::default(), order: VecDeque::new(), bytes: 0, limit };
        Self { backend, cache: Arc::new(Mutex::new(cache)) }
    }

    /// Remembers a result that was just recorded.
    pub fn remember(&self, run: &RunId, task: &TaskId, value: &Payload) {
        self.lock().insert((run.clone(), task.clone()), value.clone());
    }

    /// The values of `tasks`, one per id; `None` where a task has none.
    pub async fn get(&self, run: &RunId, tasks: &[TaskId]) -> Result<Vec<Option<Payload>>, Error> {
        self.read(run, tasks, 0).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cache> {
        // a panic elsewhere can't leave a cache of immutable values wrong
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, run: &RunId, tasks: &[TaskId], depth: usize) -> Result<Vec<Option<Payload>>, Error> {
        let mut values: Vec<Option<Payload>> = {
            let cache = self.lock();
            tasks.iter().map(|task| cache.values.get(&(run.clone(), task.clone())).cloned()).collect()
        };
        let missing: Vec<usize> = (0..tasks.len()).filter(|at| values[*at].is_none()).collect();
        for chunk in missing.chunks(READ_CHUNK) {
            let ids: Vec<TaskId> = chunk.iter().map(|at| tasks[*at].clone()).collect();
            let recorded = self.backend.recorded(run, &ids).await?;
            for (at, recorded) in chunk.iter().zip(recorded) {
                let value = match recorded {
                    None | Some(Recorded::Failed(_)) => continue,
                    Some(Recorded::Result(value)) => value,
                    Some(Recorded::Merged { body, frozen: included, inputs }) => {
                        if depth >= MAX_DEPTH {
                            return Err(Error::TooLarge {
                                what: "nesting of joins",
                                got: depth,
                                limit: MAX_DEPTH,
                            });
                        }
                        Box::pin(self.merged(run, &body, &included, &inputs, depth)).await?
                    }
                };
                self.remember(run, &tasks[*at], &value);
                values[*at] = Some(value);
            }
        }
        Ok(values)
    }

    async fn merged(
        &self,
        run: &RunId,
        body: &Payload,
        included: &str,
        inputs: &[TaskId],
        depth: usize,
    ) -> Result<Payload, Error> {
        let included = frozen(included, inputs.len());
        let wanted: Vec<TaskId> = inputs
            .iter()
            .zip(&included)
            .filter(|(_, included)| **included)
            .map(|(id, _)| id.clone())
            .collect();
        let mut values = self.read(run, &wanted, depth + 1).await?.into_iter();
        let parts: Vec<Option<Payload>> =
            included.iter().map(|included| if *included { values.next().flatten() } else { None }).collect();
        let broken =
            |error: serde_json::Error| Error::Unusable(format!("a join's value can't be merged: {error}"));
        Merge::of_body(body).map_err(broken)?.merge(&parts).map_err(broken)
    }
}

impl Cache {
    fn insert(&mut self, key: (RunId, TaskId), value: Payload) {
        if value.len() > self.limit / 4 || self.values.contains_key(&key) {
            return;
        }
        self.bytes += value.len();
        self.order.push_back(key.clone());
        self.values.insert(key, value);
        while self.bytes > self.limit || self.order.len() > self.limit / 64 {
            let Some(oldest) = self.order.pop_front() else { return };
            self.bytes -= self.values.remove(&oldest).map_or(0, |value| value.len());
        }
    }
}

/// The output of a run that has succeeded.
pub async fn output(
    backend: &Arc<dyn Backend>,
    run: &RunId,
    task: &TaskId,
) -> Result<Option<Payload>, Error> {
    let values = Values::new(backend.clone(), 0).get(run, std::slice::from_ref(task)).await?;
    Ok(values.into_iter().next().flatten())
}
