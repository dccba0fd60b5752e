//! The services: `dev` in one process, `coordinator` and `worker` of a fleet.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use trireme_backend::Backend;
use trireme_backend_cluster::{
    Cluster,
    store::{Config, Store},
};
use trireme_coordinator::{Coordinator, Socket, SpecIntake, TlsFiles};
use trireme_telemetry::{OpsServer, Traces, build_info, ops_router};
use trireme_worker::{Metrics, Pool, Worker};

use crate::{
    check::Elsewhere,
    command::{Listen, Worker as WorkerArgs},
    exit::{Code, Failure},
    settings::Settings,
    signal,
    stack::{Capabilities, FLUSH, Stack},
};

/// First and longest pause between attempts to reach RabbitMQ and Redis at the start.
const CONNECT_AFTER: Duration = Duration::from_millis(250);
const CONNECT_CAP: Duration = Duration::from_secs(5);
/// Slots of a pool that the configuration does not know.
const DEFAULT_SLOTS: usize = 256;

/// `trireme dev`
pub async fn dev(args: Listen, mut settings: Settings) -> Result<(), Failure> {
    if let Some(listen) = args.listen {
        settings.coordinator.listen = listen;
    }
    settings.coordinator.check_access().map_err(Failure::usage)?;
    if settings.coordinator.no_key_can_be_had() {
        // nobody but this process reaches its store
        return Err(Failure::usage(
            "coordinator.access = \"keys\": nobody could ever have one; set coordinator.bootstrap_key_file, or \
             coordinator.keys (trireme keys hash)",
        ));
    }
    let shutdown = signal::shutdown()?;
    let mut stack = Stack::start(&settings).await?;
    build_info(&stack.registry, "dev").map_err(anyhow::Error::from)?;
    let bound = Coordinator::new(
        settings.coordinator.clone(),
        stack.backend.clone(),
        Arc::new(SpecIntake::new(Arc::new(stack.capabilities.clone()))),
        stack.registry.clone(),
    )
    .map_err(Failure::usage)?
    .traced(stack.traces.clone())
    .bind()
    .await
    .map_err(unbound)?;
    let scheme = if settings.coordinator.tls == TlsFiles::default() { "http" } else { "https" };
    eprintln!("listening on {scheme}://{} (embedded backend: runs live in this process)", bound.addr());
    stack.add(|token| async move {
        bound.run(token).await.map_err(|error| Failure::new(Code::Unavailable, error))
    });
    tokio::select! {
        ended = stack.wait() => ended?,
        () = shutdown.cancelled() => {}
    }
    stack.stop().await
}

/// `trireme coordinator`
pub async fn coordinator(args: Listen, mut settings: Settings) -> Result<(), Failure> {
    if let Some(listen) = args.listen {
        settings.coordinator.listen = listen;
    }
    settings.coordinator.check_access().map_err(Failure::usage)?;
    let shutdown = signal::shutdown()?;
    let capabilities = Capabilities::new(&settings).await?;
    let registry = prometheus::Registry::new();
    let (listen, tls) = (settings.coordinator.listen, settings.coordinator.tls.clone());
    build_info(&registry, "coordinator").map_err(anyhow::Error::from)?;
    let traces =
        Traces::start(&settings.telemetry, "trireme-coordinator", &registry).map_err(Failure::usage)?;
    let Some(backend) =
        connect(&settings, &registry, ("coordinator", &traces), (listen, &tls), &shutdown).await?
    else {
        return Ok(());
    };
    let pools: Vec<String> = settings.worker.pools.iter().map(|pool| pool.name.clone()).collect();
    backend.observe(&registry, &pools).map_err(anyhow::Error::from)?;
    let backend: Arc<dyn Backend> = Arc::new(backend);
    let intake = Arc::new(SpecIntake::new(Arc::new(Elsewhere(capabilities.clone()))));
    let bound = Coordinator::new(settings.coordinator, backend.clone(), intake, registry)
        .map_err(Failure::usage)?
        .traced(traces.clone())
        .bind()
        .await
        .map_err(unbound)?;
    tracing::info!(address = %bound.addr(), "coordinator is listening");
    let result = bound.run(shutdown).await.map_err(|error| Failure::new(Code::Unavailable, error));
    capabilities.tools.shutdown().await;
    backend.close().await;
    traces.close(FLUSH).await;
    result
}

/// A coordinator that did not get its socket: the address is taken, or a setting is wrong.
fn unbound(error: trireme_coordinator::Error) -> Failure {
    match error {
        trireme_coordinator::Error::Bind { .. } => Failure::new(Code::Unavailable, error),
        _ => Failure::usage(error),
    }
}

/// `trireme worker`
pub async fn worker(args: WorkerArgs, mut settings: Settings) -> Result<(), Failure> {
    if !args.pools.is_empty() {
        settings.worker.pools = pools(&args.pools, &settings.worker.pools)?;
    }
    settings.worker.check().map_err(|error| Failure::usage(format!("worker.{error}")))?;
    let shutdown = signal::shutdown()?;
    let capabilities = Capabilities::new(&settings).await?;
    let registry = prometheus::Registry::new();
    let metrics = Metrics::new(&registry).map_err(anyhow::Error::from)?;
    let ops_address = args.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    build_info(&registry, "worker").map_err(anyhow::Error::from)?;
    let traces = Traces::start(&settings.telemetry, "trireme-worker", &registry).map_err(Failure::usage)?;
    let Some(backend) =
        connect(&settings, &registry, ("worker", &traces), (ops_address, &TlsFiles::default()), &shutdown)
            .await?
    else {
        return Ok(());
    };
    let backend: Arc<dyn Backend> = Arc::new(backend);
    let executors = capabilities.executors();
    let worker = Worker::new(settings.worker, backend.clone(), executors, metrics, traces.clone());
    let worker = worker.map_err(Failure::usage)?;
    let (alive, pulse, ready) = (worker.pulse(), worker.pulse(), backend.clone());
    let ready = move || {
        let (pulse, ready) = (pulse.clone(), ready.clone());
        async move {
            let health = ready.health().await;
            pulse.consuming().and(health.store).and(health.broker)
        }
    };
    let ops = OpsServer::bind(ops_address, registry, move || alive.alive(), ready);
    let ops =
        ops.await.map_err(|error| Failure::new(Code::Unavailable, format!("{ops_address}: {error}")))?;
    tracing::info!(address = %ops.addr(), "health and metrics");
    // health and metrics stay up while the worker drains
    let stop_ops = CancellationToken::new();
    let serving = tokio::spawn(ops.run(stop_ops.clone()));
    let result = worker.run(shutdown).await.map_err(|error| Failure::new(Code::Unavailable, error));
    stop_ops.cancel();
    // it has nothing left to lose
    let _ = serving.await;
    capabilities.tools.shutdown().await;
    backend.close().await;
    traces.close(FLUSH).await;
    result
}

/// Connects to RabbitMQ and Redis, and goes on trying while they are absent; meanwhile health says that the
/// process lives and is not ready. `None` when it was told to stop first.
async fn connect(
    settings: &Settings,
    registry: &prometheus::Registry,
    (role, traces): (&'static str, &Traces),
    (listen, tls): (SocketAddr, &TlsFiles),
    shutdown: &CancellationToken,
) -> Result<Option<Cluster>, Failure> {
    let config = settings.cluster().map_err(|error| Failure::usage(format!("{error:#}")))?;
    let config = trireme_backend_cluster::Config { role: Some(role), traces: traces.clone(), ..config };
    let mut wait = CONNECT_AFTER;
    let mut waiting: Option<(CancellationToken, tokio::task::JoinHandle<()>)> = None;
    let (missing, reason) = tokio::sync::watch::channel(String::new());
    let connected = loop {
        match Cluster::connect(config.clone()).await {
            Ok(cluster) => {
                cluster.register(registry).map_err(anyhow::Error::from)?;
                break Some(cluster);
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, retry_in_ms = wait.as_millis() as u64, "waiting for RabbitMQ and Redis");
                let _ = missing.send(format!("waiting for RabbitMQ and Redis: {error}"));
                if waiting.is_none() {
                    let reason = reason.clone();
                    let not_ready = move || std::future::ready(Err(reason.borrow().clone()));
                    // as the API will be: probes don't change their scheme
                    let socket = Socket::open(listen, tls).await.map_err(unbound)?;
                    let router = ops_router(registry.clone(), || Ok(()), not_ready);
                    let stop = CancellationToken::new();
                    waiting = Some((stop.clone(), tokio::spawn(socket.serve(router, stop))));
                }
            }
            Err(error) => return Err(Failure::new(Code::Usage, error)),
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(CONNECT_CAP),
            () = shutdown.cancelled() => break None,
        }
    };
    if let Some((stop, serving)) = waiting {
        stop.cancel();
        // the port must be free again before the API takes it
        let _ = serving.await;
    }
    Ok(connected)
}

/// Parses `llm`, `tool=64`; slots not given come from the configuration.
fn pools(names: &[String], configured: &[Pool]) -> Result<Vec<Pool>, Failure> {
    let parse = |text: &String| {
        let (name, slots) = match text.split_once('=') {
            Some((name, slots)) => {
                let slots = slots.parse().map_err(|_| {
                    Failure::usage(format!("--pools {text}: {slots:?} is no number of slots; use NAME=64"))
                })?;
                (name, slots)
            }
            None => {
                let known = configured.iter().find(|pool| pool.name == *text);
                (text.as_str(), known.map_or(DEFAULT_SLOTS, |pool| pool.slots))
            }
        };
        Ok(Pool { name: name.to_owned(), slots })
    };
    names.iter().map(parse).collect()
}

/// The store alone, for commands that need no broker.
pub async fn store(settings: &Settings) -> Result<Store, Failure> {
    let cluster = settings.cluster().map_err(|error| Failure::usage(format!("{error:#}")))?;
    let config = Config {
        shards: cluster.shards,
        connections: 2,
        timeout: cluster.redis_timeout,
        tls: cluster.redis_tls,
        ..Config::new(cluster.redis_url, cluster.prefix)
    };
    Ok(Store::connect(config, Arc::new(|_| ())).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_take_slots_from_the_flag_or_the_configuration() {
        let configured = [Pool { name: "llm".into(), slots: 7 }];
        let parsed = pools(&["llm".into(), "tool=64".into(), "gpu".into()], &configured).unwrap();
        let slots: Vec<usize> = parsed.iter().map(|pool| pool.slots).collect();
        assert_eq!(slots, [7, 64, DEFAULT_SLOTS]);
        assert!(pools(&["llm=x".into()], &configured).is_err());
    }
}
