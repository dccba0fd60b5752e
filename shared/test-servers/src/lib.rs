//! Real RabbitMQ and Redis servers for tests.
//!
//! [`rabbitmq`] and [`redis`] give the address of a server that tests share: the one that already answers on
//! its usual loopback port, otherwise a private one started from the installed binary. Tests that share a
//! server name what they create in it uniquely and delete it at the end.
//!
//! [`PrivateRabbit`] and [`PrivateRedis`] belong to one test, which may kill and restart them.
//!
//! Everything here blocks its thread (a RabbitMQ needs about ten seconds to start): call it from
//! `tokio::task::spawn_blocking` where other tasks must go on meanwhile. No server outlives the process that
//! started it, however that process ends (see [`process`]).

pub mod process;
mod rabbit;
mod redis_server;

pub use process::Error;
pub use rabbit::{PrivateRabbit, rabbitmq};
pub use redis_server::{PrivateRedis, redis};

use std::net::TcpListener;

/// A TCP port of 127.0.0.1 that nothing listened on a moment ago.
///
/// # Errors
/// [`Error::Io`] when the system has no port left.
pub fn free_port() -> Result<u16, Error> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// A name for queues and keys that no other test, run or process uses: `{what}-{process}-{nanoseconds}-{n}`.
pub fn unique(what: &str) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    format!("{what}-{}-{now:x}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
