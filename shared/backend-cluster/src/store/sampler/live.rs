//! Ready tasks and open joins.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use redis::cmd;
use trireme_backend::Error;
use trireme_model::{
    Ms, Priority, RunId, TaskId,
    limits::{REPUBLISH_CAP_MS, REPUBLISH_MS},
};

use super::{RUNS, SAMPLE, Sampler, count, head};
use crate::{
    keys::split_member,
    metrics::{Gauges, Ready},
    store::{
        constants::{kind, run_status, status},
        layout::{Spec, State, priority_of, unpack},
        read::{bulk, fields, list, text},
        transition::Shard,
    },
};

/// Tasks remembered as oldest per pool and priority.
const OLDEST: usize = 8;
/// Tasks looked at beside the sample, whatever comes together.
const KNOWN: usize = 4 * SAMPLE;

/// How far from now ready tasks are due: those that became ready within the last 10 s, and older ones, whose hints
/// were published again. Apart, because runs that will be forgotten within these times are due as well, which at
/// many runs a second leaves little of a sample over the whole for the tasks.
const TIERS: [Ms; 2] = [REPUBLISH_MS, REPUBLISH_CAP_MS];

/// A task that is ready.
struct Found {
    run: RunId,
    task: TaskId,
    pool: String,
    priority: Priority,
    age: Ms,
}

impl Sampler {
    /// Tells of the ready tasks and the open joins of all shards.
    pub(super) async fn live(
        &mut self,
        gauges: &Gauges,
    ) -> Result<BTreeMap<(String, Priority), Ready>, Error> {
        let looked = self.store.0.looked.take();
        let known: HashSet<(RunId, TaskId)> = self.oldest.drain(..).chain(looked).collect();
        let known: Vec<(RunId, TaskId)> = known.into_iter().take(KNOWN).collect();
        let surveyed = self.survey(known.clone(), gauges).await;
        // a look that failed must not lose the old task that an alert is about
        self.oldest = surveyed.as_ref().map_or(known, |(oldest, _)| oldest.clone());
        surveyed.map(|(_, ready)| ready)
    }

    /// Looks at a sample and at what is `known`; gives the tasks that are oldest, and how many are ready.
    async fn survey(
        &self,
        mut known: Vec<(RunId, TaskId)>,
        gauges: &Gauges,
    ) -> Result<(Vec<(RunId, TaskId)>, BTreeMap<(String, Priority), Ready>), Error> {
        let shards = u16::try_from(self.store.0.shards.len()).unwrap_or(u16::MAX);
        let (mut found, mut totals) = (Vec::new(), BTreeMap::<(String, Priority), f64>::new());
        let (mut open, mut longest) = (0, 0);
        for (number, shard) in (0_u16..).zip(self.store.shards()) {
            let now = shard.now().await?;
            let (here, elsewhere) = known.into_iter().partition(|(run, _)| run.shard(shards) == number);
            known = elsewhere;
            let (mut runs, mut before) = (HashMap::new(), 0);
            // known ones count as what they are: a sample that meets one must not take it for many
            let mut looks: Vec<(Vec<_>, f64)> = vec![(here, 1.0)];
            let mut seen: HashSet<_> = looks.iter().flat_map(|(known, _)| known.iter().cloned()).collect();
            for within in TIERS {
                let all = shard.due_before(now + within).await?;
                let (mut sample, each) = shard.sample(before, all).await?;
                before = all;
                sample.retain(|entry| seen.insert(entry.clone()));
                looks.push((sample, each));
            }
            for (entries, each) in looks {
                for ready in shard.ready(&entries, now, &mut runs).await? {
                    *totals.entry((ready.pool.clone(), ready.priority)).or_default() += each;
                    found.push(ready);
                }
            }
            let (joins, oldest) = shard.joins(runs, now).await?;
            open += joins;
            longest = longest.max(oldest);
        }
        found.sort_by_key(|found: &Found| std::cmp::Reverse(found.age));
        let mut ready = BTreeMap::<(String, Priority), Ready>::new();
        let (mut kept, mut old) = (HashMap::<(String, Priority), usize>::new(), Vec::new());
        for task in found {
            let pool = gauges.pool(&task.pool).to_owned();
            let key = (pool, task.priority);
            let entry = ready.entry(key.clone()).or_default();
            entry.oldest = entry.oldest.max(Duration::from_millis(task.age));
            let kept = kept.entry(key).or_default();
            if *kept < OLDEST {
                *kept += 1;
                old.push((task.run, task.task));
            }
        }
        let mut counts = BTreeMap::<(String, Priority), f64>::new();
        for ((pool, priority), total) in totals {
            *counts.entry((gauges.pool(&pool).to_owned(), priority)).or_default() += total;
        }
        for (key, total) in counts {
            let entry = ready.entry(key).or_default();
            entry.count = total.round() as u64;
        }
        gauges.sampled(&ready);
        gauges.open_joins.set(open);
        gauges.oldest_join.set(longest as f64 / 1000.0);
        Ok((old, ready))
    }
}

impl Shard {
    /// How many entries are due by `until`.
    async fn due_before(&self, until: Ms) -> Result<usize, Error> {
        let mut counting = cmd("ZCOUNT");
        counting.arg(&self.keys.due).arg("-inf").arg(until);
        let all = count("the number of due entries", self.link.query(&counting).await?)?;
        Ok(usize::try_from(all).unwrap_or(usize::MAX))
    }

    /// Tasks among the entries of these ranks, and how many each of them stands for.
    async fn sample(&self, from: usize, to: usize) -> Result<(Vec<(RunId, TaskId)>, f64), Error> {
        // the index moves meanwhile: what has left is missed once
        let all = to.saturating_sub(from);
        let members = if all <= SAMPLE {
            let mut range = cmd("ZRANGE");
            range.arg(&self.keys.due).arg(from).arg(from + SAMPLE - 1);
            let mut members = list("the due index", self.link.query(&range).await?)?;
            members.truncate(all);
            members
        } else {
            // one of each of equal parts: long ones of a kind count as much as they are long
            let ranks: Vec<usize> = (0..SAMPLE)
                .map(|part| {
                    let (first, end) = (part * all / SAMPLE, (part + 1) * all / SAMPLE);
                    from + rand::random_range(first..end.max(first + 1))
                })
                .collect();
            let read = |pipeline: &mut redis::Pipeline, rank: &usize| {
                pipeline.cmd("ZRANGE").arg(&self.keys.due).arg(*rank).arg(*rank);
            };
            let replies = self.reads(&ranks, read).await?;
            let mut members = Vec::with_capacity(replies.len());
            for reply in replies {
                members.extend(list("an entry of the due index", reply)?);
            }
            members
        };
        let each = all as f64 / members.len().max(1) as f64;
        let mut entries = Vec::with_capacity(members.len());
        for member in members {
            if let Some((run, Some(task))) = split_member(&text(&bulk("an entry of the due index", member)?))
            {
                entries.push((run, task));
            }
        }
        Ok((entries, each))
    }

    /// Those of `entries` that are ready tasks of running runs. Notes the running runs and when they were accepted.
    async fn ready(
        &self,
        entries: &[(RunId, TaskId)],
        now: Ms,
        runs: &mut HashMap<RunId, Ms>,
    ) -> Result<Vec<Found>, Error> {
        let read = |pipeline: &mut redis::Pipeline, (run, task): &(RunId, TaskId)| {
            let read = pipeline.cmd("HMGET").arg(self.keys.run(run.as_str()));
            read.arg("m").arg(format!("s:{task}")).arg(format!("g:{task}"));
            if let Some((map, _)) = task.split_child() {
                read.arg(format!("c:{map}"));
            }
        };
        let replies = self.reads(entries, read).await?;
        let mut found = Vec::new();
        for ((run, task), reply) in entries.iter().zip(replies) {
            let values = fields(reply)?;
            let value = |at: usize| values.get(at).and_then(Option::as_ref);
            let Some(head) = head(value(0))?.filter(|head| head.status == run_status::RUNNING) else {
                continue;
            };
            runs.insert(run.clone(), head.created);
            let (Some(state), Some(spec)) = (value(1), value(2).or(value(3))) else { continue };
            let state: State = unpack("a task's state", state)?;
            if state.status != status::READY {
                continue;
            }
            let spec: Spec = unpack("a task's spec", spec)?;
            found.push(Found {
                run: run.clone(),
                task: task.clone(),
                priority: priority_of(spec.priority),
                pool: spec.pool,
                age: now.saturating_sub(state.ready_at),
            });
        }
        Ok(found)
    }

    /// How many joins of the oldest of `runs` have an input and have not fired, and since when the first of them.
    async fn joins(&self, runs: HashMap<RunId, Ms>, now: Ms) -> Result<(i64, Ms), Error> {
        let mut runs: Vec<(Ms, RunId)> = runs.into_iter().map(|(run, created)| (created, run)).collect();
        runs.sort_unstable();
        runs.truncate(RUNS);
        let (mut open, mut longest) = (0, 0);
        for (_, run) in &runs {
            let lists = self.of_run(run, &["order".to_owned(), "added".to_owned()]).await?;
            let [order, added] = lists.as_slice() else { continue };
            let tasks = self.tasks(run, order.as_ref(), added.as_ref(), |_| true, |_, _| true).await?.found;
            let waits = |(_, (state, spec)): &(&TaskId, &(State, Spec))| {
                // the run's output waits for as long as the run takes
                let join = spec.kind == kind::JOIN && spec.last == 0;
                join && state.status == status::WAITING && state.done + state.missed > 0
            };
            let joins: Vec<&TaskId> = tasks.iter().filter(waits).map(|(id, _)| id).collect();
            if joins.is_empty() {
                continue;
            }
            open += i64::try_from(joins.len()).unwrap_or(i64::MAX);
            let names: Vec<String> = joins.iter().map(|join| format!("i:{join}")).collect();
            for inputs in self.of_run(run, &names).await?.into_iter().flatten() {
                let inputs: Vec<TaskId> = unpack("the inputs of a join", &inputs)?;
                let ends =
                    inputs.iter().filter_map(|input| tasks.get(input)).map(|(state, _)| state.ended_at);
                if let Some(first) = ends.filter(|at| *at > 0).min() {
                    longest = longest.max(now.saturating_sub(first));
                }
            }
        }
        Ok((open, longest))
    }
}
