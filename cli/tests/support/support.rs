//! What the process tests share: the `trireme` command as a child, its HTTP API, the simulator, whole fleets.
//! Every test binary takes this file in as a module; none of them uses all of it.
#![allow(dead_code)]

pub mod api;
pub mod fleet;
#[path = "../../../worker/executors/tool/tests/support/servers.rs"]
pub mod mcp;
pub mod process;
pub mod simulator;
pub mod tap;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// How long a test waits for something that must come, and comes at once on an idle machine.
pub const SOON: Duration = Duration::from_secs(30);

/// Asks until there is an answer, and fails the test when there is none in time.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    within: Duration,
    mut ask: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The folder of the examples.
pub fn examples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// The text of one example.
pub fn example(name: &str) -> String {
    std::fs::read_to_string(examples().join(format!("{name}.yaml"))).unwrap()
}

/// The names of the examples without agents, in order.
pub fn example_names() -> Vec<String> {
    names().into_iter().filter(|name| !name.starts_with("agent-")).collect()
}

/// The names of the examples of agents, in order.
pub fn agent_names() -> Vec<String> {
    names().into_iter().filter(|name| name.starts_with("agent-")).collect()
}

fn names() -> Vec<String> {
    let files = std::fs::read_dir(examples()).unwrap().map(|file| file.unwrap().path());
    let yaml = files.filter(|path| path.extension().is_some_and(|end| end == "yaml"));
    let mut names: Vec<String> =
        yaml.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// A run with a map of 10,000 items, which gives 49,995,000.
pub fn wide() -> String {
    let items: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
    format!(
        r#"
input: {{n: [{}]}}
tasks:
  wide: {{map: {{over: "{{{{ input.n }}}}", do: {{tool: {{name: value, args: {{value: "{{{{ item }}}}"}}}}}}, at_once: 200}}}}
output: "{{{{ wide | sum }}}}"
"#,
        items.join(",")
    )
}
