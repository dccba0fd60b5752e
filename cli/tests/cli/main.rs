//! The `trireme` command from outside, on the embedded backend: what it prints, and how it ends.
#![allow(clippy::unwrap_used)]

#[path = "../support/support.rs"]
mod support;

mod agent_faults;
mod agents;
mod check;
mod demo;
mod dev;
mod examples;
mod faults;
mod https;
mod llama;
mod run;
mod settings;
mod usage;
mod waterfall;
