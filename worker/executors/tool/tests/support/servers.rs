//! Real MCP servers of others, pinned and installed once under `<workspace>/.tools`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{LazyLock, Mutex, PoisonError},
};

const EVERYTHING: &str = "@modelcontextprotocol/server-everything@2026.8.31";
const TIME: &str = "mcp-server-time==2026.10.19";

/// Script of the everything server, to be run by `node`.
pub fn everything() -> PathBuf {
    static SCRIPT: LazyLock<PathBuf> = LazyLock::new(|| {
        let dir = tools().join("mcp-everything-2026.8.31");
        installed(&dir, || {
            let dir = dir.to_str().unwrap();
            let args =
                ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", dir, EVERYTHING];
            run("npm", &args, "install Node.js with npm, version 20 or later");
        });
        dir.join("node_modules/@modelcontextprotocol/server-everything/dist/index.js")
    });
    SCRIPT.clone()
}

/// Program of the time server.
pub fn time() -> PathBuf {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let dir = tools().join("mcp-time-2026.10.19");
        installed(&dir, || {
            run("python3", &["-m", "venv", dir.to_str().unwrap()], "install Python 3.10 or later with venv");
            let pip = dir.join("bin/pip");
            run(pip.to_str().unwrap(), &["install", "--quiet", TIME], "make PyPI reachable");
        });
        dir.join("bin/mcp-server-time")
    });
    PROGRAM.clone()
}

/// Full path of `node`, for a child without `PATH`.
pub fn node() -> String {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|dir| dir.join("node"))
        .find(|path| path.is_file());
    found.expect("install Node.js with npm, version 20 or later").to_str().unwrap().to_owned()
}

fn tools() -> PathBuf {
    let mut roots = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let dir = roots.find(|dir| dir.join("Cargo.lock").exists()).unwrap().join(".tools");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// Runs `install` unless a finished installation is there. Test processes take turns by a file lock.
fn installed(dir: &Path, install: impl FnOnce()) {
    static HERE: Mutex<()> = Mutex::new(());
    let _here = HERE.lock().unwrap_or_else(PoisonError::into_inner);
    let lock = std::fs::File::create(dir.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let done = dir.join("installed");
    if !done.exists() {
        let _ = std::fs::remove_dir_all(dir);
        std::fs::create_dir_all(dir).unwrap();
        install();
        std::fs::write(done, "").unwrap();
    }
}

fn run(program: &str, args: &[&str], remedy: &str) {
    let output = Command::new(program).args(args).output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!("{program} failed; {remedy}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("{program} does not run ({error}); {remedy}"),
    }
}
