//! Who may use the API, as the store keeps it: API keys by their public id, and what is left of their rates.
//!
//! A key itself is never stored: only its SHA-256 is. Workers have no use for any of this, and in a fleet their
//! account of the store can't read it.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use trireme_model::{Admitted, KeyId, Ms, Rate, Tenant};

use crate::Error;

/// Most API keys of a deployment.
pub const MAX_KEYS: usize = 10_000;

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Look at the tenant's runs; check specs.
    Read,
    /// Start and cancel the tenant's runs.
    Write,
    /// Whatever concerns the deployment: API keys of any tenant, and what operators do.
    Admin,
}

/// What a key may use. `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Requests to start a run, repeated and refused ones included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submits: Option<Rate>,
    /// Runs under way at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u32>,
}

/// An API key as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Its public part.
    pub id: KeyId,
    /// A label for people, at most 256 bytes.
    pub name: String,
    /// Whose runs it may use.
    pub tenant: Tenant,
    /// What for.
    pub scopes: BTreeSet<Scope>,
    /// How much.
    #[serde(default)]
    pub quota: Quota,
    /// SHA-256 of the whole key, 64 hex digits.
    pub sha256: String,
    /// When it was made, on the clock of whoever made it.
    pub created_ms: Ms,
}

/// The store's part of access control. Every operation is one atomic step and safe to repeat.
#[async_trait]
pub trait Access: Send + Sync {
    /// Stores a key; one of the same id is replaced.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where there are [`MAX_KEYS`]; keys made at the same moment may pass it by a few.
    async fn put_key(&self, key: ApiKey) -> Result<(), Error>;
    /// A key by its id.
    async fn key(&self, id: &KeyId) -> Result<Option<ApiKey>, Error>;
    /// All keys, by their ids.
    async fn keys(&self) -> Result<Vec<ApiKey>, Error>;
    /// Forgets a key; says whether there was one. Its runs go on.
    async fn drop_key(&self, id: &KeyId) -> Result<bool, Error>;
    /// Takes one request out of what `rate` leaves the key, wherever in the fleet it is used. The key need not be
    /// stored here. A repeat takes another one.
    async fn admit(&self, id: &KeyId, rate: Rate) -> Result<Admitted, Error>;
}
