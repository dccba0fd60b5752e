//! `trireme health`: what a container without a shell asks itself.

use std::time::Duration;

use crate::{
    command::Health,
    exit::{Code, Failure},
    https,
};

/// A process that takes longer to answer is not healthy.
const LIMIT: Duration = Duration::from_secs(3);
/// Characters of a refusal that are shown.
const MAX_SHOWN: usize = 300;

/// Asks the address; healthy is an answer of 2xx within 3 s.
pub async fn health(args: Health) -> Result<(), Failure> {
    let url = &args.url;
    let valid = reqwest::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    if !valid {
        return Err(Failure::usage(format!("{url}: give an address such as http://127.0.0.1:8080/healthz")));
    }
    let http = https::client(args.ca_file.as_deref())?.timeout(LIMIT).build().map_err(anyhow::Error::from)?;
    let unhealthy = |why: String| Failure::new(Code::Unavailable, format!("{url}: {why}"));
    let answer = http.get(url).send().await.map_err(|error| match error.is_timeout() {
        true => unhealthy(format!("no answer within {} s", LIMIT.as_secs())),
        false => unhealthy(format!("no answer: {}", https::why(error))),
    })?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let text: String = answer.text().await.unwrap_or_default().chars().take(MAX_SHOWN).collect();
    Err(unhealthy(format!("{status} {text}")))
}
