//! What an operator may set, checked before any socket opens.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use trireme_backend::Backlog;
use trireme_model::{
    Keep, Ms,
    limits::{LINGER_MS, RETENTION_MS},
};

use crate::{
    access::{AccessMode, ConfigKey, check_key},
    api::pool_name,
    tls::TlsFiles,
};

/// Most keys of the configuration.
const MAX_KEYS: usize = 1000;

/// Largest bounds of what is open at once, of a body in bytes, and of any time.
const MAX_AT_ONCE: usize = 1_000_000;
const MAX_BODY: usize = 64 << 20;
const MAX_TIME: Duration = Duration::from_secs(24 * 3600);

/// Settings of a coordinator. Every bound of the HTTP side stands here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the API listens. Port 0 takes a free one. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// Who may use the API: `auto` (anybody, on a loopback address only), `keys` or `open`. Default `auto`.
    pub access: AccessMode,
    /// API keys beside those of the store, as hashes; at most 1000. Default none.
    pub keys: Vec<ConfigKey>,
    /// A file with a key that may do everything for the tenant `default`, at least 32 bytes; read again every few
    /// seconds. For making the first keys. Default none.
    pub bootstrap_key_file: Option<PathBuf>,
    /// Certificate and key for HTTPS. Default: HTTP.
    pub tls: TlsFiles,
    /// Largest request body in bytes. Default 1 MiB.
    pub max_body: usize,
    /// Connections open at once; more wait to be accepted. Default 8192.
    pub max_connections: usize,
    /// Time limit for the head of a request, counted from the end of the request before it on the same connection:
    /// an idle connection is closed after this long. Default 20 s.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// Time limit for reading a request body. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// Upper bound of `?wait=`; longer waits are cut to it. Default 60 s.
    #[serde(with = "humantime_serde")]
    pub max_wait: Duration,
    /// Requests that are compiled or submitted at once; more are told to come back. Bodies that are still on their
    /// way share the memory of as many whole ones (times `max_body`), each no more than what has come of it, so that
    /// slow clients keep nobody out. Default 256.
    pub max_submits: usize,
    /// How much may wait before new runs are told to come back. Default: no more than 75 % of the store's memory.
    pub backlog: Bounds,
    /// Event streams and long polls open at once; more are told to come back. Default 4096.
    pub max_followers: usize,
    /// A silent event stream gets a comment this often, so that proxies keep it open. Default 15 s.
    #[serde(with = "humantime_serde")]
    pub keep_alive: Duration,
    /// Followers of a run look again after this long even if nobody woke them. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub poll: Duration,
    /// How often the due index is swept. Default 100 ms.
    #[serde(with = "humantime_serde")]
    pub sweep_interval: Duration,
    /// How long a run is kept after its end, at least 10 min; counted from the setting at its acceptance. Default 24 h.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
    /// The same of a run that failed. Default: as `retention`.
    #[serde(with = "humantime_serde")]
    pub failed_retention: Option<Duration>,
    /// How long requests in flight may go on after a shutdown was asked for. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

/// How much may wait. Past any of these a submit is refused before anything is written; what was accepted goes on.
/// The numbers are read from the last look at the store, which is at most some 5 s old, so that a burst may pass a
/// bound by what is accepted within that time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// Ready tasks over all pools. Default: no bound.
    pub max_ready: Option<u64>,
    /// Ready tasks by pool. Default: no bound.
    pub max_ready_in: BTreeMap<String, u64>,
    /// Percent of its memory that the store may use, 1 to 100; nothing where it has no limit. Default 75.
    pub max_memory_percent: u8,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { max_ready: None, max_ready_in: BTreeMap::new(), max_memory_percent: 75 }
    }
}

impl Bounds {
    /// The bound that `backlog` has passed, in words.
    pub(crate) fn passed(&self, backlog: &Backlog) -> Option<String> {
        let Backlog { ready, memory_used, memory_max } = backlog;
        let all: u64 = ready.values().sum();
        if let Some(most) = self.max_ready.filter(|most| all >= *most) {
            return Some(format!("{all} tasks wait for workers, of {most} that may"));
        }
        for (pool, most) in &self.max_ready_in {
            let waiting = ready.get(pool).copied().unwrap_or(0);
            if waiting >= *most {
                return Some(format!("{waiting} tasks of pool {pool} wait for workers, of {most} that may"));
            }
        }
        let percent = u128::from(*memory_used) * 100 / u128::from((*memory_max).max(1));
        (*memory_max > 0 && percent >= u128::from(self.max_memory_percent)).then(|| {
            format!("the store uses {percent} % of its memory, of {} % that it may", self.max_memory_percent)
        })
    }
}

/// Why a coordinator can't start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is out of its bounds.
    #[error("setting coordinator.{name}: {reason}")]
    Config {
        /// The field of [`Config`].
        name: Cow<'static, str>,
        /// What is wrong with it.
        reason: Cow<'static, str>,
    },
    /// A file that a setting names can't be used.
    #[error("setting coordinator.{name}: {reason}")]
    File {
        /// The field of [`Config`].
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// It would serve everybody who reaches the address, and nobody said that it may.
    #[error(
        "coordinator.access is auto and {0} is not a loopback address: set coordinator.access to keys (API keys, see \
         docs/operations.md#access), or to open to serve everybody who can reach it"
    )]
    Unguarded(SocketAddr),
    /// The address can't be listened on.
    #[error("can't listen on {addr}: {source}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The registry has metrics of these names already: one coordinator per registry.
    #[error("metrics can't be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Error {
    pub(crate) fn config(name: impl Into<Cow<'static, str>>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Config { name: name.into(), reason: reason.into() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            access: AccessMode::Auto,
            keys: Vec::new(),
            bootstrap_key_file: None,
            tls: TlsFiles::default(),
            max_body: 1024 * 1024,
            max_connections: 8192,
            header_timeout: Duration::from_secs(20),
            body_timeout: Duration::from_secs(10),
            max_wait: Duration::from_secs(60),
            max_submits: 256,
            backlog: Bounds::default(),
            max_followers: 4096,
            keep_alive: Duration::from_secs(15),
            poll: Duration::from_secs(1),
            sweep_interval: Duration::from_millis(100),
            retention: Duration::from_millis(RETENTION_MS),
            failed_retention: None,
            grace: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// How long runs that are accepted now are kept after their end.
    pub(crate) fn keep(&self) -> Keep {
        let ms = |time: Duration| Ms::try_from(time.as_millis()).unwrap_or(Ms::MAX);
        Keep { ended: ms(self.retention), failed: ms(self.failed_retention.unwrap_or(self.retention)) }
    }

    /// Checks the bounds between and on the fields.
    pub fn validate(&self) -> Result<(), Error> {
        let at_least_1 = "must be at least 1";
        let positive = "must be longer than zero";
        let (too_many, too_long) = ("must be at most 1000000", "must be at most 24h");
        let out_of_bounds = |time: Duration| {
            time < Duration::from_millis(LINGER_MS) || time > Duration::from_secs(3650 * 86_400)
        };
        let checks = [
            ("max_body", self.max_body == 0, at_least_1),
            ("max_submits", self.max_submits == 0, at_least_1),
            ("max_connections", self.max_connections == 0, at_least_1),
            ("max_followers", self.max_followers == 0, at_least_1),
            ("header_timeout", self.header_timeout.is_zero(), positive),
            ("backlog.max_ready", self.backlog.max_ready == Some(0), at_least_1),
            ("backlog.max_ready_in", self.backlog.max_ready_in.values().any(|most| *most == 0), at_least_1),
            (
                "backlog.max_memory_percent",
                !(1..=100).contains(&self.backlog.max_memory_percent),
                "must be 1 to 100",
            ),
            ("retention", out_of_bounds(self.retention), "must be 10min to 3650days"),
            (
                "failed_retention",
                self.failed_retention.is_some_and(out_of_bounds),
                "must be 10min to 3650days",
            ),
            ("body_timeout", self.body_timeout.is_zero(), positive),
            ("keep_alive", self.keep_alive.is_zero(), positive),
            ("poll", self.poll.is_zero(), positive),
            ("sweep_interval", self.sweep_interval.is_zero(), positive),
            ("max_body", self.max_body > MAX_BODY, "must be at most 67108864"),
            ("max_submits", self.max_submits > MAX_AT_ONCE, too_many),
            ("max_followers", self.max_followers > MAX_AT_ONCE, too_many),
            ("max_connections", self.max_connections > MAX_AT_ONCE, too_many),
            ("header_timeout", self.header_timeout > MAX_TIME, too_long),
            ("body_timeout", self.body_timeout > MAX_TIME, too_long),
            ("max_wait", self.max_wait > MAX_TIME, too_long),
            ("keep_alive", self.keep_alive > MAX_TIME, too_long),
            ("poll", self.poll > MAX_TIME, too_long),
            ("grace", self.grace > MAX_TIME, too_long),
            // the sweep repairs lost hints and expired leases: a longer pause would show as stuck runs
            ("sweep_interval", self.sweep_interval > Duration::from_secs(10), "must be at most 10s"),
        ];
        if let Some((name, _, reason)) = checks.into_iter().find(|(_, broken, _)| *broken) {
            return Err(Error::config(name, reason));
        }
        if let Some(pool) = self.backlog.max_ready_in.keys().find(|pool| !pool_name(pool)) {
            let reason = format!("{pool:?} is not a pool: use 1 to 64 of a-z 0-9 _ -");
            return Err(Error::config("backlog.max_ready_in", reason));
        }
        self.check_keys()
    }

    fn check_keys(&self) -> Result<(), Error> {
        if self.keys.len() > MAX_KEYS {
            return Err(Error::config("keys", "holds more than 1000: keep them in the store"));
        }
        let mut hashes = HashMap::new();
        for (at, key) in self.keys.iter().enumerate() {
            let wrong = |field: &str, reason: String| Error::config(format!("keys[{at}].{field}"), reason);
            let hash = key.hash().ok_or_else(|| {
                wrong("sha256", "must be 64 lower-case hex digits: see `trireme keys hash`".into())
            })?;
            if let Some(first) = hashes.insert(hash, at) {
                return Err(wrong("sha256", format!("is the same key as keys[{first}]")));
            }
            check_key(&key.name, &key.scopes, &key.quota).map_err(|(field, reason)| wrong(field, reason))?;
        }
        Ok(())
    }

    /// Checks that whoever can reach `listen` may, by somebody's word, and that certificates can be used. Beside [`Config::validate`], because the
    /// address may come from the command line, and because workers may share the file.
    pub fn check_access(&self) -> Result<(), Error> {
        self.tls.check()?;
        if self.access == AccessMode::Auto && !self.loopback() {
            return Err(Error::Unguarded(self.listen));
        }
        Ok(())
    }

    /// Whether keys are asked for and no setting gives anybody one: then the store must.
    pub fn no_key_can_be_had(&self) -> bool {
        self.access == AccessMode::Keys && self.bootstrap_key_file.is_none() && self.keys.is_empty()
    }

    /// Whether only this machine reaches `listen`.
    pub(crate) fn loopback(&self) -> bool {
        self.listen.ip().to_canonical().is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_as_people_write_them() {
        let config: Config =
            serde_json::from_str(r#"{"listen": "0.0.0.0:80", "keep_alive": "5s", "grace": "1m"}"#).unwrap();
        assert_eq!(config.keep_alive, Duration::from_secs(5));
        assert_eq!(config.grace, Duration::from_secs(60));
        assert_eq!(config.max_body, 1024 * 1024);
        assert!(serde_json::from_str::<Config>(r#"{"lisen": "0.0.0.0:80"}"#).is_err());
    }

    #[test]
    fn an_address_that_others_reach_needs_a_word_about_access() {
        let at =
            |listen: &str, access| Config { listen: listen.parse().unwrap(), access, ..Config::default() };
        for listen in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            at(listen, AccessMode::Auto).check_access().unwrap();
        }
        for listen in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            let error = at(listen, AccessMode::Auto).check_access().unwrap_err().to_string();
            assert!(error.contains("coordinator.access") && !error.contains('\n'), "{error}");
            for access in [AccessMode::Keys, AccessMode::Open] {
                at(listen, access).check_access().unwrap();
            }
        }
    }

    #[test]
    fn keys_are_hashes() {
        let of = |sha256: &str| {
            let key = serde_json::json!({"name": "ci", "sha256": sha256});
            let config: Config = serde_json::from_value(serde_json::json!({"keys": [key]})).unwrap();
            config.validate()
        };
        of(&"0f".repeat(32)).unwrap();
        for bad in ["", "trk_0123456789abcdef_", &"0F".repeat(32), &"0f".repeat(33)] {
            assert!(of(bad).unwrap_err().to_string().contains("sha256"), "{bad}");
        }
    }

    #[test]
    fn a_key_that_could_not_be_meant_is_named() {
        let good = serde_json::json!({"name": "ci", "sha256": "0f".repeat(32)});
        let told = |field: &str, value: serde_json::Value| {
            let mut second = serde_json::json!({"name": "cd", "sha256": "1f".repeat(32)});
            second[field] = value;
            let keys = serde_json::json!({"keys": [good, second]});
            serde_json::from_value::<Config>(keys).unwrap().validate().unwrap_err().to_string()
        };
        for (field, value, reason) in [
            ("sha256", serde_json::json!("0f".repeat(32)), "is the same key as keys[0]"),
            ("name", serde_json::json!(""), "has 0 bytes; use 1 to 256"),
            ("scopes", serde_json::json!([]), "is empty; name some of read, write, admin"),
        ] {
            assert_eq!(told(field, value), format!("setting coordinator.keys[1].{field}: {reason}"));
        }
    }

    #[test]
    fn a_bound_of_a_pool_that_can_not_be_is_refused() {
        for pool in ["LLM", "a b", ""] {
            let backlog = serde_json::json!({"max_ready_in": {"llm": 1, pool: 1}});
            let config: Config = serde_json::from_value(serde_json::json!({"backlog": backlog})).unwrap();
            assert_eq!(
                config.validate().unwrap_err().to_string(),
                format!(
                    "setting coordinator.backlog.max_ready_in: {pool:?} is not a pool: use 1 to 64 of a-z 0-9 _ -"
                )
            );
        }
    }

    #[test]
    fn each_bound_of_the_backlog_says_what_has_passed_it() {
        let of = |llm: u64, tool: u64, used: u64| Backlog {
            ready: [("llm".to_owned(), llm), ("tool".to_owned(), tool)].into(),
            memory_used: used,
            memory_max: 1_000,
        };
        let bounds: Bounds = serde_json::from_str(
            r#"{"max_ready": 100, "max_ready_in": {"llm": 10}, "max_memory_percent": 90}"#,
        )
        .unwrap();
        assert_eq!(bounds.passed(&of(9, 90, 899)), None);
        let passed = |backlog| bounds.passed(&backlog).unwrap();
        assert_eq!(passed(of(9, 91, 0)), "100 tasks wait for workers, of 100 that may");
        assert_eq!(passed(of(10, 0, 0)), "10 tasks of pool llm wait for workers, of 10 that may");
        assert_eq!(passed(of(0, 0, 900)), "the store uses 90 % of its memory, of 90 % that it may");
        assert_eq!(Bounds::default().passed(&Backlog { memory_max: 0, ..of(9_999_999, 0, 5) }), None);
    }

    #[test]
    fn failed_runs_may_be_kept_longer() {
        let config: Config =
            serde_json::from_str(r#"{"retention": "1h", "failed_retention": "7days"}"#).unwrap();
        config.validate().unwrap();
        assert_eq!(config.keep(), Keep { ended: 3_600_000, failed: 7 * 86_400_000 });
        assert_eq!(Config::default().keep(), Keep::default());
        for bad in [r#"{"retention": "9m"}"#, r#"{"failed_retention": "1m"}"#] {
            let config: Config = serde_json::from_str(bad).unwrap();
            assert!(
                config.validate().unwrap_err().to_string().ends_with("must be 10min to 3650days"),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_bound_of_zero_is_refused_by_name() {
        Config::default().validate().unwrap();
        let error = Config { poll: Duration::ZERO, ..Config::default() }.validate().unwrap_err();
        assert_eq!(error.to_string(), "setting coordinator.poll: must be longer than zero");
        assert!(Config { max_submits: 0, ..Config::default() }.validate().is_err());
    }
}
