//! A coordinator under test, and a language for runs that has nothing but tasks and their inputs.

use std::{future::Future, sync::Arc, time::Duration};

use prometheus::Registry;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Map, Value};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use trireme_backend::Backend;
use trireme_backend_embedded::Embedded;
use trireme_coordinator::{Compiled, Config, Coordinator, Error, Format, Intake, Refused, SpecProblem};
use trireme_model::{Budget, Exec, Graph, Kind, Payload, Priority, TaskId, TaskSpec};

/// The pool that all tasks of tests run in.
pub const POOL: &str = "test";

pub struct Server {
    pub base: String,
    pub http: reqwest::Client,
    stop: CancellationToken,
    served: JoinHandle<Result<(), Error>>,
    _guard: DropGuard,
}

/// `{"name": "n", "tasks": {"a": [], "b": ["a"]}}`, in JSON or YAML.
pub struct Plain;

/// Fails the test instead of hanging it.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(Duration::from_secs(30), future).await;
    waited.unwrap_or_else(|_| panic!("{what} did not happen within 30 s"))
}

/// An embedded backend with its default bounds.
pub fn embedded() -> Arc<Embedded> {
    Arc::new(Embedded::new(trireme_backend_embedded::Config::default()))
}

/// Settings with which nothing happens by the clock within a test: what passes passes by being woken.
pub fn unhurried() -> Config {
    let long = Duration::from_secs(3600);
    Config {
        listen: ([127, 0, 0, 1], 0).into(),
        max_wait: long,
        keep_alive: long,
        poll: long,
        ..Config::default()
    }
}

impl Server {
    pub async fn start(backend: Arc<dyn Backend>) -> Self {
        Self::with(unhurried(), backend).await
    }

    pub async fn with(config: Config, backend: Arc<dyn Backend>) -> Self {
        Self::taking(Arc::new(Plain), config, backend).await
    }

    /// A server that takes another language than [`Plain`].
    pub async fn taking(intake: Arc<dyn Intake>, config: Config, backend: Arc<dyn Backend>) -> Self {
        // plain HTTP, but the client wants a TLS provider all the same
        let _ = rustls::crypto::ring::default_provider().install_default();
        let coordinator = Coordinator::new(config, backend, intake, Registry::new()).unwrap();
        let bound = coordinator.bind().await.unwrap();
        let base = format!("http://{}", bound.addr());
        let stop = CancellationToken::new();
        let served = tokio::spawn(bound.run(stop.clone()));
        let guard = stop.clone().drop_guard();
        Self { base, http: reqwest::Client::new(), stop, served, _guard: guard }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    pub async fn get(&self, path: &str) -> Response {
        soon(path, self.request(Method::GET, path).send()).await.unwrap()
    }

    pub async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: impl ToString) -> Response {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        soon(path, request.body(body.to_string()).send()).await.unwrap()
    }

    /// Submits and returns the run's id.
    pub async fn submit(&self, spec: Value) -> String {
        let response = self.post("/v1/runs", spec).await;
        assert_eq!(response.status(), 202);
        let state: Value = response.json().await.unwrap();
        state["run_id"].as_str().unwrap().to_owned()
    }

    pub fn begin_shutdown(&self) {
        self.stop.cancel();
    }

    pub async fn stopped(self) {
        soon("the end of the server", self.served).await.unwrap().unwrap();
    }
}

impl Intake for Plain {
    fn compile(&self, text: &str, format: Format) -> Result<Compiled, Refused> {
        let refuse = |malformed, path: &str, message: String| Refused {
            malformed,
            problems: vec![SpecProblem { path: path.into(), message }],
            more: 0,
        };
        let spec: Map<String, Value> = match format {
            Format::Json => serde_json::from_str(text).map_err(|e| refuse(true, "", e.to_string()))?,
            Format::Yaml => serde_saphyr::from_str(text).map_err(|_| refuse(true, "", "no YAML".into()))?,
        };
        if spec.contains_key("panic") {
            panic!("as the test asked for");
        }
        if let Some(unknown) = spec.keys().find(|key| !["name", "tasks", "input"].contains(&key.as_str())) {
            return Err(refuse(false, unknown, "is not a field of a run".into()));
        }
        let tasks = spec.get("tasks").and_then(Value::as_object);
        let tasks = tasks.ok_or_else(|| refuse(false, "tasks", "is missing".into()))?;
        let tasks = tasks.iter().map(|(id, inputs)| {
            let inputs = inputs.as_array().into_iter().flatten();
            task(id, inputs.filter_map(Value::as_str).map(|input| TaskId::new(input).unwrap()).collect())
        });
        let graph = Graph::new(tasks.collect()).map_err(|error| refuse(false, "tasks", error.to_string()))?;
        let name = spec.get("name").and_then(Value::as_str).unwrap_or("").to_owned();
        let input = Payload::of(spec.get("input").unwrap_or(&Value::Null));
        Ok(Compiled { name, graph, input, deadline: None, budget: Budget::default() })
    }
}

fn task(id: &str, inputs: Vec<TaskId>) -> TaskSpec {
    let exec = Exec {
        kind: Kind::Tool,
        pool: POOL.into(),
        priority: Priority::Normal,
        timeout: None,
        max_attempts: 1,
        backoff: 1,
        paid: false,
        fallback: None,
    };
    let body = Payload::from_json("{}");
    let (id, label) = (TaskId::new(id).unwrap(), String::new());
    TaskSpec { id, label, exec, inputs, policy: None, children: None, body }
}
