//! API keys: make, list, revoke. For keys with the scope `admin`, which may do so for any tenant.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use trireme_backend::{ApiKey, Quota, Scope};
use trireme_model::{KeyId, Ms, Tenant};

use super::{
    App,
    body::{self, Spec},
    problem::{Code, Place, Problem},
    query,
};
use crate::access::{Minting, check_key, mint};

/// A key as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// A label for people.
    pub name: String,
    /// Whose runs it may use.
    #[serde(default)]
    pub tenant: Tenant,
    /// What for.
    pub scopes: BTreeSet<Scope>,
    /// How much.
    #[serde(default)]
    pub quota: Quota,
}

/// A key as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// Its public part.
    pub id: KeyId,
    /// A label for people.
    pub name: String,
    /// Whose runs it may use.
    pub tenant: Tenant,
    /// What for.
    pub scopes: BTreeSet<Scope>,
    /// How much.
    pub quota: Quota,
    /// When it was made, ms since the Unix epoch.
    pub created_ms: Ms,
    /// The key itself, in the answer to the request that made it and never again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// All keys of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyList {
    /// By their ids.
    pub keys: Vec<KeyView>,
}

impl From<ApiKey> for KeyView {
    fn from(key: ApiKey) -> Self {
        let ApiKey { id, name, tenant, scopes, quota, created_ms, sha256: _ } = key;
        Self { id, name, tenant, scopes, quota, created_ms, key: None }
    }
}

impl From<NewKey> for Minting {
    fn from(new: NewKey) -> Self {
        let NewKey { name, tenant, scopes, quota } = new;
        Self { name, tenant, scopes, quota }
    }
}

/// Where no keys are needed, none are made: whoever reaches the address could make one for good.
fn in_use(app: &App) -> Result<(), Problem> {
    if app.keyring.needed() {
        return Ok(());
    }
    let detail = "this coordinator needs no API keys (coordinator.access); use `trireme keys --store` \
                  where the store can be reached";
    Err(Problem::new(Code::KeysNotInUse, detail))
}

/// `POST /v1/keys`
pub async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    query::none(request.uri())?;
    in_use(&app)?;
    let Spec { text, room: _room, .. } = body::read_json(request, &app).await?;
    let new = parse(&text)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as Ms);
    let (key, secret) = mint(new.into(), now).map_err(|reason| Problem::new(Code::MalformedBody, reason))?;
    // dying behind this leaves a key that nobody has: it is listed, and can be revoked
    app.backend.access().put_key(key.clone()).await?;
    tracing::info!(key = %key.id, tenant = %key.tenant, name = key.name, "an API key was made");
    let view = KeyView { key: Some(secret.expose().to_owned()), ..key.into() };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(view)).into_response())
}

fn parse(text: &str) -> Result<NewKey, Problem> {
    let wrong = |path: &str, message: String| {
        let detail = format!("that is not a key: {path}{}{message}", if path.is_empty() { "" } else { ": " });
        let errors = vec![Place { path: path.into(), message }];
        Problem { errors, ..Problem::new(Code::MalformedBody, detail) }
    };
    // a list would be taken for the fields in their order
    if text.trim_start().starts_with('[') {
        return Err(wrong("", "a list where an object is needed".into()));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let new: NewKey = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        wrong(if path == "." { "" } else { &path }, error.inner().to_string())
    })?;
    json.end().map_err(|error| wrong("", error.to_string()))?;
    check_key(&new.name, &new.scopes, &new.quota).map_err(|(path, message)| wrong(path, message))?;
    Ok(new)
}

/// `GET /v1/keys`
pub async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<KeyList>, Problem> {
    query::none(&uri)?;
    in_use(&app)?;
    let keys = app.backend.access().keys().await?;
    Ok(Json(KeyList { keys: keys.into_iter().map(KeyView::from).collect() }))
}

/// `DELETE /v1/keys/{id}`
pub async fn revoke(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<StatusCode, Problem> {
    query::none(&uri)?;
    in_use(&app)?;
    let unknown = || Problem::new(Code::KeyNotFound, "there is no key of that id in the store");
    let id = id.ok().and_then(|Path(id)| KeyId::new(id).ok()).ok_or_else(unknown)?;
    if !app.backend.access().drop_key(&id).await? {
        return Err(unknown());
    }
    tracing::info!(key = %id, "an API key was revoked");
    Ok(StatusCode::NO_CONTENT)
}
