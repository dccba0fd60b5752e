//! HTTP clients of the commands, which may have to know a certificate authority of one's own.

use std::{path::Path, time::Duration};

use anyhow::Context;

use crate::exit::Failure;

/// A client that trusts the authorities of the system, and those of `ca` (PEM).
pub fn client(ca: Option<&Path>) -> Result<reqwest::ClientBuilder, Failure> {
    let builder = reqwest::Client::builder().connect_timeout(Duration::from_secs(5));
    let Some(file) = ca else { return Ok(builder) };
    let found = std::fs::read(file)
        .map_err(anyhow::Error::from)
        .and_then(|text| Ok(reqwest::Certificate::from_pem_bundle(&text)?))
        .context(format!("--ca-file {}", file.display()))
        .map_err(|error| Failure::usage(format!("{error:#}")))?;
    if found.is_empty() {
        return Err(Failure::usage(format!(
            "--ca-file {}: holds no certificate in PEM form",
            file.display()
        )));
    }
    Ok(builder.tls_certs_merge(found))
}
