//! Who may use the API, for what, and how much of it.
//!
//! ```text
//! request under /v1 -> guard: key -> keyring: known and unchanged within 2 s -> identity: tenant, scopes, quota
//! handler           -> scope: runs of that tenant only, a foreign one is as unknown as none
//! POST /v1/runs     -> quota: the key's rate and its runs under way, both held by the store for the whole fleet
//! ```
//!
//! The tenant comes from the key and from nowhere else. What serves health, metrics and documents needs no key:
//! probes and scrapes have none, and it tells nothing about anybody's runs.

mod guard;
mod key;
mod keyring;
mod quota;
mod scope;
mod settings;

pub use key::{KeyText, MAX_NAME, Minting, mint};
pub use settings::{AccessMode, ConfigKey};

pub(crate) use guard::{Who, guard, under_v1};
pub(crate) use keyring::{Identity, Keyring};
pub(crate) use quota::Standing;
pub(crate) use settings::check_key;
