//! How the process ends: a code for scripts, one line for people.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

/// Why a command did not succeed, as an exit code (after BSD's sysexits where one fits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The run failed or was cancelled; of `doctor`: a check fails; of `upgrade`: it must wait.
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
            note(format_args!("trireme: {}", self.message));
        }
        ExitCode::from(self.code as u8)
    }
}

/// Prints `text` and a line end on standard output. A reader that went away (`| head`) is no error; anything
/// else that keeps the output from its reader ends the process.
pub fn say(text: impl fmt::Display) {
    let mut out = io::stdout();
    let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) else { return };
    if error.kind() != io::ErrorKind::BrokenPipe {
        note(format_args!("trireme: can't write standard output: {error}"));
        std::process::exit(Code::Internal as i32);
    }
}

/// As [`say`], for what a model or tool wrote: a terminal must not obey it. Whoever reads a pipe or a file gets it as it
/// is.
pub fn show(text: &str) {
    if io::stdout().is_terminal() { say(printable(text)) } else { say(text) }
}

/// Prints `text` and a line end on standard error, without control characters: part of it may come from a spec or
/// from a provider. Nothing is left to tell of an error here.
pub fn note(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{}", printable(&text.to_string()));
}

/// `text` with control characters, but line ends and tabs, made visible; and those that turn the direction of text.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if turns || (c.is_control() && c != '\n' && c != '\t') {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// `text` without the source excerpts that parsers draw (`  |`, `1 | [worker`), on one line.
pub fn one_line(text: &str) -> String {
    let drawn = |line: &&str| {
        line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start().starts_with('|')
    };
    let kept: Vec<&str> = text.lines().filter(|line| !drawn(line)).map(str::trim).collect();
    kept.join(": ").trim_end_matches(": ").to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_made_visible() {
        assert_eq!(printable("a\u{1b}[31mb\nä\t"), "a\\u{1b}[31mb\nä\t");
        assert_eq!(printable("\u{9b}2J\u{202e}x"), "\\u{9b}2J\\u{202e}x");
    }

    #[test]
    fn a_drawn_excerpt_leaves_the_line() {
        let drawn = "configuration (b.toml): TOML parse error at line 1, column 8\n  |\n1 | [worker\n  |        ^\nunclosed table, expected `]`\n";
        assert_eq!(
            one_line(drawn),
            "configuration (b.toml): TOML parse error at line 1, column 8: unclosed table, expected `]`"
        );
        assert_eq!(one_line("plain"), "plain");
    }
}
