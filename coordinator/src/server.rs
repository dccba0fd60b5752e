//! A coordinator: the API and the sweeper on one backend.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use trireme_backend::Backend;
use trireme_telemetry::Traces;

use crate::{
    Config, Error, Intake,
    api::{self, App},
    connections::Connections,
    metrics::Metrics,
    sweeper::Sweeper,
    teller::Teller,
    tls::Socket,
};

/// A coordinator that is set up but does not listen yet.
pub struct Coordinator {
    config: Config,
    backend: Arc<dyn Backend>,
    intake: Arc<dyn Intake>,
    registry: Registry,
    metrics: Metrics,
    traces: Traces,
}

/// A coordinator whose socket is open: clients may connect, and are served once it runs.
pub struct Bound {
    socket: Socket,
    app: Arc<App>,
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
        config.check_access()?;
        let metrics = Metrics::register(&registry)?;
        Ok(Self { config, backend, intake, registry, metrics, traces: Traces::default() })
    }

    /// Sends spans to `traces`; by default they go nowhere.
    pub fn traced(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }

    /// Opens the socket.
    pub async fn bind(self) -> Result<Bound, Error> {
        let Self { config, backend, intake, registry, metrics, traces } = self;
        let (listen, tls, stop) = (config.listen, config.tls.clone(), CancellationToken::new());
        let mut app = App::new(config, backend, intake, metrics, registry, stop)?;
        app.traces = traces;
        let app = Arc::new(app);
        if app.keyring.locked().await {
            tracing::warn!(
                "nobody has an API key, and coordinator.access is keys: set coordinator.bootstrap_key_file or \
                 coordinator.keys; only keys of Redis can be made later (trireme keys create --store)"
            );
        }
        Ok(Bound { socket: Socket::open(listen, &tls).await?, app })
    }

    /// Opens the socket and serves until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        self.bind().await?.run(shutdown).await
    }
}

impl Bound {
    /// The address it listens on: the port that the system chose for port 0.
    pub fn addr(&self) -> SocketAddr {
        self.socket.addr()
    }

    /// Serves and sweeps until `shutdown`. Then event streams end with a comment, long polls answer with
    /// what they have, and other requests have [`Config::grace`] to finish. The backend stays open.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self { socket, app } = self;
        let (grace, at_most) = (app.config.grace, app.config.max_connections);
        // however this function ends, dropped included, the sweeper and the streams end with it
        let stop = app.shutdown.clone();
        let _guard = stop.clone().drop_guard();
        let sweeper = Sweeper::new(app.backend.clone(), app.config.sweep_interval, app.metrics.clone());
        let sweeping = tokio::spawn(sweeper.run(stop.clone()));

        let telling = tokio::spawn(Teller::new(app.backend.clone(), app.traces.clone()).run(stop.clone()));

        let (addr, header_timeout) = (socket.addr(), app.config.header_timeout);
        tracing::info!(%addr, access = ?app.config.access, "the coordinator listens");
        let connections = Connections { socket, router: api::router(app), at_most, header_timeout };
        let serving = connections.serve(stop.clone(), grace.max(Duration::from_millis(1)));
        let told = async {
            shutdown.cancelled().await;
            stop.cancel();
        };
        tokio::join!(serving, told);
        stop.cancel();
        // the sweeper only ever stops when told; a panic in it is a bug worth a line, not a failed shutdown
        if let Err(error) = sweeping.await {
            tracing::error!(%error, "the sweeper had stopped before");
        }
        if let Err(error) = telling.await {
            tracing::error!(%error, "the teller had stopped before");
        }
        Ok(())
    }
}
