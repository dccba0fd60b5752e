//! What is counted of runs that have ended, and the tasks in quarantine.

use std::time::Duration;

use futures::future::try_join_all;
use redis::cmd;
use trireme_backend::{Error, ending::error_class};
use trireme_model::{Ms, RunId, RunStatus, TaskId, limits::LINGER_MS};

use super::{CHUNK, count, head};
use crate::{
    metrics::{Ended, Fired, Gauges, Scope},
    store::{
        constants::{NEED_ALL, NO_POLICY, kind, status},
        layout::{Spec, State},
        read::{bulk, list, maybe, text},
        transition::Shard,
    },
};

/// Runs read at the same time.
const READS: usize = 32;
/// How far back the first look after a long absence of all coordinators goes.
const BACK_MS: Ms = 600_000;

fn class(error: Option<&bytes::Bytes>) -> String {
    error.map_or_else(String::new, |error| error_class(error))
}

/// Counts the runs that have ended since any coordinator did this last.
pub(super) async fn tally(shard: &Shard, gauges: &Gauges) -> Result<(), Error> {
    let now = shard.now().await?;
    // whoever moves the cursor counts what lies between; if we crash on the next line, nobody does
    let mut take = cmd("SET");
    take.arg(&shard.keys.tally).arg(now).arg("GET");
    let before = maybe("the time of the last count", shard.link.query(&take).await?)?;
    // of a store that nobody has looked at yet nothing is counted
    let before = before.and_then(|at| text(&at).parse::<Ms>().ok()).unwrap_or(now);
    let from = before.max(now.saturating_sub(BACK_MS));
    let mut offset = 0;
    loop {
        let mut range = cmd("ZRANGE");
        range.arg(&shard.keys.due).arg(format!("({}", from + LINGER_MS)).arg(now + LINGER_MS);
        range.arg("BYSCORE").arg("LIMIT").arg(offset).arg(CHUNK);
        let entries = list("the due index", shard.link.query(&range).await?)?;
        let got = entries.len();
        let members = entries.into_iter().map(|member| bulk("an entry of the due index", member));
        let members = members.collect::<Result<Vec<_>, _>>()?;
        // a task may have a time limit of a day
        let runs: Vec<RunId> = members.iter().filter_map(|member| RunId::new(text(member)).ok()).collect();
        for chunk in runs.chunks(READS) {
            // asked together they share packets
            let read = try_join_all(chunk.iter().map(|run| shard.ended(run))).await?;
            read.iter().flatten().for_each(|ended| gauges.ended(ended));
        }
        if got < CHUNK {
            break;
        }
        offset += got;
    }
    Ok(())
}

/// How many tasks lie in quarantine.
pub(super) async fn dead_letters(shard: &Shard) -> Result<i64, Error> {
    let counted = shard.link.query(redis::cmd("ZCARD").arg(&shard.keys.dead)).await?;
    Ok(i64::try_from(count("the number of dead letters", counted)?).unwrap_or(i64::MAX))
}

impl Shard {
    /// What is counted of a run; `None` where it has not ended.
    async fn ended(&self, run: &RunId) -> Result<Option<Ended>, Error> {
        let names = ["m", "fe", "order", "added"].map(str::to_owned);
        let values = self.of_run(run, &names).await?;
        let [raw, error, order, added] = values.as_slice() else { return Ok(None) };
        let Some(head) = head(raw.as_ref())?.filter(|head| head.ended != 0) else { return Ok(None) };
        let mut ended = Ended {
            status: Some(head.status()?),
            took: Duration::from_millis(head.ended.saturating_sub(head.created)),
            ..Ended::default()
        };
        if class(error.as_ref()) == "deadline" {
            ended.misses.push(Scope::Run);
        }
        // where nothing was degraded, only what is told of is looked at closely
        let told = |kind, status| {
            head.degraded == 1 || [kind::JOIN, kind::MAP].contains(&kind) || status == status::FAILED
        };
        let tasks = self.tasks(run, order.as_ref(), added.as_ref(), |_| true, told).await?.found;
        let mut failed = Vec::new();
        // the run's output is no join that anybody wrote, and repeats its inputs' errors
        // a replay began with ends of the run that it replays, where they were counted
        let replay = run.replay_of().is_some();
        let before = |state: &State| replay && state.ended_at == head.created;
        for (id, (state, spec)) in tasks.iter().filter(|(_, (state, spec))| spec.last == 0 && !before(state))
        {
            ended.fired.extend(fired(state, spec));
            let late = state.deadline != 0 && state.ended_at >= state.deadline;
            if late && state.degraded == 1 && !state.frozen.is_empty() {
                // it merged what had come by then
                ended.misses.push(Scope::Join);
            } else if with_error(state) {
                failed.push((id.clone(), spec.pool.clone()));
            }
            if spec.kind == kind::MAP && state.missed > 0 {
                // a child runs in its map's pool unless told otherwise; which, only its own spec says
                failed.extend((0..state.next_child).map(|at| (id.child(at), String::new())));
            }
        }
        self.failures(run, failed, &mut ended).await?;
        // where its task had a fallback, the run has gone on without it
        ended.over_budget &= ended.status == Some(RunStatus::Failed);
        Ok(Some(ended))
    }

    /// Why tasks failed.
    async fn failures(
        &self,
        run: &RunId,
        failed: Vec<(TaskId, String)>,
        ended: &mut Ended,
    ) -> Result<(), Error> {
        let names: Vec<String> = failed.iter().map(|(id, _)| format!("e:{id}")).collect();
        let errors = self.of_run(run, &names).await?;
        for ((id, pool), error) in failed.into_iter().zip(errors) {
            match class(error.as_ref()).as_str() {
                "budget" => ended.over_budget = true,
                // attempts that the run's deadline broke off say the same: that is one miss
                "timeout" if !ended.misses.contains(&Scope::Run) => ended.misses.push(Scope::Task),
                "join_timeout" => ended.misses.push(Scope::Join),
                "poison" => {
                    let pool = if pool.is_empty() { self.pool_of_child(run, &id).await? } else { pool };
                    ended.quarantined.push(pool);
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn pool_of_child(&self, run: &RunId, child: &TaskId) -> Result<String, Error> {
        let Some((map, _)) = child.split_child() else { return Ok(String::new()) };
        let spec = self.of_run(run, &[format!("c:{map}")]).await?.pop().flatten();
        let spec: Option<Spec> =
            spec.map(|packed| super::unpack("the spec of a map's children", &packed)).transpose()?;
        Ok(spec.map_or_else(String::new, |spec| spec.pool))
    }
}

/// Whether the task has an error of its own, with a fallback or without.
fn with_error(state: &State) -> bool {
    state.status == status::FAILED || (state.status == status::SUCCEEDED && state.degraded == 1)
}

/// How a join ended, if it is one that did.
fn fired(state: &State, spec: &Spec) -> Option<Fired> {
    if spec.kind != kind::JOIN || spec.need == NO_POLICY {
        return None;
    }
    match state.status {
        status::SUCCEEDED if state.frozen == "*" => Some(Fired::All),
        // a fallback in place of what it could not merge
        status::SUCCEEDED if state.frozen.is_empty() => Some(Fired::Missed),
        status::SUCCEEDED => {
            let merged = state.frozen.bytes().filter(|bit| *bit == b'1').count() as i64;
            let needed = if spec.need == NEED_ALL { spec.inputs.into() } else { spec.need };
            Some(if merged >= needed { Fired::Quorum } else { Fired::Partial })
        }
        status::FAILED => Some(Fired::Missed),
        _ => None,
    }
}
