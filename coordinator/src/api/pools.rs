//! Pools: what waits in them, and whether anything of them starts.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::Uri,
};
use serde::{Deserialize, Serialize};

use super::{App, problem::Problem, query};

/// A pool as its operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub pool: String,
    /// Nothing of it starts.
    pub paused: bool,
    /// Ready tasks, as of the last look at the store; absent where it was not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<u64>,
    /// Of a paused pool: ready tasks that have been met since.
    pub held: u64,
}

/// All pools that are known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pools {
    /// By name.
    pub pools: Vec<Pool>,
}

/// `GET /v1/pools`
pub async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Pools>, Problem> {
    query::none(&uri)?;
    let ready = app.backend.backlog().map(|backlog| backlog.ready);
    let mut pools: BTreeMap<String, Pool> = BTreeMap::new();
    for (pool, count) in ready.iter().flatten() {
        let of = Pool { pool: pool.clone(), paused: false, ready: Some(*count), held: 0 };
        pools.insert(pool.clone(), of);
    }
    for paused in app.backend.paused().await? {
        let none =
            Pool { pool: paused.pool.clone(), paused: true, ready: ready.as_ref().map(|_| 0), held: 0 };
        let pool = pools.entry(paused.pool).or_insert(none);
        (pool.paused, pool.held) = (true, paused.held);
    }
    Ok(Json(Pools { pools: pools.into_values().collect() }))
}

/// `POST /v1/pools/{pool}/pause`
pub async fn pause(
    State(app): State<Arc<App>>,
    pool: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<Pool>, Problem> {
    set(&app, pool, &uri, true).await
}

/// `POST /v1/pools/{pool}/resume`
pub async fn resume(
    State(app): State<Arc<App>>,
    pool: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<Pool>, Problem> {
    set(&app, pool, &uri, false).await
}

/// Repeating it changes nothing; if we die half way, on some shards only, the repeat does the rest.
async fn set(
    app: &App,
    pool: Result<Path<String>, PathRejection>,
    uri: &Uri,
    paused: bool,
) -> Result<Json<Pool>, Problem> {
    query::none(uri)?;
    let pool = pool.map_or_else(|_| String::new(), |Path(pool)| pool);
    let pool = query::pool(&pool)?;
    if app.backend.pause(&pool, paused).await? {
        tracing::info!(pool, paused, "a pool was {}", if paused { "paused" } else { "resumed" });
    }
    let ready = app.backend.backlog().map(|backlog| backlog.ready.get(&pool).copied().unwrap_or(0));
    let held = app.backend.paused().await?.into_iter().find(|other| other.pool == pool);
    Ok(Json(Pool { pool, paused, ready, held: held.map_or(0, |paused| paused.held) }))
}
