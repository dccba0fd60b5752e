//! HTTP clients of the commands, which may have to know a certificate authority of one's own.

use std::{error::Error, io, path::Path, time::Duration};

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

/// What went wrong, down to its cause; the address is left to the caller.
pub fn why(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    for cause in causes(&error) {
        let cause = cause.to_string();
        // some repeat what is below them
        if !text.contains(&cause) {
            text.push_str(&format!(": {cause}"));
        }
    }
    if text.contains("certificate") {
        text.push_str(" (--ca-file names the certificates of a private authority)");
    }
    text
}

/// Whether nobody listens there.
pub fn refused(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    })
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}
