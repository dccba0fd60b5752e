//! `bench agents`: the same goals pursued by the product, by a strictly sequential agent and by LangGraph's prebuilt
//! agent, against the same simulated model and tools.
//!
//! ```text
//! suite (seed) -> items: goal, known answer, script of the simulated model, facts of the tools
//!                    |
//!        simulator, reset before each system: the same call draws the same latency for all of them
//!                    |
//!   sequential | langgraph (process) | embedded or cluster   -> wall time and answer of each item
//!                    |
//!  report: medians, ratio of medians with a bootstrap interval, answers that differ, calls and tokens
//! ```
//!
//! What the latencies are calibrated to stands in [`calibration`].
//!
//! Two more parts ask other questions of the product alone: [`engine`] how much of a run's time is the engine's own, with
//! one run at a time and with many, and [`faults`] what is left of the answers and of the speed when workers are
//! killed, hints come twice and results overtake each other.
//!
//! # How to repeat
//!
//! Needs `rabbitmq-server`, `redis-server` and `python3` with `venv`; LangGraph comes from PyPI into `target/peers/`.
//!
//! ```text
//! cargo run --release -p load-tests -- bench agents --all --backend both --out agents.jsonl   # everything
//! cargo run --release -p load-tests -- bench agents --backend both      # only the comparison with other agents
//! cargo run --release -p load-tests -- bench agents --engine --backend both
//! cargo run --release -p load-tests -- bench agents --faults
//! cargo run --release -p load-tests -- bench agents --quick --only a,b  # 12 items of two suites
//! ```
//!
//! Everything takes about 70 minutes: the comparison 36, of which LangGraph 17 (at most 8 items at a time) and the sequential
//! agent 12; the engine's share 26, mostly (d) and (e) one run at a time; the faults 8. Times are the simulator's and hardly
//! depend on the machine, as long as the printed CPU stays well below 100 %. On a machine that others keep busy, tasks wait
//! for the CPU, which counts as `queue`: the engine's share says something only where "machine's" is well below 100 %, in a
//! release build.
//!
//! At the end all suites stand in the tables of the README. Any answer that is wrong or differs, and a suite with faults
//! of which no kill hit a run, end it with an error.

pub mod calibration;
mod engine;
mod faults;
mod langgraph;
mod own_time;
mod product;
mod report;
mod runner;
mod sequential;
pub mod statistics;
pub mod suite;
mod summary;
mod workers;

pub use runner::{Args, run};
pub use workers::{WorkerArgs, work};

use std::time::Duration;

/// How one item ended under one system.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// From handing the goal over to having the answer.
    pub wall: Duration,
    /// The answer as the system gave it, or why there is none.
    pub answer: Result<String, String>,
}
