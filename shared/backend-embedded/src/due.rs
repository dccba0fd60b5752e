//! The due index of a shard: when somebody must next look at a task, or (`None`) at a run.

use std::collections::BTreeMap;

use trireme_model::{Ms, RunId, TaskId};

/// Where an entry stands: its time, and its number among all that ever came. To compare places no name is looked at,
/// and what comes new mostly goes to the end.
pub(crate) type Place = (Ms, u64);

#[derive(Debug, Default)]
pub(crate) struct Due {
    entries: BTreeMap<Place, (RunId, Option<TaskId>)>,
    count: u64,
}

impl Due {
    /// The first entry.
    pub(crate) fn first(&self) -> Option<(Ms, &(RunId, Option<TaskId>))> {
        self.entries.first_key_value().map(|((at, _), entry)| (*at, entry))
    }

    pub(crate) fn insert(&mut self, at: Ms, run: &RunId, task: &Option<TaskId>) -> Place {
        self.count += 1;
        let place = (at, self.count);
        self.entries.insert(place, (run.clone(), task.clone()));
        place
    }

    pub(crate) fn remove(&mut self, place: Place) {
        self.entries.remove(&place);
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}
