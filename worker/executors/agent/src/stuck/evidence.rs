//! The signs, looked for in a bounded number of turns.

use std::collections::BTreeSet;

use super::{ACROSS, EMPTY, ERRORS, MAX_PERIOD, NOTHING_NEW, Observation, REPEATS, SILENT, Sign, Turn};

/// A call with its result.
type Pair<'a> = (&'a str, &'a str);

/// A turn as one branch sees it.
struct Step<'a> {
    observations: Vec<&'a Observation>,
    /// Sorted: the order of parallel calls does not count.
    pairs: BTreeSet<Pair<'a>>,
    /// Has a pair that was not there before.
    fresh: bool,
    /// Has such a pair that is no error.
    progress: bool,
}

/// The first sign in `turns`, the most telling kinds first.
pub(super) fn sign(turns: &[Turn]) -> Option<Sign> {
    let last = turns.last()?;
    if last.observations.is_empty() {
        return silence(turns);
    }
    let branches: BTreeSet<&str> = last.observations.iter().map(|o| o.branch.as_str()).collect();
    let in_branch = |branch| {
        let steps = steps(turns, branch);
        repeated_error(&steps)
            .or_else(|| repeated_call(&steps))
            .or_else(|| circle(&steps))
            .or_else(|| nothing_new(&steps))
    };
    branches.into_iter().find_map(in_branch).or_else(|| across(turns, last))
}

/// The turns in which `branch` or nobody called something.
fn steps<'a>(turns: &'a [Turn], branch: &str) -> Vec<Step<'a>> {
    let mut seen = BTreeSet::new();
    let mut steps = Vec::with_capacity(turns.len());
    for turn in turns {
        let observations: Vec<_> = turn.observations.iter().filter(|o| o.branch == branch).collect();
        if observations.is_empty() && !turn.observations.is_empty() {
            continue;
        }
        let fresh = |o: &&&Observation| !seen.contains(&pair(o));
        let step = Step {
            fresh: observations.iter().any(|o| fresh(&o)),
            progress: observations.iter().filter(fresh).any(|o| !o.error),
            pairs: observations.iter().map(|o| pair(o)).collect(),
            observations,
        };
        seen.extend(step.pairs.iter().copied());
        steps.push(step);
    }
    steps
}

fn pair(o: &Observation) -> Pair<'_> {
    (&o.call, &o.result)
}

/// The last steps from one that `is_new` on: what has happened since.
fn since<'a, 'b>(steps: &'b [Step<'a>], is_new: impl Fn(&Step<'a>) -> bool) -> &'b [Step<'a>] {
    &steps[steps.iter().rposition(is_new).unwrap_or(0)..]
}

fn repeated_error(steps: &[Step<'_>]) -> Option<Sign> {
    let since = since(steps, |step| step.progress);
    since.last()?.observations.iter().filter(|o| o.error).find_map(|error| {
        let failed = |step: &&Step<'_>| step.observations.iter().any(|o| o.error && o.call == error.call);
        let times = since.iter().filter(failed).count();
        (times >= ERRORS).then(|| Sign::RepeatedError { tool: error.tool.clone(), times })
    })
}

fn repeated_call(steps: &[Step<'_>]) -> Option<Sign> {
    let since = since(steps, |step| step.fresh);
    since.last()?.observations.iter().find_map(|o| {
        let times = since.iter().filter(|step| step.pairs.contains(&pair(o))).count();
        (times >= REPEATS).then(|| Sign::RepeatedCall { tool: o.tool.clone(), times })
    })
}

/// A loop of at least two turns; one of a single turn is a repeated call.
fn circle(steps: &[Step<'_>]) -> Option<Sign> {
    (2..=MAX_PERIOD).find_map(|period| {
        let (earlier, last) = steps[steps.len().checked_sub(2 * period)?..].split_at(period);
        let same = earlier.iter().map(|step| &step.pairs).eq(last.iter().map(|step| &step.pairs));
        same.then_some(Sign::Loop { period })
    })
}

fn nothing_new(steps: &[Step<'_>]) -> Option<Sign> {
    let turns = steps.iter().rev().take_while(|step| !step.fresh).count();
    (turns >= NOTHING_NEW).then_some(Sign::NothingNew { turns })
}

fn silence(turns: &[Turn]) -> Option<Sign> {
    let silent = turns.iter().rev().take_while(|turn| turn.observations.is_empty());
    let empty = silent.clone().take_while(|turn| !turn.text_only).count();
    if empty >= EMPTY {
        return Some(Sign::Empty { turns: empty });
    }
    let turns = silent.count();
    (turns >= SILENT).then_some(Sign::Monologue { turns })
}

/// Branches that start alike in one turn are a fan-out; it takes a second turn to be a repetition.
fn across(turns: &[Turn], last: &Turn) -> Option<Sign> {
    last.observations.iter().find_map(|o| {
        let sightings: BTreeSet<(&str, usize)> = turns
            .iter()
            .enumerate()
            .flat_map(|(at, turn)| {
                turn.observations.iter().filter(|other| pair(other) == pair(o)).map(move |o| (&*o.branch, at))
            })
            .collect();
        let branches: BTreeSet<_> = sightings.iter().map(|(branch, _)| branch).collect();
        let times: BTreeSet<_> = sightings.iter().map(|(_, at)| at).collect();
        (sightings.len() >= ACROSS && branches.len() >= 2 && times.len() >= 2)
            .then(|| Sign::AcrossBranches { tool: o.tool.clone(), times: sightings.len() })
    })
}
