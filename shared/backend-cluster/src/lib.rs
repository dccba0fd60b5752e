//! The cluster backend: Redis holds the truth, RabbitMQ carries hints.
//!
//! ```text
//! submit ----> submit.lua: graph stored, roots ready, in `due` --+
//! complete --> complete.lua: first write wins, joins move,       |  hints   +-----------+
//!              successors ready, in `due` -----------------------+--------> | RabbitMQ  |
//! fail ------> fail.lua: retry in `due`, or the task ends -------+          +-----------+
//! sweep -----> sweep.lua: what is due: hints again, retries,     |                | deliveries
//!              lost leases, deadlines, purge --------------------+                v
//! claim <------------------------------------------------------------------- workers
//! ```
//!
//! A hint may be lost at any point: whatever is ready is in the due index until it has ended (invariant 2).
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
pub mod broker;
pub mod checkup;
mod cluster;
mod keys;
mod metrics;
mod spans;
pub mod store;
mod tls;

pub use broker::QueueType;
pub use cluster::{Cluster, Config};
pub use tls::Tls;
