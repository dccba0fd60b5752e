//! The store on Redis: one Lua script per transition, each the port of a function of `trireme_model::machine`.
//!
//! Calls of one transition that arrive while others are under way go out together (see [`crate::batch`]); every
//! item of a batch is an atomic step of its own kind. What follows from a step - hints of tasks that became ready,
//! attempts that need not go on - is handed to the [`Sink`] right after it. If the process dies in between, the
//! tasks are in the due index, and a sweep publishes them.

mod blob;
mod constants;
mod error;
mod layout;
mod link;
mod listing;
mod packer;
mod read;
mod script;
mod transition;
mod transitions;
mod watcher;

pub use transition::{Clock, Emitted, Sink};

use std::{sync::Arc, time::Duration};

use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use trireme_backend::{Abort, Delta, Error, Events, Recorded, Swept, Watch};
use trireme_model::{
    Cancelled, Claim, Claimed, Complete, Completed, Extend, Extended, Fail, Failed, Outcome, Renew, Renewed,
    Run, RunId, Submit, Submitted, TaskId,
    limits::{MAX_RESULT_BYTES, REPUBLISH_MS},
    view::RunSummary,
};

use crate::{
    batch::{Batcher, Limits},
    keys::{Keys, split_member},
};
use link::{Link, field};
use packer::Packer;
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
    /// The time in place of the server's. For tests only: production leaves it `None`.
    #[doc(hidden)]
    pub clock: Option<Clock>,
}

/// A handle to the store. Clones share everything.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    shards: Vec<Drivers>,
    link: Arc<Link>,
    watches: Arc<Watches>,
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
        let link = Arc::new(Link::new(&config.url, keys.clone(), (pool / 2).min(4), pool, config.timeout)?);
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
        let drivers = keys.into_iter().map(|keys| {
            let (link, sink, clock) = (link.clone(), sink.clone(), config.clock.clone());
            Drivers::new(Arc::new(Shard { keys, link, sink, clock }))
        });
        let shards = drivers.collect();
        Ok(Self(Arc::new(Inner { shards, link, watches, stop })))
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
        let accept = Accept::new(&submit, self.0.watches.watches(&submit.run))?;
        self.of(&submit.run).submit.submit(accept).await
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
        let got = extend.args.iter().map(trireme_model::Payload::len).sum();
        if got > MAX_RESULT_BYTES {
            return Err(Error::TooLarge { what: "arguments of one extend", got, limit: MAX_RESULT_BYTES });
        }
        self.of(&extend.run).extend.submit(extend).await
    }

    /// See [`trireme_model::Run::complete`].
    pub async fn complete(&self, mut complete: Complete) -> Result<Completed, Error> {
        let drivers = self.of(&complete.run);
        if let Outcome::Result(result) = complete.outcome {
            complete.outcome = Outcome::Result(drivers.shard.keep(&complete.run, result).await?);
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

    /// Looks at what is due, at most 200 entries of each shard.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        for drivers in &self.0.shards {
            let shard = &drivers.shard;
            let (time, limit) = (shard.time(), SWEEP.to_string());
            let due = [time.as_bytes(), limit.as_bytes()];
            let members_due = shard.link.eval(&script::PEEK, &[&shard.keys.due], &due).await?;
            let (mut items, mut members, before) = (Vec::new(), Vec::new(), swept.looked);
            for member in read::list("the due index", members_due)? {
                let member = read::text(&read::bulk("an entry of the due index", member)?);
                swept.looked += 1;
                match split_member(&member) {
                    Some((run, task)) => {
                        items.push(Look { run, task });
                        members.push(member);
                    }
                    None => put_off(shard, &member, "it names no run").await?,
                }
            }
            swept.more |= swept.looked - before >= SWEEP;
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
    items.array(deltas.len());
    for delta in deltas {
        let at = runs.iter().position(|run| **run == delta.run).unwrap_or_else(|| {
            runs.push(&delta.run);
            runs.len() - 1
        });
        let text = serde_json::to_string(&delta.text)
            .map_err(|error| Error::Unusable(format!("a delta is not a JSON text: {error}")))?;
        items.array(4).int(at as i64 + 1).bytes(delta.task.as_str()).int(delta.attempt.into()).bytes(text);
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
