//! The store on Redis: one Lua script per transition, each the port of a function of `trireme_model::machine`.
//!
//! Calls of one transition that arrive while others are under way go out together (see [`crate::batch`]); every
//! item of a batch is an atomic step of its own kind. What follows from a step - hints of tasks that became ready,
//! attempts that need not go on - is handed to the [`Sink`] right after it. If the process dies in between, the
//! tasks are in the due index, and a sweep publishes them.

mod access;
mod blob;
mod constants;
mod endings;
mod error;
mod layout;
mod link;
mod listing;
mod packer;
mod pause;
mod read;
mod replay;
mod sampler;
mod script;
mod transition;
mod transitions;
mod versions;
mod watcher;

pub(crate) use link::field;
pub(crate) use sampler::Sampler;
pub(crate) use script::{NAMES as SCRIPTS, PEEK as PROBE};
pub use transition::{Clock, Emitted, Sink};
pub use versions::{Member, Spoken, Upgraded};

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{broadcast, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use trireme_backend::{Abort, Delta, Error, Events, Recorded, Swept, Watch, check_complete, check_extend};
use trireme_model::{
    Caller, Cancelled, Claim, Claimed, Complete, Completed, Deleted, Extend, Extended, Fail, Failed, Ms,
    Outcome, Renew, Renewed, Run, RunId, Submit, Submitted, TaskId, limits::REPUBLISH_MS, view::RunSummary,
};

use crate::{
    batch::{Batcher, Limits},
    keys::{AccessKeys, Keys, split_member},
    metrics::Metrics,
    tls::Tls,
};
use link::Link;
use packer::Packer;
use sampler::Looked;
use transition::{On, Shard};
use transitions::{
    Accept, Look, OnCancel, OnClaim, OnComplete, OnExtend, OnFail, OnRenew, OnSubmit, OnSweep,
};
use watcher::Watches;

/// Entries of the due index that one sweep looks at per shard: bounds how long Redis is busy with it.
const SWEEP: usize = 200;
/// Renewals and deltas that go out in one call.
const MANY: usize = 256;
/// Bytes of deltas that go out in one call.
const MANY_BYTES: usize = 512 * 1024;

/// How long the word that this process ends may take.
const LEAVE: Duration = Duration::from_secs(1);

/// How to reach Redis and what to keep there.
#[derive(Clone)]
pub struct Config {
    /// `redis://[user:password@]host:port[/db]`, or `rediss://`.
    pub url: String,
    /// First part of every key.
    pub prefix: String,
    /// How many shards the runs are divided into, 1 to 1024. Written into the store at its first start.
    pub shards: u16,
    /// Connections of the pool, at least 2. Default 8.
    pub connections: usize,
    /// Deadline of connecting and of every call. Default 5 s.
    pub timeout: Duration,
    /// Certificates for `rediss://`.
    pub tls: Tls,
    /// How this process announces itself in the store, if it does. Default: not.
    pub member: Option<Member>,
    /// Where calls are measured. Default: nowhere.
    #[doc(hidden)]
    pub metrics: Option<Metrics>,
    /// The time in place of the server's. For tests only: production leaves it `None`.
    #[doc(hidden)]
    pub clock: Option<Clock>,
}

/// A handle to the store. Clones share everything.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    shards: Vec<Drivers>,
    access: AccessKeys,
    link: Arc<Link>,
    watches: Arc<Watches>,
    looked: Looked,
    /// Says that this process is alive, and at the end that it is not.
    announcing: Mutex<Option<JoinHandle<()>>>,
    stop: CancellationToken,
}

/// A shard and the drivers of its batched scripts.
struct Drivers {
    shard: Arc<Shard>,
    submit: Batcher<On<OnSubmit>>,
    claim: Batcher<On<OnClaim>>,
    extend: Batcher<On<OnExtend>>,
    complete: Batcher<On<OnComplete>>,
    fail: Batcher<On<OnFail>>,
    cancel: Batcher<On<OnCancel>>,
}

impl Config {
    /// The defaults for a server at `url`.
    pub fn new(url: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: prefix.into(),
            shards: 1,
            connections: 8,
            timeout: Duration::from_secs(5),
            tls: Tls::default(),
            member: None,
            metrics: None,
            clock: None,
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("shards", &self.0.shards.len()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Drivers {
    fn new(shard: Arc<Shard>) -> Self {
        let limits = Limits { flights: 2, items: 64, weight: 512 * 1024, waiting: 16_384 };
        Self {
            submit: Batcher::new(On::new(shard.clone()), limits),
            claim: Batcher::new(On::new(shard.clone()), limits),
            extend: Batcher::new(On::new(shard.clone()), Limits { items: 8, ..limits }),
            complete: Batcher::new(On::new(shard.clone()), limits),
            fail: Batcher::new(On::new(shard.clone()), limits),
            cancel: Batcher::new(On::new(shard.clone()), limits),
            shard,
        }
    }
}

impl Store {
    /// Connects, checks that the server can be relied upon, and opens the shards.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the server does not answer; [`Error::Unusable`] when it would evict keys, or
    /// holds a store of another version or of another number of shards.
    pub async fn connect(config: Config, sink: Sink) -> Result<Self, Error> {
        if !(1..=1024).contains(&config.shards) {
            return Err(Error::Unusable(format!("shards is {}: use 1 to 1024", config.shards)));
        }
        let keys: Vec<Keys> = (0..config.shards).map(|shard| Keys::new(&config.prefix, shard)).collect();
        let pool = config.connections.max(2);
        let link = Link::new(&config, keys.clone(), (pool / 2).min(4), pool)?;
        let link = Arc::new(link);
        check_server(&link).await?;
        let watches = Arc::new(Watches::new());
        let stop = CancellationToken::new();
        tokio::spawn(watcher::listen(link.clone(), keys.clone(), watches.clone(), stop.clone()));
        // from here on nothing that is announced is missed, but for what a lost connection loses
        let mut connected = watches.connections();
        let first = tokio::time::timeout(config.timeout, connected.wait_for(|count| *count > 0)).await;
        if !matches!(first, Ok(Ok(_))) {
            stop.cancel();
            return Err(error::unavailable("it takes no subscription"));
        }
        drop(first);
        let announcing = config
            .member
            .map(|member| tokio::spawn(versions::announce(link.clone(), keys.clone(), member, stop.clone())));
        let drivers = keys.into_iter().map(|keys| {
            let (link, sink, clock) = (link.clone(), sink.clone(), config.clock.clone());
            Drivers::new(Arc::new(Shard { keys, link, sink, clock }))
        });
        let shards = drivers.collect();
        let access = AccessKeys::new(&config.prefix);
        Ok(Self(Arc::new(Inner {
            shards,
            access,
            link,
            watches,
            looked: Looked::default(),
            announcing: Mutex::new(announcing),
            stop,
        })))
    }

    fn of(&self, run: &RunId) -> &Drivers {
        // at most 1024 shards
        &self.0.shards[usize::from(run.shard(self.0.shards.len() as u16))]
    }

    fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.0.shards.iter().map(|drivers| &*drivers.shard)
    }

    /// See [`trireme_model::Run::submit`].
    pub async fn submit(&self, submit: Submit) -> Result<Submitted, Error> {
        // who watched before there was a run is told as well
        let watched = self.0.watches.watches(&submit.run);
        let accept =
            Accept::new(&submit, watched, self.flying_elsewhere(&submit.run, &submit.caller).await?)?;
        self.of(&submit.run).submit.submit(accept).await
    }

    /// How many runs of a limited key are under way in other shards than the run's own, which counts for itself in
    /// the step that accepts the run. Exact with one shard; with more, runs that are accepted by several shards at
    /// this very moment do not see each other.
    async fn flying_elsewhere(&self, run: &RunId, caller: &Caller) -> Result<u64, Error> {
        if self.0.shards.len() == 1 {
            return Ok(0);
        }
        Ok(self.flying(run, caller).await?.1)
    }

    /// How many runs of a limited key are under way in the shard of `run`, and in all others; none of any other key.
    async fn flying(&self, run: &RunId, caller: &Caller) -> Result<(u64, u64), Error> {
        let Some((key, _)) = caller.limit() else { return Ok((0, 0)) };
        let own = usize::from(run.shard(self.0.shards.len() as u16));
        let mut count = redis::pipe();
        for shard in self.shards() {
            count.cmd("ZLEXCOUNT").arg(&shard.keys.flying).arg(format!("[{key}:")).arg(format!("({key};"));
        }
        let (mut here, mut elsewhere) = (0, 0);
        for (at, reply) in self.0.link.pipeline(&count).await?.into_iter().enumerate() {
            let redis::Value::Int(runs) = reply else {
                return Err(read::strange("the number of runs under way", &reply));
            };
            let sum = if at == own { &mut here } else { &mut elsewhere };
            *sum += u64::try_from(runs).unwrap_or(0);
        }
        Ok((here, elsewhere))
    }

    /// See [`trireme_model::Run::claim`].
    pub async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        self.of(&claim.run).claim.submit(claim).await
    }

    /// See [`trireme_model::Run::renew`]; one answer per entry, in order.
    pub async fn renew(&self, renewals: Vec<Renew>) -> Result<Vec<Renewed>, Error> {
        let mut answers = vec![Renewed::Lost; renewals.len()];
        let shards = self.0.shards.len() as u16;
        let mut parts: Vec<Vec<(usize, Renew)>> = (0..shards).map(|_| Vec::new()).collect();
        for (at, renew) in renewals.into_iter().enumerate() {
            parts[usize::from(renew.run.shard(shards))].push((at, renew));
        }
        for (drivers, mut part) in self.0.shards.iter().zip(parts) {
            while !part.is_empty() {
                let rest = part.split_off(part.len().min(MANY));
                let (places, items): (Vec<usize>, Vec<Renew>) = part.into_iter().unzip();
                for (at, answer) in places.into_iter().zip(drivers.shard.steps::<OnRenew>(items).await.0) {
                    answers[at] = match answer {
                        // a run that can't be read must not cost all others of this worker their leases
                        Err(Error::Unusable(text)) => {
                            tracing::error!(error = text, "a lease can't be renewed");
                            Renewed::Lost
                        }
                        other => other?,
                    };
                }
                part = rest;
            }
        }
        Ok(answers)
    }

    /// See [`trireme_model::Run::extend`].
    pub async fn extend(&self, extend: Extend) -> Result<Extended, Error> {
        check_extend(&extend)?;
        self.of(&extend.run).extend.submit(extend).await
    }

    /// See [`trireme_model::Run::complete`].
    pub async fn complete(&self, mut complete: Complete) -> Result<Completed, Error> {
        check_complete(&complete)?;
        let drivers = self.of(&complete.run);
        if let Outcome::Result(value) | Outcome::Answer { value, .. } = &mut complete.outcome {
            *value = drivers.shard.keep(&complete.run, std::mem::take(value)).await?;
        }
        drivers.complete.submit(complete).await
    }

    /// See [`trireme_model::Run::fail`].
    pub async fn fail(&self, fail: Fail) -> Result<Failed, Error> {
        self.of(&fail.run).fail.submit(fail).await
    }

    /// See [`trireme_model::Run::cancel`].
    pub async fn cancel(&self, run: &RunId) -> Result<Cancelled, Error> {
        self.of(run).cancel.submit(run.clone()).await
    }

    /// Forgets an ended run, with all that belongs to it. If we die between the two steps, the sweep does the second.
    pub async fn delete(&self, run: &RunId) -> Result<Deleted, Error> {
        let shard = &self.of(run).shard;
        let (time, key) = (shard.time(), shard.keys.run(run.as_str()));
        let args = [time.as_bytes(), run.as_str().as_bytes()];
        match shard.link.eval(&script::EXPIRE, &[&shard.keys.due, &key], &args).await? {
            redis::Value::Int(1) => {}
            redis::Value::Int(2) => return Ok(Deleted::Running),
            redis::Value::Int(3) => return Ok(Deleted::Gone),
            other => return Err(read::strange("the answer of expire", &other)),
        }
        let (answers, _) = shard.steps::<OnSweep>(vec![Look { run: run.clone(), task: None }]).await;
        answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(Deleted::Deleted)
    }

    /// Looks at what is due, at most 200 entries of each shard.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        for drivers in &self.0.shards {
            let shard = &drivers.shard;
            let (time, limit) = (shard.time(), SWEEP.to_string());
            let due = [time.as_bytes(), limit.as_bytes()];
            let peeked = shard.link.eval(&script::PEEK, &[&shard.keys.due], &due).await?;
            let mut peeked = read::list("the due index", peeked)?.into_iter();
            let (members_due, next) = (peeked.next(), peeked.next());
            if let Some(redis::Value::Int(next)) = next
                && let Ok(next) = Ms::try_from(next)
            {
                swept.next = [swept.next, Some(next)].into_iter().flatten().min();
            }
            let (mut items, mut members, before) = (Vec::new(), Vec::new(), swept.looked);
            for member in read::list("the due index", members_due.unwrap_or(redis::Value::Nil))? {
                let member = read::text(&read::bulk("an entry of the due index", member)?);
                swept.looked += 1;
                match split_member(&member) {
                    Some((run, task)) => {
                        if let Some(task) = &task {
                            self.0.looked.note(&run, task);
                        }
                        items.push(Look { run, task });
                        members.push(member);
                    }
                    None => put_off(shard, &member, "it names no run").await?,
                }
            }
            swept.more |= swept.looked - before >= SWEEP;
            // before the look at what is due, which a woken task is not any more
            let (woken, more) = shard.wake().await?;
            swept.hints += woken;
            swept.more |= more;
            if items.is_empty() {
                continue;
            }
            let (answers, hints) = shard.steps::<OnSweep>(items).await;
            swept.hints += hints;
            for (member, answer) in members.iter().zip(answers) {
                match answer {
                    Ok(purged) => swept.purged += usize::from(purged),
                    Err(Error::Unusable(text)) => put_off(shard, member, &text).await?,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(swept)
    }

    /// Appends token deltas to the logs of live runs.
    pub async fn append(&self, deltas: Vec<Delta>) -> Result<(), Error> {
        let shards = self.0.shards.len() as u16;
        let mut parts: Vec<Vec<Delta>> = (0..shards).map(|_| Vec::new()).collect();
        for delta in deltas {
            parts[usize::from(delta.run.shard(shards))].push(delta);
        }
        for (drivers, mut part) in self.0.shards.iter().zip(parts) {
            while !part.is_empty() {
                let mut bytes = 0;
                let fits = part.iter().take(MANY).take_while(|delta| {
                    bytes += delta.text.len();
                    bytes <= MANY_BYTES
                });
                let count = fits.count().max(1);
                let rest = part.split_off(count);
                append(&drivers.shard, &part).await?;
                part = rest;
            }
        }
        Ok(())
    }

    /// The whole state of a run.
    pub async fn run(&self, run: &RunId) -> Result<Option<Run>, Error> {
        self.of(run).shard.run(run).await
    }

    /// The head of a run.
    pub async fn summary(&self, run: &RunId) -> Result<Option<RunSummary>, Error> {
        self.of(run).shard.summary(run).await
    }

    /// What tasks have recorded.
    pub async fn recorded(&self, run: &RunId, tasks: &[TaskId]) -> Result<Vec<Option<Recorded>>, Error> {
        self.of(run).shard.recorded(run, tasks).await
    }

    /// Part of a run's log.
    pub async fn events(&self, run: &RunId, from: u64, limit: usize) -> Result<Option<Events>, Error> {
        self.of(run).shard.events(run, from, limit).await
    }

    /// Announces every growth of the run's log from now on.
    pub async fn watch(&self, run: &RunId) -> Result<Watch, Error> {
        // first here, then in the store: in between an announcement for nobody does no harm
        let receiver = self.0.watches.subscribe(run);
        let shard = &self.of(run).shard;
        shard.link.eval(&script::WATCH, &[&shard.keys.run(run.as_str())], &[]).await?;
        Ok(Watch::new(receiver))
    }

    /// Attempts that need not go on, as any process found out.
    pub fn aborts(&self) -> broadcast::Receiver<Abort> {
        self.0.watches.aborts.subscribe()
    }

    /// Counts the connections for announcements: they arrive once it is above 0.
    pub fn announcements(&self) -> watch::Receiver<u64> {
        self.0.watches.connections()
    }

    /// Whether the server answers.
    pub async fn health(&self) -> Result<(), Error> {
        self.0.link.query(&redis::cmd("PING")).await.map(|_| ())
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.0.stop.cancel();
        let announcing = self.0.announcing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(announcing) = announcing {
            // where it can't take leave, it counts as alive for some seconds more
            let _ = tokio::time::timeout(LEAVE, announcing).await;
        }
        self.0.link.close().await;
    }
}

/// Moves an entry that can't be looked at out of the way of the others; it is tried again later.
async fn put_off(shard: &Shard, member: &str, error: &str) -> Result<(), Error> {
    tracing::error!(member, error, "an entry of the due index can't be looked at");
    let mut later = redis::cmd("ZADD");
    later.arg(&shard.keys.due).arg("XX").arg("INCR").arg(REPUBLISH_MS).arg(member);
    shard.link.query(&later).await.map(|_| ())
}

async fn append(shard: &Shard, deltas: &[Delta]) -> Result<(), Error> {
    let mut runs: Vec<&RunId> = Vec::new();
    let mut items = Packer::default();
    for delta in deltas {
        let at = runs.iter().position(|run| **run == delta.run).unwrap_or_else(|| {
            runs.push(&delta.run);
            runs.len() - 1
        });
        let text = serde_json::to_string(&delta.text)
            .map_err(|error| Error::Unusable(format!("a delta is not a JSON text: {error}")))?;
        items.int(at as i64 + 1).bytes(delta.task.as_str()).int(delta.attempt.into()).bytes(text);
    }
    let keys: Vec<String> =
        runs.iter().flat_map(|run| [shard.keys.run(run.as_str()), shard.keys.log(run.as_str())]).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let (time, mut ids) = (shard.time(), Packer::default());
    ids.list(&runs.iter().map(|run| run.as_str()).collect::<Vec<_>>());
    let args = [time.as_bytes(), shard.keys.watch.as_bytes(), ids.as_slice(), items.as_slice()];
    shard.link.eval(&script::APPEND, &keys, &args).await.map(|_| ())
}

#[cfg(test)]
mod faults;

/// Refuses a server that drops keys when its memory is full: a run that loses a field can't be told from one that
/// never had it.
async fn check_server(link: &Link) -> Result<(), Error> {
    let info = |section: &'static str| async move {
        let reply = link.query(redis::cmd("INFO").arg(section)).await?;
        match reply {
            redis::Value::VerbatimString { text, .. } => Ok(text),
            other => read::bulk("the server's information", other).map(|bytes| read::text(&bytes)),
        }
    };
    let memory = info("memory").await?;
    let policy = field(&memory, "maxmemory_policy").unwrap_or("noeviction");
    if field(&memory, "maxmemory").is_some_and(|bytes| bytes != "0") && policy != "noeviction" {
        return Err(Error::Unusable(format!(
            "redis evicts keys ({policy}) when its memory is full: CONFIG SET maxmemory-policy noeviction"
        )));
    }
    let durable = field(&info("persistence").await?, "aof_enabled") == Some("1");
    // a managed server may forbid CONFIG: then the operator knows
    let fsync = link.query(redis::cmd("CONFIG").arg("GET").arg("appendfsync")).await.ok();
    let fsync = fsync.and_then(|reply| read::list("a setting", reply).ok()?.pop());
    let fsync = fsync
        .and_then(|value| read::bulk("a setting", value).ok())
        .map_or("unknown".into(), |v| read::text(&v));
    if durable {
        tracing::info!(appendfsync = fsync, "redis keeps an append-only file");
    } else {
        tracing::warn!("redis keeps no append-only file: accepted runs are lost when it stops");
    }
    Ok(())
}
