//! The running server: accepts connections, ends them all at shutdown.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Ledger, Scenario,
    rulebook::Rulebook,
    scenario,
    server::{self, App},
};

/// Connections served at once; more wait in the listen queue.
pub const MAX_CONNECTIONS: usize = 16_384;

/// Connections that wait to be accepted. Thousands of calls may begin in the same millisecond, and
/// one that finds this full tries again only after a second.
const LISTEN_QUEUE: u32 = 8_192;

/// How long a connection may wait for its next request. Longer than clients keep idle connections,
/// so that they never send on one that is just being closed.
const IDLE: Duration = Duration::from_secs(600);

/// Calls at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 10_000;

/// What the command needs to start a simulator.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The scenario file; without it, calls are echoed.
    pub scenario: Option<PathBuf>,
}

/// Why a simulator does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The scenario cannot be used.
    #[error(transparent)]
    Scenario(#[from] scenario::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A running simulator. Dropping it ends it.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    app: Arc<App>,
    /// Tells the accept loop to end.
    stop: CancellationToken,
    accepting: Option<JoinHandle<()>>,
}

// === impl Config ===

impl Config {
    /// Reads the scenario and starts.
    ///
    /// # Errors
    /// Those of [`Scenario::from_file`] and of [`Simulator::start`].
    pub async fn start(&self) -> Result<Simulator, Error> {
        let scenario = match &self.scenario {
            Some(path) => Scenario::from_file(path)?,
            None => Scenario::default(),
        };
        Simulator::start(scenario, self.listen).await
    }
}

// === impl Simulator ===

impl Simulator {
    /// Starts serving on `listen` (port 0 takes a free one) on the current tokio runtime. It is
    /// ready to answer when this returns. Each open call takes a file descriptor.
    ///
    /// # Errors
    /// [`Error::Scenario`] when the scenario does not compile, [`Error::Listen`].
    pub async fn start(scenario: Scenario, listen: SocketAddr) -> Result<Self, Error> {
        let rulebook = Rulebook::compile(&scenario)?;
        let failed = |source| Error::Listen { address: listen, source };
        let listener = bind(listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let app = Arc::new(App { rulebook, ledger: Ledger::new() });
        let stop = CancellationToken::new();
        let router = server::router(app.clone());
        Ok(Self { address, app, accepting: Some(tokio::spawn(accept(listener, router, stop.clone()))), stop })
    }

    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://host:port`, under which the tools are (`/tools/{name}`).
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Base URL for OpenAI clients.
    pub fn openai_base_url(&self) -> String {
        format!("{}/v1", self.base_url())
    }

    /// Base URL for Anthropic clients, which add `/v1` themselves.
    pub fn anthropic_base_url(&self) -> String {
        self.base_url()
    }

    /// What was received so far; the handle stays valid after the end.
    pub fn ledger(&self) -> Ledger {
        self.app.ledger.clone()
    }

    /// Starts anew: forgets the ledger, how often rules applied and which contents were asked, so
    /// that the same calls draw the same latencies and faults again.
    pub fn reset(&self) {
        self.app.ledger.clear();
        self.app.rulebook.reset();
    }

    /// Serves until `shutdown` is cancelled.
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown.cancelled().await;
        self.shutdown().await;
    }

    /// Ends at once: open calls break off and are recorded as cut. The port is free afterwards.
    pub async fn shutdown(mut self) {
        self.app.ledger.close();
        self.stop.cancel();
        if let Some(accepting) = self.accepting.take()
            && let Err(error) = accepting.await
        {
            tracing::error!(%error, "the simulator's accept loop failed");
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.app.ledger.close();
        self.stop.cancel();
    }
}

fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    socket.listen(LISTEN_QUEUE)
}

/// Accepts until told to stop, then drops all connections. An own loop instead of `axum::serve`,
/// whose graceful end would wait for streams that hang on purpose.
async fn accept(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, router.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, mostly: give the open calls time to end.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn serve(stream: TcpStream, router: Router) {
    // Small chunks must not wait for acknowledgements.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
    let service = TowerToHyperService::new(router);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "connection ended");
    }
}
