//! Checks a deployment's Redis and RabbitMQ, and says what to change: what `trireme doctor` is made of.
//!
//! It needs nothing of the deployment but its addresses, changes nothing that anybody uses (a queue of its own is
//! declared and deleted), and goes on after whatever it finds.

mod broker;
mod store;

use std::time::Duration;

use serde::Serialize;

use crate::Config;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, with a risk that the text names.
    Warn,
    /// It does not work, or loses what it accepted.
    Fail,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked: `redis.policy`, `queue llm.high`.
    pub check: String,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found, and where it is not as it should be, what to change.
    pub text: String,
}

/// One check's time limit.
const LIMIT: Duration = Duration::from_secs(5);

impl Finding {
    /// It is as it should be.
    pub fn ok(check: impl Into<String>, text: impl Into<String>) -> Self {
        Self { check: check.into(), verdict: Verdict::Ok, text: text.into() }
    }

    /// It works, with a risk.
    pub fn warn(check: impl Into<String>, text: impl Into<String>) -> Self {
        Self { check: check.into(), verdict: Verdict::Warn, text: text.into() }
    }

    /// It does not work.
    pub fn fail(check: impl Into<String>, text: impl Into<String>) -> Self {
        Self { check: check.into(), verdict: Verdict::Fail, text: text.into() }
    }
}

/// Checks the store and the broker of a deployment, and the queues of `pools`. Takes a few seconds at most where the
/// servers answer, some more where they don't.
pub async fn check(config: &Config, pools: &[String]) -> Vec<Finding> {
    let (mut found, broker) = tokio::join!(store::check(config), broker::check(config, pools));
    found.extend(broker);
    found
}
