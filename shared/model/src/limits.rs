//! Every bound of the protocol in one place. Backends and both ports of the state machine use these.

use crate::id::Ms;

/// Tasks in a submitted graph.
pub const MAX_TASKS: usize = 10_000;
/// Edges in a submitted graph.
pub const MAX_EDGES: usize = 50_000;
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
/// How long a ready task may go unclaimed before its hint is published again; doubles with each time.
pub const REPUBLISH_MS: Ms = 10_000;
/// Upper bound of the doubled republish interval.
pub const REPUBLISH_CAP_MS: Ms = 320_000;
/// Upper bound of the exponential back-off between attempts.
pub const BACKOFF_CAP_MS: Ms = 30_000;
/// Rate-limited answers in a row before the task fails: each waits at least the provider's Retry-After.
pub const MAX_LIMITED: u32 = 50;
/// A finished run is purged this long after its end.
pub const RETENTION_MS: Ms = 24 * 3_600_000;
/// Results over this many bytes are kept by reference in the cluster store.
pub const INLINE_BYTES: usize = 64 * 1024;
/// Largest result of one task.
pub const MAX_RESULT_BYTES: usize = 8 * 1024 * 1024;
/// Events kept in a run's log; token deltas past it are dropped, transitions never are.
pub const MAX_DELTAS: u64 = 100_000;
