//! A stand-in for model providers and HTTP tools, so that tests, the demo and benchmarks run
//! without keys, without cost and with answers that repeat.
//!
//! One process serves real HTTP on one port: OpenAI chat completions, Anthropic Messages (both
//! with streaming and tool calls) and plain HTTP tools. A [`Scenario`] says what each call is
//! answered with, how long that takes and what goes wrong; a [`Ledger`] keeps what was received
//! and how it ended, which is what tests compare the system under test with.
//!
//! ```text
//!  request -> prompt (parse, validate) -> rulebook (first rule that matches) -> reply (render, time)
//!                  |                                                              |
//!                  +---- ledger.open -------- playback (stream, faults) <---------+
//!                                                 +---- ledger entry closed, also when the client left
//! ```
//!
//! Every answer and every latency is a function of the scenario's seed, the content of the request
//! and how often that very content was asked before. Order and concurrency do not change them.
//! `README.md` in this crate lists every field of a scenario.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod draw;
mod echo;
mod ledger;
mod matcher;
mod open_files;
mod playback;
mod prompt;
mod reply;
mod rulebook;
mod server;
mod simulator;
mod template;
mod tokens;
mod wire;

pub mod scenario;

pub use ledger::{Call, Kind, Ledger, Outcome, Stats};
pub use open_files::raise_open_files;
pub use scenario::Scenario;
pub use simulator::{Config, Error, Simulator};
pub use tokens::{TOKEN_BYTES, count_tokens};
