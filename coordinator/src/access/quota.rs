//! What a key has left, told by every answer to a submit or replay in the words of the IETF's draft on RateLimit headers.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use trireme_model::{Admitted, Ms};

use super::Identity;
use crate::api::{App, Code, Problem};

/// When to come back where a key has too many runs under way: nobody knows when one ends.
const TOO_MANY_RUNS_MS: Ms = 5_000;

/// Where a key stands.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Requests a minute, and what is left of them.
    submits: Option<(u32, Admitted)>,
    /// Runs under way at once, and whether there are that many.
    runs: Option<(u32, bool)>,
}

impl Standing {
    /// Takes one request to start a run out of the key's rate; tells what is left even where it refuses.
    pub(crate) async fn admit(app: &App, who: &Identity) -> (Self, Result<(), Problem>) {
        let mut standing = Self { submits: None, runs: who.quota.in_flight.map(|most| (most, false)) };
        let (Some(key), Some(rate)) = (&who.key, who.quota.submits) else { return (standing, Ok(())) };
        let admitted = match app.backend.access().admit(key, rate).await {
            Ok(admitted) => admitted,
            Err(error) => return (standing, Err(error.into())),
        };
        standing.submits = Some((rate.per_minute, admitted));
        let detail = format!("the key may start {} runs a minute, {} at once", rate.per_minute, rate.burst);
        let refused = || Problem::new(Code::RateLimited, detail);
        (standing, if admitted.allowed { Ok(()) } else { Err(refused()) })
    }

    /// The store refused a run because too many are under way.
    pub(crate) fn full(&mut self) {
        self.runs = self.runs.map(|(most, _)| (most, true));
    }

    /// Adds the headers.
    pub(crate) fn tell(&self, response: &mut Response) {
        let limited = response.status() == StatusCode::TOO_MANY_REQUESTS;
        let (mut policies, mut left, mut wait) = (Vec::new(), Vec::new(), 0);
        if let Some((per_minute, admitted)) = self.submits {
            policies.push(format!("\"submits\";q={per_minute};w=60"));
            left.push(format!("\"submits\";r={};t={}", admitted.left, seconds(admitted.wait)));
            wait = if admitted.allowed { 0 } else { admitted.wait };
        }
        if let Some((most, full)) = self.runs {
            policies.push(format!("\"runs\";q={most};qu=\"concurrent-requests\""));
            if full {
                left.push("\"runs\";r=0".to_owned());
                wait = wait.max(TOO_MANY_RUNS_MS);
            }
        }
        let headers = response.headers_mut();
        put(headers, "ratelimit-policy", &policies.join(", "));
        put(headers, "ratelimit", &left.join(", "));
        if limited {
            put(headers, header::RETRY_AFTER.as_str(), &seconds(wait).max(1).to_string());
        }
    }
}

fn seconds(ms: Ms) -> u64 {
    ms.div_ceil(1000)
}

fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    // numbers and names of ours always make a header
    if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}
