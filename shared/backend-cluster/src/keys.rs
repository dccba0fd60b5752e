//! Every Redis key and channel, spelled in this one file.
//!
//! All keys of a shard carry the same hash tag, so that one script can work on the shard's runs and its indexes
//! together, also on a Redis Cluster. A run never leaves its shard.
//!
//! ```text
//! {P:s}:meta        hash    epoch, server, shards, version of the layout; names of paused pools
//! {P:s}:runs        zset    TENANT:TIME:RUN in the order of the alphabet, TIME in 14 digits: rebuildable from the runs
//! {P:s}:flying      zset    KEY:RUN, runs under way of an API key: rebuildable from the runs
//! {P:s}:due         zset    run | run:task -> next time somebody must look at it
//! {P:s}:run:ID      hash    the run: see `store::layout`
//! {P:s}:log:ID      list    its events; the position is the sequence number
//! {P:s}:blob:ID     hash    its large results: sha256 -> value
//! {P:s}:tally       string  up to when ended runs have been counted for the metrics
//! {P:s}:told        string  up to when ended runs have been told of for their traces
//! {P:s}:telling     string  held by who tells of them, for 30 s at most
//! {P:s}:dead        zset    run:task in quarantine -> when it was put there: rebuildable from the runs
//! {P:s}:held        zset    pool:run:task ready in a paused pool, all 0: rebuilt by claims and sweeps
//! {P:s}:fleet       zset    living processes -> until when they count as alive
//! {P:s}:watch       channel ids of watched runs whose log has grown
//! {P:s}:abort       channel run | run:task: attempts that need not go on
//! {P:access}:keys   hash    API key's id -> what it may do, with the hash of the key; not for workers
//! {P:access}:rate:K hash    what is left of the rate of the API key K; not for workers
//! ```

use trireme_model::{KeyId, Ms, RunId, TaskId, Tenant};

/// The keys of one shard.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) meta: String,
    pub(crate) runs: String,
    pub(crate) flying: String,
    pub(crate) due: String,
    pub(crate) tally: String,
    pub(crate) told: String,
    pub(crate) telling: String,
    pub(crate) dead: String,
    pub(crate) held: String,
    pub(crate) fleet: String,
    pub(crate) watch: String,
    pub(crate) abort: String,
    tag: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str, shard: u16) -> Self {
        let tag = format!("{{{prefix}:{shard}}}");
        Self {
            meta: format!("{tag}:meta"),
            runs: format!("{tag}:runs"),
            flying: format!("{tag}:flying"),
            due: format!("{tag}:due"),
            tally: format!("{tag}:tally"),
            told: format!("{tag}:told"),
            telling: format!("{tag}:telling"),
            dead: format!("{tag}:dead"),
            held: format!("{tag}:held"),
            fleet: format!("{tag}:fleet"),
            watch: format!("{tag}:watch"),
            abort: format!("{tag}:abort"),
            tag,
        }
    }

    pub(crate) fn run(&self, run: &str) -> String {
        format!("{}:run:{run}", self.tag)
    }

    pub(crate) fn log(&self, run: &str) -> String {
        format!("{}:log:{run}", self.tag)
    }

    pub(crate) fn blobs(&self, run: &str) -> String {
        format!("{}:blob:{run}", self.tag)
    }
}

/// The keys of access control. Their tag is no shard's, so that one pattern keeps workers out.
#[derive(Debug, Clone)]
pub(crate) struct AccessKeys {
    pub(crate) keys: String,
    tag: String,
}

impl AccessKeys {
    pub(crate) fn new(prefix: &str) -> Self {
        let tag = format!("{{{prefix}:access}}");
        Self { keys: format!("{tag}:keys"), tag }
    }

    pub(crate) fn rate(&self, key: &KeyId) -> String {
        format!("{}:rate:{key}", self.tag)
    }
}

/// An entry of the index of runs, as `submit.lua` writes it.
pub(crate) fn listed(tenant: &Tenant, created: Ms, run: &RunId) -> String {
    format!("{tenant}:{created:014}:{run}")
}

/// Reads an entry of the index of runs: when the run was accepted, and its id.
pub(crate) fn split_listed(entry: &str) -> Option<(Ms, RunId)> {
    let mut parts = entry.splitn(3, ':').skip(1);
    Some((parts.next()?.parse().ok()?, RunId::new(parts.next()?).ok()?))
}

/// Reads a member of the due index or a word of the abort channel: `run` or `run:task`.
pub(crate) fn split_member(member: &str) -> Option<(RunId, Option<TaskId>)> {
    match member.split_once(':') {
        None => Some((RunId::new(member).ok()?, None)),
        Some((run, task)) => Some((RunId::new(run).ok()?, Some(TaskId::new(task).ok()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_shard_have_one_hash_tag() {
        let keys = Keys::new("trireme", 3);
        let all = [
            keys.meta.clone(),
            keys.runs.clone(),
            keys.flying.clone(),
            keys.due.clone(),
            keys.tally.clone(),
            keys.told.clone(),
            keys.telling.clone(),
            keys.dead.clone(),
            keys.held.clone(),
            keys.fleet.clone(),
            keys.run("a"),
            keys.log("a"),
            keys.blobs("a"),
        ];
        assert!(all.iter().all(|key| key.starts_with("{trireme:3}:")), "{all:?}");
    }

    #[test]
    fn members_read_back() {
        let (run, task) = split_member("r-1:each/3").unwrap();
        assert_eq!((run.as_str(), task.unwrap().as_str()), ("r-1", "each/3"));
        assert_eq!(split_member("r-1").unwrap().1, None);
        assert!(split_member("r 1").is_none());
        let (tenant, run) = (Tenant::new("acme").unwrap(), RunId::new("r-1").unwrap());
        let entry = listed(&tenant, 1_700_000_000_000, &run);
        assert_eq!(split_listed(&entry), Some((1_700_000_000_000, run)));
        assert!(split_listed("acme").is_none());
    }
}
