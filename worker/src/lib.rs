//! A worker: claims ready tasks, executes them, records their outcomes, and goes on with what they made
//! ready.
//!
//! ```text
//! deliveries -> queue per pool -> slot -> claim -> execute -> complete -> ack
//!                                   ^                            |
//!                                   +---- a ready successor -----+
//! ```
//! It is stateless: everything it knows of a run it can read again. Dying anywhere costs at most the
//! attempts in flight; their leases run out and somebody else claims them.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attempt;
mod config;
mod deltas;
mod executors;
mod inputs;
mod leases;
mod metrics;
mod outcome;
mod queue;
mod worker;

pub use config::{Config, Pool};
pub use executors::Executors;
pub use metrics::Metrics;
pub use outcome::Failure;
pub use worker::{Error, Worker};

pub use trireme_llm as llm;
pub use trireme_tool as tool;
