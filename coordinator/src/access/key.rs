//! The text of an API key: `trk_`, 16 hex digits by which it is looked up, `_`, and 64 hex digits (256 bits) of
//! randomness. It is shown once, when it is made; everything else knows its SHA-256.

use std::{collections::BTreeSet, fmt};

use rand::{TryRngCore, rngs::OsRng};
use sha2::{Digest, Sha256};
use trireme_backend::{ApiKey, Quota, Scope};
use trireme_model::{KeyId, Ms, Tenant};

use super::settings::check_key;
use crate::identity::hex;

/// Longest name of a key in bytes.
pub const MAX_NAME: usize = 256;
/// What every key begins with, so that scanners for leaked secrets find them.
const PREFIX: &str = "trk_";
/// Hex digits behind the id.
const SECRET: usize = 64;

/// A key in the clear. It prints as a placeholder.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyText(String);

/// What a new key is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minting {
    /// A label for people, 1 to [`MAX_NAME`] bytes.
    pub name: String,
    /// Whose runs it may use.
    pub tenant: Tenant,
    /// What for; at least one.
    pub scopes: BTreeSet<Scope>,
    /// How much.
    pub quota: Quota,
}

impl KeyText {
    /// A new one, from the system's randomness.
    pub fn fresh() -> Self {
        let mut bytes = [0; 8 + SECRET / 2];
        if let Err(error) = OsRng.try_fill_bytes(&mut bytes) {
            // a guessable key would be worse than none
            panic!("the system gives no randomness: {error}");
        }
        Self(format!("{PREFIX}{}_{}", hex(&bytes[..8]), hex(&bytes[8..])))
    }

    /// The key itself: for the one who asked for it, and nobody else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// SHA-256 as hex digits: what is stored.
    pub fn sha256(&self) -> String {
        hex(&hash(&self.0))
    }
}

impl From<String> for KeyText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// SHA-256 of a key.
pub(crate) fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// The public part of a key that was made by [`mint`].
pub(crate) fn id_of(text: &str) -> Option<KeyId> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    (secret.len() == SECRET).then(|| KeyId::new(id).ok()).flatten()
}

/// Makes a key: what to store, and what to hand out.
///
/// # Errors
/// What is wrong with `minting`.
pub fn mint(minting: Minting, now: Ms) -> Result<(ApiKey, KeyText), String> {
    let Minting { name, tenant, scopes, quota } = minting;
    check_key(&name, &scopes, &quota).map_err(|(field, reason)| format!("{field} {reason}"))?;
    let text = KeyText::fresh();
    let id = id_of(text.expose()).unwrap_or_else(|| unreachable!("a fresh key has an id"));
    Ok((ApiKey { id, name, tenant, scopes, quota, sha256: text.sha256(), created_ms: now }, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minting() -> Minting {
        Minting {
            name: "ci".into(),
            tenant: Tenant::default(),
            scopes: BTreeSet::from([Scope::Read]),
            quota: Quota::default(),
        }
    }

    #[test]
    fn a_key_is_random_and_leaves_only_its_hash() {
        let (stored, text) = mint(minting(), 7).unwrap();
        assert_eq!(id_of(text.expose()), Some(stored.id.clone()));
        assert_eq!(stored.sha256, hex(&hash(text.expose())));
        assert_ne!(mint(minting(), 7).unwrap().1, text);
        let secret = &text.expose()[text.expose().len() - SECRET..];
        assert!(!format!("{stored:?} {text:?}").contains(secret));
        assert!(!serde_json::to_string(&stored).unwrap().contains(secret));
    }

    #[test]
    fn what_no_key_may_be_is_refused() {
        for bad in [
            Minting { name: String::new(), ..minting() },
            Minting { name: "x".repeat(257), ..minting() },
            Minting { name: "a\nb".into(), ..minting() },
            Minting { name: "a\u{202e}b".into(), ..minting() },
            Minting { name: "a\u{61c}b".into(), ..minting() },
            Minting { scopes: BTreeSet::new(), ..minting() },
        ] {
            assert!(mint(bad.clone(), 7).is_err(), "{bad:?}");
        }
        for text in ["", "trk_", "trk_0123456789abcdef_", "0123456789abcdef", &"x".repeat(85)] {
            assert_eq!(id_of(text), None, "{text}");
        }
    }
}
