//! The engine's own time in a run: what it waited for without a model or a tool being at work.
//!
//! The run's critical path says what each millisecond waited for (`docs/waterfall.md`). The engine's are those of
//! `queue` and `dispatch`, and of `join` what went by after the join's window had closed, or after its last input if it
//! has none: until then a join waits because it was told to. What a worker does inside an attempt before it calls (reading
//! inputs, building a prompt) counts as the model's or the tool's time, as it does in the waterfall.

use trireme_model::{
    Ms, Run,
    attribution::{Category, attribution},
};

/// The engine's own part of one run's wall time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnTime {
    /// Ready tasks waited for a worker.
    pub(super) queue: Ms,
    /// From the end of an input until ready.
    pub(super) dispatch: Ms,
    /// Joins that were due.
    pub(super) join: Ms,
    /// Joins that waited for their window, as told.
    pub(super) window: Ms,
    /// From acceptance to the end.
    pub(super) wall: Ms,
}

impl OwnTime {
    /// Of a run that has ended.
    pub(super) fn of(run: &Run) -> Self {
        let found = attribution(&run.view());
        let joins = found.path.iter().filter(|segment| segment.category == Category::Join);
        let join = joins.map(|segment| {
            let end = run.created + segment.from_ms + segment.ms;
            let due = run.tasks.get(&segment.task).map_or(0, |task| task.deadline);
            end.saturating_sub(due).min(segment.ms)
        });
        let join = join.sum();
        Self {
            queue: found.categories.queue,
            dispatch: found.categories.dispatch,
            join,
            window: found.categories.join - join,
            wall: found.wall_ms,
        }
    }

    /// Its part of the wall time, in percent.
    pub(super) fn percent(&self) -> f64 {
        (self.queue + self.dispatch + self.join) as f64 * 100.0 / self.wall.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;
    use trireme_model::{Claim, Claimed, Complete, Effects, Outcome, Payload, RunId, Site, TaskId, Usage};

    use super::*;

    const START: Ms = 1_000_000;

    fn id(task: &str) -> TaskId {
        TaskId::new(task).unwrap()
    }

    fn claim(run: &mut Run, task: &str, at: Ms) -> Complete {
        let claim =
            Claim { run: run.id.clone(), task: id(task), claim: format!("of-{task}"), has_input: true };
        let Claimed::Run(assignment) = run.claim(
            &claim,
            Site { epoch: "e", paused: &BTreeSet::new() },
            START + at,
            &mut Effects::default(),
        ) else {
            panic!("{task} can't be claimed")
        };
        Complete {
            run: run.id.clone(),
            task: id(task),
            token: assignment.token,
            outcome: Outcome::Result(Payload::of(&1)),
            tasks: Vec::new(),
            first_token: None,
            usage: Usage::default(),
            next: None,
        }
    }

    /// Two tools, claimed 7 and 9 ms after they were ready; `a` ends at 40 ms, `b` never. Their join has a window of 100 ms,
    /// which the sweep looks at when it is `looked` ms.
    fn run(looked: Ms) -> Run {
        let tool = json!({"tool": {"name": "noop"}});
        let join = json!({"from": ["a", "b"], "within": "100ms", "on_miss": "partial"});
        let spec = json!({"tasks": {"a": tool, "b": tool, "c": {"join": join}}, "output": "{{ c }}"});
        let compiled = trireme_spec::compile(&spec.to_string(), &[], &trireme_spec::Permissive).unwrap();
        let submit = compiled.submit(RunId::new("r").unwrap(), "r");
        let mut run = Run::submit(submit, START, &mut Effects::default());
        let a = claim(&mut run, "a", 7);
        claim(&mut run, "b", 9);
        run.complete(&a, Site { epoch: "e", paused: &BTreeSet::new() }, START + 40, &mut Effects::default());
        run.look_at_task(&id("c"), &BTreeSet::new(), START + looked, &mut Effects::default());
        assert_eq!(START + looked, run.ended, "{run:?}");
        run
    }

    #[test]
    fn waiting_for_a_window_is_not_the_engines_and_being_late_is() {
        let own = OwnTime::of(&run(103));
        assert_eq!(OwnTime { queue: 7, dispatch: 0, join: 3, window: 60, wall: 103 }, own);
        assert!((own.percent() - 10.0 * 100.0 / 103.0).abs() < 1e-9);
        assert_eq!(0, OwnTime::of(&run(100)).join);
    }
}
