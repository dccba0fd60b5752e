//! Reading runs: whole, by their heads, by what their tasks recorded, by their events.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use redis::{Cmd, Value, cmd, pipe};
use trireme_backend::{Error, Events, Recorded};
use trireme_model::{
    Children, Event, Failure, Group, KeyId, Kind, Ms, Payload, Run, RunId, Task, TaskId, TaskSpec,
    TaskStatus, Tasks, Token, view::RunSummary,
};

use super::{
    blob,
    constants::VITAL,
    error,
    layout::{self, Head, Spec, State, unpack},
    script,
    transition::Shard,
};

/// The fields of a run's hash.
pub(crate) struct Hash(HashMap<Bytes, Bytes>);

pub(crate) fn strange(what: &str, got: &Value) -> Error {
    Error::Unusable(format!("{what} is {got:?}"))
}

fn pairs(what: &str, value: Value) -> Result<Vec<(Bytes, Bytes)>, Error> {
    let flat = list(what, value)?;
    let mut flat = flat.into_iter();
    let mut pairs = Vec::with_capacity(flat.len() / 2);
    while let (Some(key), Some(value)) = (flat.next(), flat.next()) {
        pairs.push((bulk(what, key)?, bulk(what, value)?));
    }
    Ok(pairs)
}

pub(crate) fn list(what: &str, value: Value) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(strange(what, &other)),
    }
}

pub(crate) fn bulk(what: &str, value: Value) -> Result<Bytes, Error> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        Value::SimpleString(text) => Ok(text.into()),
        other => Err(strange(what, &other)),
    }
}

pub(crate) fn maybe(what: &str, value: Value) -> Result<Option<Bytes>, Error> {
    match value {
        Value::Nil => Ok(None),
        other => bulk(what, other).map(Some),
    }
}

/// The fields of one reply to HMGET.
pub(crate) fn fields(reply: Value) -> Result<Vec<Option<Bytes>>, Error> {
    list("fields of a run", reply)?.into_iter().map(|value| maybe("a field of a run", value)).collect()
}

pub(crate) fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Hash {
    fn get(&self, prefix: &str, id: &str) -> Option<&Bytes> {
        self.0.get(format!("{prefix}{id}").as_bytes())
    }

    fn payload(&self, prefix: &str, id: &str) -> Option<Payload> {
        self.get(prefix, id).map(|bytes| Payload::from_json(bytes.clone()))
    }

    fn ids(&self, prefix: &str, id: &str) -> Result<Vec<TaskId>, Error> {
        self.get(prefix, id).map_or_else(|| Ok(Vec::new()), |packed| unpack("a list of tasks", packed))
    }

    fn head(&self) -> Result<Option<Head>, Error> {
        self.get("m", "").map(|packed| unpack("the head of a run", packed)).transpose()
    }

    /// Of a task: what was submitted or added, the agent that it belongs to, and whether that fails with it.
    fn spec(&self, id: &TaskId) -> Result<(TaskSpec, (Option<TaskId>, bool)), Error> {
        let name = id.as_str();
        let missing = || Error::Unusable(format!("task {id} has no spec"));
        let spec: Spec = unpack("a task's spec", self.get("g:", name).ok_or_else(missing)?)?;
        let children = match self.get("c:", name) {
            None => None,
            Some(packed) => {
                let children: Spec = unpack("the spec of a map's children", packed)?;
                Some(Children { exec: children.exec(self.payload("F:", name))?, at_once: spec.at_once })
            }
        };
        let owner = (TaskId::new(&spec.owner).ok(), spec.owned == VITAL);
        let task = TaskSpec {
            id: id.clone(),
            label: self.label(name)?,
            exec: spec.exec(self.payload("f:", name))?,
            inputs: self.ids("i:", name)?,
            policy: spec.policy(),
            children,
            body: self.payload("b:", name).unwrap_or_default(),
        };
        Ok((task, owner))
    }

    fn label(&self, id: &str) -> Result<String, Error> {
        let parsed =
            self.get("l:", id).map_or_else(|| Ok(String::new()), |text| serde_json::from_slice(text));
        parsed.map_err(|error| Error::Unusable(format!("the label of {id} can't be read: {error}")))
    }

    /// What attempts have added, in order.
    fn added(&self) -> Result<Vec<TaskId>, Error> {
        let count = self.get("added", "").map_or(0, |count| text(count).parse::<u32>().unwrap_or(0));
        let id = |at: u32| {
            let id = self.get("z:", &at.to_string()).map_or_else(String::new, text);
            TaskId::new(id).map_err(|error| Error::Unusable(format!("added task {at}: {error}")))
        };
        (0..count).map(id).collect()
    }

    /// The lines for resources, without those that are empty.
    fn lines(&self) -> Result<BTreeMap<String, Vec<TaskId>>, Error> {
        let lines = self.0.iter().filter_map(|(name, line)| Some((name.strip_prefix(b"q:")?, line)));
        let line = |(name, line): (&[u8], &Bytes)| {
            Ok((String::from_utf8_lossy(name).into_owned(), unpack("the line for a resource", line)?))
        };
        lines.filter(|(_, line)| !line.is_empty()).map(line).collect()
    }

    fn state(&self, id: &TaskId) -> Result<Option<State>, Error> {
        self.get("s:", id.as_str()).map(|packed| unpack("a task's state", packed)).transpose()
    }

    /// Brings `task` to the state that was stored of it.
    fn apply(&self, task: &mut Task, id: &TaskId, state: State) -> Result<(), Error> {
        task.status = state.status()?;
        task.attempt = state.attempt;
        task.failures = state.failures;
        task.limited = state.limited;
        task.lost = state.lost;
        task.republished = state.republished;
        task.token = (!state.token.is_empty()).then(|| Token::from_raw(&state.token));
        task.deadline = state.deadline;
        task.ready_at = state.ready_at;
        task.started_at = state.started_at;
        task.ended_at = state.ended_at;
        task.pending = state.pending;
        task.done = state.done;
        task.missed = state.missed;
        task.degraded = state.degraded == 1;
        task.frozen = (!state.frozen.is_empty()).then_some(state.frozen);
        task.next = TaskId::new(&state.next).ok();
        task.first_ready_at = state.first_ready_at;
        task.first_token = state.first_token;
        task.resource = (!state.resource.is_empty()).then_some(state.resource);
        if let Some(width) = state.width {
            let arg = |index: u32| self.payload("a:", id.child(index).as_str()).unwrap_or_default();
            let args = (0..width).map(arg).collect();
            task.group = Some(Group { args, next: state.next_child, active: state.active });
        }
        Ok(())
    }

    fn tasks<'a>(&self, ids: impl Iterator<Item = &'a TaskId>) -> Result<Tasks, Error> {
        let mut tasks = Tasks::default();
        for id in ids {
            let (spec, owner) = self.spec(id)?;
            let mut task = Task::waiting(Some(Box::new(spec)));
            (task.owner, task.vital) = owner;
            task.added = self.ids("y:", id.as_str())?;
            task.successors = self.ids("n:", id.as_str())?;
            task.opens = self.ids("o:", id.as_str())?;
            if let Some(state) = self.state(id)? {
                self.apply(&mut task, id, state)?;
            }
            let width = task.group.as_ref().map_or(0, |group| group.args.len() as u32);
            for child in (0..width).map(|index| id.child(index)) {
                // in a replayed run some have a result ahead of those that are still to be released
                let Some(state) = self.state(&child)? else { continue };
                let mut task = Task::waiting(None);
                self.apply(&mut task, &child, state)?;
                self.outcome(&mut task, &child)?;
                tasks.insert(child, task);
            }
            self.outcome(&mut task, id)?;
            tasks.insert(id.clone(), task);
        }
        Ok(tasks)
    }

    fn outcome(&self, task: &mut Task, id: &TaskId) -> Result<(), Error> {
        task.result = self.payload("r:", id.as_str());
        task.error = self.payload("e:", id.as_str());
        if let Some(packed) = self.get("p:", id.as_str()) {
            let told: Vec<(String, u8, Ms)> = unpack("what attempts were told", packed)?;
            task.told = told.into_iter().map(layout::told).collect::<Result<_, _>>()?;
        }
        Ok(())
    }
}

impl Shard {
    /// The whole run as of one moment.
    pub(crate) async fn run(&self, id: &RunId) -> Result<Option<Run>, Error> {
        let key = self.keys.run(id.as_str());
        let reply = self.link.eval(&script::READ, &[&key, &self.keys.due], &[id.as_str().as_bytes()]).await?;
        let mut parts = list("a run", reply)?.into_iter();
        let (fields, due) = (parts.next().unwrap_or(Value::Nil), parts.next().unwrap_or(Value::Nil));
        let hash = Hash(pairs("a run", fields)?.into_iter().collect());
        let Some(head) = hash.head()? else { return Ok(None) };
        let order = hash.ids("order", "")?;
        let added = hash.added()?;
        let lines = hash.lines()?;
        let mut tasks = hash.tasks(order.iter().chain(&added))?;
        let mut run_due = 0;
        for (member, at) in pairs("the due index", due)? {
            let at = text(&at).parse::<f64>().unwrap_or(0.0) as Ms;
            match text(&member).split_once(':') {
                None => run_due = at,
                Some((_, task)) => {
                    if let Some(task) = tasks.get_mut(task) {
                        task.due = at;
                    }
                }
            }
        }
        self.resolve(id, tasks.values_mut().filter_map(|task| task.result.as_mut())).await?;
        let failure = hash.payload("fe", "").map(|error| Failure {
            task: hash.get("ft", "").and_then(|task| TaskId::new(text(task)).ok()),
            error,
        });
        let label = |name: &str| hash.get(name, "").map_or_else(String::new, text);
        Ok(Some(Run {
            id: id.clone(),
            key: KeyId::new(&head.api_key).ok(),
            name: label("name"),
            fingerprint: label("fp"),
            status: head.status()?,
            created: head.created,
            ended: head.ended,
            keep: head.keep(),
            deadline: hash.get("d", "").map_or(0, |at| text(at).parse().unwrap_or(0)),
            due: run_due,
            input: hash.payload("in", "").unwrap_or_default(),
            budget: head.budget(),
            trace: hash.get("tp", "").and_then(|trace| text(trace).parse().ok()),
            usage: head.usage(),
            wasted: head.wasted(),
            degraded: head.degraded == 1,
            tenant: head.tenant,
            failure,
            replayed: hash.get("rp", "").is_some(),
            order,
            added,
            lines,
            tasks,
        }))
    }

    /// Puts the values in the places of references.
    async fn resolve(&self, run: &RunId, results: impl Iterator<Item = &mut Payload>) -> Result<(), Error> {
        for result in results {
            if let Some(digest) = blob::digest_of(result.as_bytes()) {
                let key = self.keys.blobs(run.as_str());
                let value = self.link.query(cmd("HGET").arg(key).arg(digest)).await?;
                let value = maybe("a large result", value)?.ok_or_else(|| {
                    Error::Unusable(format!("the large result {digest} of run {run} is missing"))
                })?;
                *result = Payload::from_json(value);
            }
        }
        Ok(())
    }

    pub(crate) async fn summary(&self, id: &RunId) -> Result<Option<RunSummary>, Error> {
        let reply = self.link.query(&self.summary_command(id)).await?;
        summary_of(id, reply)
    }

    pub(crate) fn summary_command(&self, id: &RunId) -> Cmd {
        let mut command = cmd("HMGET");
        command.arg(self.keys.run(id.as_str())).arg("m").arg("name");
        command
    }

    async fn fields(&self, run: &RunId, fields: &[String]) -> Result<Vec<Option<Bytes>>, Error> {
        if fields.is_empty() {
            return Ok(Vec::new());
        }
        let reply = self.link.query(cmd("HMGET").arg(self.keys.run(run.as_str())).arg(fields)).await?;
        list("fields of a run", reply)?.into_iter().map(|value| maybe("a field of a run", value)).collect()
    }

    /// What tasks have recorded. Results never change once recorded, so that two reads are as good as one.
    pub(crate) async fn recorded(
        &self,
        run: &RunId,
        tasks: &[TaskId],
    ) -> Result<Vec<Option<Recorded>>, Error> {
        let results: Vec<String> = tasks.iter().map(|task| format!("r:{task}")).collect();
        let mut found: Vec<Option<Payload>> = self
            .fields(run, &results)
            .await?
            .into_iter()
            .map(|value| value.map(Payload::from_json))
            .collect();
        self.resolve(run, found.iter_mut().flatten()).await?;
        let missing: Vec<&TaskId> =
            tasks.iter().zip(&found).filter(|(_, result)| result.is_none()).map(|(task, _)| task).collect();
        let names = |task: &&TaskId| ["s:", "g:", "b:", "i:", "e:"].map(|prefix| format!("{prefix}{task}"));
        let wanted: Vec<String> = missing.iter().flat_map(names).collect();
        let fields = self.fields(run, &wanted).await?;
        let mut others: HashMap<&TaskId, Recorded> = HashMap::new();
        for (task, fields) in missing.into_iter().zip(fields.chunks(5)) {
            let [Some(state), spec, body, inputs, error] = fields else { continue };
            let state: State = unpack("a task's state", state)?;
            let recorded = match (state.status()?, spec) {
                (TaskStatus::Succeeded, Some(spec)) => {
                    merge(task, state, spec, body.clone(), inputs.as_ref())?
                }
                (TaskStatus::Succeeded, None) => None,
                (status, _) => {
                    status.terminal().then(|| Recorded::Failed(error.clone().map(Payload::from_json)))
                }
            };
            others.extend(recorded.map(|recorded| (task, recorded)));
        }
        let recorded = found.into_iter().zip(tasks);
        Ok(recorded
            .map(|(result, task)| result.map(Recorded::Result).or_else(|| others.remove(task)))
            .collect())
    }

    pub(crate) async fn events(&self, run: &RunId, from: u64, limit: usize) -> Result<Option<Events>, Error> {
        let log = self.keys.log(run.as_str());
        let first = i64::try_from(from).unwrap_or(i64::MAX);
        let last = first.saturating_add(i64::try_from(limit).unwrap_or(i64::MAX)).saturating_sub(1);
        let mut reads = pipe();
        reads.cmd("HGET").arg(&self.keys.meta).arg("epoch");
        reads.cmd("LLEN").arg(&log);
        if limit > 0 {
            reads.cmd("LRANGE").arg(&log).arg(first).arg(last);
        }
        let mut replies = self.link.pipeline(&reads).await?.into_iter();
        let epoch = maybe("the epoch", replies.next().unwrap_or(Value::Nil))?;
        let length = match replies.next() {
            Some(Value::Int(length)) => length as u64,
            other => return Err(strange("the length of a log", &other.unwrap_or(Value::Nil))),
        };
        let Some(epoch) = epoch else {
            self.link.reopen().await?;
            return Err(error::unavailable("the store was emptied"));
        };
        if length == 0 {
            return Ok(None);
        }
        let texts = replies.next().map_or_else(|| Ok(Vec::new()), |reply| list("a log", reply))?;
        let mut events = Vec::with_capacity(texts.len());
        for (number, value) in (from..).zip(texts) {
            let event: Event = serde_json::from_slice(&bulk("an event", value)?).map_err(|error| {
                Error::Unusable(format!("event {number} of run {run} can't be read: {error}"))
            })?;
            events.push((number, event));
        }
        Ok(Some(Events { epoch: text(&epoch), events, length }))
    }
}

fn merge(
    task: &TaskId,
    state: State,
    spec: &Bytes,
    body: Option<Bytes>,
    inputs: Option<&Bytes>,
) -> Result<Option<Recorded>, Error> {
    if state.frozen.is_empty() {
        return Ok(None);
    }
    let spec: Spec = unpack("a task's spec", spec)?;
    let inputs = if spec.exec(None)?.kind == Kind::Map {
        (0..state.width.unwrap_or(0)).map(|index| task.child(index)).collect()
    } else {
        inputs.map_or_else(|| Ok(Vec::new()), |packed| unpack("the inputs of a task", packed))?
    };
    let body = Payload::from_json(body.unwrap_or_default());
    Ok(Some(Recorded::Merged { body, frozen: state.frozen, inputs }))
}

pub(crate) fn summary_of(id: &RunId, reply: Value) -> Result<Option<RunSummary>, Error> {
    let mut parts = list("the head of a run", reply)?.into_iter();
    let Some(packed) = maybe("the head of a run", parts.next().unwrap_or(Value::Nil))? else {
        return Ok(None);
    };
    let head: Head = unpack("the head of a run", &packed)?;
    let name = maybe("the name of a run", parts.next().unwrap_or(Value::Nil))?;
    Ok(Some(RunSummary {
        run_id: id.clone(),
        name: name.map_or_else(String::new, |name| text(&name)),
        status: head.status()?,
        degraded: head.degraded == 1,
        created_ms: head.created,
        ended_ms: (head.ended != 0).then_some(head.ended),
        tenant: head.tenant,
    }))
}
