//! The `trireme` command from outside, on the embedded backend: what it prints, and how it ends.
#![allow(clippy::unwrap_used)]

#[path = "../support/support.rs"]
mod support;

mod check;
mod demo;
mod dev;
mod examples;
mod faults;
mod run;
mod settings;
mod usage;
