//! How the process ends: a code for scripts, one line for people.

use std::{fmt, process::ExitCode};

/// Why a command did not succeed, as an exit code (after BSD's sysexits where one fits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The run failed or was cancelled.
    RunFailed = 1,
    /// Bad configuration, spec or usage.
    Usage = 64,
    /// A service that is needed can't be reached.
    Unavailable = 69,
    /// Something that should not happen.
    Internal = 70,
}

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    message: String,
}

impl Failure {
    /// Ends with `code` after printing `message`.
    pub fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }

    /// Bad configuration, spec or usage.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Code::Usage, message)
    }

    /// Prints the message, if there is one, and gives the code.
    pub fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("trireme: {}", self.message);
        }
        ExitCode::from(self.code as u8)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Code::Internal, format!("{error:#}"))
    }
}

impl From<trireme_backend::Error> for Failure {
    fn from(error: trireme_backend::Error) -> Self {
        let code = if error.is_retryable() { Code::Unavailable } else { Code::Internal };
        Self::new(code, error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
