//! Every error answer, exactly.

use reqwest::{Method, Response};
use serde_json::{Value, json};
use trireme_backend::Error;

use super::{
    faulty::Faulty,
    server::{Server, embedded, soon, unhurried},
};

const JSON: (&str, &str) = ("content-type", "application/json");
const GET: Method = Method::GET;
const POST: Method = Method::POST;

/// Status and body of a problem; `errors` where it is given.
fn problem(status: u16, code: &str, title: &str, detail: &str, errors: &[(&str, &str)]) -> Value {
    let mut body = json!({
        "type": format!("/docs/errors/{code}"), "title": title, "status": status, "detail": detail, "code": code,
    });
    if !errors.is_empty() {
        body["errors"] =
            errors.iter().map(|(path, message)| json!({"path": path, "message": message})).collect();
    }
    body
}

/// A page whose name was made to point at this machine.
fn rebound() -> Value {
    let detail = "the Host header names another machine, and here whoever is on this one needs no key: use localhost \
                  or 127.0.0.1 in the address (a proxy: in Host), or set coordinator.access to keys";
    problem(403, "cross_origin", "Web pages of other origins may not do this", detail, &[])
}

fn parameter(path: &str, message: &str) -> Value {
    let detail = format!("{path}: {message}");
    problem(400, "invalid_parameter", "A parameter is not valid", &detail, &[(path, message)])
}

async fn assert_problem(what: &str, response: Response, expected: &Value) {
    assert_eq!(response.status().as_u16(), expected["status"], "{what}");
    assert_eq!(response.headers()["content-type"], "application/problem+json", "{what}");
    let unavailable = expected["status"] == 503;
    assert_eq!(response.headers().contains_key("retry-after"), unavailable, "{what}");
    assert!(response.headers().contains_key("x-request-id"), "{what}");
    assert_eq!(response.json::<Value>().await.unwrap(), *expected, "{what}");
}

#[tokio::test]
async fn every_bad_request_gets_its_own_problem() {
    let server = Server::start(embedded()).await;
    let unreadable = "The body can't be read";
    let spec_errors = "The spec has errors";
    let key = "The idempotency key is not valid";
    let run = server.submit(json!({"tasks": {"a": []}})).await;
    let long_key = "k".repeat(257);
    let long_id = "r".repeat(65);
    let events = format!("/v1/runs/{run}/events");
    let wait = format!("/v1/runs/{run}?wait=soon");
    let twice = format!("/v1/runs/{run}?wait=1s&wait=1s");
    let event_id = "is not an event id: use the id of an event as it was sent";
    let no_duration = "is not a duration: write 30s or 500ms";
    let no_id = format!("run id \"{long_id}\" is not valid: use 1 to 64 characters of A-Z a-z 0-9 _ -");
    let (after, by_long_id) = (format!("{events}?after=x"), format!("/v1/runs/{long_id}"));
    let long_key_headers = [JSON, ("idempotency-key", long_key.as_str())];
    type Case<'a> = (Method, &'a str, &'a [(&'a str, &'a str)], &'a str, Value);
    let cases: Vec<Case> = vec![
        (POST, "/v1/runs", &[JSON], "{\"tasks\": {", {
            let message = "EOF while parsing an object at line 1 column 11";
            let detail = format!("the body is not a JSON text: {message}");
            problem(400, "malformed_body", unreadable, &detail, &[("", message)])
        }),
        (POST, "/v1/check", &[("content-type", "application/yaml")], "a: [", {
            let detail = "the body is neither a JSON nor a YAML text: no YAML";
            problem(400, "malformed_body", unreadable, detail, &[("", "no YAML")])
        }),
        (POST, "/v1/runs", &[JSON], "{\"tasks\": {\"a\": []}, \"color\": 1}", {
            let detail = "the spec has 1 error; nothing was started";
            problem(422, "invalid_spec", spec_errors, detail, &[("color", "is not a field of a run")])
        }),
        (POST, "/v1/check", &[JSON], "{\"tasks\": {\"a\": [\"b\"], \"b\": [\"a\"]}}", {
            let detail = "the spec has 1 error; nothing was started";
            let message = "tasks wait for each other in a cycle: b -> a";
            problem(422, "invalid_spec", spec_errors, detail, &[("tasks", message)])
        }),
        (POST, "/v1/runs", &[("content-type", "text/plain")], "{}", {
            let detail = "\"text/plain\" is not taken: send application/json or application/yaml";
            problem(415, "unsupported_media_type", "This media type is not taken", detail, &[])
        }),
        (POST, "/v1/runs", &[JSON, ("content-encoding", "gzip")], "{}", {
            let detail = "the content coding \"gzip\" is not taken: send the body as it is";
            problem(415, "unsupported_media_type", "This media type is not taken", detail, &[])
        }),
        (POST, "/v1/check", &[("content-type", "text/yaml; charset=latin1")], "a: b", {
            let detail = "the charset \"latin1\" is not taken: send utf-8";
            problem(415, "unsupported_media_type", "This media type is not taken", detail, &[])
        }),
        (GET, "/v1/runs", &[("host", "evil.example:1")], "", rebound()),
        (POST, "/v1/runs", &[JSON, ("host", "evil:1"), ("origin", "http://evil:1")], "{}", rebound()),
        (GET, "/v1/runs/never", &[("host", "127.0.0.1"), ("host", "evil:1")], "", rebound()),
        (POST, "/v1/runs", &[JSON, ("idempotency-key", "")], "{}", {
            problem(400, "invalid_idempotency_key", key, "the key has 0 bytes; use 1 to 256", &[])
        }),
        (POST, "/v1/runs", &long_key_headers, "{}", {
            problem(400, "invalid_idempotency_key", key, "the key has 257 bytes; use 1 to 256", &[])
        }),
        (POST, "/v1/runs", &[JSON, ("idempotency-key", "a"), ("idempotency-key", "b")], "{}", {
            problem(400, "invalid_idempotency_key", key, "the header stands twice", &[])
        }),
        (POST, "/v1/runs", &[JSON, ("idempotency-key", "schlüssel")], "{}", {
            let detail = "the key has bytes outside of printable ASCII";
            problem(400, "invalid_idempotency_key", key, detail, &[])
        }),
        (POST, "/v1/runs", &[JSON, ("origin", "https://evil.example")], "{\"tasks\": {\"a\": []}}", {
            let title = "Web pages of other origins may not do this";
            problem(403, "cross_origin", title, "the Origin header names another host than this one", &[])
        }),
        (
            POST,
            "/v1/runs?dry=1",
            &[JSON],
            "{}",
            parameter("dry", "is not known here: there are no parameters"),
        ),
        (GET, "/v1/runs/never", &[], "", {
            let detail = "run never does not exist, or its retention has passed";
            problem(404, "run_not_found", "There is no such run", detail, &[])
        }),
        (GET, "/v1/runs/never?wait=1s", &[], "", {
            let detail = "run never does not exist, or its retention has passed";
            problem(404, "run_not_found", "There is no such run", detail, &[])
        }),
        (GET, "/v1/runs/never/events", &[], "", {
            let detail = "run never does not exist, or its retention has passed";
            problem(404, "run_not_found", "There is no such run", detail, &[])
        }),
        (POST, "/v1/runs/never/cancel", &[], "", {
            let detail = "run never does not exist, or its retention has passed";
            problem(404, "run_not_found", "There is no such run", detail, &[])
        }),
        (GET, &by_long_id, &[], "", { problem(400, "invalid_run_id", "That is not a run id", &no_id, &[]) }),
        (GET, "/v1/runs/a%22b", &[], "", {
            let detail = r#"run id "a\"b" is not valid: use 1 to 64 characters of A-Z a-z 0-9 _ -"#;
            problem(400, "invalid_run_id", "That is not a run id", detail, &[])
        }),
        (GET, "/v1/runs/%ff/events", &[], "", {
            problem(400, "invalid_run_id", "That is not a run id", "the id in the address is not UTF-8", &[])
        }),
        (GET, &wait, &[], "", parameter("wait", no_duration)),
        (GET, &twice, &[], "", parameter("wait", "stands twice")),
        (GET, &events, &[("last-event-id", "7")], "", parameter("Last-Event-ID", event_id)),
        (GET, &after, &[], "", parameter("after", event_id)),
        (GET, "/v1/runs?limit=0", &[], "", parameter("limit", "is not a number from 1 to 200")),
        (GET, "/v1/runs?limit=201", &[], "", parameter("limit", "is not a number from 1 to 200")),
        (GET, "/v1/runs?status=done", &[], "", {
            parameter("status", "is not one of running, succeeded, failed, cancelled")
        }),
        (GET, "/v1/runs?cursor=00", &[], "", {
            parameter("cursor", "is not a cursor: use next_cursor of the page before")
        }),
        (GET, "/v1/runs?state=failed", &[], "", {
            parameter("state", "is not known here: there are status, name, limit, cursor")
        }),
        (GET, "/v2/runs", &[], "", {
            let detail = "/v2/runs is not an address of this API: see /openapi.json";
            problem(404, "not_found", "There is nothing at this address", detail, &[])
        }),
        (GET, "/docs/errors/none", &[], "", {
            let detail = "there is no error of that code";
            problem(404, "not_found", "There is nothing at this address", detail, &[])
        }),
        (Method::DELETE, "/v1/runs", &[], "", {
            let detail = "see the Allow header for the methods that this address takes";
            problem(405, "method_not_allowed", "This address does not take that method", detail, &[])
        }),
    ];
    for (method, path, headers, body, expected) in cases {
        let mut request = server.request(method.clone(), path).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let what = format!("{method} {path} {headers:?} {body}");
        assert_problem(&what, soon(&what, request.send()).await.unwrap(), &expected).await;
    }
    // none of it started anything
    assert_eq!(server.json("/v1/runs").await["runs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn other_names_are_taken_where_they_can_be_meant() {
    let of = |path: &'static str, server: &Server| {
        soon(path, server.request(GET, path).header("host", "trireme.example").send())
    };
    let server = Server::start(embedded()).await;
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json"] {
        assert_eq!(of(path, &server).await.unwrap().status(), 200, "{path}");
    }
    let open = trireme_coordinator::Config {
        listen: ([0, 0, 0, 0], 0).into(),
        access: trireme_coordinator::AccessMode::Open,
        ..unhurried()
    };
    let server = Server::with(open, embedded()).await;
    assert_eq!(of("/v1/runs", &server).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_mark_at_the_start_of_a_body_is_no_part_of_it() {
    let server = Server::start(embedded()).await;
    for kind in [Some("application/json"), Some("application/yaml"), None] {
        let mut request = server.request(POST, "/v1/check").body("\u{feff}{\"tasks\": {\"a\": []}}");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        assert_eq!(soon("an answer", request.send()).await.unwrap().status(), 200, "{kind:?}");
    }
}

#[tokio::test]
async fn a_method_that_is_not_taken_is_told_which_are() {
    let server = Server::start(embedded()).await;
    let response = soon("an answer", server.request(Method::DELETE, "/v1/runs").send()).await.unwrap();
    let allow = response.headers()["allow"].to_str().unwrap();
    let mut allowed: Vec<&str> = allow.split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
}

#[tokio::test]
async fn bodies_are_bounded_in_size_and_must_be_text() {
    let config = trireme_coordinator::Config { max_body: 1000, ..unhurried() };
    let server = Server::with(config, embedded()).await;
    let too_large = problem(
        413,
        "body_too_large",
        "The body is too large",
        "the body is over the limit of 1000 bytes",
        &[],
    );
    let fits = format!("{:<1000}", r#"{"tasks": {"a": []}}"#);
    assert_eq!(server.post("/v1/runs", &fits).await.status(), 202);
    assert_problem("one byte over", server.post("/v1/runs", format!("{fits} ")).await, &too_large).await;
    // far over, so that sender and receiver would block each other if nobody read on
    assert_problem("far over", server.post("/v1/check", "x".repeat(7000)).await, &too_large).await;
    // without a length in its head
    let chunks = futures::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>(vec![b' '; 100])));
    let request = server.request(POST, "/v1/runs").body(reqwest::Body::wrap_stream(chunks));
    assert_problem("in chunks", soon("an answer", request.send()).await.unwrap(), &too_large).await;

    let request = server.request(POST, "/v1/runs").header(JSON.0, JSON.1).body(b"{\"a\": \"\xff\"}".to_vec());
    let expected = problem(
        400,
        "malformed_body",
        "The body can't be read",
        "the body is not UTF-8 text: byte 7 is wrong",
        &[],
    );
    assert_problem("bytes", soon("an answer", request.send()).await.unwrap(), &expected).await;
}

#[tokio::test]
async fn what_the_backend_refuses_is_told_apart() {
    let backend = Faulty::new(embedded());
    let server = Server::start(backend.clone()).await;
    let run = server.submit(json!({"tasks": {"a": []}})).await;
    let too_large = Error::TooLarge { what: "the run's input", got: 11, limit: 10 };
    let cases = [
        (
            Faulty::down().unwrap(),
            problem(
                503,
                "store_unavailable",
                "The store can't be reached",
                "redis is unavailable: connection refused",
                &[],
            ),
        ),
        (
            Error::Full("OOM".into()),
            problem(503, "store_full", "The store is full", "the store is full: OOM", &[]),
        ),
        (
            Error::Unusable("version 9".into()),
            problem(
                500,
                "store_unusable",
                "The store can't be used",
                "the store can't be used: version 9",
                &[],
            ),
        ),
        (
            too_large,
            problem(
                422,
                "limit_exceeded",
                "A limit of the store is passed",
                "the run's input of 11 is over the limit of 10",
                &[],
            ),
        ),
    ];
    for (error, expected) in cases {
        backend.fail(Some(error));
        let spec = r#"{"tasks": {"a": []}}"#;
        assert_problem("submit", server.post("/v1/runs", spec).await, &expected).await;
        assert_problem("cancel", server.post(&format!("/v1/runs/{run}/cancel"), "").await, &expected).await;
        for path in ["", "?wait=1s", "/events"] {
            assert_problem(path, server.get(&format!("/v1/runs/{run}{path}")).await, &expected).await;
        }
        assert_problem("list", server.get("/v1/runs").await, &expected).await;
    }
}

#[tokio::test]
async fn a_panic_is_an_answer_and_the_next_request_is_served() {
    let server = Server::start(embedded()).await;
    let title = "The coordinator made a mistake";
    let detail = "the request id in the answer's head finds the cause in the log";
    let expected = problem(500, "internal_error", title, detail, &[]);
    assert_problem("small", server.post("/v1/check", r#"{"panic": 1}"#).await, &expected).await;
    let detail = "compiling the spec panicked";
    let expected = problem(500, "internal_error", title, detail, &[]);
    let large = r#"{"panic": 1}"#.to_owned() + &" ".repeat(100_000);
    assert_problem("large", server.post("/v1/check", large).await, &expected).await;
    assert_eq!(server.get("/healthz").await.status(), 200);
}
