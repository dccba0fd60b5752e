//! The list of runs, newest first, over all shards.

use redis::{cmd, pipe};
use trireme_backend::{Error, ListQuery, Page};
use trireme_model::{Ms, RunId, view::RunSummary};

use crate::keys::{listed, split_listed};

use super::{
    Store,
    read::{bulk, list, summary_of, text},
    transition::Shard,
};

/// Entries of the index read at once.
const CHUNK: usize = 256;
/// Runs of a shard that one call looks at, for want of an index over names and states.
const SCAN: usize = 10_000;

/// What one shard has; `stopped` is the last run looked at where there may be more.
#[derive(Default)]
struct Part {
    runs: Vec<RunSummary>,
    stopped: Option<(Ms, RunId)>,
}

impl Store {
    /// Runs, newest first.
    pub async fn list(&self, query: ListQuery) -> Result<Page, Error> {
        let mut page = Page::default();
        let mut horizon: Option<(Ms, RunId)> = None;
        for shard in self.shards() {
            let part = shard.part(&query).await?;
            page.runs.extend(part.runs);
            // a run older than this may have neighbours that were not looked at
            horizon = horizon.max(part.stopped);
        }
        page.runs.sort_by(|a, b| place(b).cmp(&place(a)));
        let limit = query.limit.max(1);
        if let Some(horizon) = &horizon {
            page.runs.retain(|run| place(run) >= (horizon.0, &horizon.1));
        }
        page.next = horizon;
        if page.runs.len() > limit {
            page.runs.truncate(limit);
            page.next = page.runs.last().map(|run| (run.created_ms, run.run_id.clone()));
        }
        Ok(page)
    }
}

fn place(run: &RunSummary) -> (Ms, &RunId) {
    (run.created_ms, &run.run_id)
}

impl Shard {
    async fn part(&self, query: &ListQuery) -> Result<Part, Error> {
        let (mut part, mut looked) = (Part::default(), 0);
        // all of a tenant's entries lie between these two; `;` follows `:` in the alphabet
        let oldest = format!("[{}:", query.tenant);
        let mut newest = match &query.after {
            None => format!("({};", query.tenant),
            Some((at, run)) => format!("({}", listed(&query.tenant, *at, run)),
        };
        loop {
            let mut range = cmd("ZRANGE");
            range.arg(&self.keys.runs).arg(&newest).arg(&oldest).arg("BYLEX").arg("REV");
            range.arg("LIMIT").arg(0).arg(CHUNK);
            let entries = entries(self.link.query(&range).await?)?;
            let whole = entries.len() < CHUNK;
            looked += entries.len();
            let Some((at, run)) = entries.last() else { return Ok(part) };
            newest = format!("({}", listed(&query.tenant, *at, run));
            let mut heads = pipe();
            for (_, id) in &entries {
                heads.add_command(self.summary_command(id));
            }
            let heads = self.link.pipeline(&heads).await?;
            let last = entries.len() - 1;
            for (at, (entry, head)) in entries.into_iter().zip(heads).enumerate() {
                // an entry without its run is one that is being purged
                part.runs.extend(summary_of(&entry.1, head)?.filter(|run| fits(query, run)));
                let enough = part.runs.len() >= query.limit.max(1) || (at == last && looked >= SCAN);
                if enough && (at < last || !whole) {
                    part.stopped = Some(entry);
                    return Ok(part);
                }
            }
            if whole {
                return Ok(part);
            }
        }
    }
}

fn fits(query: &ListQuery, run: &RunSummary) -> bool {
    run.tenant == query.tenant
        && query.status.is_none_or(|status| run.status == status)
        && query.name.as_ref().is_none_or(|name| run.name == *name)
}

fn entries(reply: redis::Value) -> Result<Vec<(Ms, RunId)>, Error> {
    let values = list("the index of runs", reply)?.into_iter();
    let entry = |value| {
        let entry = text(&bulk("an entry of the index of runs", value)?);
        split_listed(&entry)
            .ok_or_else(|| Error::Unusable("an entry of the index of runs names no run".into()))
    };
    values.map(entry).collect()
}
