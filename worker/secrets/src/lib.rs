//! Secrets by name: `secret://NAME` in the configuration, looked up by a worker at the moment of a call.
//!
//! A configuration that names its secrets holds none, so it may lie in a ConfigMap, be printed, and reach the
//! coordinator. The value is the environment variable `TRIREME_SECRET_NAME` (upper case, `-` and `.` as `_`), or else
//! the file `NAME` in the directory `TRIREME_SECRETS_DIR` (default `/etc/trireme/secrets`), as Kubernetes mounts a
//! Secret. A file is read at each call, so that a renewed one counts at once.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::{
    fmt,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

/// What the name of a secret follows.
pub const SCHEME: &str = "secret://";
/// The variable that names the directory.
pub const DIRECTORY: &str = "TRIREME_SECRETS_DIR";
const USUAL_DIRECTORY: &str = "/etc/trireme/secrets";
/// Largest secret in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// The name of a secret: 1 to 63 of `[A-Za-z0-9._-]`, not beginning with a dot.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SecretName(String);

/// Why there is no secret. Says the name and where it was looked for, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The name can't be one.
    #[error(
        "{0:?} can't be the name of a secret: use 1 to 63 of A-Z a-z 0-9 . _ -, not beginning with a dot"
    )]
    Name(String),
    /// Neither variable nor file, or they are empty.
    #[error("secret {name} is neither in {variable} nor in {file}")]
    Value {
        /// The name.
        name: String,
        /// The variable.
        variable: String,
        /// The file.
        file: String,
    },
    /// There is a file, which can't hold a secret.
    #[error("secret {name}: {file} {why}")]
    File {
        /// The name.
        name: String,
        /// The file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
}

impl SecretName {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// [`Missing::Name`].
    pub fn new(name: &str) -> Result<Self, Missing> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=63).contains(&name.len()) && name.bytes().all(word) && !name.starts_with('.') {
            return Ok(Self(name.to_owned()));
        }
        Err(Missing::Name(name.chars().take(80).collect()))
    }

    /// Reads `PREFIXsecret://NAME`: what stands before it, and the name; `None` for a text that names no secret.
    ///
    /// # Errors
    /// [`Missing::Name`].
    pub fn parse(text: &str) -> Option<Result<(&str, Self), Missing>> {
        let (before, name) = text.split_once(SCHEME)?;
        Some(Self::new(name.trim()).map(|name| (before, name)))
    }

    /// The environment variable that may hold it.
    pub fn variable(&self) -> String {
        format!("TRIREME_SECRET_{}", self.0.to_ascii_uppercase().replace(['-', '.'], "_"))
    }

    /// The value, without white space around it.
    ///
    /// # Errors
    /// [`Missing::Value`], [`Missing::File`].
    pub fn find(&self) -> Result<String, Missing> {
        self.find_in(&|name| std::env::var(name).ok())
    }

    fn find_in(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Missing> {
        let filled = |text: String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let variable = self.variable();
        if let Some(value) = env(&variable).and_then(filled) {
            return Ok(value);
        }
        let file = PathBuf::from(env(DIRECTORY).unwrap_or_else(|| USUAL_DIRECTORY.into())).join(&self.0);
        let (name, shown) = (self.0.clone(), file.display().to_string());
        match read(&file) {
            Ok(Some(text)) => filled(text).ok_or(Missing::Value { name, variable, file: shown }),
            Ok(None) => Err(Missing::Value { name, variable, file: shown }),
            Err(why) => Err(Missing::File { name, file: shown, why }),
        }
    }
}

/// The text of a file, `None` where there is none; else why it can't be a secret. Nothing but a file is opened: a FIFO
/// would wait for its writer, and a device may have no end.
fn read(file: &Path) -> Result<Option<String>, String> {
    let about = match std::fs::metadata(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        about => about.map_err(|error| format!("can't be read: {error}"))?,
    };
    if !about.is_file() {
        return Err("is no file".to_owned());
    }
    let mut text = String::new();
    let open = std::fs::File::open(file).map_err(|error| format!("can't be read: {error}"))?;
    match open.take(MAX_BYTES + 1).read_to_string(&mut text) {
        Ok(size) if size as u64 > MAX_BYTES => Err(format!("has more than {MAX_BYTES} bytes")),
        Ok(_) => Ok(Some(text)),
        Err(error) => Err(format!("can't be read: {error}")),
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.0)
    }
}

impl fmt::Debug for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_over_the_file_and_a_renewed_file_counts() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().to_str().unwrap().to_owned();
        let name = SecretName::new("open-ai.key").unwrap();
        let env = |variable: Option<&'static str>| {
            let at = at.clone();
            move |wanted: &str| match wanted {
                DIRECTORY => Some(at.clone()),
                "TRIREME_SECRET_OPEN_AI_KEY" => variable.map(str::to_owned),
                _ => None,
            }
        };
        let error = name.find_in(&env(None)).unwrap_err().to_string();
        assert!(error.contains("TRIREME_SECRET_OPEN_AI_KEY") && error.contains(&at), "{error}");
        for value in ["one\n", "two\n"] {
            std::fs::write(dir.path().join("open-ai.key"), value).unwrap();
            assert_eq!(name.find_in(&env(None)).unwrap(), value.trim());
        }
        assert_eq!(name.find_in(&env(Some("three"))).unwrap(), "three");
        assert_eq!(name.find_in(&env(Some("  "))).unwrap(), "two");
    }

    #[test]
    fn what_can_not_be_a_secret_is_told_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().to_str().unwrap().to_owned();
        let env = |wanted: &str| (wanted == DIRECTORY).then(|| at.clone());
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("device")).unwrap();
        std::fs::write(dir.path().join("large"), "x".repeat(MAX_BYTES as usize + 1)).unwrap();
        std::fs::write(dir.path().join("binary"), [0xff]).unwrap();
        assert!(
            std::process::Command::new("mkfifo").arg(dir.path().join("fifo")).status().unwrap().success()
        );
        for (name, why) in [
            ("dir", "is no file"),
            ("device", "is no file"),
            ("fifo", "is no file"),
            ("large", "65536"),
            ("binary", "UTF-8"),
        ] {
            let error = SecretName::new(name).unwrap().find_in(&env).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_name_leads_out_of_no_directory() {
        for bad in ["", ".", "..", "../x", "a/b", ".x", "ä", &"x".repeat(64)] {
            assert!(SecretName::new(bad).is_err(), "{bad:?}");
        }
        let (before, name) = SecretName::parse("Bearer secret://search").unwrap().unwrap();
        assert_eq!((before, name.to_string().as_str()), ("Bearer ", "secret://search"));
        assert!(SecretName::parse("Bearer literal").is_none());
        assert!(SecretName::parse("secret://a/b").unwrap().is_err());
    }
}
