//! API keys, and what is left of their rates. One hash for all keys: there are few, and every command on it is one
//! atomic step.

use async_trait::async_trait;
use redis::{Value, cmd};
use trireme_backend::{Access, ApiKey, Error, MAX_KEYS};
use trireme_model::{Admitted, KeyId, Rate};

use super::{
    Store,
    read::{bulk, list, maybe, strange},
    script,
};

fn parse(stored: &[u8]) -> Result<ApiKey, Error> {
    // the text is not shown: it holds the hash of the key
    serde_json::from_slice(stored)
        .map_err(|error| Error::Unusable(format!("an API key can't be read: {:?}", error.classify())))
}

fn count(what: &str, reply: Option<Value>) -> Result<u64, Error> {
    match reply {
        Some(Value::Int(number)) => Ok(u64::try_from(number).unwrap_or(0)),
        other => Err(strange(what, &other.unwrap_or(Value::Nil))),
    }
}

#[async_trait]
impl Access for Store {
    async fn put_key(&self, key: ApiKey) -> Result<(), Error> {
        let keys = &self.0.access.keys;
        let kept = count("the number of API keys", Some(self.0.link.query(cmd("HLEN").arg(keys)).await?))?;
        let kept = usize::try_from(kept).unwrap_or(usize::MAX);
        if kept >= MAX_KEYS && self.key(&key.id).await?.is_none() {
            return Err(Error::TooLarge { what: "number of API keys", got: kept + 1, limit: MAX_KEYS });
        }
        let stored = serde_json::to_vec(&key)
            .map_err(|error| Error::Unusable(format!("an API key can't be written: {error}")))?;
        self.0.link.query(cmd("HSET").arg(keys).arg(key.id.as_str()).arg(stored)).await.map(|_| ())
    }

    async fn key(&self, id: &KeyId) -> Result<Option<ApiKey>, Error> {
        let reply = self.0.link.query(cmd("HGET").arg(&self.0.access.keys).arg(id.as_str())).await?;
        maybe("an API key", reply)?.map(|stored| parse(&stored)).transpose()
    }

    async fn keys(&self) -> Result<Vec<ApiKey>, Error> {
        let reply = self.0.link.query(cmd("HVALS").arg(&self.0.access.keys)).await?;
        let stored = list("the API keys", reply)?.into_iter();
        let mut keys =
            stored.map(|key| parse(&bulk("an API key", key)?)).collect::<Result<Vec<ApiKey>, Error>>()?;
        keys.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(keys)
    }

    async fn drop_key(&self, id: &KeyId) -> Result<bool, Error> {
        let reply = self.0.link.query(cmd("HDEL").arg(&self.0.access.keys).arg(id.as_str())).await?;
        Ok(count("how many API keys were dropped", Some(reply))? > 0)
    }

    async fn admit(&self, id: &KeyId, rate: Rate) -> Result<Admitted, Error> {
        let time = self.0.shards[0].shard.time();
        let (per_minute, burst) = (rate.per_minute.max(1).to_string(), rate.burst.max(1).to_string());
        let args = [time.as_bytes(), per_minute.as_bytes(), burst.as_bytes()];
        let reply = self.0.link.eval(&script::ADMIT, &[&self.0.access.rate(id)], &args).await?;
        let mut parts = list("what is left of a rate", reply)?.into_iter();
        let mut next = || count("what is left of a rate", parts.next());
        let (allowed, left, wait) = (next()?, next()?, next()?);
        Ok(Admitted { allowed: allowed == 1, left: u32::try_from(left).unwrap_or(u32::MAX), wait })
    }
}
