//! Query parameters and headers, each with its bounds. What is not known is refused: a misspelt filter must
//! not silently list everything.

use std::time::Duration;

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::{Uri, request::Parts},
};
use trireme_backend::{DeadQuery, ListQuery};
use trireme_model::{Ms, RunId, RunStatus, TaskId};

use super::problem::{Code, Problem};
use crate::identity::{hex, unhex};

/// Runs in one page unless the request says otherwise.
const DEFAULT_LIMIT: usize = 50;
/// Most runs in one page.
const MAX_LIMIT: usize = 200;
/// Longest name to filter by, in bytes; no run has a longer one.
const MAX_NAME: usize = 256;
/// Longest epoch taken in an event id.
const MAX_EPOCH: usize = 128;

/// A place in a run's log, as an SSE id: `<epoch>-<sequence number>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The store's epoch.
    pub epoch: String,
    /// The event's sequence number.
    pub seq: u64,
}

/// The run that the path names.
#[derive(Debug)]
pub struct Id(pub RunId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let wrong = |reason: String| Problem::new(Code::InvalidRunId, reason);
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = path.map_err(|_| wrong("the id in the address is not UTF-8".into()))?;
        RunId::new(text).map(Self).map_err(|error| wrong(error.to_string()))
    }
}

impl Position {
    /// Reads an id that an event stream gave out; `name` is where it stands in the request.
    pub fn parse(name: &str, text: &str) -> Result<Self, Problem> {
        let wrong = || Problem::parameter(name, "is not an event id: use the id of an event as it was sent");
        let (epoch, seq) = text.rsplit_once('-').ok_or_else(wrong)?;
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if epoch.is_empty() || epoch.len() > MAX_EPOCH || !epoch.bytes().all(word) {
            return Err(wrong());
        }
        let digits = seq.bytes().all(|byte| byte.is_ascii_digit());
        let seq = seq.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
        Ok(Self { epoch: epoch.into(), seq })
    }
}

/// `?wait=30s`, cut to `most`; zero without it.
pub fn wait(uri: &Uri, most: Duration) -> Result<Duration, Problem> {
    let mut wait = Duration::ZERO;
    for (name, value) in pairs(uri, &["wait"])? {
        wait = humantime::parse_duration(&value)
            .map_err(|_| Problem::parameter(&name, "is not a duration: write 30s or 500ms"))?;
    }
    Ok(wait.min(most))
}

/// `?after=<event id>`.
pub fn after(uri: &Uri) -> Result<Option<Position>, Problem> {
    let given = pairs(uri, &["after"])?.into_iter().next();
    given.map(|(name, value)| Position::parse(&name, &value)).transpose()
}

/// `?status=&name=&limit=&cursor=`.
pub fn list(uri: &Uri) -> Result<ListQuery, Problem> {
    let mut query = ListQuery { limit: DEFAULT_LIMIT, ..ListQuery::default() };
    for (name, value) in pairs(uri, &["status", "name", "limit", "cursor"])? {
        match name.as_str() {
            "status" => query.status = Some(status(&value)?),
            "name" if value.len() > MAX_NAME => {
                return Err(Problem::parameter(&name, format!("is longer than {MAX_NAME} bytes")));
            }
            "name" => query.name = Some(value),
            "limit" => query.limit = limit(&value)?,
            _ => {
                let after = read_cursor(&value);
                query.after = Some(after.ok_or_else(|| {
                    Problem::parameter(&name, "is not a cursor: use next_cursor of the page before")
                })?);
            }
        }
    }
    Ok(query)
}

/// `?pool=&run=&limit=&cursor=`.
pub fn dead(uri: &Uri) -> Result<DeadQuery, Problem> {
    let mut query = DeadQuery { limit: DEFAULT_LIMIT, ..DeadQuery::default() };
    for (name, value) in pairs(uri, &["pool", "run", "limit", "cursor"])? {
        match name.as_str() {
            "pool" => query.pool = Some(pool(&value)?),
            "run" => {
                let run = RunId::new(&value).map_err(|error| Problem::parameter(&name, error.to_string()))?;
                query.run = Some(run);
            }
            "limit" => query.limit = limit(&value)?,
            _ => {
                let after = read_dead_cursor(&value);
                query.after = Some(after.ok_or_else(|| {
                    Problem::parameter(&name, "is not a cursor: use next_cursor of the page before")
                })?);
            }
        }
    }
    Ok(query)
}

/// The name of a pool, as specs spell it.
pub fn pool(name: &str) -> Result<String, Problem> {
    if pool_name(name) {
        return Ok(name.to_owned());
    }
    Err(Problem::parameter("pool", "is not a pool: use 1 to 64 of a-z 0-9 _ -"))
}

/// Whether specs may spell a pool so.
pub fn pool_name(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(word)
}

fn limit(text: &str) -> Result<usize, Problem> {
    let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| Problem::parameter("limit", format!("is not a number from 1 to {MAX_LIMIT}")))
}

/// No parameters at all.
pub fn none(uri: &Uri) -> Result<(), Problem> {
    pairs(uri, &[]).map(drop)
}

/// Where the next page starts, as text that says nothing to clients.
pub fn cursor((created, run): &(Ms, RunId)) -> String {
    hex(format!("1.{created}.{run}").as_bytes())
}

/// As [`cursor`], of dead letters.
pub fn dead_cursor((at, run, task): &(Ms, RunId, TaskId)) -> String {
    hex(format!("d1.{at}.{run}.{task}").as_bytes())
}

fn read_dead_cursor(text: &str) -> Option<(Ms, RunId, TaskId)> {
    if text.len() > 1024 {
        return None;
    }
    let plain = String::from_utf8(unhex(text)?).ok()?;
    // neither ids nor numbers have dots
    let [version, at, run, task] = plain.split('.').collect::<Vec<_>>().try_into().ok()?;
    (version == "d1").then_some(())?;
    Some((at.parse().ok()?, RunId::new(run).ok()?, TaskId::new(task).ok()?))
}

fn read_cursor(text: &str) -> Option<(Ms, RunId)> {
    if text.len() > 256 {
        return None;
    }
    let plain = String::from_utf8(unhex(text)?).ok()?;
    let mut parts = plain.splitn(3, '.');
    let (version, created, run) = (parts.next()?, parts.next()?, parts.next()?);
    (version == "1").then_some(())?;
    Some((created.parse().ok()?, RunId::new(run).ok()?))
}

fn status(text: &str) -> Result<RunStatus, Problem> {
    match text {
        "running" => Ok(RunStatus::Running),
        "succeeded" => Ok(RunStatus::Succeeded),
        "failed" => Ok(RunStatus::Failed),
        "cancelled" => Ok(RunStatus::Cancelled),
        _ => Err(Problem::parameter("status", "is not one of running, succeeded, failed, cancelled")),
    }
}

/// The parameters, each at most once and each in `known`.
fn pairs(uri: &Uri, known: &[&str]) -> Result<Vec<(String, String)>, Problem> {
    if uri.query().is_none() {
        return Ok(Vec::new());
    }
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|_| Problem::parameter("query", "can't be read"))?;
    for (at, (name, _)) in pairs.iter().enumerate() {
        if !known.contains(&name.as_str()) {
            let shown: String = name.chars().take(80).collect();
            let message = match known {
                [] => "is not known here: there are no parameters".to_owned(),
                _ => format!("is not known here: there are {}", known.join(", ")),
            };
            return Err(Problem::parameter(&shown, message));
        }
        if pairs[..at].iter().any(|(earlier, _)| earlier == name) {
            return Err(Problem::parameter(name, "stands twice"));
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_goes_there_and_back_and_nothing_else_is_one() {
        let place = (1_700_000_000_123, RunId::new("a-b_C").unwrap());
        assert_eq!(read_cursor(&cursor(&place)), Some(place));
        for bad in ["", "zz", "00", &hex(b"2.5.run"), &hex(b"1.5.not an id"), &hex(b"1.x.run")] {
            assert_eq!(read_cursor(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn so_does_one_of_dead_letters() {
        let place = (17, RunId::new("a-b_C").unwrap(), TaskId::new("each/3").unwrap());
        assert_eq!(read_dead_cursor(&dead_cursor(&place)), Some(place.clone()));
        assert_eq!(read_dead_cursor(&cursor(&(place.0, place.1.clone()))), None);
        assert_eq!(read_cursor(&dead_cursor(&place)), None);
    }

    #[test]
    fn an_event_id_splits_at_its_last_dash() {
        let position = Position::parse("after", "e-1-42").unwrap();
        assert_eq!(position, Position { epoch: "e-1".into(), seq: 42 });
        for bad in ["", "7", "-7", "e-", "e-+7", "e-1x", "a b-1", "e-99999999999999999999"] {
            assert!(Position::parse("after", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_wait_is_cut_to_its_bound() {
        let of = |query: &str| wait(&format!("/v1/runs/r?{query}").parse().unwrap(), Duration::from_secs(60));
        assert_eq!(of("wait=500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(of("wait=1h"), Ok(Duration::from_secs(60)));
        for bad in ["wait=soon", "wait=", "wait=-1s", "wait=1s&wait=2s", "Wait=1s"] {
            assert_eq!(of(bad).map_err(|problem| problem.code), Err(Code::InvalidParameter), "{bad}");
        }
    }
}
