//! The files with certificates, read and checked before any socket opens.

use std::path::Path;

use anyhow::{Context, bail};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use trireme_backend_cluster::Tls;

use super::{Amqp, Redis};

/// The files of one service.
pub(super) struct Files<'a> {
    ca: Option<&'a Path>,
    cert: Option<&'a Path>,
    key: Option<&'a Path>,
}

impl Amqp {
    pub(super) fn files(&self) -> Files<'_> {
        Files { ca: self.ca_file.as_deref(), cert: self.cert_file.as_deref(), key: self.key_file.as_deref() }
    }
}

impl Redis {
    pub(super) fn files(&self) -> Files<'_> {
        Files { ca: self.ca_file.as_deref(), cert: self.cert_file.as_deref(), key: self.key_file.as_deref() }
    }
}

impl Files<'_> {
    /// What is in them; `service` and `scheme` are the section and the kind of URL that they belong to.
    pub(super) fn load(&self, service: &str, scheme: &str, url: Option<&str>) -> anyhow::Result<Tls> {
        let ca = self.ca.map(certificates).transpose().context(format!("{service}.ca_file"))?;
        let identity = match (self.cert, self.key) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((
                certificates(cert).context(format!("{service}.cert_file"))?,
                private_key(key).context(format!("{service}.key_file"))?,
            )),
            (Some(_), None) => bail!("{service}.cert_file is set but {service}.key_file is not"),
            (None, Some(_)) => bail!("{service}.key_file is set but {service}.cert_file is not"),
        };
        let tls = Tls { ca, identity };
        let plain = url.is_some_and(|url| !url.starts_with(&format!("{scheme}://")));
        if plain && tls != Tls::default() {
            // whoever gives certificates expects the connection to be encrypted
            bail!(
                "{service}.url must begin with {scheme}:// where {service}.ca_file or {service}.cert_file is set"
            );
        }
        Ok(tls)
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn certificates(path: &Path) -> anyhow::Result<String> {
    let text = read(path)?;
    let found = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    if !found.is_ok_and(|found| !found.is_empty()) {
        bail!("{}: holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)", path.display());
    }
    Ok(text)
}

fn private_key(path: &Path) -> anyhow::Result<String> {
    let text = read(path)?;
    if PrivateKeyDer::from_pem_slice(text.as_bytes()).is_err() {
        bail!("{}: holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)", path.display());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(files: &Files<'_>, url: &str) -> String {
        format!("{:#}", files.load("redis", "rediss", Some(url)).unwrap_err())
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_setting() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let cert = file("cert.pem", &signed.cert.pem());
        let key = file("key.pem", &signed.signing_key.serialize_pem());
        let (empty, missing) = (file("empty.pem", "no PEM"), dir.path().join("missing.pem"));
        let secure = "rediss://r";
        let all = |ca| Files { ca: Some(ca), cert: Some(&cert), key: Some(&key) };

        let loaded = all(&cert).load("redis", "rediss", Some(secure)).unwrap();
        assert!(loaded.ca.is_some() && loaded.identity.is_some());
        for (files, words) in [
            (all(&missing), ["redis.ca_file", "missing.pem", "No such file"]),
            (all(&empty), ["redis.ca_file", "empty.pem", "no certificate in PEM form"]),
            (all(&key), ["redis.ca_file", "key.pem", "no certificate"]),
            (Files { key: Some(&cert), ..all(&cert) }, ["redis.key_file", "cert.pem", "no private key"]),
            (Files { key: None, ..all(&cert) }, ["redis.cert_file is set", "redis.key_file", "is not"]),
            (Files { cert: None, ..all(&cert) }, ["redis.key_file is set", "redis.cert_file", "is not"]),
        ] {
            let error = error(&files, secure);
            assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
        }
        assert!(error(&all(&cert), "redis://r").contains("rediss://"));
        let none = Files { ca: None, cert: None, key: None };
        assert_eq!(none.load("redis", "rediss", Some("redis://r")).unwrap(), Tls::default());
    }
}
