//! An OTLP receiver that is not ours: `oteltap` from PyPI, pinned, in a virtual environment in the workspace
//! (`.tools/venv-otel`), which is made at the first use. It prints every span as a line of JSON.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tokio::process::Command;
use trireme_test_servers::free_port;

use super::{SOON, eventually, process::Process};

const PACKAGE: &str = "oteltap==1.0.0";

/// A receiver.
pub struct Tap {
    process: Process,
    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub endpoint: String,
}

/// A span as it was received.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// All of it.
    pub json: Value,
    /// Its attributes; of a list its first element.
    pub attributes: BTreeMap<String, Value>,
}

/// The program; installs it where it is missing or of another version.
fn program() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools");
    std::fs::create_dir_all(&tools).unwrap();
    // two test runs at once must not build it together
    let lock = File::create(tools.join("venv-otel.lock")).unwrap();
    lock.lock().unwrap();
    let venv = tools.join("venv-otel");
    let program = venv.join("bin/oteltap");
    let stamp = venv.join("packages");
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == PACKAGE) {
        return program;
    }
    let run = |command: &mut std::process::Command| {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(std::process::Command::new("python3").args(["-m", "venv"]).arg(&venv));
    run(std::process::Command::new(venv.join("bin/python")).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        PACKAGE,
    ]));
    std::fs::write(stamp, PACKAGE).unwrap();
    program
}

impl Tap {
    /// A receiver that answers. Its first answer may take longer than a process that ends waits for one.
    pub async fn start(name: &str) -> Self {
        let program = tokio::task::spawn_blocking(program).await.unwrap();
        let port = free_port().unwrap();
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string()]).env("PYTHONUNBUFFERED", "1").kill_on_drop(true);
        let mut process = Process::start(name, command);
        process.line("Listening").await;
        let tap = Self { process, endpoint: format!("http://127.0.0.1:{port}") };
        let http = reqwest::Client::new();
        eventually("the receiver answers", SOON, || async {
            // an export of nothing
            let post = http.post(format!("{}/v1/traces", tap.endpoint)).body("");
            let answer = post.header("content-type", "application/x-protobuf").send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        tap
    }

    /// Everything it has printed.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// What it has received.
    pub fn spans(&self) -> Vec<Span> {
        self.output().lines().filter(|line| line.starts_with('{')).map(Span::parse).collect()
    }
}

impl Span {
    fn parse(line: &str) -> Self {
        let json: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let attributes = json["attributes"].as_array().unwrap().iter().map(|attribute| {
            let mut value = &attribute["value"];
            if let Some(first) = value.pointer("/arrayValue/values/0") {
                value = first;
            }
            let value = value.as_object().unwrap().values().next().cloned().unwrap_or_default();
            (attribute["key"].as_str().unwrap().to_owned(), value)
        });
        Self { attributes: attributes.collect(), json }
    }

    fn text(&self, field: &str) -> &str {
        self.json[field].as_str().unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.text("name")
    }

    /// Its id.
    pub fn id(&self) -> &str {
        self.text("spanId")
    }

    /// The span above it; empty for none.
    pub fn parent(&self) -> &str {
        self.text("parentSpanId")
    }

    /// Its trace.
    pub fn trace(&self) -> &str {
        self.text("traceId")
    }

    /// An attribute; null where it is missing.
    pub fn attribute(&self, name: &str) -> Value {
        self.attributes.get(name).cloned().unwrap_or_default()
    }
}

/// Names of spans whose parent is neither among `spans` nor `outside`.
pub fn orphans<'a>(spans: &'a [Span], outside: &str) -> Vec<&'a str> {
    let ids: HashSet<&str> = spans.iter().map(Span::id).collect();
    let lost = |span: &&Span| span.parent() != outside && !ids.contains(span.parent());
    spans.iter().filter(lost).map(Span::name).collect()
}
