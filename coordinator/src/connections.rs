//! The connections of the API: accepted up to a bound, and none may take its time with the head of a request.
//!
//! HTTP/1.1 only: behind it a proxy may speak whatever it likes to clients, and of HTTP/2 without TLS nothing here
//! would bound how slowly a connection gets to its first request.

use std::time::Duration;

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::tls::Socket;

/// How long to wait after the system would not give a connection: out of file descriptors, mostly.
const BREATH: Duration = Duration::from_millis(20);

/// What is served on each connection, and within which bounds.
pub(crate) struct Connections {
    pub socket: Socket,
    pub router: Router,
    /// Connections at once; more wait in the system's queue.
    pub at_most: usize,
    /// For the whole head of a request, from the end of the one before on.
    pub header_timeout: Duration,
}

impl Connections {
    /// Serves until `stop`; then requests in flight are finished, for as long as `grace`.
    pub async fn serve(self, stop: CancellationToken, grace: Duration) {
        let Self { socket, router, at_most, header_timeout } = self;
        let mut http = auto::Builder::new(TokioExecutor::new()).http1_only();
        http.http1().timer(TokioTimer::new()).header_read_timeout(header_timeout);
        let (graceful, mut open) = (GracefulShutdown::new(), JoinSet::new());
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = open.join_next() => {}
                accepted = socket.accept(), if open.len() < at_most => match accepted {
                    Ok(arrival) => {
                        let (http, watcher) = (http.clone(), graceful.watcher());
                        let service = TowerToHyperService::new(router.clone());
                        open.spawn(async move {
                            let Some(stream) = arrival.shake_hands().await else { return };
                            let connection = http.serve_connection(TokioIo::new(stream), service);
                            if let Err(error) = watcher.watch(connection.into_owned()).await {
                                tracing::debug!(error, "a connection ended");
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "can't accept a connection");
                        tokio::time::sleep(BREATH).await;
                    }
                },
            }
        }
        drop(socket);
        // what is open at the end of the grace period ends with the set
        if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
            tracing::warn!(?grace, "requests were still open at the end of the grace period");
        }
    }
}
