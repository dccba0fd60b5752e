//! Traced runs that have ended, for whoever sends the spans of whole runs.
//!
//! They are found as those are that are counted (see [`super::sampler`]): ended runs stand in the due index at the
//! time of their purge. A cursor per shard says up to when all of them were told of. It moves when a batch was told
//! of, not when it was taken, so that a process that dies between the two leaves them to another one; a lock with
//! an end keeps two from telling the same at the same time. Where they do so all the same, they tell the same.

use futures::future::join_all;
use redis::{Value, cmd, pipe};
use trireme_backend::{
    Ending, Endings, Error, Mark, Part,
    ending::{error_class, first},
};
use trireme_model::{Kind, Ms, RunId, TaskId, Trace, limits::LINGER_MS};

use super::{
    Store,
    constants::{NO_POLICY, kind},
    layout::{Head, Spec, State, kind_of, unpack},
    read::{bulk, list, maybe, text},
    transition::Shard,
};

/// Runs told of at once, per shard. More only where more than that ended in one millisecond.
const AT_ONCE: usize = 256;
/// Runs read at the same time.
const READS: usize = 32;
/// Runs that can end in one millisecond.
const AT_MOST: usize = 8192;
/// How far back the first look after a long absence of all coordinators goes.
const BACK_MS: Ms = 600_000;
/// How long a batch is one caller's.
const LOCK_MS: Ms = 30_000;
/// Fields of a run read at once: bounds how long Redis is busy with it.
const CHUNK: usize = 512;

impl Store {
    /// See [`trireme_backend::Backend::ended`].
    pub async fn ended(&self) -> Result<Endings, Error> {
        let mut endings = Endings::default();
        for (at, shard) in self.shards().enumerate() {
            shard.ended_runs(at as u16, &mut endings).await?;
        }
        Ok(endings)
    }

    /// See [`trireme_backend::Backend::mark_ended`].
    pub async fn mark_ended(&self, mark: Mark) -> Result<(), Error> {
        for (at, upto) in mark.0 {
            let Some(shard) = self.shards().nth(usize::from(at)) else { continue };
            // first the cursor: whoever gets the lock then begins behind it
            let mut done = pipe();
            done.cmd("SET").arg(&shard.keys.told).arg(upto);
            done.cmd("DEL").arg(&shard.keys.telling);
            shard.link.pipeline(&done).await?;
        }
        Ok(())
    }
}

impl Shard {
    async fn ended_runs(&self, at: u16, endings: &mut Endings) -> Result<(), Error> {
        let now = self.now().await?;
        // of a store that nobody has asked yet nothing is told
        let mut begin = cmd("SET");
        // what ends later in this millisecond is told
        begin.arg(&self.keys.told).arg(now.saturating_sub(1)).arg("NX").arg("GET");
        let cursor = maybe("a cursor", self.link.query(&begin).await?)?;
        let Some(cursor) = cursor.and_then(|at| text(&at).parse::<Ms>().ok()) else { return Ok(()) };
        let from = cursor.max(now.saturating_sub(BACK_MS));
        // what ends in this very millisecond may not all be there yet
        let upto = now.saturating_sub(1);
        let mut entries = self.entries(from, upto, AT_ONCE).await?;
        if entries.is_empty() {
            return Ok(());
        }
        let mut lock = cmd("SET");
        lock.arg(&self.keys.telling).arg(now).arg("NX").arg("PX").arg(LOCK_MS);
        if self.link.query(&lock).await? == Value::Nil {
            return Ok(());
        }
        let mut told = upto;
        if entries.len() >= AT_ONCE
            && let Some((_, last)) = entries.last().cloned()
        {
            // the last millisecond may go on behind the batch: it belongs to the next one, if it is not all of this
            endings.more = true;
            entries.retain(|(_, ended)| *ended != last);
            told = last - 1;
            if entries.is_empty() {
                entries = self.entries(last - 1, last, AT_MOST).await?;
                told = last;
            }
        }
        for chunk in entries.chunks(READS) {
            // asked together they share packets
            let read = join_all(chunk.iter().map(|(run, _)| self.ending(run))).await;
            for ((run, _), ending) in chunk.iter().zip(read) {
                match ending {
                    Ok(ending) => endings.runs.extend(ending),
                    // a run that can't be read must not hold up the others
                    Err(Error::Unusable(text)) => {
                        tracing::error!(%run, error = text, "the end of a run can't be told")
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        endings.mark.0.push((at, told));
        Ok(())
    }

    /// Runs that ended after `from` and not after `upto`, the first first.
    async fn entries(&self, from: Ms, upto: Ms, most: usize) -> Result<Vec<(RunId, Ms)>, Error> {
        let mut range = cmd("ZRANGE");
        range.arg(&self.keys.due).arg(format!("({}", from + LINGER_MS)).arg(upto + LINGER_MS);
        range.arg("BYSCORE").arg("LIMIT").arg(0).arg(most).arg("WITHSCORES");
        let mut reply = list("the due index", self.link.query(&range).await?)?.into_iter();
        let mut entries = Vec::new();
        while let (Some(member), Some(due)) = (reply.next(), reply.next()) {
            let due = text(&bulk("a time", due)?).parse::<f64>().unwrap_or(0.0) as Ms;
            // a task may have a time limit of a day
            if let Ok(run) = RunId::new(text(&bulk("an entry of the due index", member)?)) {
                entries.push((run, due.saturating_sub(LINGER_MS)));
            }
        }
        Ok(entries)
    }

    /// `None` of a run that has not ended, or has no sampled trace.
    async fn ending(&self, run: &RunId) -> Result<Option<Ending>, Error> {
        let names = ["tp", "m", "name", "fe", "order", "added"].map(str::to_owned);
        let values = self.of_run(run, &names).await?;
        let [trace, raw, name, error, order, added] = values.as_slice() else { return Ok(None) };
        let trace = trace.as_ref().and_then(|trace| text(trace).parse::<Trace>().ok());
        let (Some(trace), Some(raw)) = (trace.filter(|trace| trace.sampled), raw) else { return Ok(None) };
        let head: Head = unpack("the head of a run", raw)?;
        if head.ended == 0 {
            return Ok(None);
        }
        let wanted = |kind| [kind::JOIN, kind::MAP, kind::AGENT].contains(&kind);
        let found = self.tasks(run, order.as_ref(), added.as_ref(), wanted, |_, _| true).await?.found;
        let mut parts = Vec::new();
        for (id, (state, spec)) in &found {
            match spec.kind {
                kind::JOIN if spec.need != NO_POLICY => {
                    let inputs = self.of_run(run, &[format!("i:{id}")]).await?.pop().flatten();
                    let inputs: Vec<TaskId> = inputs
                        .map_or_else(|| Ok(Vec::new()), |packed| unpack("the inputs of a task", &packed))?;
                    // a map's children are no inputs of anybody
                    let names: Vec<String> = inputs.iter().map(|input| format!("s:{input}")).collect();
                    let states = self.of_run(run, &names).await?;
                    let ends = states
                        .iter()
                        .flatten()
                        .map(|state| Ok(unpack::<State>("a task's state", state)?.ended_at));
                    let ends = ends.collect::<Result<Vec<Ms>, Error>>()?;
                    if let Some(begun) = first(ends.into_iter(), state.ended_at) {
                        parts.push(part(id, Kind::Join, owner(spec), state, begun, &head)?);
                    }
                }
                kind::MAP | kind::AGENT if state.started_at != 0 => {
                    parts.push(part(id, kind_of(spec.kind)?, owner(spec), state, ready(state), &head)?);
                }
                _ => {}
            }
            if spec.kind == kind::MAP && state.next_child > 0 {
                self.agents_of_map(run, id, state.next_child, &head, &mut parts).await?;
            }
        }
        parts.sort_by(|a, b| a.task.cmp(&b.task));
        Ok(Some(Ending {
            run: run.clone(),
            name: name.as_ref().map_or_else(String::new, text),
            trace,
            status: head.status()?,
            created: head.created,
            ended: head.ended,
            usage: head.usage(),
            degraded: head.degraded == 1,
            error: error.as_ref().map(|error| error_class(error)),
            parts,
        }))
    }

    async fn agents_of_map(
        &self,
        run: &RunId,
        map: &TaskId,
        children: u32,
        head: &Head,
        parts: &mut Vec<Part>,
    ) -> Result<(), Error> {
        let spec = self.of_run(run, &[format!("c:{map}")]).await?.pop().flatten();
        let Some(spec) = spec else { return Ok(()) };
        let spec: Spec = unpack("the spec of a map's children", &spec)?;
        if spec.kind != kind::AGENT {
            return Ok(());
        }
        let ids: Vec<TaskId> = (0..children).map(|at| map.child(at)).collect();
        for chunk in ids.chunks(CHUNK) {
            let names: Vec<String> = chunk.iter().map(|id| format!("s:{id}")).collect();
            for (id, state) in chunk.iter().zip(self.of_run(run, &names).await?) {
                let Some(state) = state else { continue };
                let state: State = unpack("a task's state", &state)?;
                if state.started_at != 0 {
                    parts.push(part(id, Kind::Agent, Some(map.clone()), &state, ready(&state), head)?);
                }
            }
        }
        Ok(())
    }
}

fn owner(spec: &Spec) -> Option<TaskId> {
    TaskId::new(&spec.owner).ok()
}

fn ready(state: &State) -> Ms {
    if state.first_ready_at == 0 { state.ready_at } else { state.first_ready_at }
}

fn part(
    id: &TaskId,
    kind: Kind,
    owner: Option<TaskId>,
    state: &State,
    begun: Ms,
    head: &Head,
) -> Result<Part, Error> {
    Ok(Part {
        task: id.clone(),
        kind,
        owner,
        status: state.status()?,
        begun,
        ended: if state.ended_at == 0 { head.ended } else { state.ended_at },
        done: state.done,
        missed: state.missed,
        degraded: state.degraded == 1,
    })
}
