//! Tasks in quarantine and runs that failed: look at them, and let them go on in a new run. For operators, who see the
//! dead letters of all tenants; a replay belongs to the tenant of the run that it replays and counts for the key that asked
//! for it. Whoever replays a run of their own is admitted as if they submitted it.

use std::sync::Arc;

use axum::{
    Json,
    extract::{FromRequestParts, Path, State},
    http::{HeaderValue, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use trireme_model::{Caller, Replayed, RunId, RunStatus, TaskId, view::DeadLetter};

use super::{
    App,
    problem::{Code, Problem},
    query::{self, Id},
    runs,
};
use crate::access::{Identity, Standing, Who};

/// A page of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetters {
    /// Newest first.
    pub dead_letters: Vec<DeadLetter>,
    /// For `?cursor=` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A run that goes on from what a failed one recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// The new run.
    pub run_id: RunId,
    /// The failed one.
    pub replay_of: RunId,
    /// Where the new run stands; absent where it has been forgotten since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<RunStatus>,
}

/// What became of a page of dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replays {
    /// One per run.
    pub replays: Vec<Replay>,
    /// Dead letters whose runs did not fail: a fallback or a join that can do without took their place.
    pub left: Vec<DeadLetter>,
    /// For `?cursor=` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// The run and task that the path names; the task's slashes are written as `%2F`.
pub struct Letter(RunId, TaskId);

impl<S: Send + Sync> FromRequestParts<S> for Letter {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((run, task)) =
            path.map_err(|_| Problem::new(Code::InvalidRunId, "the ids in the address are not UTF-8"))?;
        let run = RunId::new(run).map_err(|error| Problem::new(Code::InvalidRunId, error.to_string()))?;
        let task = TaskId::new(task).map_err(|error| Problem::parameter("task", error.to_string()))?;
        Ok(Self(run, task))
    }
}

/// `GET /v1/dead-letters`
pub async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<DeadLetters>, Problem> {
    let page = app.backend.dead_letters(query::dead(&uri)?).await?;
    let next_cursor = page.next.as_ref().map(query::dead_cursor);
    Ok(Json(DeadLetters { dead_letters: page.letters, next_cursor }))
}

/// `GET /v1/dead-letters/{run}/{task}`: also of a run that was replayed.
pub async fn get(
    State(app): State<Arc<App>>,
    Letter(run, task): Letter,
    uri: Uri,
) -> Result<Json<DeadLetter>, Problem> {
    query::none(&uri)?;
    find(&app, &run, &task).await.map(Json)
}

async fn find(app: &App, run: &RunId, task: &TaskId) -> Result<DeadLetter, Problem> {
    let state = app.backend.run(run).await?.ok_or_else(|| Problem::no_run(run))?;
    state.dead_letters().into_iter().find(|letter| letter.task == *task).ok_or_else(|| {
        Problem::new(Code::DeadLetterNotFound, format!("task {task} of run {run} is not in quarantine"))
    })
}

/// `POST /v1/dead-letters/{run}/{task}/replay`
pub async fn replay(
    State(app): State<Arc<App>>,
    Who(who): Who,
    Letter(run, task): Letter,
    uri: Uri,
) -> Result<Response, Problem> {
    query::none(&uri)?;
    find(&app, &run, &task).await?;
    answer(replay_of(&app, &operator(&who), &run).await?)
}

/// Who clears up is held to no quota.
fn operator(who: &Identity) -> Caller {
    Caller { in_flight: None, ..who.caller() }
}

/// `POST /v1/runs/{id}/replay`
pub async fn replay_run(State(app): State<Arc<App>>, Who(who): Who, Id(run): Id, uri: Uri) -> Response {
    let (mut standing, admitted) = Standing::admit(&app, &who).await;
    let outcome = match admitted {
        Ok(()) => replay_own(&app, &who, &run, &uri).await,
        Err(problem) => Err(problem),
    };
    if outcome.as_ref().is_err_and(|problem| problem.code == Code::TooManyRuns) {
        standing.full();
    }
    let mut response = outcome.unwrap_or_else(Problem::into_response);
    standing.tell(&mut response);
    response
}

async fn replay_own(app: &App, who: &Identity, run: &RunId, uri: &Uri) -> Result<Response, Problem> {
    query::none(uri)?;
    app.own_run(who, run).await?;
    runs::admit_backlog(app, run.next_replay().ok().as_ref()).await?;
    let _permit = app.admit_submit()?;
    answer(replay_of(app, &who.caller(), run).await?)
}

/// 202 with the new run, or 200 where it was there.
fn answer((replay, created): (Replay, bool)) -> Result<Response, Problem> {
    let location = HeaderValue::from_str(&format!("/v1/runs/{}", replay.run_id))
        .unwrap_or_else(|_| unreachable!("a run id needs no escaping"));
    let status = if created { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, [(header::LOCATION, location)], Json(replay)).into_response())
}

async fn replay_of(app: &App, caller: &Caller, run: &RunId) -> Result<(Replay, bool), Problem> {
    // dying behind this call leaves a new run that nobody was told of: a repeat finds it, by its id
    let (run_id, created) = match app.backend.replay(run, caller).await? {
        Replayed::Created(again) => (again, true),
        Replayed::Exists(again) => (again, false),
        Replayed::Gone => return Err(Problem::no_run(run)),
        Replayed::Limited => return Err(Problem::too_many_runs(caller)),
        Replayed::Refused(status) => {
            let why = match status {
                RunStatus::Running => "is running",
                RunStatus::Succeeded => "has succeeded",
                RunStatus::Failed => "has failed",
                RunStatus::Cancelled => "was cancelled",
            };
            return Err(Problem::new(
                Code::NotReplayable,
                format!("run {run} {why}: only a run that failed is replayed"),
            ));
        }
    };
    // a new one may have ended at once: what was recorded may be all that it needs
    let status = app.backend.summary(&run_id).await?.map(|summary| summary.status);
    Ok((Replay { run_id, replay_of: run.clone(), status }, created))
}

/// `POST /v1/dead-letters/replay`: one page of the list.
pub async fn replay_all(
    State(app): State<Arc<App>>,
    Who(who): Who,
    uri: Uri,
) -> Result<Json<Replays>, Problem> {
    let page = app.backend.dead_letters(query::dead(&uri)?).await?;
    let next_cursor = page.next.as_ref().map(query::dead_cursor);
    let (caller, mut replays, mut left) = (operator(&who), Vec::<Replay>::new(), Vec::new());
    for letter in page.letters {
        if replays.iter().any(|replay| replay.replay_of == letter.run_id) {
            continue;
        }
        match replay_of(&app, &caller, &letter.run_id).await {
            Ok((replay, _)) => replays.push(replay),
            // one that has been forgotten meanwhile is not left either
            Err(problem) if problem.code == Code::RunNotFound => {}
            Err(problem) if problem.code == Code::NotReplayable => left.push(letter),
            // what was done before is done: a repeat goes on behind it
            Err(problem) => return Err(problem),
        }
    }
    Ok(Json(Replays { replays, left, next_cursor }))
}
