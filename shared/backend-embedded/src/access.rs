//! API keys and their rates in memory: gone with the process. Keys that must outlive it stand in the configuration.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use async_trait::async_trait;
use trireme_backend::{Access, ApiKey, Error, MAX_KEYS};
use trireme_model::{Admitted, Bucket, KeyId, Rate};

use crate::{Clock, store::lock};

#[derive(Debug)]
pub(crate) struct Keys {
    clock: Clock,
    keys: Mutex<BTreeMap<KeyId, ApiKey>>,
    /// One per key that has a rate and was used: callers ask only for keys that they know.
    buckets: Mutex<HashMap<KeyId, Bucket>>,
}

impl Keys {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, keys: Mutex::default(), buckets: Mutex::default() }
    }
}

#[async_trait]
impl Access for Keys {
    async fn put_key(&self, key: ApiKey) -> Result<(), Error> {
        let mut keys = lock(&self.keys);
        if keys.len() >= MAX_KEYS && !keys.contains_key(&key.id) {
            return Err(Error::TooLarge { what: "number of API keys", got: keys.len() + 1, limit: MAX_KEYS });
        }
        keys.insert(key.id.clone(), key);
        Ok(())
    }

    async fn key(&self, id: &KeyId) -> Result<Option<ApiKey>, Error> {
        Ok(lock(&self.keys).get(id).cloned())
    }

    async fn keys(&self) -> Result<Vec<ApiKey>, Error> {
        Ok(lock(&self.keys).values().cloned().collect())
    }

    async fn drop_key(&self, id: &KeyId) -> Result<bool, Error> {
        lock(&self.buckets).remove(id);
        Ok(lock(&self.keys).remove(id).is_some())
    }

    async fn admit(&self, id: &KeyId, rate: Rate) -> Result<Admitted, Error> {
        let mut buckets = lock(&self.buckets);
        let now = self.clock.now();
        Ok(buckets.entry(id.clone()).or_insert_with(|| Bucket::full(rate, now)).take(rate, now))
    }
}
