//! Every bound of the protocol in one place. Backends and both ports of the state machine use these.

use crate::id::Ms;

/// Tasks in a submitted graph.
pub const MAX_TASKS: usize = 10_000;
/// Edges in a submitted graph.
pub const MAX_EDGES: usize = 50_000;
/// Tasks that the attempts of a run may add to it.
pub const MAX_ADDED: u32 = 10_000;
/// Of these, kept for what comes with the end of an attempt: an agent whose calls fit no more can still end its turn and
/// answer.
pub const KEPT_FOR_ENDS: u32 = 300;
/// Tasks added in one step, and inputs of each.
pub const ADD_CHUNK: usize = 256;
/// Agents inside agents that are looked through for one that has ended.
pub const MAX_OWNERS: usize = 8;
/// Bytes of the name of what tasks must not touch at the same time.
pub const MAX_RESOURCE: usize = 256;
/// Bytes of a task's label.
pub const MAX_LABEL: usize = 128;
/// Children of one `map`.
pub const MAX_WIDTH: u32 = 10_000;
/// Children handed over in one `extend`.
pub const EXTEND_CHUNK: usize = 500;
/// How long a claim owns its task without a renewal.
pub const LEASE_MS: Ms = 10_000;
/// How often a worker renews its leases: three chances before one runs out.
pub const RENEW_EVERY_MS: Ms = 3_000;
/// Starts that ended in a lost lease before a task is quarantined.
pub const MAX_LOST: u32 = 3;
/// Attempts without the task of which it is remembered what they were told.
pub const MAX_TOLD: usize = 4;
/// How long a ready task may go unclaimed before its hint is published again; doubles with each time.
pub const REPUBLISH_MS: Ms = 10_000;
/// Upper bound of the doubled republish interval.
pub const REPUBLISH_CAP_MS: Ms = 320_000;
/// Upper bound of the exponential back-off between attempts.
pub const BACKOFF_CAP_MS: Ms = 30_000;
/// Rate-limited answers in a row before the task fails: each waits at least the provider's Retry-After.
pub const MAX_LIMITED: u32 = 50;
/// A finished run is purged this long after its end, where its request says nothing.
pub const RETENTION_MS: Ms = 24 * 3_600_000;
/// An ended run is looked at this long after its end, and kept for at least as long: whoever counts what ended finds
/// it by that time in the due index.
pub const LINGER_MS: Ms = 600_000;
/// Results over this many bytes are kept by reference in the cluster store.
pub const INLINE_BYTES: usize = 64 * 1024;
/// Largest result of one task.
pub const MAX_RESULT_BYTES: usize = 8 * 1024 * 1024;
/// Events kept in a run's log; token deltas past it are dropped, transitions never are.
pub const MAX_DELTAS: u64 = 100_000;
