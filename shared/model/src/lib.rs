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

pub mod attribution;
pub mod effect;
pub mod graph;
pub mod id;
pub mod limits;
pub mod machine;
pub mod merge;
pub mod op;
pub mod payload;
pub mod quota;
pub mod run;
pub mod trace;
pub mod view;

pub use effect::{Effects, Event, What};
pub use graph::{
    Added, Children, Exec, Graph, InvalidGraph, JoinPolicy, Kind, Need, OnMiss, Priority, TaskSpec,
};
pub use id::{KeyId, Ms, RunId, TaskId, Tenant, Token};
pub use op::{
    Assignment, Caller, Cancelled, Claim, Claimed, Complete, Completed, Deleted, Extend, Extended, Fail,
    Failed, FailureClass, Hint, More, Next, Outcome, Renew, Renewed, Replayed, Site, Submit, Submitted,
};
pub use payload::{Payload, wide_integer};
pub use quota::{Admitted, Bucket, Rate};
pub use run::{Answer, Budget, Failure, Group, Keep, Run, RunStatus, Task, TaskStatus, Tasks, Told, Usage};
pub use trace::{NoTrace, Trace};
