//! The coordinator from outside: real HTTP on loopback, the embedded backend, and a worker that only claims
//! and completes.
#![allow(clippy::unwrap_used)]

#[path = "api/access.rs"]
mod access;
#[path = "api/backlog.rs"]
mod backlog;
#[path = "api/dead_letters.rs"]
mod dead_letters;
#[path = "api/errors.rs"]
mod errors;
#[path = "api/events.rs"]
mod events;
#[path = "api/faulty.rs"]
mod faulty;
#[path = "api/ops.rs"]
mod ops;
#[path = "api/pools.rs"]
mod pools;
#[path = "api/runs.rs"]
mod runs;
#[path = "api/server.rs"]
mod server;
#[path = "api/slow.rs"]
mod slow;
#[path = "api/submit.rs"]
mod submit;
#[path = "api/tls.rs"]
mod tls;
#[path = "api/worker.rs"]
mod worker;
