//! The HTTP API: one table of routes, what every request shares, and one file per group of routes.

mod body;
mod check;
mod dead_letters;
mod events;
mod keys;
mod observe;
mod ops;
mod pools;
mod problem;
mod query;
mod runs;

use std::sync::Arc;

use axum::{
    Router,
    http::Uri,
    middleware,
    routing::{MethodRouter, delete, get, post},
};
use prometheus::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use trireme_backend::Backend;
use trireme_telemetry::Traces;

pub use check::{Checked, CheckedTask};
pub use dead_letters::{DeadLetters, Replay, Replays};
pub use keys::{KeyList, KeyView, NewKey};
pub use pools::{Pool, Pools};
pub use problem::{Code, Place, Problem};
pub(crate) use query::pool_name;
pub use runs::{RunList, RunState};

use crate::{
    Config, Error, Intake,
    access::{self, Keyring},
    metrics::Metrics,
};

/// What the handlers share.
pub(crate) struct App {
    pub config: Config,
    pub backend: Arc<dyn Backend>,
    pub intake: Arc<dyn Intake>,
    pub metrics: Metrics,
    pub registry: Registry,
    /// Where spans go.
    pub traces: Traces,
    /// Cancelled when streams and long polls have to end.
    pub shutdown: CancellationToken,
    pub keyring: Arc<Keyring>,
    submits: Arc<Semaphore>,
    /// Room for bodies, in [`body::UNIT`]s.
    room: Arc<Semaphore>,
    followers: Arc<Semaphore>,
}

impl App {
    pub fn new(
        config: Config,
        backend: Arc<dyn Backend>,
        intake: Arc<dyn Intake>,
        metrics: Metrics,
        registry: Registry,
        shutdown: CancellationToken,
    ) -> Result<Self, Error> {
        let submits = Arc::new(Semaphore::new(config.max_submits.min(Semaphore::MAX_PERMITS)));
        let units = config.max_body.div_ceil(body::UNIT).saturating_mul(config.max_submits);
        let room = Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS)));
        let followers = Arc::new(Semaphore::new(config.max_followers.min(Semaphore::MAX_PERMITS)));
        let traces = Traces::default();
        let keyring = Keyring::new(&config, backend.clone())
            .map_err(|reason| Error::File { name: "bootstrap_key_file", reason })?;
        let keyring = Arc::new(keyring);
        Ok(Self {
            config,
            backend,
            intake,
            metrics,
            registry,
            traces,
            shutdown,
            keyring,
            submits,
            room,
            followers,
        })
    }

    fn admit_submit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let limit = self.config.max_submits;
        self.submits.clone().try_acquire_owned().map_err(|_| Problem::overloaded("submits", limit))
    }

    fn admit_follower(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let limit = self.config.max_followers;
        self.followers
            .clone()
            .try_acquire_owned()
            .map_err(|_| Problem::overloaded("streams and waits", limit))
    }
}

/// Its pattern, its methods in lower case, its handlers.
type Route = (&'static str, &'static [&'static str], MethodRouter<Arc<App>>);

/// Every route. The OpenAPI document has to hold the
/// same ones; a test compares them.
fn routes() -> Vec<Route> {
    vec![
        ("/v1/runs", &["get", "post"], get(runs::list).post(runs::submit)),
        ("/v1/runs/{id}", &["delete", "get"], get(runs::get).delete(runs::delete)),
        ("/v1/runs/{id}/events", &["get"], get(events::follow)),
        ("/v1/runs/{id}/cancel", &["post"], post(runs::cancel)),
        ("/v1/runs/{id}/replay", &["post"], post(dead_letters::replay_run)),
        ("/v1/dead-letters", &["get"], get(dead_letters::list)),
        ("/v1/dead-letters/replay", &["post"], post(dead_letters::replay_all)),
        ("/v1/dead-letters/{run}/{task}", &["get"], get(dead_letters::get)),
        ("/v1/dead-letters/{run}/{task}/replay", &["post"], post(dead_letters::replay)),
        ("/v1/pools", &["get"], get(pools::list)),
        ("/v1/pools/{pool}/pause", &["post"], post(pools::pause)),
        ("/v1/pools/{pool}/resume", &["post"], post(pools::resume)),
        ("/v1/check", &["post"], post(check::check)),
        ("/v1/keys", &["get", "post"], get(keys::list).post(keys::create)),
        ("/v1/keys/{id}", &["delete"], delete(keys::revoke)),
        ("/healthz", &["get"], get(ops::healthz)),
        ("/readyz", &["get"], get(ops::readyz)),
        ("/metrics", &["get"], get(ops::metrics)),
        ("/openapi.json", &["get"], get(ops::openapi)),
        ("/docs/errors/{code}", &["get"], get(ops::error_page)),
    ]
}

pub(crate) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for (path, _, methods) in routes() {
        router = router.route(path, methods);
    }
    router
        .fallback(|uri: Uri| async move {
            let path: String = uri.path().chars().take(200).collect();
            Problem::new(Code::NotFound, format!("{path} is not an address of this API: see /openapi.json"))
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                Code::MethodNotAllowed,
                "see the Allow header for the methods that this address takes",
            )
        })
        .layer(middleware::from_fn_with_state(app.clone(), access::guard))
        .layer(middleware::from_fn_with_state(app.clone(), observe::observe))
        .with_state(app)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    #[test]
    fn the_openapi_document_holds_exactly_the_routes_and_codes() {
        let document: Value = serde_json::from_str(ops::OPENAPI).unwrap();
        let documented: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
                methods.map(|method| (path.clone(), method.clone()))
            })
            .collect();
        let served = routes()
            .into_iter()
            .flat_map(|(path, methods, _)| {
                methods.iter().map(|method| (path.to_owned(), (*method).to_owned()))
            })
            .collect();
        assert_eq!(documented, served);
        let codes: Vec<&str> = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(codes, Code::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>());
    }

    #[test]
    fn every_reference_in_the_openapi_document_leads_somewhere() {
        fn walk<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(Value::as_str));
                    map.values().for_each(|value| walk(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| walk(value, found)),
                _ => {}
            }
        }
        let document: Value = serde_json::from_str(ops::OPENAPI).unwrap();
        let mut references = Vec::new();
        walk(&document, &mut references);
        assert!(references.len() > 10);
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
}
