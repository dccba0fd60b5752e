//! HTTPS.

use std::io::Write;

use reqwest::Certificate;
use serde_json::json;
use trireme_coordinator::{Config, TlsFiles};

use crate::server::{Server, embedded, soon, unhurried};

struct Pair {
    cert: tempfile::NamedTempFile,
    key: tempfile::NamedTempFile,
    pem: String,
}

impl Pair {
    fn new() -> Self {
        let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let file = |text: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file
        };
        let pem = signed.cert.pem();
        Self { cert: file(&pem), key: file(&signed.signing_key.serialize_pem()), pem }
    }

    fn files(&self) -> TlsFiles {
        TlsFiles { cert_file: Some(self.cert.path().into()), key_file: Some(self.key.path().into()) }
    }
}

#[tokio::test]
async fn the_api_over_https() {
    let pair = Pair::new();
    let server = Server::with(Config { tls: pair.files(), ..unhurried() }, embedded()).await;
    let base = server.base.replace("http://", "https://");
    let trusting = |pem: &str| {
        let ca = Certificate::from_pem(pem.as_bytes()).unwrap();
        reqwest::Client::builder().tls_certs_only([ca]).build().unwrap()
    };
    let client = trusting(&pair.pem);
    let run = client.post(format!("{base}/v1/runs")).body(json!({"tasks": {"a": []}}).to_string()).send();
    let run = soon("submit", run).await.unwrap();
    assert_eq!((run.status().as_u16(), run.version()), (202, reqwest::Version::HTTP_11));
    let plain = reqwest::Client::builder().http1_only();
    let ca = Certificate::from_pem(pair.pem.as_bytes()).unwrap();
    let plain = plain.tls_certs_only([ca]).build().unwrap();
    let health = soon("health", plain.get(format!("{base}/healthz")).send()).await.unwrap();
    assert_eq!((health.status().as_u16(), health.version()), (200, reqwest::Version::HTTP_11));
    // a client that trusts another, and one that speaks no TLS
    assert!(soon("refusal", trusting(&Pair::new().pem).get(format!("{base}/healthz")).send()).await.is_err());
    assert!(soon("refusal", server.request(reqwest::Method::GET, "/healthz").send()).await.is_err());
    // the others are served all the same
    assert_eq!(soon("health", client.get(format!("{base}/healthz")).send()).await.unwrap().status(), 200);
    server.begin_shutdown();
    server.stopped().await;
}

#[test]
fn what_is_wrong_with_the_files_is_said_with_its_setting() {
    let (pair, other) = (Pair::new(), Pair::new());
    pair.files().check().unwrap();
    let files = |cert: Option<&tempfile::NamedTempFile>, key: Option<&tempfile::NamedTempFile>| TlsFiles {
        cert_file: cert.map(|file| file.path().into()),
        key_file: key.map(|file| file.path().into()),
    };
    for (files, word) in [
        (files(Some(&pair.cert), None), "tls.key_file"),
        (files(None, Some(&pair.key)), "tls.cert_file"),
        (files(Some(&pair.key), Some(&pair.key)), "tls.cert_file"),
        (files(Some(&pair.cert), Some(&pair.cert)), "tls.key_file"),
        (files(Some(&pair.cert), Some(&other.key)), "tls.key_file"),
    ] {
        let error = files.check().unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
}
