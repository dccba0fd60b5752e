//! Measurements, each beside the raw floor of the same run.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod agents;
pub mod autoscale;
pub mod cpu;
pub mod floor;
