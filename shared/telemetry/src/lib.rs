//! What every process of the product tells its operator, and how: log lines on standard error, metrics,
//! health. One crate, so that coordinator and worker can't drift apart in their formats.
//!
//! - [`init`] sets up `tracing` once per process.
//! - [`encode`] turns a [`prometheus::Registry`] into the body of `/metrics`.
//! - [`OpsServer`] serves `/healthz`, `/readyz` and `/metrics` where a process has no HTTP API of its own.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod logs;
mod metrics;
mod ops;

pub use logs::{Format, InitError, init};
pub use metrics::{BUCKETS, CONTENT_TYPE, encode};
pub use ops::OpsServer;
