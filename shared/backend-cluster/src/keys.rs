//! Every Redis key and channel, spelled in this one file.
//!
//! All keys of a shard carry the same hash tag, so that one script can work on the shard's runs and its indexes
//! together, also on a Redis Cluster. A run never leaves its shard.
//!
//! ```text
//! {P:s}:meta        hash    epoch, server, shards, version of the layout
//! {P:s}:runs        zset    run -> time it was accepted: rebuildable from the runs
//! {P:s}:due         zset    run | run:task -> next time somebody must look at it
//! {P:s}:run:ID      hash    the run: see `store::layout`
//! {P:s}:log:ID      list    its events; the position is the sequence number
//! {P:s}:blob:ID     hash    its large results: sha256 -> value
//! {P:s}:watch       channel ids of watched runs whose log has grown
//! {P:s}:abort       channel run | run:task: attempts that need not go on
//! ```

use trireme_model::{RunId, TaskId};

/// The keys of one shard.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) meta: String,
    pub(crate) runs: String,
    pub(crate) due: String,
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
            due: format!("{tag}:due"),
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
            keys.due.clone(),
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
    }
}
