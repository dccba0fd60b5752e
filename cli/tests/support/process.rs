//! `trireme` as a child process that can't outlive its test.

use std::{
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    process::{Child, Command},
};

use super::SOON;

/// Longest a command of these tests may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// The `trireme` command without any setting from the machine it runs on.
pub fn trireme(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trireme"));
    for (name, _) in std::env::vars() {
        if name.starts_with("TRIREME") || name.starts_with("OTEL_") || name.ends_with("_API_KEY") {
            command.env_remove(name);
        }
    }
    command.args(args).kill_on_drop(true);
    command
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ended {
    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails the test unless the code is `code` and standard error has every one of `texts`.
    #[track_caller]
    pub fn expect(&self, code: i32, texts: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        for text in texts {
            assert!(self.err.contains(text), "{text:?} is not in: {}", self.err);
        }
        self
    }
}

/// Runs a command to its end, with `stdin` as standard input.
pub async fn finish_with(mut command: Command, stdin: &[u8]) -> Ended {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let stdin = stdin.to_vec();
    // a command that does not read everything closes the pipe early
    let feed = tokio::spawn(async move { drop(pipe.write_all(&stdin).await) });
    let output = tokio::time::timeout(COMMAND_LIMIT, child.wait_with_output()).await;
    let output: Output = output.expect("the command goes on for ever").unwrap();
    feed.abort();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs `trireme args` to its end.
pub async fn run(args: &[&str]) -> Ended {
    finish_with(trireme(args), b"").await
}

/// A running `trireme`, killed when dropped.
pub struct Process {
    /// What failures call it.
    pub name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `command`; what it prints is kept.
    pub fn start(name: impl Into<String>, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        keep(child.stdout.take().unwrap(), lines.clone());
        keep(child.stderr.take().unwrap(), lines.clone());
        Self { name: name.into(), child, lines }
    }

    /// Its process id; `None` once its end was seen.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Everything it has printed.
    pub fn output(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// The first line that holds `text`, as soon as there is one.
    pub async fn line(&mut self, text: &str) -> String {
        let what = format!("{}: a line with {text:?}", self.name);
        let end = std::time::Instant::now() + SOON;
        loop {
            let found = self.lines.lock().unwrap().iter().find(|line| line.contains(text)).cloned();
            if let Some(line) = found {
                return line;
            }
            let gone = self.child.try_wait().unwrap();
            assert!(gone.is_none(), "{what}; it ended with {gone:?}: {}", self.output());
            assert!(std::time::Instant::now() < end, "{what}; it printed: {}", self.output());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// As [`Process::line`], also of a process that has ended.
    pub async fn line_kept(&self, text: &str) -> String {
        super::eventually(&format!("{}: a line with {text:?}", self.name), SOON, || async {
            self.lines.lock().unwrap().iter().find(|line| line.contains(text)).cloned()
        })
        .await
    }

    /// Sends a signal such as `TERM`.
    pub fn signal(&self, signal: &str) {
        if let Some(pid) = self.child.id() {
            trireme_test_servers::process::signal(pid, signal).unwrap();
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Whether it has ended, and how.
    pub fn gone(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("{} did not end within {within:?}: {}", self.name, self.output()),
        }
    }

    /// SIGTERM, and fails the test unless it then ends with exit code 0.
    pub async fn stop(&mut self, within: Duration) {
        self.signal("TERM");
        let status = self.ended(within).await;
        assert_eq!(status.code(), Some(0), "{} ended with {status}: {}", self.name, self.output());
    }

    /// Whether it died of SIGABRT.
    pub fn aborted(status: ExitStatus) -> bool {
        const SIGABRT: i32 = 6;
        status.signal() == Some(SIGABRT)
    }

    /// The address in a line such as `listening on http://127.0.0.1:1234`, or `"address":"127.0.0.1:1234"`.
    pub async fn address(&mut self, line_with: &str) -> String {
        let line = self.line(line_with).await;
        let at = line.find("127.0.0.1:").unwrap_or_else(|| panic!("no address in {line}"));
        let end = line[at..].find(|c: char| !"0123456789.:".contains(c)).map_or(line.len(), |end| at + end);
        format!("http://{}", &line[at..end])
    }
}

fn keep(pipe: impl AsyncRead + Unpin + Send + 'static, lines: Arc<Mutex<Vec<String>>>) {
    tokio::spawn(async move {
        let mut reader = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = reader.next_line().await {
            lines.lock().unwrap().push(line);
        }
    });
}
