//! Stands before every route: finds out who asks, and whether they may.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, Uri, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use trireme_backend::Scope;

use super::Identity;
use crate::api::{App, Code, Problem};

/// Who asks, for handlers. One that the guard did not let in has none, and is refused.
#[derive(Debug, Clone)]
pub(crate) struct Who(pub Arc<Identity>);

impl<S: Send + Sync> FromRequestParts<S> for Who {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| unauthorized("no API key was given"))
    }
}

/// Lets requests under `/v1` through that have a key with the scope they need; all others need none.
pub(crate) async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    if !under_v1(request.uri()) {
        return next.run(request).await;
    }
    let who = match identify(&app, request.headers()).await {
        Ok(who) => who,
        Err(problem) => return refuse(problem),
    };
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    if let Some(scope) = needed(request.method(), route).filter(|scope| !who.scopes.contains(scope)) {
        let name = match scope {
            Scope::Read => "read",
            Scope::Write => "write",
            Scope::Admin => "admin",
        };
        let detail = format!("this needs a key with the scope {name}");
        return Problem::new(Code::Forbidden, detail).into_response();
    }
    request.extensions_mut().insert(Who(who));
    next.run(request).await
}

/// What only those may ask for who may do something here.
pub(crate) fn under_v1(uri: &Uri) -> bool {
    uri.path() == "/v1" || uri.path().starts_with("/v1/")
}

async fn identify(app: &App, headers: &HeaderMap) -> Result<Arc<Identity>, Problem> {
    if !app.keyring.needed() {
        return Ok(Arc::new(Identity::anybody()));
    }
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = given.next() else {
        return Err(unauthorized("no API key was given: send Authorization: Bearer KEY"));
    };
    let bearer = value.to_str().ok().and_then(|text| text.split_once(' '));
    let text = bearer.filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer")).map(|(_, text)| text.trim());
    let Some(text) = text.filter(|_| given.next().is_none()) else {
        return Err(unauthorized("the Authorization header is not of the form Bearer KEY"));
    };
    app.keyring.find(text).await?.ok_or_else(|| unauthorized("the API key is unknown or was revoked"))
}

fn unauthorized(detail: &'static str) -> Problem {
    Problem::new(Code::Unauthorized, detail)
}

fn refuse(problem: Problem) -> Response {
    let asks = problem.code == Code::Unauthorized;
    let mut response = problem.into_response();
    if asks {
        let scheme = HeaderValue::from_static("Bearer realm=\"trireme\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

/// The scope that a request needs; `None` where any key will do, because there is nothing. Whatever does not stand
/// here is for operators.
fn needed(method: &Method, route: Option<&str>) -> Option<Scope> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    Some(match route? {
        "/v1/runs" | "/v1/runs/{id}" | "/v1/runs/{id}/events" if reads => Scope::Read,
        "/v1/check" => Scope::Read,
        "/v1/runs" | "/v1/runs/{id}/cancel" | "/v1/runs/{id}/replay" => Scope::Write,
        _ => Scope::Admin,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_is_for_operators() {
        let of = |method, route| needed(&method, Some(route));
        assert_eq!(of(Method::GET, "/v1/runs"), Some(Scope::Read));
        assert_eq!(of(Method::HEAD, "/v1/runs/{id}"), Some(Scope::Read));
        assert_eq!(of(Method::POST, "/v1/runs"), Some(Scope::Write));
        assert_eq!(of(Method::POST, "/v1/runs/{id}/replay"), Some(Scope::Write));
        assert_eq!(of(Method::POST, "/v1/dead-letters/replay"), Some(Scope::Admin));
        assert_eq!(of(Method::DELETE, "/v1/runs/{id}"), Some(Scope::Admin));
        assert_eq!(of(Method::GET, "/v1/keys"), Some(Scope::Admin));
        assert_eq!(of(Method::GET, "/v1/something/new"), Some(Scope::Admin));
        assert_eq!(needed(&Method::GET, None), None);
    }
}
