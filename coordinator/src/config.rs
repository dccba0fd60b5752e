//! What an operator may set, checked before any socket opens.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

/// Settings of a coordinator. Every bound of the HTTP side stands here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the API listens. Port 0 takes a free one. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// Largest request body in bytes. Default 1 MiB.
    pub max_body: usize,
    /// Time limit for reading a request body. Default 30 s.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// Upper bound of `?wait=`; longer waits are cut to it. Default 60 s.
    #[serde(with = "humantime_serde")]
    pub max_wait: Duration,
    /// Requests whose body is being read, compiled or submitted at once; more are told to come back. With
    /// `max_body` this bounds the memory that bodies take. Default 256.
    pub max_submits: usize,
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
    /// How long requests in flight may go on after a shutdown was asked for. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

/// Why a coordinator can't start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is out of its bounds.
    #[error("setting {name}: {reason}")]
    Config {
        /// The field of [`Config`].
        name: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
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
    /// The listening socket broke.
    #[error("the HTTP server stopped: {0}")]
    Serve(#[from] std::io::Error),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            max_body: 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            max_wait: Duration::from_secs(60),
            max_submits: 256,
            max_followers: 4096,
            keep_alive: Duration::from_secs(15),
            poll: Duration::from_secs(1),
            sweep_interval: Duration::from_millis(100),
            grace: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Checks the bounds between and on the fields.
    pub fn validate(&self) -> Result<(), Error> {
        let at_least_1 = "must be at least 1";
        let positive = "must be longer than zero";
        let checks = [
            ("max_body", self.max_body == 0, at_least_1),
            ("max_submits", self.max_submits == 0, at_least_1),
            ("max_followers", self.max_followers == 0, at_least_1),
            ("body_timeout", self.body_timeout.is_zero(), positive),
            ("keep_alive", self.keep_alive.is_zero(), positive),
            ("poll", self.poll.is_zero(), positive),
            ("sweep_interval", self.sweep_interval.is_zero(), positive),
            // the sweep repairs lost hints and expired leases: a longer pause would show as stuck runs
            ("sweep_interval", self.sweep_interval > Duration::from_secs(10), "must be at most 10s"),
        ];
        match checks.into_iter().find(|(_, broken, _)| *broken) {
            Some((name, _, reason)) => Err(Error::Config { name, reason }),
            None => Ok(()),
        }
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
    fn a_bound_of_zero_is_refused_by_name() {
        Config::default().validate().unwrap();
        let error = Config { poll: Duration::ZERO, ..Config::default() }.validate().unwrap_err();
        assert_eq!(error.to_string(), "setting poll: must be longer than zero");
        assert!(Config { max_submits: 0, ..Config::default() }.validate().is_err());
    }
}
