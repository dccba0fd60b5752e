//! Processes of two versions on one store: what each reads and writes, who is alive, and when the store moves on.
//!
//! What is stored has a version, in the meta hash. A process reads a range of versions and writes the one that the store
//! has, so that two neighbours share a store for as long as an upgrade takes, and either may be rolled back. Each process
//! announces itself for a while and again before that has passed. Only when every living process reads a newer version
//! may an operator let the store move on to it ([`Store::upgrade`]); from then on older processes are refused.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use redis::{Value, cmd};
use tokio_util::sync::CancellationToken;
use trireme_backend::Error;

use super::{
    Store,
    link::Link,
    read::{bulk, list, strange, text},
    script,
};
use crate::keys::Keys;

/// The oldest version that this program reads and writes: the one before.
const OLDEST: u32 = 4;
/// The newest. 5: processes announce themselves; what is stored of runs is as in 4.
const NEWEST: u32 = 5;
/// The variable that makes a process speak other versions (`4-4`), for tests of mixed fleets.
const VARIABLE: &str = "TRIREME_SPEAKS";
/// How long a process counts as alive without a word.
pub(crate) const ALIVE_MS: u64 = 30_000;
/// How often it announces itself: five chances before it counts as gone.
const EVERY: Duration = Duration::from_secs(5);

/// The versions of what is stored that a process reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spoken {
    /// The oldest one.
    pub oldest: u32,
    /// The newest one.
    pub newest: u32,
}

/// A process as it announces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Unique to the process.
    pub id: String,
    /// `coordinator` or `worker`.
    pub role: String,
    /// Of the program.
    pub version: String,
    /// Of what is stored.
    pub spoken: Spoken,
}

/// Answer to [`Store::upgrade`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upgraded {
    /// The store has this version now, or had it before.
    To(u32),
    /// These processes do not read it.
    Refused(u32, Vec<Member>),
}

impl Spoken {
    /// What this process speaks.
    ///
    /// # Errors
    /// The variable for tests does not hold a range.
    pub fn here() -> Result<Self, Error> {
        let Ok(given) = std::env::var(VARIABLE) else { return Ok(Self { oldest: OLDEST, newest: NEWEST }) };
        given
            .parse()
            .map_err(|()| Error::Unusable(format!("{VARIABLE} is {given:?}, which is no range such as 4-5")))
    }

    /// Whether a store of this version is one it reads.
    pub fn reads(self, version: &str) -> bool {
        version.parse().is_ok_and(|version: u32| (self.oldest..=self.newest).contains(&version))
    }
}

impl FromStr for Spoken {
    type Err = ();
    fn from_str(range: &str) -> Result<Self, ()> {
        let (oldest, newest) = range.split_once('-').ok_or(())?;
        let spoken = Self { oldest: oldest.parse().map_err(drop)?, newest: newest.parse().map_err(drop)? };
        if spoken.oldest <= spoken.newest { Ok(spoken) } else { Err(()) }
    }
}

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.oldest, self.newest)
    }
}

impl Member {
    /// This process in `role`.
    pub(crate) fn here(role: &str, spoken: Spoken) -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        Self { id, role: role.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned(), spoken }
    }

    /// Reads what a process wrote, also a newer one that says more.
    pub(crate) fn read(entry: &str) -> Option<Self> {
        let mut words = entry.split(' ');
        let [id, role, version, spoken] = [words.next()?, words.next()?, words.next()?, words.next()?];
        let spoken = spoken.parse().ok()?;
        Some(Self { id: id.to_owned(), role: role.to_owned(), version: version.to_owned(), spoken })
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.id, self.role, self.version, self.spoken)
    }
}

/// Announces `member` until `stop`, and takes leave.
pub(crate) async fn announce(link: Arc<Link>, shards: Vec<Keys>, member: Member, stop: CancellationToken) {
    let (entry, alive) = (member.to_string(), ALIVE_MS.to_string());
    let mut told = false;
    loop {
        for keys in &shards {
            let args = [entry.as_bytes(), alive.as_bytes()];
            let answer = link.eval(&script::ANNOUNCE, &[&keys.meta, &keys.fleet], &args).await;
            // who can't reach the store is found out elsewhere
            let Ok(Value::BulkString(version)) = answer else { continue };
            let version = String::from_utf8_lossy(&version);
            if !member.spoken.reads(&version) && !told {
                told = true;
                // it was silent for so long that it counted as gone
                tracing::error!(
                    version = &*version,
                    speaks = %member.spoken,
                    "the store has moved on to a version that this process does not know: replace it"
                );
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    for keys in &shards {
        let _ = link.query(cmd("ZREM").arg(&keys.fleet).arg(&entry)).await;
    }
}

impl Store {
    /// Lets the store move on to the newest version that this process knows, if every living process reads it. If we
    /// die between two shards, a repeat does the rest; until then each is written as it says.
    pub async fn upgrade(&self) -> Result<Upgraded, Error> {
        let to = Spoken::here()?.newest;
        for shard in self.shards() {
            let (meta, fleet) = (&shard.keys.meta, &shard.keys.fleet);
            let reply = shard.link.eval(&script::RAISE, &[meta, fleet], &[to.to_string().as_bytes()]).await?;
            let mut behind = Vec::new();
            for entry in list("processes that are behind", reply)? {
                let entry = text(&bulk("a process", entry)?);
                behind.push(
                    Member::read(&entry).ok_or_else(|| strange("a process", &Value::SimpleString(entry)))?,
                );
            }
            if !behind.is_empty() {
                return Ok(Upgraded::Refused(to, behind));
            }
        }
        Ok(Upgraded::To(to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_reads_back_as_it_was_announced() {
        let member = Member::here("worker", Spoken { oldest: 4, newest: 5 });
        assert_eq!(Member::read(&member.to_string()), Some(member.clone()));
        assert_eq!(Member::read(&format!("{member} and more")), Some(member));
        for bad in ["", "a b c", "a b c 5", "a b c 6-5", "a b c x-y"] {
            assert_eq!(Member::read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn neighbours_share_a_version() {
        let here = Spoken::here().unwrap();
        assert_eq!(here.newest, here.oldest + 1);
        let before = Spoken { oldest: here.oldest - 1, newest: here.oldest };
        assert!(before.reads(&here.oldest.to_string()) && here.reads(&here.oldest.to_string()));
        assert!(!before.reads(&here.newest.to_string()) && !here.reads("") && !here.reads("99"));
    }
}
