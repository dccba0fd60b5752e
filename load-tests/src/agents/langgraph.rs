//! LangGraph's prebuilt agent as an outside peer: a Python process that is given goals and prints results, one JSON
//! line each.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
};

use super::{Outcome, calibration, suite};

/// Versions from PyPI; the virtual environment is made anew when they change.
const REQUIREMENTS: &str = include_str!("../../peers/requirements.txt");
const PROGRAM: &str = include_str!("../../peers/langgraph_agent.py");

/// Items at a time at most. A Python process runs on one core: sixteen items at once make its median on suite (a) 5 %
/// longer than one at a time, eight 3 %. The other systems differ by under 3 % between one and sixteen.
const AT_ONCE: usize = 8;

/// How one item ended, as the process prints it.
#[derive(Debug, Deserialize)]
struct Line {
    id: String,
    wall_s: f64,
    answer: Option<String>,
    error: Option<String>,
}

/// Printed once the process is warm; it goes on when a line comes.
const READY: &str = "ready";

/// CPU seconds that the process used, printed last.
#[derive(Debug, Deserialize)]
struct Last {
    cpu_s: f64,
}

/// Pursues the goals of `suite`, `at_once` at a time, and gives the outcomes in the order of the items and the
/// CPU seconds of the process. Calls `warm` when it is about to begin.
pub(super) async fn run(
    base: &str,
    suite: &suite::Suite,
    at_once: usize,
    warm: impl FnOnce(),
) -> anyhow::Result<(Vec<Outcome>, f64)> {
    let python = environment().await?;
    let mut child = Command::new(python)
        .args(["-c", PROGRAM])
        .env_remove("LANGSMITH_API_KEY")
        .env("LANGSMITH_TRACING", "false")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let tools = suite.tools.iter().map(
        |tool| json!({"name": tool.name, "description": tool.description, "parameters": tool.parameters}),
    );
    let item = |item: &suite::Item| json!({"id": item.id, "goal": item.goal});
    let items: Vec<_> = suite.items.iter().map(item).collect();
    let work = json!({
        "base_url": base, "model": calibration::BEST, "system": suite::system(), "at_once": at_once.min(AT_ONCE),
        "tools": tools.collect::<Vec<_>>(), "items": items,
        "warm_up": suite.warm_up.as_ref().map(item),
    });
    let mut input = child.stdin.take().context("its input")?;
    input.write_all(format!("{work}\n").as_bytes()).await?;
    let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    if lines.next_line().await?.as_deref() != Some(READY) {
        bail!("langgraph did not get ready");
    }
    warm();
    input.write_all(b"go\n").await?;
    let (mut found, mut cpu) = (HashMap::new(), 0.0);
    while let Some(line) = lines.next_line().await? {
        if let Ok(last) = serde_json::from_str::<Last>(&line) {
            cpu = last.cpu_s;
            continue;
        }
        let line: Line = serde_json::from_str(&line).with_context(|| format!("langgraph said {line:?}"))?;
        let answer = line.answer.ok_or_else(|| line.error.unwrap_or_else(|| "no answer".to_owned()));
        found.insert(line.id, Outcome { wall: Duration::try_from_secs_f64(line.wall_s)?, answer });
    }
    let status = child.wait().await?;
    if !status.success() {
        bail!("langgraph ended with {status}");
    }
    let outcomes = suite.items.iter().map(|item| found.remove(&item.id).with_context(|| item.id.clone()));
    Ok((outcomes.collect::<anyhow::Result<_>>()?, cpu))
}

/// The interpreter of a virtual environment under `target/` that has [`REQUIREMENTS`] installed.
async fn environment() -> anyhow::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/langgraph");
    let (python, installed) = (folder.join("bin/python"), folder.join("installed.txt"));
    if std::fs::read_to_string(&installed).is_ok_and(|text| text == REQUIREMENTS) {
        return Ok(python);
    }
    eprintln!("installing LangGraph into {}", folder.display());
    command("python3", &["-m", "venv", "--clear", &folder.to_string_lossy()]).await?;
    let list = folder.join("requirements.txt");
    std::fs::write(&list, REQUIREMENTS)?;
    // Wheels only: building from source would need compilers, and takes minutes.
    let arguments =
        ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary", ":all:", "-r"];
    let list = list.to_string_lossy();
    command(&python.to_string_lossy(), &[&arguments[..], &[&list]].concat()).await?;
    std::fs::write(&installed, REQUIREMENTS)?;
    Ok(python)
}

async fn command(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(program).args(arguments).status().await.with_context(|| program.to_owned())?;
    if !status.success() {
        bail!("{program} {}: {status}", arguments.join(" "));
    }
    Ok(())
}
