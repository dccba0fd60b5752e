//! Installs the peers once, pinned, under the workspace's `.tools`, and starts them.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const AIMOCK: &str = "@copilotkit/aimock@1.43.0";
const LLMOCK: &str = "llmock==0.2.2";

/// A peer's process; ends with the value.
pub struct Peer {
    pub url: String,
    _process: tokio::process::Child,
}

/// npm's aimock with our fixtures.
pub async fn aimock() -> Peer {
    let dir = install("aimock-1.43.0", |dir| {
        run(Command::new("npm")
            .args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"])
            .arg(dir)
            .arg(AIMOCK));
    });
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/fixtures.json");
    start(&dir.join("node_modules/.bin/llmock"), "/health", |command, port| {
        command.args(["--port", port, "--chunk-size", "7", "--strict", "--log-level", "silent"]);
        command.arg("--fixtures").arg(fixtures);
    })
    .await
}

/// PyPI's llmock, which grades its clients.
pub async fn llmock() -> Peer {
    let dir = install("llmock-0.2.2", |dir| {
        run(Command::new("python3").args(["-m", "venv"]).arg(dir));
        run(Command::new(dir.join("bin/pip")).args(["install", "--quiet", LLMOCK]));
    });
    start(&dir.join("bin/llmock"), "/health", |command, port| {
        command.args(["serve", "--host", "127.0.0.1", "--port", port, "--log-level", "error"]);
    })
    .await
}

/// The peer's directory, filled by `fill` when its mark is missing. A lock file makes test
/// processes take turns.
fn install(name: &str, fill: impl FnOnce(&Path)) -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../.tools/llm-peers");
    fs::create_dir_all(&tools).unwrap();
    let tools = tools.canonicalize().unwrap();
    let lock = File::create(tools.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    let dir = tools.join(name);
    let mark = tools.join(format!("{name}.installed"));
    if !mark.exists() {
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        fill(&dir);
        fs::write(mark, "").unwrap();
    }
    dir
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{command:?}: {error}; these tests need node with npm, and python3 with venv")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

async fn start(
    program: &Path,
    health: &str,
    configure: impl FnOnce(&mut tokio::process::Command, &str),
) -> Peer {
    // The peers cannot pick a port and say which.
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let mut command = tokio::process::Command::new(program);
    configure(&mut command, &port.to_string());
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut process = quiet.kill_on_drop(true).spawn().unwrap();
    let url = format!("http://127.0.0.1:{port}");
    let deadline = Instant::now() + Duration::from_secs(60);
    let client = reqwest::Client::new();
    loop {
        if let Ok(response) = client.get(format!("{url}{health}")).send().await
            && response.status().is_success()
        {
            break;
        }
        assert!(process.try_wait().unwrap().is_none(), "{program:?} ended");
        assert!(Instant::now() < deadline, "{program:?} is not ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Peer { url, _process: process }
}
