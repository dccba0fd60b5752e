//! The child process of a stdio server: its own process group, a clean environment, and an end
//! that takes its descendants with it.

use std::{
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
};

use crate::McpStdio;

/// How long a child may take to end by itself once its standard input is closed.
const GRACE: Duration = Duration::from_secs(2);
/// How long its standard error is listened to after a failed start.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How much of its standard error is kept for messages.
const TAIL: usize = 2048;

/// A running child. Dropping it kills its whole process group.
#[derive(Debug)]
pub(super) struct Process {
    /// Never waited for while `group` is in use: an unreaped leader keeps the group's id from
    /// being given to strangers.
    _child: Child,
    group: Pid,
    stderr: Arc<Mutex<Vec<u8>>>,
    /// Ends with the child's standard error.
    listener: JoinHandle<()>,
}

/// The child's ends of its pipes.
pub(super) struct Pipes {
    pub stdin: ChildStdin,
    pub stdout: ChildStdout,
}

// === impl Process ===

impl Process {
    pub fn spawn(server: &str, config: &McpStdio) -> Result<(Self, Pipes), String> {
        let mut command = Command::new(&config.command);
        command.args(&config.args).env_clear();
        for name in &config.pass_env {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        for (name, value) in &config.env {
            command.env(name, value.find().map_err(|missing| format!("env.{name}: {missing}"))?);
        }
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("cannot run `{}`: {e}", config.command))?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).ok_or("it ended at once")?;
        let stderr = Arc::default();
        match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
            (Some(stdin), Some(stdout), Some(pipe)) => {
                let listener = tokio::spawn(keep_tail(server.to_owned(), pipe, Arc::clone(&stderr)));
                Ok((
                    Self { _child: child, group: Pid::from_raw(id), listener, stderr },
                    Pipes { stdin, stdout },
                ))
            }
            _ => Err("its pipes are missing".to_owned()),
        }
    }

    pub fn pid(&self) -> u32 {
        self.group.as_raw().unsigned_abs()
    }

    /// Whether the child has not ended. Looks without reaping.
    #[cfg(target_os = "linux")]
    pub fn is_alive(&self) -> bool {
        use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        matches!(waitid(Id::Pid(self.group), flags), Ok(WaitStatus::StillAlive))
    }

    /// Elsewhere the end of its standard output tells.
    #[cfg(not(target_os = "linux"))]
    pub fn is_alive(&self) -> bool {
        true
    }

    /// Waits for the end, at most two seconds; the drop that follows kills what is left.
    pub async fn ended(&self) {
        // Polled because waiting would reap the leader, and then its group could not be killed safely.
        let until = tokio::time::Instant::now() + GRACE;
        while self.is_alive() && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The last words on its standard error, for which a child that has just ended gets a moment.
    pub async fn last_words(mut self) -> String {
        let _ = tokio::time::timeout(LAST_WORDS, &mut self.listener).await;
        let tail = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&tail).trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only when the group is already gone. The leader is reaped by tokio (`kill_on_drop`).
        let _ = killpg(self.group, Signal::SIGKILL);
    }
}

/// Drains standard error, so that the child never blocks on it, and keeps its end.
async fn keep_tail(server: String, mut pipe: ChildStderr, tail: Arc<Mutex<Vec<u8>>>) {
    let mut chunk = [0; 1024];
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        tracing::debug!(server, text = %String::from_utf8_lossy(&chunk[..count]), "mcp server's stderr");
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(&chunk[..count]);
        let excess = tail.len().saturating_sub(TAIL);
        tail.drain(..excess);
    }
}
