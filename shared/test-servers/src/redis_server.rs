//! Redis for tests.

use crate::process::{self, Error, Supervised};
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(30);

/// Address of the Redis that tests share: `TRIREME_TEST_REDIS_URL`, else the one on 127.0.0.1:6379, else a
/// private one that lives as long as this process.
///
/// # Panics
/// When there is none and none can be started; the message says what to install.
pub fn redis() -> String {
    static OWN: OnceLock<PrivateRedis> = OnceLock::new();
    if let Ok(url) = std::env::var("TRIREME_TEST_REDIS_URL") {
        return url;
    }
    let usual = SocketAddr::from(([127, 0, 0, 1], 6379));
    if OWN.get().is_none() && answers(usual) {
        return "redis://127.0.0.1:6379".to_owned();
    }
    OWN.get_or_init(|| match PrivateRedis::start(&[]) {
        Ok(server) => server,
        Err(error) => panic!("{error}"),
    })
    .url()
}

/// A Redis of one test's own, with an append-only file (`appendfsync everysec`), no snapshots and no eviction.
#[derive(Debug)]
pub struct PrivateRedis {
    address: SocketAddr,
    options: Vec<String>,
    // Fields drop in order: the server first, then its directory.
    server: Option<Supervised>,
    dir: TempDir,
}

impl PrivateRedis {
    /// Starts one and waits until it answers. `options` are Redis configuration lines that win over ours, such
    /// as `("appendfsync", "always")`.
    ///
    /// # Errors
    /// When Redis is not installed or does not answer within 30 s.
    pub fn start(options: &[(&str, &str)]) -> Result<Self, Error> {
        let dir = tempfile::Builder::new().prefix("trireme-redis-").tempdir()?;
        let address = SocketAddr::from(([127, 0, 0, 1], crate::free_port()?));
        let options =
            options.iter().flat_map(|(key, value)| [format!("--{key}"), (*value).to_owned()]).collect();
        let mut redis = Self { address, options, server: None, dir };
        redis.launch()?;
        Ok(redis)
    }

    /// Where it listens, as `redis://127.0.0.1:PORT`. Stays the same over restarts.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Process id of the server, 0 while it is down.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().map_or(0, Supervised::pid)
    }

    /// Kills it with SIGKILL and waits until it is gone. Its files stay.
    pub fn kill9(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill9();
        }
    }

    /// Starts it again on the same port and files, killing it first where it still runs.
    ///
    /// # Errors
    /// When it does not answer within 30 s.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.kill9();
        self.launch()
    }

    fn launch(&mut self) -> Result<(), Error> {
        let mut command = vec![process::installed("redis-server", "redis-server")?];
        let dir = self.dir.path().to_string_lossy().into_owned();
        let port = self.address.port().to_string();
        let ours = [
            ("port", port.as_str()),
            ("bind", "127.0.0.1"),
            ("dir", dir.as_str()),
            ("save", ""),
            ("appendonly", "yes"),
            ("appendfsync", "everysec"),
            ("maxmemory-policy", "noeviction"),
            ("daemonize", "no"),
        ];
        for (key, value) in ours {
            command.extend([format!("--{key}"), value.to_owned()]);
        }
        command.extend(self.options.iter().cloned());
        self.server = Some(Supervised::spawn(self.dir.path(), &command, &[])?);
        let address = self.address;
        process::wait_until("redis", "ready", address, self.dir.path(), START_LIMIT, || answers(address))
    }
}

// A Redis that is still loading its file answers `-LOADING`: not ready.
fn answers(address: SocketAddr) -> bool {
    process::answers(address, b"PING\r\n", b"+PONG")
}
