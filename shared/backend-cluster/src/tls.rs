//! Certificates for connections to RabbitMQ and Redis.

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use redis::{Client, ClientTlsConfig, RedisResult, TlsCertificates};

/// What a server is checked against and what it is shown, as PEM. Without it the public authorities count and no
/// certificate is shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of the authority that signed the server's.
    pub ca: Option<String>,
    /// Our own certificate chain and its private key.
    pub identity: Option<(String, String)>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (ca, identity) = (self.ca.is_some(), self.identity.is_some());
        f.debug_struct("Tls").field("ca", &ca).field("identity", &identity).finish()
    }
}

impl Tls {
    pub(crate) fn redis(&self, url: &str) -> RedisResult<Client> {
        if *self == Self::default() {
            return Client::open(url);
        }
        let client_tls = self.identity.as_ref().map(|(cert, key)| ClientTlsConfig {
            client_cert: cert.clone().into_bytes(),
            client_key: key.clone().into_bytes(),
        });
        let root_cert = self.ca.clone().map(String::into_bytes);
        Client::build_with_tls(url, TlsCertificates { client_tls, root_cert })
    }

    pub(crate) fn amqp(&self) -> OwnedTLSConfig {
        let identity = self.identity.as_ref().map(|(cert, key)| OwnedIdentity::PKCS8 {
            pem: cert.clone().into_bytes(),
            key: key.clone().into_bytes(),
        });
        OwnedTLSConfig { identity, cert_chain: self.ca.clone() }
    }
}
