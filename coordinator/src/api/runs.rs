//! Runs: start, look at, list, cancel.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use trireme_backend::{ListQuery, output};
use trireme_model::{
    Cancelled, Deleted, RunId, RunStatus, Submit, Submitted, attribution::Attributed, view::RunSummary,
};
use trireme_telemetry::{About, traces::run_span};

use super::{
    App,
    body::{self, Spec},
    problem::{Code, Place, Problem},
    query::{self, Id},
};
use crate::{
    Compiled, Format, Refused,
    access::{Identity, Standing, Who},
    identity::{self, MAX_KEY},
    metrics::Open,
};

/// Bodies over this size are compiled on a thread of their own: the others must not wait behind them.
const INLINE_COMPILE: usize = 16 * 1024;
/// Looks at a run's state that a long poll takes as fast as the run moves; later ones are spaced.
const QUICK_LOOKS: u32 = 64;
/// The space between later looks: bounds what a poll of a run with thousands of events costs the store.
const LOOK_SPACE: Duration = Duration::from_millis(5);

/// The header that names a request across its repeats.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header of an answer to a repeat.
const REPLAYED: &str = "idempotent-replayed";

/// Where a run stands, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunState {
    /// The run.
    pub run_id: RunId,
    /// Where it stands.
    pub status: RunStatus,
}

/// A page of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunList {
    /// Newest first.
    pub runs: Vec<RunSummary>,
    /// For `?cursor=` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// `POST /v1/runs`
pub async fn submit(State(app): State<Arc<App>>, Who(who): Who, request: Request) -> Response {
    let (mut standing, admitted) = Standing::admit(&app, &who).await;
    let outcome = match admitted {
        Ok(()) => accept(&app, &who, &mut standing, request).await,
        Err(problem) => Err(problem),
    };
    app.metrics.submitted(match &outcome {
        Ok((_, replayed)) => ["created", "replayed"][usize::from(*replayed)],
        Err(problem) if problem.code == Code::IdempotencyConflict => "conflict",
        Err(problem) if problem.code == Code::BacklogFull => "shed",
        Err(problem) if problem.code.status() < 500 => "refused",
        Err(_) => "error",
    });
    let mut response =
        outcome.map_or_else(Problem::into_response, |(state, replayed)| started(state, replayed));
    standing.tell(&mut response);
    response
}

fn started(state: RunState, replayed: bool) -> Response {
    let location = HeaderValue::from_str(&format!("/v1/runs/{}", state.run_id))
        .unwrap_or_else(|_| unreachable!("a run id needs no escaping"));
    let status = if replayed { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = (status, [(header::LOCATION, location)], Json(state)).into_response();
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

async fn accept(
    app: &Arc<App>,
    who: &Identity,
    standing: &mut Standing,
    request: Request,
) -> Result<(RunState, bool), Problem> {
    query::none(request.uri())?;
    let key = idempotency_key(request.headers())?;
    let repeated = key.as_deref().map(|key| identity::run_of_key(&who.tenant, key));
    admit_backlog(app, repeated.as_ref()).await?;
    let trace = app.traces.begin(traceparent(request.headers()));
    let Spec { text, format, room: _room } = body::read(request, app).await?;
    let _permit = app.admit_submit()?;
    // a key promises that equal requests share a run; without one there is nothing to compare
    let (run, fingerprint) = match repeated {
        None => (identity::fresh_run(), identity::fingerprint_bytes(text.as_bytes())),
        Some(run) => (run, fingerprint(&text, format)),
    };
    let submit = compile(app, text, format).await?.submit(run.clone(), fingerprint);
    // of a repeat the trace that came first stays
    let submit = Submit { trace, caller: who.caller(), keep: app.config.keep(), ..submit };
    let about = About {
        run: Some(run.clone()),
        span: trace.filter(|trace| trace.sampled).map(|trace| (trace.id, run_span(&run))),
        ..About::default()
    };
    let begun = Instant::now();
    // dying after this step and before the answer leaves a run that the client does not know of: with a
    // key its repeat finds it, without one it is the client's choice to risk a second run
    let submitted = about.scope(app.backend.submit(submit)).await;
    app.metrics.submit_took(begun.elapsed());
    match submitted? {
        Submitted::Created => Ok((RunState { run_id: run, status: RunStatus::Running }, false)),
        Submitted::Exists => {
            let summary = app.own_run(who, &run).await?;
            Ok((RunState { run_id: run, status: summary.status }, true))
        }
        Submitted::Limited => {
            standing.full();
            Err(Problem::too_many_runs(&who.caller()))
        }
        Submitted::Conflict => Err(Problem::new(
            Code::IdempotencyConflict,
            format!("run {run} was started with this key and another body; use a new key for a new request"),
        )),
    }
}

/// Refuses a new run while too much waits; nothing has been read of its body or written then. A repeat of an accepted
/// one, which has this id, gets its answer.
pub(super) async fn admit_backlog(app: &App, repeated: Option<&RunId>) -> Result<(), Problem> {
    let passed = app.backend.backlog().and_then(|backlog| app.config.backlog.passed(&backlog));
    let Some(passed) = passed else { return Ok(()) };
    if let Some(run) = repeated
        && app.backend.summary(run).await?.is_some()
    {
        return Ok(());
    }
    Err(Problem::new(Code::BacklogFull, format!("{passed}; nothing was started, try again in a moment")))
}

/// `POST /v1/check`'s half of a submit: everything but the store.
pub(super) async fn compile(app: &Arc<App>, text: String, format: Format) -> Result<Compiled, Problem> {
    let compiled = if text.len() <= INLINE_COMPILE {
        app.intake.compile(&text, format)
    } else {
        let intake = app.intake.clone();
        let work = tokio::task::spawn_blocking(move || intake.compile(&text, format));
        work.await.map_err(|_| Problem::new(Code::InternalError, "compiling the spec panicked"))?
    };
    compiled.map_err(|why| refused(why, format))
}

fn refused(refused: Refused, format: Format) -> Problem {
    let Refused { malformed, problems, more } = refused;
    let places: Vec<Place> =
        problems.into_iter().map(|problem| Place { path: problem.path, message: problem.message }).collect();
    if malformed {
        let first = places.first().map_or("", |place| place.message.as_str());
        let kind = match format {
            Format::Json => "not a JSON text",
            Format::Yaml => "neither a JSON nor a YAML text",
        };
        let detail = format!("the body is {kind}: {first}");
        return Problem { errors: places, ..Problem::new(Code::MalformedBody, detail) };
    }
    Problem::spec(places, more)
}

fn fingerprint(text: &str, format: Format) -> String {
    // what does not read is refused in a moment anyway
    format.read(text).map_or_else(|| identity::fingerprint_bytes(text.as_bytes()), identity::fingerprint)
}

/// The caller's trace; nothing where the header can't be one.
fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all("traceparent").iter();
    let header = given.next()?;
    if given.next().is_some() {
        return None;
    }
    header.to_str().ok()
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let wrong = |reason: String| Problem::new(Code::InvalidIdempotencyKey, reason);
    if keys.next().is_some() {
        return Err(wrong("the header stands twice".into()));
    }
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(wrong(format!("the key has {} bytes; use 1 to {MAX_KEY}", key.len())));
    }
    let text = key.to_str().map_err(|_| wrong("the key has bytes outside of printable ASCII".into()))?;
    Ok(Some(text.into()))
}

/// `GET /v1/runs/{id}`
pub async fn get(
    State(app): State<Arc<App>>,
    Who(who): Who,
    Id(run): Id,
    uri: Uri,
) -> Result<Json<Attributed>, Problem> {
    let wait = query::wait(&uri, app.config.max_wait)?;
    app.own_run(&who, &run).await?;
    if !wait.is_zero() {
        tokio::select! {
            ended = wait_for_end(&app, &run, wait) => ended?,
            () = app.keyring.clone().revoked(who) => {
                return Err(Problem::new(Code::Unauthorized, "the API key was revoked"));
            }
        }
    }
    let state = app.backend.run(&run).await?.ok_or_else(|| Problem::no_run(&run))?;
    let mut view = state.view();
    if view.status == RunStatus::Succeeded {
        view.output = output(&app.backend, &run, state.output()).await?;
    }
    Ok(Json(view.into()))
}

/// Returns when the run has ended, `wait` has passed, or the coordinator shuts down.
async fn wait_for_end(app: &Arc<App>, run: &RunId, wait: Duration) -> Result<(), Problem> {
    let _permit = app.admit_follower()?;
    let _open = Open::count(&app.metrics.polls);
    let until = Instant::now() + wait;
    // watching begins before the first look, so that no growth falls between the two
    let mut watch = app.backend.watch(run).await?;
    let mut looks = 0_u32;
    loop {
        let summary = app.backend.summary(run).await?.ok_or_else(|| Problem::no_run(run))?;
        if summary.status.terminal() {
            return Ok(());
        }
        looks = looks.saturating_add(1);
        let woken = async {
            if looks > QUICK_LOOKS {
                sleep(LOOK_SPACE).await;
            }
            // a lost wake-up costs one poll interval, never more
            let _ = timeout(app.config.poll, watch.changed()).await;
        };
        tokio::select! {
            () = woken => {}
            () = sleep_until(until) => return Ok(()),
            () = app.shutdown.cancelled() => return Ok(()),
        }
    }
}

/// `POST /v1/runs/{id}/cancel`
pub async fn cancel(
    State(app): State<Arc<App>>,
    Who(who): Who,
    Id(run): Id,
    uri: Uri,
) -> Result<Json<RunState>, Problem> {
    query::none(&uri)?;
    app.own_run(&who, &run).await?;
    match app.backend.cancel(&run).await? {
        Cancelled::Cancelled => Ok(Json(RunState { run_id: run, status: RunStatus::Cancelled })),
        Cancelled::Gone => Err(Problem::no_run(&run)),
        Cancelled::Ended => {
            let summary = app.backend.summary(&run).await?.ok_or_else(|| Problem::no_run(&run))?;
            if summary.status == RunStatus::Cancelled {
                // a repeat of a cancel whose answer was lost
                return Ok(Json(RunState { run_id: run, status: summary.status }));
            }
            let status = if summary.status == RunStatus::Succeeded { "succeeded" } else { "failed" };
            Err(Problem::new(Code::RunAlreadyEnded, format!("run {run} has {status}; nothing was cancelled")))
        }
    }
}

/// `DELETE /v1/runs/{id}`: forgets an ended run.
pub async fn delete(
    State(app): State<Arc<App>>,
    Who(who): Who,
    Id(run): Id,
    uri: Uri,
) -> Result<StatusCode, Problem> {
    query::none(&uri)?;
    app.own_run(&who, &run).await?;
    match app.backend.delete(&run).await? {
        Deleted::Deleted => Ok(StatusCode::NO_CONTENT),
        Deleted::Gone => Err(Problem::no_run(&run)),
        Deleted::Running => Err(Problem::new(
            Code::RunNotEnded,
            format!("run {run} is running; cancel it first, nothing was deleted"),
        )),
    }
}

/// `GET /v1/runs`
pub async fn list(State(app): State<Arc<App>>, Who(who): Who, uri: Uri) -> Result<Json<RunList>, Problem> {
    let query = ListQuery { tenant: who.tenant.clone(), ..query::list(&uri)? };
    let page = app.backend.list(query).await?;
    let next_cursor = page.next.as_ref().map(query::cursor);
    Ok(Json(RunList { runs: page.runs, next_cursor }))
}
