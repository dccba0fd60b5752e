//! Runs as one tenant sees them: those of others are not there.

use trireme_model::{RunId, view::RunSummary};

use super::Identity;
use crate::api::{App, Problem};

impl App {
    /// The head of a run of `who`'s tenant. One of another tenant costs the same look and gets the same answer as one
    /// that does not exist. A run never changes its tenant, so what follows needs not ask again.
    pub(crate) async fn own_run(&self, who: &Identity, run: &RunId) -> Result<RunSummary, Problem> {
        let found = self.backend.summary(run).await?.filter(|summary| summary.tenant == who.tenant);
        found.ok_or_else(|| Problem::no_run(run))
    }
}
