//! A failed run once more, and the tasks in quarantine that ask for it.
//!
//! The failed run changes no more, so what its replay holds is worked out here, by the model itself, and written in
//! one step. The new run's id is a function of the old one's: whoever repeats any part of this finds it done.

use redis::{Value, cmd, pipe};
use trireme_backend::{DeadPage, DeadQuery, Error};
use trireme_model::{Caller, Effects, KeyId, Ms, Replayed, Run, RunId, RunStatus, TaskId, view::DeadLetter};

use super::{
    Store,
    layout::{self, Spec, State, kind_of, unpack},
    packer::Packer,
    read::{bulk, fields, list, strange, text},
    script,
    transition::{Emitted, Shard},
};
use crate::keys::{self, Keys, split_member};

/// Entries of the index read at once.
const CHUNK: usize = 128;
/// Entries of a shard that one call looks at.
const SCAN: usize = 10_000;

/// The key that a replay counts for, how many of its runs may be under way, and how many are in other shards.
struct Quota {
    key: Option<KeyId>,
    most: Option<u32>,
    elsewhere: u64,
}

/// What one shard has; `stopped` is the last entry looked at where there may be more.
#[derive(Default)]
struct Part {
    letters: Vec<DeadLetter>,
    stopped: Option<(Ms, RunId, TaskId)>,
}

impl Store {
    /// Starts the run that goes on from what a failed one recorded: see [`Run::replay`].
    pub async fn replay(&self, id: &RunId, caller: &Caller) -> Result<Replayed, Error> {
        let old = &self.of(id).shard;
        let Some(run) = old.run(id).await? else { return Ok(Replayed::Gone) };
        if run.status != RunStatus::Failed {
            return Ok(Replayed::Refused(run.status));
        }
        let again = id.next_replay().map_err(|error| Error::Unusable(error.to_string()))?;
        if run.replayed {
            return Ok(Replayed::Exists(again));
        }
        let shard = &self.of(&again).shard;
        // the step itself asks again; until then large results are copied, which a refused replay must not have done
        let (here, elsewhere) = self.flying(&again, caller).await?;
        let over = caller.limit().is_some_and(|(_, most)| here + elsewhere >= u64::from(most));
        if over && shard.summary(&again).await?.is_none() {
            return Ok(Replayed::Limited);
        }
        let quota = Quota { key: caller.key.clone(), most: caller.in_flight, elsewhere };
        let answer = shard.replay_of(&run, quota, self.0.watches.watches(&again)).await?;
        if answer == Replayed::Limited {
            return Ok(answer);
        }
        // if we crash here, the letters stay in the list until somebody replays them again, which finds the run
        let key = old.keys.run(id.as_str());
        old.link.eval(&script::REPLAYED, &[&key, &old.keys.dead], &[id.as_str().as_bytes()]).await?;
        Ok(answer)
    }

    /// Tasks in quarantine, newest first.
    pub async fn dead_letters(&self, query: DeadQuery) -> Result<DeadPage, Error> {
        let (mut letters, mut horizon) = (Vec::new(), None);
        for shard in self.shards() {
            let part = shard.dead(&query).await?;
            letters.extend(part.letters);
            // one older than this may have neighbours that were not looked at
            horizon = horizon.max(part.stopped);
        }
        Ok(DeadPage::of(letters, horizon, query.limit))
    }
}

impl Shard {
    /// Writes the replay of `old` unless there is one or its key has too many runs.
    async fn replay_of(&self, old: &Run, quota: Quota, watched: bool) -> Result<Replayed, Error> {
        let mut effects = Effects::default();
        let now = self.now().await?;
        let mut run =
            old.replay(quota.key, now, &mut effects).map_err(|error| Error::Unusable(error.to_string()))?;
        for task in run.tasks.values_mut() {
            if let Some(result) = &mut task.result {
                *result = self.keep_ahead(&run.id, std::mem::take(result)).await?;
            }
        }
        let mut fields = Packer::default();
        fields.list(&layout::whole(&run, watched)?);
        let tasks = run.tasks.iter().filter(|(_, task)| task.due != 0);
        let mut dues: Vec<String> =
            tasks.flat_map(|(id, task)| [task.due.to_string(), format!("{}:{id}", run.id)]).collect();
        if run.due != 0 {
            dues.extend([run.due.to_string(), run.id.to_string()]);
        }
        let mut events = Vec::with_capacity(effects.log.len());
        for event in &effects.log {
            let text = serde_json::to_vec(event);
            events
                .push(text.map_err(|error| Error::Unusable(format!("an event can't be written: {error}")))?);
        }
        let (mut due_packed, mut events_packed) = (Packer::default(), Packer::default());
        due_packed.list(&dues);
        events_packed.list(&events);
        let id = run.id.as_str();
        let listed = keys::listed(&run.tenant, run.created, &run.id);
        let key = run.key.as_ref().map_or("", KeyId::as_str);
        let most = quota.most.map_or_else(|| "-1".to_owned(), |most| most.to_string());
        let elsewhere = quota.elsewhere.to_string();
        // what was recorded may be all that it needs
        let flies = if run.status.terminal() { "0" } else { "1" };
        let Keys { runs, due, flying, .. } = &self.keys;
        let own = [self.keys.run(id), self.keys.log(id), self.keys.blobs(id)];
        let keys = [&**runs, due, flying, &own[0], &own[1], &own[2]];
        let args = [
            id.as_bytes(),
            listed.as_bytes(),
            key.as_bytes(),
            most.as_bytes(),
            elsewhere.as_bytes(),
            flies.as_bytes(),
            fields.as_slice(),
            due_packed.as_slice(),
            events_packed.as_slice(),
        ];
        match self.link.eval(&script::REPLAY, &keys, &args).await? {
            Value::Int(1) => {
                (self.sink)(Emitted { hints: effects.hints, aborts: Vec::new() });
                Ok(Replayed::Created(run.id))
            }
            Value::Int(0) => Ok(Replayed::Exists(run.id)),
            Value::Int(2) => Ok(Replayed::Limited),
            other => Err(strange("the answer to a replay", &other)),
        }
    }

    async fn dead(&self, query: &DeadQuery) -> Result<Part, Error> {
        let (mut part, mut offset) = (Part::default(), 0);
        let newest = query.after.as_ref().map_or_else(|| "+inf".to_owned(), |(at, ..)| at.to_string());
        loop {
            let mut range = cmd("ZRANGE");
            range.arg(&self.keys.dead).arg(&newest).arg("-inf").arg("BYSCORE").arg("REV");
            range.arg("LIMIT").arg(offset).arg(CHUNK).arg("WITHSCORES");
            let mut got = list("the dead letters", self.link.query(&range).await?)?.into_iter();
            let (mut entries, mut count) = (Vec::new(), 0);
            while let (Some(member), Some(at)) = (got.next(), got.next()) {
                count += 1;
                let (member, at) = (text(&bulk("a dead letter", member)?), text(&bulk("a time", at)?));
                let at = at.parse::<f64>().unwrap_or(0.0) as Ms;
                if let Some((run, Some(task))) = split_member(&member) {
                    entries.push((at, run, task));
                }
            }
            let whole = count < CHUNK;
            offset += count;
            entries.retain(|entry| {
                query.after.as_ref().is_none_or(|after| entry < after)
                    && query.run.as_ref().is_none_or(|run| *run == entry.1)
            });
            let letters = self.letters(&entries).await?;
            let last = entries.len().saturating_sub(1);
            for (at, (entry, letter)) in entries.into_iter().zip(letters).enumerate() {
                let fits = |letter: &DeadLetter| query.pool.as_ref().is_none_or(|pool| *pool == letter.pool);
                part.letters.extend(letter.filter(fits));
                if part.letters.len() >= query.limit.max(1) && (at < last || !whole) {
                    part.stopped = Some(entry);
                    return Ok(part);
                }
                if at == last && !whole && offset >= SCAN {
                    part.stopped = Some(entry);
                    return Ok(part);
                }
            }
            if whole {
                return Ok(part);
            }
        }
    }

    /// What is told of these; `None` of what is none any more.
    async fn letters(&self, entries: &[(Ms, RunId, TaskId)]) -> Result<Vec<Option<DeadLetter>>, Error> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let mut reads = pipe();
        for (_, run, task) in entries {
            let read = reads.cmd("HMGET").arg(self.keys.run(run.as_str()));
            read.arg("m").arg("name").arg(format!("s:{task}")).arg(format!("g:{task}"));
            read.arg(task.split_child().map_or_else(|| "c:".to_owned(), |(map, _)| format!("c:{map}")));
        }
        let replies = self.link.pipeline(&reads).await?;
        entries.iter().zip(replies).map(|(entry, reply)| letter(entry, reply)).collect()
    }
}

fn letter((at, run, task): &(Ms, RunId, TaskId), reply: Value) -> Result<Option<DeadLetter>, Error> {
    let values = fields(reply)?;
    let [Some(head), name, Some(state), own, map] = values.as_slice() else { return Ok(None) };
    let Some(spec) = own.as_ref().or(map.as_ref()) else { return Ok(None) };
    let (head, state): (layout::Head, State) =
        (unpack("the head of a run", head)?, unpack("a task's state", state)?);
    let spec: Spec = unpack("a task's spec", spec)?;
    Ok(Some(DeadLetter {
        run_id: run.clone(),
        task: task.clone(),
        run_name: name.as_ref().map_or_else(String::new, text),
        run_status: head.status()?,
        tenant: head.tenant,
        kind: kind_of(spec.kind)?,
        pool: spec.pool,
        quarantined_ms: *at,
        starts: state.attempt,
    }))
}
