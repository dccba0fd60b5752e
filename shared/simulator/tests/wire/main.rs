//! The simulator over real HTTP: formats, faults, tools and the ledger as a plain client sees them.
#![allow(clippy::unwrap_used)]

mod anthropic;
mod client;
mod examples;
mod faults;
mod ledger;
mod load;
mod openai;
mod tools;
