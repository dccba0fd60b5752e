//! `trireme simulate` as a process, and the configuration that leads to it.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    api::Api,
    examples,
    process::{Process, trireme},
};

/// Where the examples' configuration expects the simulator.
const EXAMPLE_ADDRESS: &str = "http://127.0.0.1:9900";
/// Where it expects the MCP server.
const MCP_SERVER: &str = ".tools/mcp-time/bin/mcp-server-time";

/// Simulated models and tools.
pub struct Simulator {
    /// Its process.
    pub process: Process,
    /// Its admin pages.
    pub api: Api,
    /// Settings for `--config`.
    pub config: PathBuf,
    dir: TempDir,
}

impl Simulator {
    /// The world of the examples.
    pub async fn examples() -> Self {
        Self::scenario(&examples().join("scenarios/market-brief.yaml")).await
    }

    /// The world of the examples of agents.
    pub async fn agents() -> Self {
        Self::scenario(&examples().join("scenarios/agents.yaml")).await
    }

    /// A world of the test's own.
    pub async fn text(scenario: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("scenario.yaml");
        std::fs::write(&file, scenario).unwrap();
        Self::scenario(&file).await
    }

    async fn scenario(file: &Path) -> Self {
        let command = trireme(&["simulate", file.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
        let mut process = Process::start("simulator", command);
        let base = process.address("OpenAI-compatible").await;
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("simulated.toml");
        write_config(&config, &base);
        Self { process, api: Api::new(base), config, dir }
    }

    /// `--config` as an argument.
    pub fn config(&self) -> &str {
        self.config.to_str().unwrap()
    }

    /// As `config`, with the MCP server of the examples, which is installed the first time.
    pub async fn with_mcp(&self) -> PathBuf {
        let server = tokio::task::spawn_blocking(super::mcp::time).await.unwrap();
        let text = std::fs::read_to_string(examples().join("mcp.toml")).unwrap();
        let section = &text[text.find("[mcp.time]").expect("the examples' MCP server is called time")..];
        assert!(section.contains(MCP_SERVER), "the examples' configuration names another server");
        let section = section.replace(MCP_SERVER, server.to_str().unwrap());
        let file = self.config.with_file_name("mcp.toml");
        let simulated = std::fs::read_to_string(&self.config).unwrap();
        std::fs::write(&file, format!("{simulated}\n{section}")).unwrap();
        file
    }

    /// Calls to models and tools so far.
    pub async fn calls(&self) -> Vec<Value> {
        let (_, body) = self.api.get("/_simulator/ledger").await.unwrap();
        let ledger: Value = serde_json::from_str(&body).unwrap();
        ledger["calls"].as_array().unwrap().clone()
    }
}

/// The examples' configuration, with the simulator at `base`.
pub fn write_config(file: &Path, base: &str) {
    let text = std::fs::read_to_string(examples().join("simulated.toml")).unwrap();
    assert!(text.contains(EXAMPLE_ADDRESS), "the examples' configuration names another address");
    std::fs::write(file, text.replace(EXAMPLE_ADDRESS, base)).unwrap();
}
