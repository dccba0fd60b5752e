//! Measurements, each beside the raw floor of the same run.

pub mod cpu;
pub mod floor;
