//! Redis and RabbitMQ behind certificates of a private authority, which also ask for the client's.
#![allow(clippy::unwrap_used)]

use std::{path::Path, sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio_util::sync::CancellationToken;
use trireme_backend_cluster::{
    Tls,
    broker::{self, Broker},
    store::{self, Store},
};
use trireme_test_servers::{PrivateRabbit, PrivateRedis, free_port, unique};

/// An authority, and certificates that it has signed.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for this machine, and its key.
    fn sign(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// Files for a server: authority, certificate, key.
    fn write(&self, dir: &Path) -> [String; 3] {
        let (cert, key) = self.sign();
        [("ca.pem", self.pem()), ("cert.pem", cert), ("key.pem", key)].map(|(name, text)| {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        })
    }
}

/// What clients may show: what is right, then what is not.
fn clients(authority: &Authority) -> (Tls, [(&'static str, Tls); 3]) {
    let (ca, identity) = (Some(authority.pem()), Some(authority.sign()));
    let stranger = Some(Authority::new().pem());
    let wrong = [
        ("the public authorities", Tls { ca: None, identity: identity.clone() }),
        ("another authority", Tls { ca: stranger, identity: identity.clone() }),
        ("no certificate of its own", Tls { ca: ca.clone(), identity: None }),
    ];
    (Tls { ca, identity }, wrong)
}

/// What works may take its time on a busy machine; what must not work is asked for a moment only.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_reached_with_the_right_certificates_only() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (dir, authority, port) = (tempfile::tempdir().unwrap(), Authority::new(), free_port().unwrap());
    let [ca, cert, key] = authority.write(dir.path());
    let port = port.to_string();
    let _server = PrivateRedis::start(&[
        ("tls-port", &port),
        ("tls-ca-cert-file", &ca),
        ("tls-cert-file", &cert),
        ("tls-key-file", &key),
        ("tls-auth-clients", "yes"),
    ])
    .unwrap();
    let connect = async |tls: Tls, timeout: Duration| {
        let mut config = store::Config::new(format!("rediss://127.0.0.1:{port}"), unique("tls"));
        (config.tls, config.timeout) = (tls, timeout);
        Store::connect(config, Arc::new(|_| {})).await
    };
    let (right, wrong) = clients(&authority);
    let store = connect(right, PATIENCE).await.unwrap();
    store.health().await.unwrap();
    store.close().await;
    for (what, tls) in wrong {
        let error = connect(tls, Duration::from_secs(2)).await.expect_err(what);
        assert!(error.is_retryable(), "{what}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_is_reached_with_the_right_certificates_only() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (dir, authority, port) = (tempfile::tempdir().unwrap(), Authority::new(), free_port().unwrap());
    let [ca, cert, key] = authority.write(dir.path());
    let server = tokio::task::spawn_blocking(|| PrivateRabbit::start().unwrap()).await.unwrap();
    let listen = format!(
        "rabbit_networking:start_ssl_listener({port}, [{{cacertfile, {ca:?}}}, {{certfile, {cert:?}}}, \
         {{keyfile, {key:?}}}, {{verify, verify_peer}}, {{fail_if_no_peer_cert, true}}], 1)."
    );
    server.ctl(&["eval", &listen]).unwrap();
    let pools = [unique("pool")];
    let declare = async |tls: Tls, timeout: Duration| {
        let mut config = broker::Config::new(format!("amqps://guest:guest@127.0.0.1:{port}/%2f"), "tls");
        (config.tls, config.connect_timeout) = (tls, timeout);
        let stop = CancellationToken::new();
        let declared = Broker::start(config, stop.clone()).unwrap().declare(&pools).await;
        stop.cancel();
        declared
    };
    let (right, wrong) = clients(&authority);
    declare(right, PATIENCE).await.unwrap();
    for (what, tls) in wrong {
        declare(tls, Duration::from_secs(3)).await.expect_err(what);
    }
}
