//! The inputs and traces of runs, so that a claim need not carry what this worker holds already.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use ahash::HashMap;
use trireme_model::{Payload, RunId, Trace};

/// A bounded first-in-first-out cache. Neither ever changes, so nothing goes stale.
pub(crate) struct Inputs {
    limit: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    inputs: HashMap<RunId, (Payload, Option<Trace>)>,
    order: VecDeque<RunId>,
    bytes: usize,
}

/// What an entry costs beside its text.
const OVERHEAD: usize = 128;

impl Inputs {
    /// Keeps up to `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, held: Mutex::default() }
    }

    pub(crate) fn get(&self, run: &RunId) -> Option<Payload> {
        self.lock().inputs.get(run).map(|(input, _)| input.clone())
    }

    /// The trace of a run whose input is held; `None` where that is not.
    pub(crate) fn trace(&self, run: &RunId) -> Option<Option<Trace>> {
        self.lock().inputs.get(run).map(|(_, trace)| *trace)
    }

    pub(crate) fn insert(&self, run: &RunId, input: &Payload, trace: Option<Trace>) {
        let mut held = self.lock();
        if held.inputs.contains_key(run) {
            return;
        }
        held.bytes += input.len() + OVERHEAD;
        held.order.push_back(run.clone());
        held.inputs.insert(run.clone(), (input.clone(), trace));
        while held.bytes > self.limit && held.order.len() > 1 {
            let Some(oldest) = held.order.pop_front() else { return };
            let freed = held.inputs.remove(&oldest).map_or(0, |(input, _)| input.len() + OVERHEAD);
            held.bytes -= freed;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_inputs_make_room() {
        let inputs = Inputs::new(400);
        let run = |at: usize| RunId::new(format!("r{at}")).unwrap();
        for at in 0..10 {
            inputs.insert(&run(at), &Payload::of("x"), None);
        }
        assert!(inputs.get(&run(0)).is_none());
        assert_eq!(inputs.get(&run(9)), Some(Payload::of("x")));
    }
}
