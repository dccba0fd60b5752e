//! Who may do what, and what tenants see of each other: nothing.

use std::{io::Write, sync::Arc, time::Duration};

use reqwest::{Method, Response};
use serde_json::{Value, json};
use trireme_backend::Backend;
use trireme_backend_embedded::{Clock, Config as Store, Embedded};
use trireme_coordinator::{AccessMode, Config};
use trireme_model::{
    Claim, Claimed, RunId, TaskId,
    limits::{LEASE_MS, MAX_LOST},
};

use crate::{
    server::{Server, embedded, soon, unhurried},
    worker::fail,
};

const ROOT: &str = "a key of the operator's that is long enough";

/// A coordinator that needs keys, and the file with the first one.
struct Guarded {
    server: Server,
    backend: Arc<Embedded>,
    _file: tempfile::NamedTempFile,
}

impl Guarded {
    async fn start() -> Self {
        Self::on(embedded()).await
    }

    async fn on(backend: Arc<Embedded>) -> Self {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{ROOT}").unwrap();
        let bootstrap_key_file = Some(file.path().to_owned());
        let config = Config { access: AccessMode::Keys, bootstrap_key_file, ..unhurried() };
        Self { server: Server::with(config, backend.clone()).await, backend, _file: file }
    }

    async fn ask(&self, key: &str, method: Method, path: &str, body: Option<Value>) -> Response {
        let mut request = self.server.request(method, path).bearer_auth(key);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        soon(path, request.send()).await.unwrap()
    }

    async fn key(&self, tenant: &str, more: Value) -> (String, String) {
        let mut new = json!({"name": "test", "tenant": tenant, "scopes": ["read", "write"]});
        new.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = self.ask(ROOT, Method::POST, "/v1/keys", Some(new)).await;
        assert_eq!(
            (made.status().as_u16(), &made.headers()["cache-control"]),
            (201, &"no-store".parse().unwrap())
        );
        let made: Value = made.json().await.unwrap();
        (made["key"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned())
    }

    async fn submit(&self, key: &str, idempotency: Option<&str>) -> Response {
        let mut request = self.server.request(Method::POST, "/v1/runs").bearer_auth(key);
        if let Some(key) = idempotency {
            request = request.header("idempotency-key", key);
        }
        soon("submit", request.body(r#"{"tasks": {"a": []}}"#).send()).await.unwrap()
    }

    async fn run(&self, key: &str) -> String {
        let state: Value = self.submit(key, None).await.json().await.unwrap();
        state["run_id"].as_str().unwrap_or_else(|| panic!("{state}")).to_owned()
    }
}

async fn code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let problem: Value = response.json().await.unwrap();
    (status, problem["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn everything_under_v1_needs_a_key_and_nothing_else_does() {
    let guarded = Guarded::start().await;
    let server = &guarded.server;
    for (method, path) in [
        (Method::GET, "/v1/runs"),
        (Method::POST, "/v1/runs"),
        (Method::GET, "/v1/runs/r"),
        (Method::GET, "/v1/runs/r/events"),
        (Method::POST, "/v1/runs/r/cancel"),
        (Method::POST, "/v1/check"),
        (Method::GET, "/v1/keys"),
        (Method::POST, "/v1/keys"),
        (Method::DELETE, "/v1/keys/0123456789abcdef"),
        (Method::PUT, "/v1/runs"),
        (Method::GET, "/v1/nothing"),
        (Method::GET, "/v1"),
    ] {
        let answer = server.request(method.clone(), path).send().await.unwrap();
        assert_eq!(answer.headers()["www-authenticate"], "Bearer realm=\"trireme\"", "{method} {path}");
        assert_eq!(code(answer).await, (401, "unauthorized".into()), "{method} {path}");
    }
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs/errors/unauthorized"] {
        assert_eq!(server.get(path).await.status(), 200, "{path}");
    }
    let wrong_secret = format!("trk_0123456789abcdef_{}", "0".repeat(64));
    for header in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer trk_0123456789abcdef_",
        &format!("Bearer {wrong_secret}"),
        "Basic YTpi",
    ] {
        let answer = server.request(Method::GET, "/v1/runs").header("authorization", header);
        assert_eq!(code(answer.send().await.unwrap()).await.0, 401, "{header:?}");
    }
    let twice = server.request(Method::GET, "/v1/runs").bearer_auth(ROOT).bearer_auth(ROOT);
    assert_eq!(code(twice.send().await.unwrap()).await.0, 401, "two keys");
    assert_eq!(guarded.ask(ROOT, Method::GET, "/v1/runs", None).await.status(), 200);
    assert_eq!(guarded.ask(ROOT, Method::GET, "/v1/nothing", None).await.status(), 404);
}

#[tokio::test]
async fn a_key_may_do_what_its_scopes_say() {
    let guarded = Guarded::start().await;
    let (reads, _) = guarded.key("t", json!({"scopes": ["read"]})).await;
    let (writes, _) = guarded.key("t", json!({"scopes": ["write"]})).await;
    let forbidden = (403, "forbidden".to_owned());
    assert_eq!(code(guarded.submit(&reads, None).await).await, forbidden);
    let run = guarded.run(&writes).await;
    let (path, cancel) = (format!("/v1/runs/{run}"), format!("/v1/runs/{run}/cancel"));
    assert_eq!(code(guarded.ask(&writes, Method::GET, &path, None).await).await, forbidden);
    assert_eq!(guarded.ask(&reads, Method::GET, &path, None).await.status(), 200);
    assert_eq!(
        guarded.ask(&reads, Method::POST, "/v1/check", Some(json!({"tasks": {"a": []}}))).await.status(),
        200
    );
    assert_eq!(code(guarded.ask(&reads, Method::POST, &cancel, None).await).await, forbidden);
    assert_eq!(guarded.ask(&writes, Method::POST, &cancel, None).await.status(), 200);
    for key in [&reads, &writes] {
        assert_eq!(code(guarded.ask(key, Method::GET, "/v1/keys", None).await).await, forbidden);
    }
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked() {
    let guarded = Guarded::start().await;
    let quota = json!({"submits": {"per_minute": 60, "burst": 5}, "in_flight": 2});
    let (key, id) = guarded.key("acme", json!({"name": "ci", "quota": quota})).await;
    let listed = guarded.ask(ROOT, Method::GET, "/v1/keys", None).await.text().await.unwrap();
    assert!(!listed.contains(&key[21..]) && !listed.contains("sha256"), "{listed}");
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let view = &listed["keys"][0];
    assert_eq!((&view["id"], &view["name"], &view["tenant"]), (&json!(id), &json!("ci"), &json!("acme")));
    assert_eq!((&view["scopes"], &view["quota"]), (&json!(["read", "write"]), &quota));
    // two coordinators on one store, both of which know the key
    let second = Guarded::on(guarded.backend.clone()).await;
    for coordinator in [&guarded, &second] {
        assert_eq!(coordinator.ask(&key, Method::GET, "/v1/runs", None).await.status(), 200);
    }
    let path = format!("/v1/keys/{id}");
    assert_eq!(guarded.ask(ROOT, Method::DELETE, &path, None).await.status(), 204);
    assert_eq!(
        code(guarded.ask(ROOT, Method::DELETE, &path, None).await).await,
        (404, "key_not_found".into())
    );
    for coordinator in [&guarded, &second] {
        soon("the key is refused", async {
            while coordinator.ask(&key, Method::GET, "/v1/runs", None).await.status() != 401 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }
    for bad in [
        json!({"name": "", "scopes": ["read"]}),
        json!({"name": "x", "scopes": []}),
        json!({"name": "x", "scopes": ["root"]}),
        json!({"name": "x", "scopes": ["read"], "tenant": "a:b"}),
        json!({"name": "x", "scopes": ["read"], "quota": {"submits": {"per_minute": 0, "burst": 1}}}),
        json!({"name": "x", "scopes": ["read"], "color": "red"}),
    ] {
        let refused = code(guarded.ask(ROOT, Method::POST, "/v1/keys", Some(bad.clone())).await).await;
        assert_eq!(refused, (400, "malformed_body".into()), "{bad}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_key_is_said_by_its_place() {
    let guarded = Guarded::start().await;
    let steers = "has characters that control a terminal or the direction of text";
    for (bad, path, message) in [
        (json!({"name": "", "scopes": ["read"]}), "name", "has 0 bytes; use 1 to 256"),
        (json!({"name": "a\u{7}", "scopes": ["read"]}), "name", steers),
        (json!({"name": "a\u{202e}", "scopes": ["read"]}), "name", steers),
        (json!({"name": "x", "scopes": []}), "scopes", "is empty; name some of read, write, admin"),
        (json!({"name": "x", "scopes": ["root"]}), "scopes[0]", "unknown variant `root`, "),
        (json!({"name": "x", "scopes": ["read"], "color": 1}), "color", "unknown field `color`, "),
        (
            json!({"name": "x", "scopes": ["read"], "quota": {"in_flight": "2"}}),
            "quota.in_flight",
            "invalid type",
        ),
        (json!({"scopes": ["read"]}), "", "missing field `name`"),
        (json!(["x", "default", ["read"], {}]), "", "a list where an object is needed"),
    ] {
        let answer = guarded.ask(ROOT, Method::POST, "/v1/keys", Some(bad.clone())).await;
        assert_eq!(answer.status(), 400, "{bad}");
        let problem: Value = answer.json().await.unwrap();
        let place = &problem["errors"][0];
        assert_eq!(place["path"], path, "{problem}");
        assert!(place["message"].as_str().unwrap().starts_with(message), "{problem}");
    }
    for kind in ["text/plain", "application/yaml"] {
        let request = guarded.server.request(Method::POST, "/v1/keys").bearer_auth(ROOT);
        let answer = soon(kind, request.header("content-type", kind).body("{}").send()).await.unwrap();
        assert_eq!(answer.status(), 415, "{kind}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["detail"], format!("{kind:?} is not taken: send application/json"));
    }
}

#[tokio::test]
async fn a_stream_and_a_wait_end_when_their_key_is_revoked() {
    let guarded = Guarded::start().await;
    let (key, id) = guarded.key("t", json!({})).await;
    let run = guarded.run(&key).await;
    let stream = guarded.ask(&key, Method::GET, &format!("/v1/runs/{run}/events"), None).await;
    let path = format!("/v1/runs/{run}?wait=1h");
    let wait = guarded.ask(&key, Method::GET, &path, None);
    let revoke = async {
        let revoked = guarded.ask(ROOT, Method::DELETE, &format!("/v1/keys/{id}"), None).await;
        assert_eq!(revoked.status(), 204);
    };
    let (waited, ()) = tokio::join!(wait, revoke);
    assert_eq!(code(waited).await.0, 401);
    let text = soon("the end of the stream", stream.text()).await.unwrap();
    assert!(text.ends_with(": the API key was revoked\n\n"), "{text}");
}

#[tokio::test]
async fn a_foreign_run_is_as_unknown_as_none() {
    let guarded = Guarded::start().await;
    let (mine, _) = guarded.key("mine", json!({})).await;
    let (theirs, _) = guarded.key("theirs", json!({})).await;
    let foreign = guarded.run(&theirs).await;
    let unknown = "0".repeat(foreign.len());
    let told = async |id: &str, method: Method, path: &str| {
        let answer = guarded.ask(&mine, method, &path.replace("ID", id), None).await;
        let kind = answer.headers()["content-type"].clone();
        let (status, body) = (answer.status().as_u16(), answer.text().await.unwrap());
        (status, kind, body.replace(id, "ID"))
    };
    for (method, path) in [
        (Method::GET, "/v1/runs/ID"),
        (Method::GET, "/v1/runs/ID?wait=1h"),
        (Method::GET, "/v1/runs/ID/events"),
        (Method::GET, "/v1/runs/ID/events?after=e-0"),
        (Method::POST, "/v1/runs/ID/cancel"),
    ] {
        let (here, there) = (told(&foreign, method.clone(), path).await, told(&unknown, method, path).await);
        assert_eq!(here.0, 404, "{path}");
        assert_eq!(here, there, "{path}");
    }
    let state: Value =
        guarded.ask(&theirs, Method::GET, &format!("/v1/runs/{foreign}"), None).await.json().await.unwrap();
    assert_eq!(state["status"], "running", "it was not cancelled");
    let listed: Value = guarded.ask(&mine, Method::GET, "/v1/runs", None).await.json().await.unwrap();
    assert_eq!(listed["runs"], json!([]));
    let listed: Value = guarded.ask(&theirs, Method::GET, "/v1/runs", None).await.json().await.unwrap();
    assert_eq!(listed["runs"][0]["run_id"], json!(foreign));
    // the same idempotency key in two hands
    let run = async |key: &str| -> (u16, Value) {
        let answer = guarded.submit(key, Some("order-17")).await;
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["run_id"].clone())
    };
    let (first, second, again) = (run(&mine).await, run(&theirs).await, run(&mine).await);
    assert_eq!((first.0, second.0, again.0), (202, 202, 200));
    assert_ne!(first.1, second.1);
    assert_eq!(first.1, again.1);
}

#[tokio::test]
async fn a_key_starts_no_more_than_it_may() {
    let guarded = Guarded::start().await;
    let (fast, _) = guarded.key("t", json!({"quota": {"submits": {"per_minute": 1, "burst": 2}}})).await;
    let header = |answer: &Response, name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    let first = guarded.submit(&fast, Some("k")).await;
    assert_eq!(first.status(), 202);
    assert_eq!(header(&first, "ratelimit-policy"), "\"submits\";q=1;w=60");
    assert_eq!(header(&first, "ratelimit"), "\"submits\";r=1;t=0");
    assert_eq!(guarded.submit(&fast, Some("k")).await.status(), 200);
    let refused = guarded.submit(&fast, Some("k")).await;
    assert!(header(&refused, "ratelimit").starts_with("\"submits\";r=0;t="));
    let wait: u64 = header(&refused, "retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(code(refused).await, (429, "rate_limited".into()));
    assert_eq!(guarded.ask(&fast, Method::GET, "/v1/runs", None).await.status(), 200, "reading is free");

    let (few, _) = guarded.key("t", json!({"quota": {"in_flight": 1}})).await;
    let run = guarded.run(&few).await;
    let refused = guarded.submit(&few, None).await;
    assert_eq!(header(&refused, "ratelimit-policy"), "\"runs\";q=1;qu=\"concurrent-requests\"");
    assert_eq!(
        (header(&refused, "ratelimit"), header(&refused, "retry-after")),
        ("\"runs\";r=0".into(), "5".into())
    );
    assert_eq!(code(refused).await, (429, "too_many_runs".into()));
    guarded.ask(&few, Method::POST, &format!("/v1/runs/{run}/cancel"), None).await;
    assert_eq!(guarded.submit(&few, None).await.status(), 202);
}

#[tokio::test]
async fn a_replay_is_admitted_as_a_submit_is() {
    let backend = embedded();
    let guarded = Guarded::on(backend.clone()).await;
    let (key, _) = guarded.key("t", json!({"quota": {"submits": {"per_minute": 1, "burst": 3}}})).await;
    let first = guarded.run(&key).await;
    fail(&*backend, &first).await;
    let path = format!("/v1/runs/{first}/replay");
    let replay = async |key: &str| guarded.ask(key, Method::POST, &path, None).await;
    let answer = replay(&key).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["ratelimit"]),
        (202, &"\"submits\";r=1;t=0".parse().unwrap())
    );
    assert_eq!(replay(&key).await.status(), 200);
    let refused = replay(&key).await;
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(code(refused).await, (429, "rate_limited".into()));
    fail(&*backend, &format!("{first}-r1")).await;
    assert_eq!(
        code(guarded.ask(&key, Method::POST, &format!("/v1/runs/{first}-r1/replay"), None).await).await,
        (429, "rate_limited".into())
    );
    // a run of one key, replayed by another of the tenant, is one of the other's
    let (one, _) = guarded.key("t", json!({"quota": {"in_flight": 1}})).await;
    let second = guarded.run(&one).await;
    let path = format!("/v1/runs/{first}-r1/replay");
    let replay = async || guarded.ask(&one, Method::POST, &path, None).await;
    let refused = replay().await;
    assert_eq!(refused.headers()["retry-after"], "5");
    assert_eq!(code(refused).await, (429, "too_many_runs".into()));
    fail(&*backend, &second).await;
    assert_eq!(replay().await.status(), 202);
    assert_eq!(code(guarded.submit(&one, None).await).await, (429, "too_many_runs".into()));
}

#[tokio::test]
async fn an_operator_replays_dead_letters_whatever_the_key_has_under_way() {
    let (clock, hand) = Clock::manual(1_000_000);
    let backend = Arc::new(Embedded::new(Store { clock, ..Store::default() }));
    let guarded = Guarded::on(backend.clone()).await;
    let (key, _) = guarded.key("t", json!({})).await;
    let (run, task) = (RunId::new(guarded.run(&key).await).unwrap(), TaskId::new("a").unwrap());
    for start in 0..MAX_LOST {
        let claim =
            Claim { run: run.clone(), task: task.clone(), claim: format!("c{start}"), has_input: true };
        assert!(matches!(backend.claim(claim).await.unwrap(), Claimed::Run(_)));
        hand.advance(LEASE_MS);
        while backend.sweep().await.unwrap().looked > 0 {}
    }
    let few = json!({"scopes": ["read", "write", "admin"], "quota": {"in_flight": 1}});
    let (operator, _) = guarded.key("ops", few).await;
    guarded.run(&operator).await;
    assert_eq!(code(guarded.submit(&operator, None).await).await, (429, "too_many_runs".into()));
    let page = guarded.ask(&operator, Method::POST, "/v1/dead-letters/replay", None).await;
    assert_eq!(page.status(), 200);
    let page: Value = page.json().await.unwrap();
    assert_eq!(page["replays"][0]["replay_of"], json!(run), "{page}");
}

#[tokio::test]
async fn keys_of_the_configuration_work_without_the_store() {
    let key = "another key that is written nowhere";
    let hash = trireme_coordinator::KeyText::from(key.to_owned()).sha256();
    let keys = vec![serde_json::from_value(json!({"name": "ci", "tenant": "acme", "sha256": hash})).unwrap()];
    let config = Config { access: AccessMode::Keys, keys, ..unhurried() };
    let server = Server::with(config, embedded()).await;
    let answer = server.request(Method::POST, "/v1/runs").bearer_auth(key).body(r#"{"tasks": {"a": []}}"#);
    assert_eq!(answer.send().await.unwrap().status(), 202);
    let answer = server.request(Method::GET, "/v1/keys").bearer_auth(key).send().await.unwrap();
    assert_eq!(answer.status(), 403);
}

#[tokio::test]
async fn where_no_keys_are_needed_none_are_made() {
    let server = Server::start(embedded()).await;
    let refused = server.post("/v1/keys", json!({"name": "x", "scopes": ["admin"]})).await;
    assert_eq!(code(refused).await, (409, "keys_not_in_use".into()));
}
