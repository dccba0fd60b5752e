//! The coordinator: takes runs in over HTTP, lets clients watch them, and sweeps what is due.
//!
//! ```text
//! POST /v1/runs -> api: read, bound, name -> intake: compile -> backend.submit -> 202
//! GET  .../events -> api/events: backend.events, woken by backend.watch -> SSE
//! when it is due,
//! every 100 ms    -> sweeper: backend.sweep
//! every second    -> teller: backend.ended -> spans of whole runs, where they are traced
//! ```
//!
//! It holds no state of its own: any number of coordinators serve the same runs, a request may go to any of
//! them, and one may die at any point. It never executes a task and never opens a provider or tool.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod api;
mod config;
mod connections;
mod identity;
mod intake;
mod metrics;
mod server;
mod spec;
mod sweeper;
mod teller;
mod tls;

pub use access::{AccessMode, ConfigKey, KeyText, MAX_NAME, Minting, mint};
pub use api::{
    Checked, CheckedTask, Code, DeadLetters, KeyList, KeyView, NewKey, Place, Pool, Pools, Problem, Replay,
    Replays, RunList, RunState,
};
pub use config::{Bounds, Config, Error};
pub use identity::{MAX_KEY, run_of_key};
pub use intake::{Compiled, Format, Intake, Refused, SpecProblem};
pub use metrics::Metrics;
pub use server::{Bound, Coordinator};
pub use spec::SpecIntake;
pub use sweeper::Sweeper;
pub use teller::Teller;
pub use tls::{Socket, TlsFiles};
