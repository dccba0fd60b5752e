//! The official Python SDKs of both providers talk to the simulator: proof that its formats are
//! the providers' and not just what our own client accepts.
//!
//! The SDKs are pinned and live in a virtual environment in the workspace (`.tools/venv-sdk`),
//! which is made at the first run.
#![allow(clippy::unwrap_used)]

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use trireme_simulator::{Kind, Outcome, Scenario, Simulator};

const PACKAGES: [&str; 2] = ["openai==3.54.0", "anthropic==2.12.0"];

const SCENARIO: &str = "
models: [sim/fast, sim/best]
rules:
  - {when: {last_user: limited}, fault: {error: {status: 429, retry_after: 10ms}}}
  - {name: flaky, when: {last_user: flaky}, times_each: 1, fault: {error: {status: 500}}}
  - when: {has_tool_results: true}
    respond: {text: 'Results: {% for r in tool_results %}{{ r.name }}={{ r.text }};{% endfor %}'}
  - when: {offers_tool: weather}
    respond:
      text: Let me look.
      tool_calls:
        - {name: weather, arguments: {city: Paris}}
        - {name: weather, arguments: {city: Oslo, days: 3}}
  - {respond: {text: 'You said: {{ last_user }}', tokens_per_second: 500, chunk_interval: 1ms}}
";

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn run(command: &mut Command) -> Output {
    let output =
        command.output().unwrap_or_else(|error| panic!("cannot run {:?}: {error}", command.get_program()));
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The environment's interpreter; makes the environment where it is missing or of other versions.
fn python() -> PathBuf {
    let tools = workspace().join(".tools");
    std::fs::create_dir_all(&tools).unwrap();
    // Two test runs at once must not build it together.
    let lock = File::create(tools.join("venv-sdk.lock")).unwrap();
    lock.lock().unwrap();
    let venv = tools.join("venv-sdk");
    let python = venv.join("bin/python");
    let stamp = venv.join("packages");
    let wanted = PACKAGES.join("\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return python;
    }
    let ready = Command::new("python3").args(["-c", "import venv, ensurepip"]).output();
    assert!(
        ready.is_ok_and(|output| output.status.success()),
        "this test needs python3 with venv: install the packages python3 and python3-venv"
    );
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(PACKAGES));
    std::fs::write(stamp, wanted).unwrap();
    python
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_sdks_can_talk_to_it() {
    let scenario = Scenario::parse(SCENARIO).unwrap();
    let simulator = Simulator::start(scenario, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python_sdk.py");
    let (openai, anthropic) = (simulator.openai_base_url(), simulator.anthropic_base_url());
    let output = tokio::task::spawn_blocking(move || {
        run(Command::new(python()).arg(script).arg(openai).arg(anthropic))
    });
    let output = output.await.unwrap();
    assert_eq!("all checks passed", String::from_utf8_lossy(&output.stdout).trim());

    let calls = simulator.ledger().calls();
    for kind in [Kind::OpenAi, Kind::Anthropic] {
        let of_kind = || calls.iter().filter(move |call| call.kind == kind);
        assert!(of_kind().filter(|call| call.stream && call.outcome == Outcome::Completed).count() >= 2);
        // The SDK repeated the call that failed once.
        let flaky: Vec<Outcome> = of_kind()
            .filter(|call| call.content_hash == flaky_hash(&calls, kind))
            .map(|call| call.outcome)
            .collect();
        assert_eq!([Outcome::Error, Outcome::Completed], flaky.as_slice());
    }
}

fn flaky_hash(calls: &[trireme_simulator::Call], kind: Kind) -> String {
    let flaky = calls.iter().find(|call| call.kind == kind && call.rule == "flaky");
    flaky.unwrap().content_hash.clone()
}
