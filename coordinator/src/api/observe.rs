//! What happens to every request, whatever it asks for: a name, a time, a count, a line in the log. And a
//! handler that panics becomes an answer.

use std::{net::IpAddr, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use tokio::time::Instant;
use tracing::Instrument;

use super::{
    App,
    problem::{Code, Problem},
};
use crate::access::under_v1;

/// Names a request in the log, in the answer, and across services.
const REQUEST_ID: &str = "x-request-id";

pub async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(request.headers());
    let method = method_name(request.method());
    let uri = request.uri().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or(""));

    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let foreign = if !reads && !same_origin(request.headers(), &uri) {
        Some("the Origin header names another host than this one")
    } else if trusting(&app) && under_v1(&uri) && !local(request.headers(), &uri) {
        Some(
            "the Host header names another machine, and here whoever is on this one needs no key: use localhost or \
             127.0.0.1 in the address (a proxy: in Host), or set coordinator.access to keys",
        )
    } else {
        None
    };
    let mut response = if let Some(detail) = foreign {
        Problem::new(Code::CrossOrigin, detail).into_response()
    } else {
        let answer = AssertUnwindSafe(next.run(request).instrument(span.clone())).catch_unwind();
        answer.await.unwrap_or_else(|_| {
            // the panic's own text went to the panic hook; it may hold data, so clients don't get it
            tracing::error!(parent: &span, path = uri.path(), "a handler panicked");
            Problem::new(
                Code::InternalError,
                "the request id in the answer's head finds the cause in the log",
            )
            .into_response()
        })
    };
    response.headers_mut().insert(REQUEST_ID, id);
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let took = begun.elapsed();
    app.metrics.answered(route, method, response.status().as_u16(), took);
    span.in_scope(|| log(route, method, &uri, response.status().as_u16(), took));
    response
}

fn log(route: &str, method: &str, uri: &Uri, status: u16, took: Duration) {
    let (path, ms) = (uri.path(), took.as_secs_f64() * 1e3);
    if status >= 500 {
        tracing::warn!(method, path, status, ms, "answered");
    } else if matches!(route, "/healthz" | "/readyz" | "/metrics") {
        tracing::debug!(method, path, status, ms, "answered");
    } else {
        tracing::info!(method, path, status, ms, "answered");
    }
}

/// The client's own name for the request where it is fit for a log, else a random one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let fit = |value: &&HeaderValue| {
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(byte);
        (1..=128).contains(&value.len()) && value.as_bytes().iter().all(word)
    };
    headers.get(REQUEST_ID).filter(fit).cloned().unwrap_or_else(|| {
        let id = format!("{:016x}", rand::random::<u64>());
        HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("?"))
    })
}

/// A fixed set, because anybody can invent a method and every label value is a time series for ever.
fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        _ => "OTHER",
    }
}

/// Whether no browser says that a page of another origin sent this. Any page that a developer visits can
/// post to a port on their own machine; a run may call tools, so that must not start one.
fn same_origin(headers: &HeaderMap, uri: &Uri) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(|authority| authority.as_str()));
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    matches!((origin, host), (Some((_, origin)), Some(host)) if origin.eq_ignore_ascii_case(host))
}

/// Whether being on this machine is all that is asked of clients.
fn trusting(app: &App) -> bool {
    !app.keyring.needed() && app.config.loopback()
}

/// Whether every name that the request has for this coordinator is one of the machine itself. A page can have its own
/// name point here, and is then of the same origin; browsers always send that name.
fn local(headers: &HeaderMap, uri: &Uri) -> bool {
    let named =
        |host: &HeaderValue| host.to_str().is_ok_and(|host| host.parse().is_ok_and(|host| loops_back(&host)));
    headers.get_all(header::HOST).iter().all(named) && uri.authority().is_none_or(loops_back)
}

fn loops_back(authority: &Authority) -> bool {
    let host = authority.host().to_ascii_lowercase();
    if host == "localhost" || host.ends_with(".localhost") {
        return true;
    }
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
    address.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_that_could_forge_a_log_line_is_replaced() {
        let of = |id: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_static(id));
            request_id(&headers).to_str().unwrap().to_owned()
        };
        assert_eq!(of("deploy-17/a.b:c_d"), "deploy-17/a.b:c_d");
        for bad in ["", "a b", "a\tb", "\"x\""] {
            let id = of(bad);
            assert!(id.len() == 16 && id != bad, "{bad:?} became {id:?}");
        }
    }

    #[test]
    fn only_browsers_on_other_pages_are_foreign() {
        let of = |pairs: &[(header::HeaderName, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            same_origin(&headers.collect(), &"/v1/runs".parse().unwrap())
        };
        assert!(of(&[(header::HOST, "localhost:8080")]));
        assert!(of(&[(header::HOST, "localhost:8080"), (header::ORIGIN, "http://localhost:8080")]));
        assert!(!of(&[(header::HOST, "localhost:8080"), (header::ORIGIN, "http://evil.example")]));
        assert!(!of(&[(header::HOST, "localhost:8080"), (header::ORIGIN, "null")]));
    }

    #[test]
    fn names_of_the_machine_itself() {
        let of = |host: &'static str, uri: &str| {
            local(
                &[(header::HOST, HeaderValue::from_static(host))].into_iter().collect(),
                &uri.parse().unwrap(),
            )
        };
        for host in [
            "localhost",
            "LocalHost:8080",
            "a.localhost:1",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:8080",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(of(host, "/v1/runs"), "{host}");
        }
        for host in ["evil:1", "localhost.evil", "127.0.0.1.evil", "10.0.0.1", "[::2]:1", "", "evil@", "a b"]
        {
            assert!(!of(host, "/v1/runs"), "{host}");
        }
        assert!(!of("localhost", "http://evil/v1/runs"));
        assert!(local(&HeaderMap::new(), &"/v1/runs".parse().unwrap()), "HTTP/1.0, which no browser speaks");
    }
}
