//! HTTP tools and `http_get` against real servers on the loopback interface.
#![allow(clippy::unwrap_used)]

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, RawQuery, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Redirect},
    routing::{any, get},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use trireme_tool::{CallContext, Class, Config, Effect, Error, Tools};

/// What the handlers tell the tests.
#[derive(Clone, Default)]
struct Seen {
    begun: Arc<Notify>,
    aborted: Arc<Notify>,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
}

struct OnDrop(Arc<Notify>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn echo(
    method: Method,
    Path(path): Path<String>,
    query: RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Json<Value> {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    Json(json!({
        "method": method.as_str(), "path": path, "query": query.0,
        "body": serde_json::from_slice::<Value>(&body).ok(),
        "key": header("idempotency-key"), "run": header("x-trireme-run"), "task": header("x-trireme-task"),
        "auth": header("authorization"),
    }))
}

async fn hang(State(seen): State<Seen>) -> &'static str {
    let _aborted = OnDrop(seen.aborted.clone());
    seen.begun.notify_one();
    std::future::pending::<()>().await;
    ""
}

async fn flood(State(seen): State<Seen>) -> impl IntoResponse {
    let chunks = futures::stream::unfold(0, move |n| {
        let sent = seen.sent.clone();
        async move {
            sent.fetch_add(65_536, Ordering::SeqCst);
            (n < 800).then(|| (Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 65_536])), n + 1))
        }
    });
    Body::from_stream(chunks)
}

/// Says that fifty megabytes come, and sends nothing.
async fn declared() -> impl IntoResponse {
    let nothing = futures::stream::pending::<Result<Bytes, Infallible>>();
    ([(header::CONTENT_LENGTH, "50000000")], Body::from_stream(nothing))
}

async fn count(State(seen): State<Seen>) -> &'static str {
    let now = seen.running.fetch_add(1, Ordering::SeqCst) + 1;
    seen.most.fetch_max(now, Ordering::SeqCst);
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    seen.running.fetch_sub(1, Ordering::SeqCst);
    "ok"
}

async fn status(Path(code): Path<u16>, headers: HeaderMap) -> impl IntoResponse {
    let said = headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
    (
        StatusCode::from_u16(code).unwrap(),
        [(header::RETRY_AFTER, "7")],
        format!("no: {said}{}", "y".repeat(5000)),
    )
}

/// Starts a server and returns its origin, such as `http://127.0.0.1:4711`.
async fn serve() -> (String, Seen) {
    let seen = Seen::default();
    let app = Router::new()
        .route("/echo/{*path}", any(echo))
        .route("/hang", any(hang))
        .route("/flood", get(flood))
        .route("/count", get(count))
        .route("/status/{code}", any(status))
        .route("/text", get(|| async { "hello" }))
        .route("/garbage", get(|| async { ([(header::CONTENT_TYPE, "application/json")], "<html>") }))
        .route("/declared", get(declared))
        .route("/to", any(|query: RawQuery| async move { Redirect::temporary(&query.0.unwrap()) }))
        .route("/loop", get(|| async { Redirect::temporary("/loop") }))
        .with_state(seen.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (origin, seen)
}

async fn tools(config: Value) -> Tools {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config: Config = serde_json::from_value(config).unwrap();
    Tools::builder().builtin().config(config).build().await.unwrap()
}

fn ctx() -> CallContext {
    CallContext::new("r1", "a/b", 0, 3, Instant::now() + Duration::from_secs(60))
}

#[tokio::test]
async fn a_declared_tool_renders_its_request_and_sends_our_headers() {
    let (origin, _) = serve().await;
    let tools = tools(json!({"tools": {"find": {
        "method": "POST", "url": format!("{origin}/echo/{{{{ args.user }}}}/x"),
        "headers": {"authorization": "Bearer secret-token"},
        "query": {"q": "{{ args.q }} news", "n": "{{ args.n }}", "none": "{{ args.none }}"},
        "body": {"n": "{{ args.n }}", "list": "{{ args.list }}", "text": "n={{ args.n }}", "sort": "{{ args.sort }}"},
        "args": {"type": "object", "required": ["user", "q", "n"], "properties": {
            "user": {"type": "string"}, "q": {"type": "string"}, "n": {"type": "integer"},
            "list": {"type": "array"}, "none": {}, "sort": {"type": "string", "default": "asc"}}},
        "resource": "user/{{ args.user }}",
    }}}))
    .await;
    let args = json!({"user": "a/../b c", "q": "x&y=1#", "n": 5, "list": [1, {"a": null}]});
    assert_eq!(tools.resource("find", &args).unwrap().as_deref(), Some("user/a/../b c"));
    let got = tools.call("find", &ctx(), args).await.unwrap().value;
    assert_eq!(got["method"], "POST");
    assert_eq!(got["path"], "a/../b c/x");
    assert_eq!(got["query"], "n=5&q=x%26y%3D1%23%20news");
    assert_eq!(got["body"], json!({"n": 5, "list": [1, {"a": null}], "text": "n=5", "sort": "asc"}));
    assert_eq!((&got["key"], &got["run"], &got["task"]), (&json!("r1/a/b/0"), &json!("r1"), &json!("a/b")));
    assert_eq!(got["auth"], "Bearer secret-token");
}

#[tokio::test]
async fn without_a_body_template_a_post_sends_the_arguments_and_a_get_sends_nothing() {
    let (origin, _) = serve().await;
    let url = format!("{origin}/echo/x");
    let tools = tools(json!({"tools": {"p": {"method": "POST", "url": url}, "g": {"url": url}}})).await;
    assert_eq!(tools.call("p", &ctx(), json!({"a": [1]})).await.unwrap().value["body"], json!({"a": [1]}));
    assert_eq!(tools.call("g", &ctx(), json!({"a": [1]})).await.unwrap().value["body"], Value::Null);
}

#[tokio::test]
async fn arguments_are_checked_before_anything_is_sent() {
    let (origin, seen) = serve().await;
    let tools = tools(json!({
        "limits": {"args_bytes": 1000},
        "tools": {"t": {"url": format!("{origin}/flood"), "args": {"type": "object", "required": ["q"]}}},
    }))
    .await;
    let error = tools.call("t", &ctx(), json!({})).await.unwrap_err();
    assert_eq!(error.to_string(), "invalid arguments for tool `t`: /q is missing");
    assert_eq!(error.class(), Class::Permanent);
    assert!(matches!(tools.check("t", &json!({})), Err(Error::InvalidArgs { .. })));
    let error = tools.call("t", &ctx(), json!({"q": "x".repeat(2000)})).await.unwrap_err();
    assert!(matches!(error, Error::ArgsTooLarge { limit: 1000, .. }), "{error}");
    match tools.call("tt", &ctx(), json!({})).await.unwrap_err() {
        Error::UnknownTool { name, known } => {
            assert_eq!(name, "tt");
            assert!(known.contains(&"t".to_owned()) && known.contains(&"calculator".to_owned()));
        }
        other => panic!("{other}"),
    }
    assert_eq!(seen.sent.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn answers_become_values_or_errors() {
    let (origin, _) = serve().await;
    let tools = tools(json!({"tools": {
        "text": {"url": format!("{origin}/text")},
        "garbage": {"url": format!("{origin}/garbage")},
        "part": {"url": format!("{origin}/echo/p"), "result": "/path"},
        "lacking": {"url": format!("{origin}/echo/p"), "result": "/nope"},
    }}))
    .await;
    let call = async |name| tools.call(name, &ctx(), json!({})).await;
    assert_eq!(call("text").await.unwrap().value, json!("hello"));
    assert_eq!(call("part").await.unwrap().value, json!("p"));
    for name in ["garbage", "lacking"] {
        let error = call(name).await.unwrap_err();
        assert!(matches!(error, Error::BadOutput { .. }), "{error}");
        assert_eq!(error.class(), Class::Permanent);
    }
}

#[tokio::test]
async fn statuses_become_classes_with_bounded_excerpts_without_secrets() {
    let (origin, _) = serve().await;
    let tools = tools(json!({"tools": {"s": {
        "url": format!("{origin}/status/{{{{ args.code }}}}"), "headers": {"authorization": "Bearer hunter2hunter2"},
    }}}))
    .await;
    for (code, class) in [
        (400, Class::Permanent),
        (404, Class::Permanent),
        (408, Class::Retryable),
        (429, Class::RateLimited { retry_after: Some(Duration::from_secs(7)) }),
        (500, Class::Retryable),
        (503, Class::Retryable),
        (529, Class::Retryable),
    ] {
        let error = tools.call("s", &ctx(), json!({"code": code})).await.unwrap_err();
        assert_eq!(error.class(), class, "{code}");
        let text = error.to_string();
        assert!(text.len() < 2200 && text.contains("no: ***yyy") && !text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn nobody_listening_is_retryable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let tools = tools(json!({"tools": {"t": {"url": url}}})).await;
    let error = tools.call("t", &ctx(), json!({})).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(error.class(), Class::Retryable);
}

#[tokio::test]
async fn fifty_megabytes_are_not_read_beyond_the_cap() {
    let (origin, seen) = serve().await;
    let tools = tools(json!({"tools": {"f": {"url": format!("{origin}/flood")}, "d": {"url": format!("{origin}/declared")}}})).await;
    let error = tools.call("f", &ctx(), json!({})).await.unwrap_err();
    assert!(matches!(error, Error::OutputTooLarge { limit: 8_388_608 }), "{error}");
    // Whatever the sockets hold on top of the cap is theirs; most was never asked for.
    assert!(seen.sent.load(Ordering::SeqCst) < 30_000_000);
    let error = tools.call("d", &ctx(), json!({})).await.unwrap_err();
    assert!(matches!(error, Error::OutputTooLarge { .. }), "{error}");
}

#[tokio::test]
async fn cancelling_dropping_and_the_deadline_abort_the_call() {
    let (origin, seen) = serve().await;
    let hang = format!("{origin}/hang");
    let tools = tools(json!({"tools": {
        "write": {"url": hang}, "read": {"url": hang, "effect": "read"},
        "short": {"url": hang, "effect": "read", "timeout": "20ms"},
    }}))
    .await;

    let cancel = CancellationToken::new();
    let (t, c) = (tools.clone(), ctx().with_cancel(cancel.clone()));
    let call = tokio::spawn(async move { t.call("write", &c, json!({})).await });
    seen.begun.notified().await;
    cancel.cancel();
    assert!(matches!(call.await.unwrap(), Err(Error::Cancelled)));
    seen.aborted.notified().await;

    let t = tools.clone();
    let call = tokio::spawn(async move { t.call("write", &ctx(), json!({})).await });
    seen.begun.notified().await;
    call.abort();
    seen.aborted.notified().await;

    let mut late = ctx();
    late.deadline = Instant::now() + Duration::from_millis(20);
    let error = tools.call("write", &late, json!({})).await.unwrap_err();
    assert_eq!(error.class(), Class::Timeout, "{error}");
    late.deadline = Instant::now() + Duration::from_millis(20);
    assert_eq!(tools.call("read", &late, json!({})).await.unwrap_err().class(), Class::Retryable);
    match tools.call("short", &ctx(), json!({})).await.unwrap_err() {
        Error::Timeout { after, effect } => {
            assert_eq!((after, effect), (Duration::from_millis(20), Effect::Read))
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_tool_runs_no_more_calls_at_once_than_it_may() {
    let (origin, seen) = serve().await;
    let tools = tools(json!({"tools": {"c": {"url": format!("{origin}/count"), "at_once": 2}}})).await;
    let calls = (0..20).map(|_| async { tools.call("c", &ctx(), json!({})).await.unwrap() });
    futures::future::join_all(calls).await;
    assert!((1..=2).contains(&seen.most.load(Ordering::SeqCst)));
}

#[tokio::test]
async fn hosts_from_arguments_are_refused_unless_allowed() {
    let (origin, _) = serve().await;
    let port = origin.rsplit_once(':').unwrap().1.to_owned();
    let declared = json!({
        "open": {"url": "{{ args.url }}"},
        "host": {"url": "http://{{ args.host }}/text"},
        "free": {"url": "{{ args.url }}", "allow_private": true},
    });
    let strict = tools(json!({"tools": declared, "egress": {"http": true}})).await;
    for (name, args) in [
        ("http_get", json!({"url": format!("{origin}/text")})),
        ("http_get", json!({"url": format!("http://localhost:{port}/text")})),
        ("http_get", json!({"url": "http://localhost/"})),
        ("http_get", json!({"url": "http://[::ffff:127.0.0.1]/"})),
        ("http_get", json!({"url": "http://169.254.169.254/latest/meta-data"})),
        ("open", json!({"url": format!("{origin}/text")})),
        ("host", json!({"host": "localhost"})),
        ("host", json!({"host": "127.0.0.1"})),
    ] {
        let error = strict.call(name, &ctx(), args.clone()).await.unwrap_err();
        assert!(matches!(error, Error::EgressDenied { .. }), "{name} {args}: {error}");
        assert_eq!(error.class(), Class::Permanent);
    }
    let free = strict.call("free", &ctx(), json!({"url": format!("{origin}/text")})).await.unwrap();
    assert_eq!(free.value, json!("hello"));
    let open = tools(json!({"tools": declared, "egress": {"allow": ["127.0.0.1", "localhost"]}})).await;
    for url in [format!("{origin}/text"), format!("http://localhost:{port}/text")] {
        assert_eq!(open.call("http_get", &ctx(), json!({"url": url})).await.unwrap().value, json!("hello"));
    }
}

#[tokio::test]
async fn redirects_are_vetted_counted_and_lose_the_headers_at_another_origin() {
    let ((first, _), (second, _)) = (serve().await, serve().await);
    let declared = json!({
        "same": {"url": format!("{first}/to?/echo/x"), "headers": {"authorization": "secret-token"}},
        "away": {"url": format!("{first}/to?{second}/echo/x"), "headers": {"authorization": "secret-token"}},
        "post": {"method": "POST", "url": format!("{first}/to?/echo/x")},
    });
    let strict = tools(json!({"tools": declared})).await;
    let same = strict.call("same", &ctx(), json!({})).await.unwrap().value;
    assert_eq!((&same["auth"], &same["run"]), (&json!("secret-token"), &json!("r1")));
    let error = strict.call("away", &ctx(), json!({})).await.unwrap_err();
    assert!(matches!(error, Error::EgressDenied { .. }), "{error}");
    let error = strict.call("post", &ctx(), json!({})).await.unwrap_err();
    assert!(matches!(error, Error::Status { status: 307, .. }), "{error}");

    let open = tools(json!({"tools": declared, "egress": {"allow": ["127.0.0.0/8"]}})).await;
    let away = open.call("away", &ctx(), json!({})).await.unwrap().value;
    assert_eq!((&away["auth"], &away["run"], &away["key"]), (&Value::Null, &Value::Null, &Value::Null));
    let error = open.call("http_get", &ctx(), json!({"url": format!("{first}/loop")})).await.unwrap_err();
    assert!(error.to_string().contains("more than 3 redirects"), "{error}");
    let inward = format!("{first}/to?http://10.0.0.1/");
    let error = open.call("http_get", &ctx(), json!({"url": inward})).await.unwrap_err();
    assert!(matches!(error, Error::EgressDenied { .. }), "{error}");
}

#[tokio::test]
async fn an_argument_cannot_climb_out_of_the_path() {
    let (origin, _) = serve().await;
    let url = format!("{origin}/echo/a/{{{{ args.x }}}}/b");
    let tools = tools(json!({"tools": {"t": {"url": url}}})).await;
    for x in [".", ".."] {
        let error = tools.call("t", &ctx(), json!({"x": x})).await.unwrap_err();
        assert!(matches!(error, Error::Template { .. }), "{error}");
    }
    assert_eq!(tools.call("t", &ctx(), json!({"x": "..."})).await.unwrap().value["path"], "a/.../b");
}

#[tokio::test]
async fn mistakes_in_the_config_name_the_tool() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    for (tool, why) in [
        (json!({"url": "http://h/{{ args.x"}), "template `url`"),
        (json!({"url": "http://h/{{ env.HOME }}"}), "only `args`"),
        (json!({"url": "ftp://h/"}), "http:// or https://"),
        (json!({"url": "http://h/", "args": {"type": 1}}), "JSON schema"),
        (json!({"url": "http://h/{{ args.idd }}", "args": {"properties": {"id": {}}}}), "`args.idd`"),
        (json!({"url": "http://h/", "result": "items"}), "JSON pointer"),
        (json!({"url": "http://h/", "headers": {"a b": "c"}}), "not a header name"),
        (json!({"url": "http://h/", "at_once": 0}), "`at_once`"),
    ] {
        let config: Config = serde_json::from_value(json!({"tools": {"bad": tool}})).unwrap();
        let Err(error) = Tools::builder().config(config).build().await else { panic!("{why}") };
        let text = error.to_string();
        assert!(text.starts_with("tool `bad`: ") && text.contains(why), "{text}");
    }
    let config: Config = serde_json::from_value(json!({"tools": {"noop": {"url": "http://h/"}}})).unwrap();
    let Err(error) = Tools::builder().builtin().config(config).build().await else { panic!() };
    assert_eq!(error.to_string(), "tool `noop` is declared twice");
}
