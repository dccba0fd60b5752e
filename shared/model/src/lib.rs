//! The engine as a pure state machine: a run's state, the operations on it, and what must follow each.
//!
//! No I/O, no clock, no randomness, no tokio: the time, the claim ids and the jitter come in with the
//! operation. The embedded backend runs this code; the Lua scripts of the cluster backend are its port,
//! and a property test holds the two together.
//!
//! ```text
//! submit -> ready -> claim -> running -> complete -> successors ready -> ... -> output -> run ends
//!             ^                 |  |
//!             |   lease lost    |  +-- fail: retrying (due) or failed (fallback, join policy, skip)
//!             +-----------------+
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod critical_path;
pub mod effect;
pub mod graph;
pub mod id;
pub mod limits;
pub mod machine;
pub mod merge;
pub mod op;
pub mod payload;
pub mod run;
pub mod view;

pub use effect::{Effects, Event, What};
pub use graph::{Children, Exec, Graph, InvalidGraph, JoinPolicy, Kind, Need, OnMiss, Priority, TaskSpec};
pub use id::{Ms, RunId, TaskId, Token};
pub use op::{
    Assignment, Cancelled, Claim, Claimed, Complete, Completed, Extend, Extended, Fail, Failed, FailureClass,
    Hint, Next, Outcome, Renew, Renewed, Submit, Submitted,
};
pub use payload::Payload;
pub use run::{Budget, Failure, Group, Run, RunStatus, Task, TaskStatus, Usage};
