//! The coordinator from outside: real HTTP on loopback, the embedded backend, and a worker that only claims
//! and completes.
#![allow(clippy::unwrap_used)]

#[path = "api/errors.rs"]
mod errors;
#[path = "api/events.rs"]
mod events;
#[path = "api/faulty.rs"]
mod faulty;
#[path = "api/ops.rs"]
mod ops;
#[path = "api/runs.rs"]
mod runs;
#[path = "api/server.rs"]
mod server;
#[path = "api/submit.rs"]
mod submit;
#[path = "api/worker.rs"]
mod worker;
