//! A worker on the embedded backend: every story runs it whole, with real executors. Model calls and HTTP tools go
//! to the simulator, whose ledger says what really arrived; a backend in between fails, repeats and records.
#![allow(clippy::unwrap_used)]

mod agents;
mod cancel;
mod chain;
mod drain;
mod leases;
mod llm;
mod map;
mod outage;
mod slots;
mod support;
mod tools;
