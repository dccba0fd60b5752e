//! What a worker is told at its start.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use trireme_llm::Limits;

/// One class of work and how much of it at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its name, as tasks give it in `pool`.
    pub name: String,
    /// How many of its tasks this worker executes at once, 1 to 65,000.
    pub slots: usize,
}

/// A worker's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The pools it serves.
    pub pools: Vec<Pool>,
    /// A bound over all pools together. 1 executes strictly one task at a time.
    pub slots: Option<usize>,
    /// How long attempts may go on after a shutdown was asked for, in ms; the rest is handed back.
    pub drain_ms: u64,
    /// Largest number of bytes of recorded results kept in memory to save reading them again.
    pub cache_bytes: usize,
    /// Shortest time between two writes of streamed text to the store, in ms.
    pub delta_ms: u64,
    /// Longest time from sending a model call to its first token, in ms; a later attempt may be luckier.
    pub first_token_ms: u64,
    /// Longest pause between two tokens of a model call, in ms.
    pub stall_ms: u64,
    /// Longest time of one model call, in ms, if its task's own limit is not sooner.
    pub total_ms: u64,
}

/// Largest number of slots of a pool: RabbitMQ's prefetch is a 16-bit number.
pub const MAX_SLOTS: usize = 65_000;

/// Largest bound over all pools.
pub const MAX_ALL_SLOTS: usize = 1_000_000;
/// Largest number of bytes of results in memory.
const MAX_CACHE_BYTES: usize = 64 << 30;
/// Longest time that makes sense of anything a worker waits for.
const MAX_TIME_MS: u64 = 24 * 3_600_000;

impl Default for Config {
    /// Both standard pools with 2,048 LLM calls and 512 tool calls at once.
    fn default() -> Self {
        let pool = |name: &str, slots| Pool { name: name.into(), slots };
        let limits = Limits::default();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            pools: vec![pool("llm", 2048), pool("tool", 512)],
            slots: None,
            drain_ms: 25_000,
            cache_bytes: 64 << 20,
            delta_ms: 30,
            first_token_ms: ms(limits.first_token),
            stall_ms: ms(limits.stall),
            total_ms: ms(limits.total),
        }
    }
}

impl Config {
    /// What is wrong with it, with the field's name.
    pub fn check(&self) -> Result<(), String> {
        if self.pools.is_empty() {
            return Err("pools: a worker needs at least one pool, such as {name: llm, slots: 2048}".into());
        }
        for (at, pool) in self.pools.iter().enumerate() {
            let valid =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
            if !(1..=64).contains(&pool.name.len()) || !pool.name.bytes().all(valid) {
                return Err(format!("pools[{at}].name: {:?} is not 1 to 64 of a-z 0-9 _ -", pool.name));
            }
            if !(1..=MAX_SLOTS).contains(&pool.slots) {
                return Err(format!("pools[{at}].slots: {} is not 1 to {MAX_SLOTS}", pool.slots));
            }
            if self.pools[..at].iter().any(|other| other.name == pool.name) {
                return Err(format!("pools[{at}].name: {:?} stands twice", pool.name));
            }
        }
        if self.slots == Some(0) {
            return Err("slots: 0 would never execute anything; use 1 or more".into());
        }
        if self.slots.is_some_and(|slots| slots > MAX_ALL_SLOTS) {
            return Err(format!("slots: use at most {MAX_ALL_SLOTS}"));
        }
        if self.cache_bytes > MAX_CACHE_BYTES {
            return Err(format!("cache_bytes: use at most {MAX_CACHE_BYTES}"));
        }
        let limits = [
            ("first_token_ms", self.first_token_ms),
            ("stall_ms", self.stall_ms),
            ("total_ms", self.total_ms),
        ];
        if let Some((field, _)) = limits.iter().find(|(_, limit)| *limit == 0) {
            return Err(format!("{field}: 0 would fail every model call; use 1 or more"));
        }
        let times = limits.into_iter().chain([("drain_ms", self.drain_ms), ("delta_ms", self.delta_ms)]);
        for (field, time) in times {
            if time > MAX_TIME_MS {
                return Err(format!("{field}: use at most {MAX_TIME_MS} (24 hours)"));
            }
        }
        Ok(())
    }

    /// The time limits of one model call.
    pub fn limits(&self) -> Limits {
        Limits {
            first_token: Duration::from_millis(self.first_token_ms),
            stall: Duration::from_millis(self.stall_ms),
            total: Duration::from_millis(self.total_ms),
        }
    }

    /// How long attempts may go on after a shutdown was asked for.
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_configuration_names_its_field() {
        assert_eq!(Config::default().check(), Ok(()));
        let with = |pools: Vec<Pool>| Config { pools, ..Config::default() }.check().unwrap_err();
        let pool = |name: &str, slots| Pool { name: name.into(), slots };
        assert!(with(vec![]).starts_with("pools:"));
        assert!(with(vec![pool("LLM", 1)]).starts_with("pools[0].name"));
        assert!(with(vec![pool("llm", 0)]).starts_with("pools[0].slots"));
        assert!(with(vec![pool("llm", 1), pool("llm", 2)]).starts_with("pools[1].name"));
        let hasty = Config { stall_ms: 0, ..Config::default() };
        assert!(hasty.check().unwrap_err().starts_with("stall_ms"));
        for (field, config) in [
            ("slots", Config { slots: Some(MAX_ALL_SLOTS + 1), ..Config::default() }),
            ("cache_bytes", Config { cache_bytes: usize::MAX, ..Config::default() }),
            ("drain_ms", Config { drain_ms: u64::MAX, ..Config::default() }),
            ("total_ms", Config { total_ms: MAX_TIME_MS + 1, ..Config::default() }),
        ] {
            assert!(config.check().unwrap_err().starts_with(field), "{field}");
        }
        assert_eq!(Config::default().limits(), Limits::default());
    }
}
