//! What every process of the product tells its operator, and how: log lines on standard error, metrics,
//! health. One crate, so that coordinator and worker can't drift apart in their formats.
//!
//! - [`init`] sets up `tracing` once per process; [`About`] says which run and task its lines are about.
//! - [`encode`] turns a [`prometheus::Registry`] into the body of `/metrics`.
//! - [`Traces`] sends spans to an OpenTelemetry collector, if there is one.
//! - [`OpsServer`] serves `/healthz`, `/readyz` and `/metrics` where a process has no HTTP API of its own.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod context;
mod logs;
mod metrics;
mod ops;
pub mod traces;

pub use context::About;
pub use logs::{Format, InitError, init};
pub use metrics::{BUCKETS, Bounded, CONTENT_TYPE, OTHER, build_info, encode};
pub use ops::{OpsServer, ops_router};
pub use traces::Traces;
