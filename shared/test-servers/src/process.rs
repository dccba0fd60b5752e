//! A server process that cannot outlive us.
//!
//! The server is started by a small shell that reads a pipe we hold. When we close the pipe, or when we die in
//! any way (a panic, SIGKILL, the end of `main` with statics never dropped), the shell sees the end of the
//! pipe, kills the server's whole session and deletes its directory. No signal handlers and no `unsafe`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// Why a test server could not be started or reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("test server: {0}")]
    Io(#[from] std::io::Error),
    /// The server's program is not installed.
    #[error("{program} is not installed: install the package {package}")]
    NotInstalled {
        /// The program that was looked for.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The server did not answer in time.
    #[error("{what} on {address} did not become {state} within {limit:?}; its log:\n{log}")]
    NotInTime {
        /// Name of the server.
        what: &'static str,
        /// Where it was expected.
        address: SocketAddr,
        /// What was waited for.
        state: &'static str,
        /// How long it was waited for.
        limit: Duration,
        /// The end of the server's log.
        log: String,
    },
}

// Arguments: directory, then the server's command line. `setsid` makes the server a session of its own, so
// that one kill reaches all that it starts. A line on the pipe means "kill, but keep the directory".
const SUPERVISOR: &str = r#"
dir=$1; shift
setsid "$@" </dev/null >>"$dir/output.log" 2>&1 &
server=$!
echo "$server"
exec >/dev/null 2>&1
keep=""
read -r keep
kill -s KILL -- "-$server"
wait "$server"
[ -n "$keep" ] || rm -rf -- "$dir"
"#;

/// A running server: its supervising shell and the pipe that keeps it alive.
#[derive(Debug)]
pub struct Supervised {
    shell: Child,
    pipe: Option<ChildStdin>,
    pid: u32,
}

impl Supervised {
    /// Starts `command` with its output in `dir/output.log`.
    ///
    /// # Errors
    /// [`Error::Io`] when the shell cannot be started.
    pub fn spawn(dir: &Path, command: &[String], env: &[(String, String)]) -> Result<Self, Error> {
        let mut shell = Command::new("sh")
            .arg("-c")
            .arg(SUPERVISOR)
            .arg("test-server")
            .arg(dir)
            .args(command)
            .envs(env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let pipe = shell.stdin.take();
        let mut line = String::new();
        if let Some(out) = shell.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let pid =
            line.trim().parse().map_err(|_| std::io::Error::other("the supervising shell gave no pid"))?;
        Ok(Self { shell, pipe, pid })
    }

    /// Process id of the server, which is also the id of its session and process group.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills the server with SIGKILL, waits until it is gone, and keeps its directory.
    pub fn kill9(mut self) {
        if let Some(pipe) = self.pipe.as_mut() {
            let _ = pipe.write_all(b"keep\n");
        }
        // Dropping waits for the shell.
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.shell.wait();
    }
}

/// Sends `signal` (such as `TERM` or `STOP`) to a process.
///
/// # Errors
/// [`Error::Io`] when there is no such process.
pub fn signal(pid: u32, signal: &str) -> Result<(), Error> {
    let done =
        Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).stderr(Stdio::null()).status()?;
    if done.success() { Ok(()) } else { Err(std::io::Error::other(format!("no process {pid}")).into()) }
}

/// Whether a process exists and has not ended (one that ended but was not yet collected does not run).
pub fn runs(pid: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Path of an installed program, looked for in `PATH` and in the usual system folders.
///
/// # Errors
/// [`Error::NotInstalled`] when it is in none of them.
pub fn installed(program: &str, package: &'static str) -> Result<String, Error> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/bin", "/usr/sbin", "/usr/local/bin", "/opt/homebrew/bin"])
        .map(|dir| Path::new(dir).join(program))
        .find(|file| file.is_file())
        .map(|file| file.to_string_lossy().into_owned())
        .ok_or_else(|| Error::NotInstalled { program: program.to_owned(), package })
}

/// Whether a server on `address` answers `greeting` with something that starts with `answer`.
pub fn answers(address: SocketAddr, greeting: &[u8], answer: &[u8]) -> bool {
    let limit = Duration::from_secs(2);
    let exchange = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(greeting)?;
        let mut got = vec![0; answer.len()];
        stream.read_exact(&mut got)?;
        Ok(got == answer)
    };
    exchange().unwrap_or(false)
}

/// Asks `ready` every 20 ms until it holds.
///
/// # Errors
/// [`Error::NotInTime`], with the end of `dir/output.log`, when it does not hold within `limit`.
pub fn wait_until(
    what: &'static str,
    state: &'static str,
    address: SocketAddr,
    dir: &Path,
    limit: Duration,
    mut ready: impl FnMut() -> bool,
) -> Result<(), Error> {
    let end = Instant::now() + limit;
    while !ready() {
        if Instant::now() >= end {
            let log = std::fs::read_to_string(dir.join("output.log")).unwrap_or_default();
            let from = log.len().saturating_sub(2_000);
            let log = log.get(from..).unwrap_or_default().to_owned();
            return Err(Error::NotInTime { what, address, state, limit, log });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
