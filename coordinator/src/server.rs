//! A coordinator: the API and the sweeper on one backend.

use std::{future::IntoFuture, net::SocketAddr, sync::Arc, time::Duration};

use axum::serve::ListenerExt;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trireme_backend::Backend;

use crate::{
    Config, Error, Intake,
    api::{self, App},
    metrics::Metrics,
    sweeper::Sweeper,
};

/// A coordinator that is set up but does not listen yet.
pub struct Coordinator {
    config: Config,
    backend: Arc<dyn Backend>,
    intake: Arc<dyn Intake>,
    registry: Registry,
    metrics: Metrics,
}

/// A coordinator whose socket is open: clients may connect, and are served once it runs.
pub struct Bound {
    coordinator: Coordinator,
    listener: TcpListener,
    addr: SocketAddr,
}

impl Coordinator {
    /// Checks `config` and registers metrics with `registry`, which `/metrics` serves: pass one that a
    /// worker in the same process shares.
    pub fn new(
        config: Config,
        backend: Arc<dyn Backend>,
        intake: Arc<dyn Intake>,
        registry: Registry,
    ) -> Result<Self, Error> {
        config.validate()?;
        let metrics = Metrics::register(&registry)?;
        Ok(Self { config, backend, intake, registry, metrics })
    }

    /// Opens the socket.
    pub async fn bind(self) -> Result<Bound, Error> {
        let refused = |source| Error::Bind { addr: self.config.listen, source };
        let listener = TcpListener::bind(self.config.listen).await.map_err(refused)?;
        let addr = listener.local_addr().map_err(refused)?;
        Ok(Bound { coordinator: self, listener, addr })
    }

    /// Opens the socket and serves until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        self.bind().await?.run(shutdown).await
    }
}

impl Bound {
    /// The address it listens on: the port that the system chose for port 0.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves and sweeps until `shutdown`. Then event streams end with a comment, long polls answer with
    /// what they have, and other requests have [`Config::grace`] to finish. The backend stays open.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Coordinator { config, backend, intake, registry, metrics } = self.coordinator;
        let grace = config.grace;
        // however this function ends, dropped included, the sweeper and the streams end with it
        let stop = shutdown.child_token();
        let _guard = stop.clone().drop_guard();
        let sweeper = Sweeper::new(backend.clone(), config.sweep_interval, metrics.clone());
        let sweeping = tokio::spawn(sweeper.run(stop.clone()));

        let app = Arc::new(App::new(config, backend, intake, metrics, registry, stop.clone()));
        // an event waits for nothing, so neither may its packet
        let listener = self.listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection keeps its packets back");
            }
        });
        tracing::info!(addr = %self.addr, "the coordinator listens");
        let serving = axum::serve(listener, api::router(app))
            .with_graceful_shutdown(stop.clone().cancelled_owned())
            .into_future();
        let out_of_grace = async {
            stop.cancelled().await;
            tokio::time::sleep(grace.max(Duration::from_millis(1))).await;
        };
        let served = tokio::select! {
            served = serving => served.map_err(Error::Serve),
            () = out_of_grace => {
                tracing::warn!(?grace, "requests were still open at the end of the grace period");
                Ok(())
            }
        };
        stop.cancel();
        // the sweeper only ever stops when told; a panic in it is a bug worth a line, not a failed shutdown
        if let Err(error) = sweeping.await {
            tracing::error!(%error, "the sweeper had stopped before");
        }
        served
    }
}
