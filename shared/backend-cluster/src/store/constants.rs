//! What Lua and Rust agree on: positions in packed arrays, codes of answers, limits of the model.

use trireme_model::{effect::reason, limits};

/// `waiting` and so on in a packed state; everything from `SUCCEEDED` on is an end.
pub(crate) mod status {
    pub(crate) const WAITING: u8 = 1;
    pub(crate) const READY: u8 = 2;
    pub(crate) const RUNNING: u8 = 3;
    pub(crate) const RETRYING: u8 = 4;
    pub(crate) const EXPANDED: u8 = 5;
    pub(crate) const SUCCEEDED: u8 = 6;
    pub(crate) const FAILED: u8 = 7;
    pub(crate) const CANCELLED: u8 = 8;
    pub(crate) const SKIPPED: u8 = 9;
}

/// States of a run.
pub(crate) mod run_status {
    pub(crate) const RUNNING: u8 = 1;
    pub(crate) const SUCCEEDED: u8 = 2;
    pub(crate) const FAILED: u8 = 3;
    pub(crate) const CANCELLED: u8 = 4;
}

/// Kinds of tasks.
pub(crate) mod kind {
    pub(crate) const LLM: u8 = 1;
    pub(crate) const TOOL: u8 = 2;
    pub(crate) const JOIN: u8 = 3;
    pub(crate) const MAP: u8 = 4;
    pub(crate) const AGENT: u8 = 5;
}

/// Answers of `complete`, `fail` and `extend` where the caller's token is not good, and where it is.
pub(crate) mod stand {
    pub(crate) const HOLDS: u8 = 1;
    pub(crate) const HELD: u8 = 2;
    pub(crate) const STALE: u8 = 3;
    pub(crate) const OVER: u8 = 4;
    pub(crate) const GONE: u8 = 5;
    pub(crate) const FAIL_RETRYING: u8 = 6;
    pub(crate) const FAIL_ENDED: u8 = 7;
    pub(crate) const FAIL_RELEASED: u8 = 8;
    pub(crate) const REFUSED: u8 = 9;
    pub(crate) const QUEUED: u8 = 10;
}

/// Answers of `claim`.
pub(crate) mod claim {
    pub(crate) const RUN: u8 = 1;
    pub(crate) const BUSY: u8 = 2;
    pub(crate) const DONE: u8 = 3;
    pub(crate) const NOT_READY: u8 = 4;
    pub(crate) const CANCELLED: u8 = 5;
    pub(crate) const GONE: u8 = 6;
    pub(crate) const PAUSED: u8 = 7;
}

/// Answers of `renew`, `cancel` and `submit`.
pub(crate) mod answer {
    pub(crate) const RENEW_HELD: u8 = 1;
    pub(crate) const RENEW_LOST: u8 = 2;
    pub(crate) const RENEW_CANCELLED: u8 = 3;
    pub(crate) const CANCEL_DONE: u8 = 1;
    pub(crate) const CANCEL_ENDED: u8 = 2;
    pub(crate) const CANCEL_GONE: u8 = 3;
    pub(crate) const EXPIRE_DONE: u8 = 1;
    pub(crate) const EXPIRE_RUNNING: u8 = 2;
    pub(crate) const EXPIRE_GONE: u8 = 3;
    pub(crate) const SUBMIT_CREATED: u8 = 1;
    pub(crate) const SUBMIT_EXISTS: u8 = 2;
    pub(crate) const SUBMIT_CONFLICT: u8 = 3;
    pub(crate) const SUBMIT_LIMITED: u8 = 4;
}

/// Classes of failures.
pub(crate) mod class {
    pub(crate) const RETRYABLE: u8 = 1;
    pub(crate) const RATE_LIMITED: u8 = 2;
    pub(crate) const PERMANENT: u8 = 3;
    pub(crate) const RELEASED: u8 = 4;
}

/// `need` of a task without policy, and of a policy that needs all.
pub(crate) const NO_POLICY: i64 = -2;
pub(crate) const NEED_ALL: i64 = -1;
/// Whether a task belongs to an agent, and whether that fails with it.
pub(crate) const NOT_OWNED: u8 = 0;
pub(crate) const OWNED: u8 = 1;
pub(crate) const VITAL: u8 = 2;
/// What happens on a miss.
pub(crate) const MISS_FAIL: u8 = 0;
pub(crate) const MISS_PARTIAL: u8 = 1;
pub(crate) const MISS_DEFAULT: u8 = 2;

/// Fields per HMGET and HSET, entries per ZADD: Lua's stack ends near 8,000.
const CHUNK: usize = 4_000;

/// Positions in a packed state (`s:`), from 1: the fields of [`super::layout::State`] in order.
const STATE: &[&str] = &[
    "STATUS",
    "ATTEMPT",
    "FAILURES",
    "LIMITED",
    "LOST",
    "REPUBLISHED",
    "TOKEN",
    "DEADLINE",
    "READY_AT",
    "STARTED_AT",
    "ENDED_AT",
    "PENDING",
    "DONE",
    "MISSED",
    "DEGRADED",
    "FROZEN",
    "NEXT",
    "FIRST_READY_AT",
    "FIRST_TOKEN",
    "RESOURCE",
    "WIDTH",
    "NEXT_CHILD",
    "ACTIVE",
];
/// Positions in a packed spec (`g:`, `c:`): the fields of [`super::layout::Spec`] in order.
const SPEC: &[&str] = &[
    "KIND",
    "PAID",
    "FALLBACK",
    "OPENS",
    "LAST",
    "OWNED",
    "PRIORITY",
    "ON_MISS",
    "AT_ONCE",
    "POOL",
    "TIMEOUT",
    "MAX_ATTEMPTS",
    "BACKOFF",
    "INPUTS",
    "NEED",
    "WITHIN",
    "OWNER",
];
/// Positions in the head of a run (`m`): the fields of [`super::layout::Head`] in order; `USAGE` and `WASTED` are
/// the first of five.
const HEAD: &[&str] = &[
    "RUN_STATUS",
    "WATCHED",
    "RUN_DEGRADED",
    "RUN_CREATED",
    "RUN_ENDED",
    "KEEP",
    "KEEP_FAILED",
    "BUDGET_TOKENS",
    "BUDGET_USD",
    "USAGE",
    "",
    "",
    "",
    "",
    "WASTED",
    "",
    "",
    "",
    "",
    "TENANT",
    "API_KEY",
];
/// Small numbers that scripts read without unpacking all: each is one byte, and these are their places from 1. The
/// header of an array of up to 15 values is one byte long, of a longer one three.
const BYTES: &[(&str, usize)] = &[
    ("KIND_BYTE", 4),
    ("PAID_BYTE", 5),
    ("FALLBACK_BYTE", 6),
    ("OPENS_BYTE", 7),
    ("LAST_BYTE", 8),
    ("OWNED_BYTE", 9),
    ("STATUS_BYTE", 4),
    ("RUN_STATUS_BYTE", 4),
    ("WATCHED_BYTE", 5),
];

/// The text that stands for `$name` in a script.
pub(crate) fn value(name: &str) -> Option<String> {
    let text = |json: &str| Some(format!("'{}'", json.replace('\\', "\\\\").replace('\'', "\\'")));
    for positions in [STATE, SPEC, HEAD] {
        if let Some(at) = positions.iter().position(|position| *position == name) {
            return Some((at + 1).to_string());
        }
    }
    if let Some((_, at)) = BYTES.iter().find(|(byte, _)| *byte == name) {
        return Some(at.to_string());
    }
    let number = match name {
        "WAITING" => status::WAITING.into(),
        "READY" => status::READY.into(),
        "RUNNING" => status::RUNNING.into(),
        "RETRYING" => status::RETRYING.into(),
        "EXPANDED" => status::EXPANDED.into(),
        "SUCCEEDED" => status::SUCCEEDED.into(),
        "FAILED" => status::FAILED.into(),
        "CANCELLED" => status::CANCELLED.into(),
        "SKIPPED" => status::SKIPPED.into(),
        "RUN_RUNNING" => run_status::RUNNING.into(),
        "RUN_SUCCEEDED" => run_status::SUCCEEDED.into(),
        "RUN_FAILED" => run_status::FAILED.into(),
        "RUN_CANCELLED" => run_status::CANCELLED.into(),
        "JOIN" => kind::JOIN.into(),
        "TOOL" => kind::TOOL.into(),
        "MAP" => kind::MAP.into(),
        "AGENT" => kind::AGENT.into(),
        "NOT_OWNED" => NOT_OWNED.into(),
        "VITAL" => VITAL.into(),
        "HOLDS" => stand::HOLDS.into(),
        "HELD" => stand::HELD.into(),
        "STALE" => stand::STALE.into(),
        "OVER" => stand::OVER.into(),
        "GONE" => stand::GONE.into(),
        "FAIL_RETRYING" => stand::FAIL_RETRYING.into(),
        "FAIL_ENDED" => stand::FAIL_ENDED.into(),
        "FAIL_RELEASED" => stand::FAIL_RELEASED.into(),
        "REFUSED" => stand::REFUSED.into(),
        "QUEUED" => stand::QUEUED.into(),
        "CLAIM_RUN" => claim::RUN.into(),
        "CLAIM_BUSY" => claim::BUSY.into(),
        "CLAIM_DONE" => claim::DONE.into(),
        "CLAIM_NOT_READY" => claim::NOT_READY.into(),
        "CLAIM_CANCELLED" => claim::CANCELLED.into(),
        "CLAIM_PAUSED" => claim::PAUSED.into(),
        "CLAIM_GONE" => claim::GONE.into(),
        "RENEW_HELD" => answer::RENEW_HELD.into(),
        "RENEW_LOST" => answer::RENEW_LOST.into(),
        "RENEW_CANCELLED" => answer::RENEW_CANCELLED.into(),
        "EXPIRE_DONE" => answer::EXPIRE_DONE.into(),
        "EXPIRE_RUNNING" => answer::EXPIRE_RUNNING.into(),
        "EXPIRE_GONE" => answer::EXPIRE_GONE.into(),
        "CANCEL_DONE" => answer::CANCEL_DONE.into(),
        "CANCEL_ENDED" => answer::CANCEL_ENDED.into(),
        "CANCEL_GONE" => answer::CANCEL_GONE.into(),
        "SUBMIT_CREATED" => answer::SUBMIT_CREATED.into(),
        "SUBMIT_EXISTS" => answer::SUBMIT_EXISTS.into(),
        "SUBMIT_CONFLICT" => answer::SUBMIT_CONFLICT.into(),
        "SUBMIT_LIMITED" => answer::SUBMIT_LIMITED.into(),
        "CLASS_RETRYABLE" => class::RETRYABLE.into(),
        "CLASS_RATE_LIMITED" => class::RATE_LIMITED.into(),
        "CLASS_RELEASED" => class::RELEASED.into(),
        "NO_POLICY" => NO_POLICY,
        "NEED_ALL" => NEED_ALL,
        "MISS_FAIL" => MISS_FAIL.into(),
        "CHUNK" => CHUNK as i64,
        "LEASE_MS" => limits::LEASE_MS as i64,
        "MAX_TOLD" => limits::MAX_TOLD as i64,
        "MAX_LOST" => limits::MAX_LOST.into(),
        "REPUBLISH_MS" => limits::REPUBLISH_MS as i64,
        "REPUBLISH_CAP_MS" => limits::REPUBLISH_CAP_MS as i64,
        "BACKOFF_CAP_MS" => limits::BACKOFF_CAP_MS as i64,
        "MAX_LIMITED" => limits::MAX_LIMITED.into(),
        "LINGER_MS" => limits::LINGER_MS as i64,
        "MAX_WIDTH" => limits::MAX_WIDTH.into(),
        "MAX_ADDED" => limits::MAX_ADDED.into(),
        "KEPT_FOR_ENDS" => limits::KEPT_FOR_ENDS.into(),
        "MAX_RESOURCE" => limits::MAX_RESOURCE as i64,
        "MAX_OWNERS" => limits::MAX_OWNERS as i64,
        "EXTEND_CHUNK" => limits::EXTEND_CHUNK as i64,
        "MAX_DELTAS" => limits::MAX_DELTAS as i64,
        "LIMITED_TIMEOUT_ERROR" => return text(reason::LIMITED_TIMEOUT),
        "TIMEOUT_ERROR" => return text(reason::TIMEOUT),
        "DEADLINE_ERROR" => return text(reason::DEADLINE),
        "POISON_ERROR" => return text(reason::POISON),
        "BUDGET_ERROR" => return text(reason::BUDGET),
        "UNMET_ERROR" => return text(reason::UNMET),
        "WINDOW_ERROR" => return text(reason::WINDOW),
        "INPUT_CANCELLED_ERROR" => return text(reason::INPUT_CANCELLED),
        "LIMITED_ERROR" => return text(reason::LIMITED),
        _ => return None,
    };
    Some(number.to_string())
}
