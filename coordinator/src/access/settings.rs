//! What an operator may say about access.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use trireme_backend::{Quota, Scope};
use trireme_model::Tenant;

use super::key::MAX_NAME;
use crate::identity::unhex;

/// Whether API keys are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessMode {
    /// Not on a loopback address. On any other a coordinator does not start: say `keys` or `open`.
    #[default]
    Auto,
    /// Everything under `/v1` needs a key.
    Keys,
    /// Whoever reaches the address may do everything but make keys.
    Open,
}

/// An API key that stands in the configuration, as its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigKey {
    /// A label for people.
    pub name: String,
    /// Whose runs it may use. Default `default`.
    #[serde(default)]
    pub tenant: Tenant,
    /// What for. Default `read` and `write`.
    #[serde(default = "read_and_write")]
    pub scopes: BTreeSet<Scope>,
    /// How much. Default: no limit.
    #[serde(default)]
    pub quota: Quota,
    /// SHA-256 of the key, 64 hex digits, as `trireme keys hash` prints it.
    pub sha256: String,
}

fn read_and_write() -> BTreeSet<Scope> {
    BTreeSet::from([Scope::Read, Scope::Write])
}

impl ConfigKey {
    /// The hash as bytes.
    pub(crate) fn hash(&self) -> Option<[u8; 32]> {
        unhex(&self.sha256)?.try_into().ok()
    }
}

/// The field of a key that is wrong, if any, and what is wrong with it.
pub(crate) fn check_key(
    name: &str,
    scopes: &BTreeSet<Scope>,
    quota: &Quota,
) -> Result<(), (&'static str, String)> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(("name", format!("has {} bytes; use 1 to {MAX_NAME}", name.len())));
    }
    if name.chars().any(steers) {
        return Err(("name", "has characters that control a terminal or the direction of text".into()));
    }
    if scopes.is_empty() {
        return Err(("scopes", "is empty; name some of read, write, admin".into()));
    }
    match quota.submits {
        Some(rate) if rate.per_minute == 0 => Err(("quota.submits.per_minute", "must be at least 1".into())),
        Some(rate) if rate.burst == 0 => Err(("quota.submits.burst", "must be at least 1".into())),
        _ => Ok(()),
    }
}

/// Whether a character could make a list of keys show what is not there.
fn steers(char: char) -> bool {
    let turns = matches!(
        char,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    char.is_control() || turns
}
