//! HTTP connections of one provider, for thousands of calls at once.
//!
//! One `reqwest::Client` keeps one HTTP/2 connection to a host. Servers allow 100 to 250 streams
//! on it; the calls above that wait inside the client without a trace. So calls are spread over
//! several clients, each with at most `calls_per_connection` calls. Over plain `http://` the
//! protocol is HTTP/1.1, one connection a call, and a single client suffices.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Client, Url};

use crate::Kind;

/// Longest time to connect, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections are dropped before the 60 s after which common load balancers drop them:
/// sending on a connection that the other end is closing is a lost call.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Bound of clients (so of HTTP/2 connections) of one provider.
const MAX_CLIENTS: usize = 64;

pub(crate) struct Clients {
    slots: Vec<Slot>,
    per_client: usize,
    max_idle: usize,
    proxy: Option<reqwest::Proxy>,
}

#[derive(Default)]
struct Slot {
    /// Built at first use: a process that calls one provider should not pay for six TLS set-ups.
    client: OnceLock<Result<Client, String>>,
    calls: AtomicUsize,
}

/// A client in use; counts until dropped.
pub(crate) struct Lease<'a> {
    slot: &'a Slot,
    pub(crate) client: Client,
}

impl Clients {
    pub(crate) fn new(
        endpoint: &Url,
        proxy: Option<reqwest::Proxy>,
        max_in_flight: usize,
        per_connection: usize,
    ) -> Self {
        let (clients, per_client) = match endpoint.scheme() {
            "https" => (max_in_flight.div_ceil(per_connection).clamp(1, MAX_CLIENTS), per_connection),
            _ => (1, usize::MAX),
        };
        let mut slots = Vec::new();
        slots.resize_with(clients, Slot::default);
        Self { slots, per_client, max_idle: max_in_flight, proxy }
    }

    /// The first client with room, so that few connections serve few calls; the least used one
    /// when none has room.
    pub(crate) fn lease(&self) -> Result<Lease<'_>, Kind> {
        let calls = |slot: &Slot| slot.calls.load(Ordering::Relaxed);
        let slot = self
            .slots
            .iter()
            .find(|slot| calls(slot) < self.per_client)
            .or_else(|| self.slots.iter().min_by_key(|slot| calls(slot)))
            .ok_or_else(|| Kind::InvalidConfig("no client".into()))?;
        slot.calls.fetch_add(1, Ordering::Relaxed);
        let built = slot.client.get_or_init(|| self.build());
        let client = built.clone().map_err(|reason| {
            slot.calls.fetch_sub(1, Ordering::Relaxed);
            Kind::InvalidConfig(reason)
        })?;
        Ok(Lease { slot, client })
    }

    fn build(&self) -> Result<Client, String> {
        let mut builder = Client::builder()
            .user_agent(concat!("trireme/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(self.max_idle)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_keepalive(KEEPALIVE)
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .http2_keep_alive_timeout(KEEPALIVE)
            // Compression buffers: tokens would wait for its blocks to fill.
            .no_gzip()
            // A redirect would carry the prompt, and perhaps the key, to another host.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some(proxy) = &self.proxy {
            builder = builder.proxy(proxy.clone());
        }
        builder.build().map_err(|e| e.without_url().to_string())
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.slot.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_fill_one_connection_before_the_next() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = Url::parse("https://example.invalid/v1").unwrap();
        let clients = Clients::new(&url, None, 5, 2);
        let held: Vec<_> = (0..7).map(|_| clients.lease().unwrap()).collect();
        let calls = |i: usize| clients.slots[i].calls.load(Ordering::Relaxed);
        assert_eq!(clients.slots.len(), 3);
        assert_eq!((calls(0), calls(1), calls(2)), (3, 2, 2));
        drop(held);
        assert_eq!((calls(0), calls(1), calls(2)), (0, 0, 0));
        let plain = Url::parse("http://example.invalid/v1").unwrap();
        assert_eq!(Clients::new(&plain, None, 5_000, 2).slots.len(), 1);
    }
}
