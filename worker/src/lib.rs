//! A worker: claims ready tasks, executes them, records their outcomes, and goes on with what they made
//! ready.
//!
//! ```text
//!  broker --hints--> queue (per pool, high first) --slot--> claim --+
//!                                                                   |
//!            +------------------- a ready successor ----------------+
//!            |                                                      v
//!  ack <-- complete / fail <-- execute: body + values -> LLM call | tool call | map's children
//!                                 ^  |
//!                                 |  +--> deltas: streamed text, one write per 30 ms
//!    leases: renewed in one batch, fenced when the store is silent,
//!            stopped by aborts, handed back by a drain
//! ```
//!
//! - **It is stateless**: everything it knows of a run it can read again. Dying anywhere costs at most the
//!   attempts in flight; their leases run out and somebody else claims them.
//! - **A hint is acked** when its task's outcome, or the reason not to execute it, is durable; while the chain
//!   that it began stays in the hint's pool, at the end of the chain.
//! - **A call that the store did not answer is repeated** as it was, until there is an answer: the same token or
//!   claim id gets the same answer, so nothing runs or counts twice. What the repeats cost is only time.
//! - **An attempt ends** by its executor, by its task's deadline, or by its lease: cancelled, lost, or handed
//!   back. Executors are dropped, which closes their connections. A panic is a failed attempt like any other.
//! - **Bounds**: attempts by slots, waiting hints by the backend's prefetch (two per slot), caches by
//!   [`Config::cache_bytes`], streamed text that waits to be written by 16 MiB.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attempt;
mod config;
mod deltas;
mod executors;
mod inputs;
mod leases;
mod metrics;
mod outcome;
mod persist;
mod pulse;
mod queue;
mod slots;
mod spans;
mod worker;

pub use config::{Config, Pool};
pub use executors::Executors;
pub use metrics::Metrics;
pub use pulse::Pulse;
pub use worker::{Error, Worker};

pub use trireme_llm as llm;
pub use trireme_tool as tool;
