//! Every example compiles, and its derived graph is the one written down in `tests/graphs/`.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use trireme_spec::{Checker, compile};

/// What the examples may use: built-in tools, and those of `examples/simulated.toml` and `examples/mcp.toml`.
struct Known;

const TOOLS: [&str; 8] =
    ["calculator", "json_query", "value", "search", "filings", "prices", "page", "time.convert_time"];

impl Checker for Known {
    fn model(&self, name: &str) -> Result<(), String> {
        let known = ["sim/fast", "sim/best"].contains(&name);
        if known { Ok(()) } else { Err(format!("unknown model `{name}`")) }
    }

    fn tool(&self, name: &str) -> Result<(), String> {
        if TOOLS.contains(&name) { Ok(()) } else { Err(format!("unknown tool `{name}`")) }
    }
}

#[test]
fn the_derived_graph_of_each_example_is_as_written_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = Vec::new();
    for entry in fs::read_dir(root.join("../../examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let compiled = compile(&fs::read_to_string(&path).unwrap(), &[], &Known)
            .unwrap_or_else(|invalid| panic!("{name}:\n{invalid}"));
        let drawn = format!("{}\n{}", compiled.tree(), compiled.mermaid());
        let golden = root.join(format!("tests/graphs/{name}.txt"));
        if std::env::var_os("TRIREME_WRITE_GRAPHS").is_some() {
            fs::write(&golden, &drawn).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(drawn, expected, "{name}: TRIREME_WRITE_GRAPHS=1 writes the graph down anew");
        seen.push(name);
    }
    seen.sort();
    for name in
        ["agent-brief", "agent-in-tasks", "fallback", "hello", "map", "market-brief", "quorum", "race"]
    {
        assert!(seen.iter().any(|found| found == name), "{name} is missing among {seen:?}");
    }
}
