//! `examples/llama/run.sh` with the simulator in the place of llama.cpp's server: what it runs, and that it leaves nothing
//! behind. What it installs is not installed here.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use tokio::process::Command;

use crate::support::{examples, process::finish_with};

/// What takes the place of the model. Like it, it never calls a tool.
const SCENARIO: &str = r#"
rules:
  - when: {system: {contains: Write a PLAN}}
    respond: {text: "1 calculator {\"expression\":\"17 * 23\"}\n2 calculator {\"expression\":\"${1} ^ 2\"}\njoin"}
  - when: {offers_tools: true}
    respond: {text: "It is about 400."}
  - {respond: {text: "{{ last_user }}"}}
"#;

/// A cache in which everything is installed, with `serves` in the place of the Python that serves the model.
fn installed(cache: &Path, serves: &str) {
    let python = cache.join("venv/bin/python");
    fs::create_dir_all(cache.join("venv/bin")).unwrap();
    fs::write(cache.join("smollm2.gguf"), "").unwrap();
    fs::write(cache.join("scenario.yaml"), SCENARIO).unwrap();
    fs::write(&python, format!("#!/bin/sh\n{serves}\n")).unwrap();
    fs::set_permissions(python, fs::Permissions::from_mode(0o755)).unwrap();
}

fn command(cache: &Path, specs: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.arg(examples().join("llama/run.sh")).args(specs);
    command.env("LLAMA_CACHE", cache).env("TRIREME", env!("CARGO_BIN_EXE_trireme")).kill_on_drop(true);
    command
}

#[tokio::test]
async fn it_runs_a_graph_and_agents_and_stops_its_server() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().display();
    // as serve.py does: says where it is, and ends with its input
    let serves = format!(
        r#"{} simulate {cache}/scenario.yaml --listen 127.0.0.1:0 2>{cache}/said &
echo $! >{cache}/pid
until sed -n 's|^tools *\(http.*\)/tools/NAME|\1|p' {cache}/said | grep .; do sleep 0.1; done
cat; kill $!; wait"#,
        env!("CARGO_BIN_EXE_trireme")
    );
    installed(dir.path(), &serves);
    let ended = finish_with(command(dir.path(), &[]), b"").await;
    ended.expect(0, &["graph.yaml", "agent.yaml", "tools.yaml", "plan-0/2-", "run succeeded"]);
    let [graph, plan, tools] = ended.out.lines().collect::<Vec<_>>()[..] else { panic!("{ended:?}") };
    assert!(graph.contains("copper"), "{graph}");
    assert!(plan.contains("-> 391") && plan.contains("-> 152881"), "{plan}");
    assert!(tools.contains("It is about 400.") && tools.contains("\"finish_reason\":\"answer\""), "{tools}");
    let pid = fs::read_to_string(dir.path().join("pid")).unwrap();
    let line = fs::read_to_string(format!("/proc/{}/cmdline", pid.trim()));
    assert!(!line.is_ok_and(|line| line.contains("simulate")), "the server is still there");
}

#[tokio::test]
async fn it_says_why_the_server_did_not_start_and_which_spec_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    installed(dir.path(), "echo the model is too small >&2; exit 3");
    let ended = finish_with(command(dir.path(), &[]), b"").await;
    ended.expect(69, &["the model's server did not start", "the model is too small"]);
    let ended = finish_with(command(dir.path(), &["missing.yaml"]), b"").await;
    ended.expect(64, &["missing.yaml: no such file"]);
}
