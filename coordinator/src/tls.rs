//! The socket of the API, plain or with TLS. Certificate and key are read again when their files change, so that
//! renewing them needs no restart.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{either::Either, sync::CancellationToken};

use crate::{Error, connections::Connections};

/// A client that takes longer to shake hands is hung up on.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Bounds of [`Socket::serve`], which only probes and scrapes meet.
const PROBES: usize = 256;
const PROBE_LIMIT: Duration = Duration::from_secs(10);
const PROBE_GRACE: Duration = Duration::from_secs(2);
/// How often the files are looked at.
const RELOAD: Duration = Duration::from_secs(10);

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate (PEM) and its chain; needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// Its private key (PEM).
    pub key_file: Option<PathBuf>,
}

/// What a coordinator listens with, health and metrics included.
pub struct Socket {
    listener: TcpListener,
    addr: SocketAddr,
    /// Shakes hands; the sender ends the task that reads the files.
    tls: Option<(TlsAcceptor, watch::Sender<()>)>,
}

/// A client that has not shaken hands yet.
pub(crate) struct Arrival {
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
}

/// The certificate of the moment.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Current {
    /// Takes `new` where it is another; says whether it did.
    fn renew(&self, new: CertifiedKey) -> bool {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let other = current.cert != new.cert;
        if other {
            *current = Arc::new(new);
        }
        other
    }
}

impl TlsFiles {
    /// Both files, if TLS is wanted.
    fn both(&self) -> Result<Option<(&Path, &Path)>, Error> {
        match (&self.cert_file, &self.key_file) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => Ok(Some((cert, key))),
            (Some(_), None) => Err(Error::config("tls.key_file", "is needed by tls.cert_file")),
            (None, Some(_)) => Err(Error::config("tls.cert_file", "is needed by tls.key_file")),
        }
    }

    /// Reads both files, if there are any, so that what is wrong with them is known before a socket opens.
    pub fn check(&self) -> Result<(), Error> {
        self.both()?.map(|(cert, key)| load(cert, key)).transpose().map(|_| ())
    }
}

impl Socket {
    /// Opens `listen`.
    ///
    /// # Errors
    /// [`Error::Config`] and [`Error::File`] for certificates that can't be used, [`Error::Bind`] for the address.
    pub async fn open(listen: SocketAddr, files: &TlsFiles) -> Result<Self, Error> {
        let files =
            files.both()?.map(|(cert, key)| Ok::<_, Error>((cert, key, load(cert, key)?))).transpose()?;
        let refused = |source| Error::Bind { addr: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let addr = listener.local_addr().map_err(refused)?;
        let Some((cert, key, loaded)) = files else { return Ok(Self { listener, addr, tls: None }) };
        let current = Arc::new(Current(RwLock::new(Arc::new(loaded))));
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::File { name: "tls", reason: error.to_string() })?;
        let mut config = config.with_no_client_auth().with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (open, dropped) = watch::channel(());
        tokio::spawn(reload(cert.to_owned(), key.to_owned(), current, dropped));
        Ok(Self { listener, addr, tls: Some((TlsAcceptor::from(Arc::new(config)), open)) })
    }

    /// The address it listens on: the port that the system chose for port 0.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The next client, whatever it wants.
    pub(crate) async fn accept(&self) -> io::Result<Arrival> {
        let (stream, _) = self.listener.accept().await?;
        // an event waits for nothing, so neither may its packet
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its packets back");
        }
        Ok(Arrival { stream, acceptor: self.tls.as_ref().map(|(acceptor, _)| acceptor.clone()) })
    }

    /// Serves `router` until `stop`: for what a coordinator tells before it is one.
    pub async fn serve(self, router: axum::Router, stop: CancellationToken) {
        let connections = Connections { socket: self, router, at_most: PROBES, header_timeout: PROBE_LIMIT };
        connections.serve(stop, PROBE_GRACE).await;
    }
}

impl Arrival {
    /// The connection, once both sides have agreed; `None` where they did not.
    pub(crate) async fn shake_hands(self) -> Option<Either<TcpStream, TlsStream<TcpStream>>> {
        let Self { stream, acceptor } = self;
        let Some(acceptor) = acceptor else { return Some(Either::Left(stream)) };
        match timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Some(Either::Right(stream)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a client did not shake hands");
                None
            }
            Err(_) => {
                tracing::debug!("a client took too long to shake hands");
                None
            }
        }
    }
}

/// Looks at the files until the socket is dropped. Files that can't be used leave what is in use.
async fn reload(cert: PathBuf, key: PathBuf, current: Arc<Current>, mut open: watch::Receiver<()>) {
    let mut complained = false;
    loop {
        tokio::select! {
            () = sleep(RELOAD) => {}
            _ = open.changed() => return,
        }
        let (cert, key) = (cert.clone(), key.clone());
        let Ok(loaded) = tokio::task::spawn_blocking(move || load(&cert, &key)).await else { continue };
        match loaded {
            Ok(new) => {
                complained = false;
                if current.renew(new) {
                    tracing::info!("the certificate of the API was read again");
                }
            }
            // in between the two files of a renewal that is quite usual
            Err(error) if !complained => {
                complained = true;
                tracing::warn!(%error, "the certificate of the API stays as it was");
            }
            Err(_) => {}
        }
    }
}

fn load(cert: &Path, key: &Path) -> Result<CertifiedKey, Error> {
    let wrong = |name, file: &Path, reason: String| Error::File {
        name,
        reason: format!("{}: {reason}", file.display()),
    };
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_file_iter(cert).and_then(Iterator::collect);
    let chain = chain.map_err(|error| wrong("tls.cert_file", cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong("tls.cert_file", cert, "holds no certificate in PEM form".into()));
    }
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| wrong("tls.key_file", key, error.to_string()))?;
    CertifiedKey::from_der(chain, private, &default_provider())
        .map_err(|error| wrong("tls.key_file", key, format!("does not fit {}: {error}", cert.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewed_certificate_takes_the_place_of_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        let renew = || {
            let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            std::fs::write(&cert, signed.cert.pem()).unwrap();
            std::fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
            signed.cert.der().clone()
        };
        let first = renew();
        let current = Current(RwLock::new(Arc::new(load(&cert, &key).unwrap())));
        let now = || current.0.read().unwrap().cert.clone();
        assert_eq!(now(), [first]);
        assert!(!current.renew(load(&cert, &key).unwrap()), "nothing has changed");
        let second = renew();
        assert!(current.renew(load(&cert, &key).unwrap()));
        assert_eq!(now(), [second]);
        std::fs::write(&key, "half written").unwrap();
        assert!(load(&cert, &key).is_err());
    }
}
