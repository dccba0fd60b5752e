//! From the text of a key to who it is.
//!
//! Keys of the store are asked for once in [`FRESH`] each, so that one that was revoked is refused everywhere within
//! that time and a call to the store. Keys of the configuration last as long as the process; the bootstrap key is
//! read from its file again as often as those of the store.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use subtle::ConstantTimeEq;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};
use trireme_backend::{ApiKey, Backend, Error, Quota, Scope};
use trireme_model::{Caller, KeyId, Tenant};

use super::{
    key::{hash, id_of},
    settings::AccessMode,
};
use crate::{Config, identity::unhex};

/// How long what the store said of a key is believed.
pub(crate) const FRESH: Duration = Duration::from_secs(2);
/// Shortest bootstrap key, in bytes: 64 hex digits are 256 bits, 32 bytes of base64 somewhat less than 43.
const MIN_BOOTSTRAP: usize = 32;
/// Largest file of a bootstrap key, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub tenant: Tenant,
    /// The key; `None` where none is needed.
    pub key: Option<KeyId>,
    pub scopes: BTreeSet<Scope>,
    pub quota: Quota,
    /// Where it is known from.
    source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// Nobody asked for a key.
    Open,
    Config,
    Bootstrap([u8; 32]),
    Store,
}

/// Knows keys.
pub(crate) struct Keyring {
    /// Whether keys are needed at all.
    needed: bool,
    backend: Arc<dyn Backend>,
    config: HashMap<[u8; 32], Arc<Identity>>,
    bootstrap: Option<Bootstrap>,
    /// Keys that the store knows, and when it said so. Bounded by how many it keeps.
    known: Mutex<HashMap<KeyId, Known>>,
}

/// When the store told of a key, its hash, and whose it is.
type Known = (Instant, [u8; 32], Arc<Identity>);

struct Bootstrap {
    file: PathBuf,
    read: Mutex<(Instant, Option<[u8; 32]>)>,
}

fn id_of_hash(hash: &[u8; 32]) -> Option<KeyId> {
    // a hash of the hash, because the id is public
    KeyId::new(crate::identity::hex(&super::key::hash(&crate::identity::hex(hash))[..8])).ok()
}

impl Identity {
    /// Of a coordinator that needs no keys.
    pub(crate) fn anybody() -> Self {
        Self {
            tenant: Tenant::default(),
            key: None,
            scopes: BTreeSet::from([Scope::Read, Scope::Write, Scope::Admin]),
            quota: Quota::default(),
            source: Source::Open,
        }
    }

    /// On whose behalf runs are submitted.
    pub(crate) fn caller(&self) -> Caller {
        Caller { tenant: self.tenant.clone(), key: self.key.clone(), in_flight: self.quota.in_flight }
    }
}

impl Keyring {
    /// `config` must have been checked.
    ///
    /// # Errors
    /// What is wrong with the file of the bootstrap key.
    pub(crate) fn new(config: &Config, backend: Arc<dyn Backend>) -> Result<Self, String> {
        let identity = |key: &super::ConfigKey| {
            let hash = key.hash()?;
            let identity = Identity {
                tenant: key.tenant.clone(),
                key: id_of_hash(&hash),
                scopes: key.scopes.clone(),
                quota: key.quota,
                source: Source::Config,
            };
            Some((hash, Arc::new(identity)))
        };
        let bootstrap = match &config.bootstrap_key_file {
            None => None,
            Some(file) => {
                let hash = read_key(file).map_err(|error| format!("{}: {error}", file.display()))?;
                Some(Bootstrap { file: file.clone(), read: Mutex::new((Instant::now(), Some(hash))) })
            }
        };
        Ok(Self {
            needed: config.access == AccessMode::Keys,
            backend,
            config: config.keys.iter().filter_map(identity).collect(),
            bootstrap,
            known: Mutex::default(),
        })
    }

    /// Whether requests need a key.
    pub(crate) fn needed(&self) -> bool {
        self.needed
    }

    /// Whether keys are needed and nobody has one yet; false where the store can't tell.
    pub(crate) async fn locked(&self) -> bool {
        let known = self.bootstrap.is_some() || !self.config.is_empty();
        self.needed && !known && self.backend.access().keys().await.is_ok_and(|keys| keys.is_empty())
    }

    /// Who has this key; `None` for nobody.
    pub(crate) async fn find(&self, text: &str) -> Result<Option<Arc<Identity>>, Error> {
        let hash = hash(text);
        if let Some(identity) = self.config.get(&hash) {
            return Ok(Some(identity.clone()));
        }
        if self.bootstrap().await.is_some_and(|known| known.ct_eq(&hash).into()) {
            return Ok(Some(Arc::new(Identity {
                key: id_of_hash(&hash),
                source: Source::Bootstrap(hash),
                ..Identity::anybody()
            })));
        }
        let Some(id) = id_of(text) else { return Ok(None) };
        Ok(self.stored(&id).await?.filter(|(known, _)| known.ct_eq(&hash).into()).map(|(_, who)| who))
    }

    /// Whether the key of `identity` still is what it was when it was found; true while the store can't be asked, for
    /// then it can't tell anybody anything else either.
    async fn holds(&self, identity: &Identity) -> bool {
        match (&identity.source, &identity.key) {
            (Source::Store, Some(id)) => match self.stored(id).await {
                Ok(known) => known.is_some_and(|(_, now)| *now == *identity),
                Err(_) => true,
            },
            (Source::Bootstrap(hash), _) => self.bootstrap().await == Some(*hash),
            _ => true,
        }
    }

    /// Returns once the key of `identity` was revoked or changed: for answers that take longer than a moment.
    pub(crate) async fn revoked(self: Arc<Self>, identity: Arc<Identity>) {
        if matches!(identity.source, Source::Open | Source::Config) {
            return std::future::pending().await;
        }
        while self.holds(&identity).await {
            sleep(FRESH).await;
        }
    }

    async fn stored(&self, id: &KeyId) -> Result<Option<([u8; 32], Arc<Identity>)>, Error> {
        let known = |at: Instant| {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = known.get(id).filter(|(since, ..)| at.duration_since(*since) < FRESH);
            fresh.map(|(_, hash, who)| (*hash, who.clone()))
        };
        // the age counts from before the question: the answer may be as old as that
        let asked = Instant::now();
        if let Some(known) = known(asked) {
            return Ok(Some(known));
        }
        let stored = self.backend.access().key(id).await?;
        let found = stored.and_then(identity_of);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &found {
            Some((hash, who)) => known.insert(id.clone(), (asked, *hash, who.clone())),
            None => known.remove(id),
        };
        Ok(found)
    }

    async fn bootstrap(&self) -> Option<[u8; 32]> {
        let bootstrap = self.bootstrap.as_ref()?;
        let (at, hash) = *bootstrap.read.lock().unwrap_or_else(PoisonError::into_inner);
        if at.elapsed() < FRESH {
            return hash;
        }
        let asked = Instant::now();
        let file = bootstrap.file.clone();
        let read = spawn_blocking(move || read_key(&file)).await.unwrap_or_else(|error| Err(error.into()));
        if let (Err(error), true) = (&read, hash.is_some()) {
            let file = bootstrap.file.display().to_string();
            tracing::error!(
                file, %error,
                "the key of coordinator.bootstrap_key_file can't be read and counts as revoked"
            );
        }
        let hash = read.ok();
        *bootstrap.read.lock().unwrap_or_else(PoisonError::into_inner) = (asked, hash);
        hash
    }
}

/// The hash of the key in `file`, of which there is an end: opening a pipe could wait for ever.
fn read_key(file: &Path) -> io::Result<[u8; 32]> {
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    let mut text = String::new();
    let got = File::open(file)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if got as u64 > MAX_FILE {
        return Err(io::Error::other(format!("is larger than {MAX_FILE} bytes")));
    }
    let text = text.trim();
    if text.len() < MIN_BOOTSTRAP {
        return Err(io::Error::other(format!("the key is shorter than {MIN_BOOTSTRAP} bytes")));
    }
    Ok(hash(text))
}

fn identity_of(key: ApiKey) -> Option<([u8; 32], Arc<Identity>)> {
    let hash = unhex(&key.sha256)?.try_into().ok()?;
    let ApiKey { id, tenant, scopes, quota, .. } = key;
    Some((hash, Arc::new(Identity { tenant, key: Some(id), scopes, quota, source: Source::Store })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Minting, mint};
    use trireme_backend_embedded::Embedded;

    /// What is promised of a revoked key.
    const PROMISED: Duration = Duration::from_secs(5);

    #[test]
    fn a_file_that_can_hold_no_key_is_not_read_on() {
        let dir = tempfile::tempdir().unwrap();
        let large = dir.path().join("large");
        fs::write(&large, "x".repeat(1 + MAX_FILE as usize)).unwrap();
        for (file, reason) in [
            (Path::new("/dev/zero"), "is not a regular file"),
            (dir.path(), "is not a regular file"),
            (&large, "is larger than 65536 bytes"),
        ] {
            let config = Config { bootstrap_key_file: Some(file.to_owned()), ..Config::default() };
            let told = Keyring::new(&config, Arc::new(Embedded::default())).err().unwrap();
            assert_eq!(told, format!("{}: {reason}", file.display()));
        }
        let longest = "k".repeat(MIN_BOOTSTRAP) + &" ".repeat(MAX_FILE as usize - MIN_BOOTSTRAP);
        fs::write(&large, longest).unwrap();
        assert_eq!(read_key(&large).unwrap(), hash(&"k".repeat(MIN_BOOTSTRAP)));
    }

    #[tokio::test]
    async fn a_revoked_key_is_refused_and_told_within_5_s() {
        // a look that is as old as can be believed, and the pause until the next one
        const { assert!(FRESH.as_secs() * 2 < PROMISED.as_secs()) };
        let backend: Arc<dyn Backend> = Arc::new(Embedded::default());
        let config = Config { access: AccessMode::Keys, ..Config::default() };
        let keyring = Arc::new(Keyring::new(&config, backend.clone()).unwrap());
        let minting = Minting {
            name: "test".into(),
            tenant: Tenant::default(),
            scopes: BTreeSet::from([Scope::Read]),
            quota: Quota::default(),
        };
        let (key, text) = mint(minting, 7).unwrap();
        let found = async || keyring.find(text.expose()).await.unwrap();
        assert_eq!(found().await, None, "what is not known is not remembered");
        assert!(keyring.locked().await);
        backend.access().put_key(key.clone()).await.unwrap();
        assert!(!keyring.locked().await);
        let who = found().await.unwrap();
        let told = tokio::spawn(keyring.clone().revoked(who.clone()));
        backend.access().drop_key(&key.id).await.unwrap();
        // as if the store had been asked that long ago
        for known in keyring.known.lock().unwrap().values_mut() {
            known.0 -= FRESH;
        }
        assert_eq!(found().await, None);
        assert!(!keyring.holds(&who).await);
        told.await.unwrap();
    }
}
