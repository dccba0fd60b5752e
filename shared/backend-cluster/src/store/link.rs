//! Connections to Redis, and the one place that runs scripts.
//!
//! Every new connection is greeted before it is used: where the server is not the one seen last, it was restarted
//! or failed over and may have gone back in time, so that the epoch of every shard changes (see `open.lua`).
//! Calls share a few multiplexed connections ("lanes"), so that none waits for another's reply; big reads take one
//! of the pool's own.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use deadpool_redis::{Hook, HookError, Manager, Pool, PoolError, Runtime};
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, RedisError, Value, aio::MultiplexedConnection};
use trireme_backend::Error;

use super::{
    Config, error,
    script::{self, Script},
    versions::{ALIVE_MS, Member, Spoken},
};
use crate::{keys::Keys, metrics::Metrics};

pub(crate) struct Link {
    pool: Pool,
    lanes: Vec<tokio::sync::Mutex<Lane>>,
    next: AtomicUsize,
    greeter: Arc<Greeter>,
    client: Client,
    timeout: Duration,
    metrics: Option<Metrics>,
    /// The script, and the number of its call to Redis, that fails from now on.
    #[cfg(test)]
    pub(crate) fault: Mutex<Option<(&'static str, usize)>>,
}

#[derive(Default)]
struct Lane {
    connection: Option<MultiplexedConnection>,
    generation: u64,
}

/// Opens the shards on every server that is met.
struct Greeter {
    shards: Vec<Keys>,
    /// The server whose shards are open.
    server: Mutex<String>,
    /// Whether a server was ever met: one without an epoch was emptied then.
    met: AtomicBool,
    metrics: Option<Metrics>,
    spoken: Spoken,
    /// How this process announces itself; empty where it does not.
    member: String,
}

impl Link {
    pub(crate) fn new(config: &Config, shards: Vec<Keys>, lanes: usize, pool: usize) -> Result<Self, Error> {
        let bad = |error: RedisError| Error::Unusable(format!("the address of redis can't be used: {error}"));
        let (timeout, metrics) = (config.timeout, config.metrics.clone());
        let spoken = Spoken::here()?;
        let member = config.member.as_ref().map_or_else(String::new, Member::to_string);
        let client = config.tls.redis(&config.url).map_err(bad)?;
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(timeout))
            .set_connection_timeout(Some(timeout));
        let manager = Manager::new_with_config(client.get_connection_info().clone(), config).map_err(bad)?;
        let greeter = Arc::new(Greeter {
            shards,
            server: Mutex::default(),
            met: AtomicBool::new(false),
            metrics: metrics.clone(),
            spoken,
            member,
        });
        let hook = {
            let greeter = greeter.clone();
            Hook::async_fn(move |connection: &mut MultiplexedConnection, _| {
                let greeter = greeter.clone();
                Box::pin(async move { greeter.greet(connection).await })
            })
        };
        let pool = Pool::builder(manager)
            .max_size(pool)
            .runtime(Runtime::Tokio1)
            .timeouts(deadpool_redis::Timeouts {
                wait: Some(timeout),
                create: Some(timeout),
                recycle: Some(timeout),
            })
            .post_create(hook)
            .build()
            .map_err(|error| Error::Unusable(format!("the pool of redis connections: {error}")))?;
        let lanes = (0..lanes.max(1)).map(|_| tokio::sync::Mutex::default()).collect();
        Ok(Self {
            pool,
            lanes,
            next: AtomicUsize::new(0),
            greeter,
            client,
            timeout,
            metrics,
            #[cfg(test)]
            fault: Mutex::default(),
        })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Runs a script: loads it where Redis does not know it, and repeats it once where the connection broke, for
    /// every script may be repeated.
    pub(crate) async fn eval(&self, script: &Script, keys: &[&str], args: &[&[u8]]) -> Result<Value, Error> {
        trireme_backend::crash_point(script.before);
        let mut command = Cmd::new();
        command.arg("EVALSHA").arg(&script.sha).arg(keys.len());
        #[cfg(test)]
        if let Some((_, at)) =
            self.fault.lock().ok().and_then(|fault| *fault).filter(|(name, _)| *name == script.name)
        {
            command = Cmd::new();
            command.arg("EVAL").arg(script.failing_at(at)).arg(keys.len());
        }
        for key in keys {
            command.arg(key);
        }
        for arg in args {
            command.arg(arg);
        }
        let begun = Instant::now();
        let reply = self.run(&command, Some(script)).await;
        if let Some(metrics) = &self.metrics {
            metrics.called(script.name, begun.elapsed());
        }
        trireme_backend::crash_point(script.after);
        if let Err(Error::Unavailable { reason, .. }) = &reply
            && reason.contains("NOEPOCH")
        {
            // somebody emptied the store: what was in it is gone, and new runs need an epoch
            self.reopen().await?;
        }
        reply
    }

    /// Runs a command that changes nothing.
    pub(crate) async fn query(&self, command: &Cmd) -> Result<Value, Error> {
        self.run(command, None).await
    }

    /// Runs reads in one go on a connection of the pool: their replies may be long.
    pub(crate) async fn pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>, Error> {
        for last in [false, true] {
            let mut connection = self.pool.get().await.map_err(pool_error)?;
            match pipeline.query_async(&mut connection).await {
                Ok(values) => return Ok(values),
                Err(error) if error::breaks_connection(&error) && !error.is_timeout() && !last => {}
                Err(error) => return Err(error::of(&error)),
            }
        }
        Err(error::unavailable("the connection broke twice"))
    }

    /// Opens the shards anew after somebody emptied the store behind our back.
    pub(crate) async fn reopen(&self) -> Result<(), Error> {
        self.greeter.forget();
        let mut connection = self.pool.get().await.map_err(pool_error)?;
        self.greeter.open(&mut connection).await
    }

    /// Closes what is idle; calls under way end with their own answers.
    pub(crate) async fn close(&self) {
        self.pool.close();
        for lane in &self.lanes {
            lane.lock().await.connection = None;
        }
    }

    async fn run(&self, command: &Cmd, script: Option<&Script>) -> Result<Value, Error> {
        let at = self.next.fetch_add(1, Relaxed) % self.lanes.len();
        let mut left = 2;
        loop {
            let (mut connection, generation) = self.connect(at).await?;
            let sent = connection.send_packed_command(command).await.and_then(Value::extract_error);
            let error = match (sent, script) {
                (Ok(value), _) => return Ok(value),
                (Err(error), Some(script)) if error::needs_load(&error) => {
                    let mut load = Cmd::new();
                    load.arg("SCRIPT").arg("LOAD").arg(&script.text);
                    match connection.send_packed_command(&load).await.and_then(Value::extract_error) {
                        Ok(_) => continue,
                        Err(error) => error,
                    }
                }
                (Err(error), _) => error,
            };
            let broken = error::breaks_connection(&error);
            if broken {
                self.drop_lane(at, generation).await;
            }
            left -= 1;
            // a timeout has cost its time already: the caller decides
            if !broken || error.is_timeout() || left == 0 {
                return Err(error::of(&error));
            }
        }
    }

    async fn connect(&self, at: usize) -> Result<(MultiplexedConnection, u64), Error> {
        let mut lane = self.lanes[at].lock().await;
        if let Some(connection) = &lane.connection {
            return Ok((connection.clone(), lane.generation));
        }
        let connection = deadpool_redis::Connection::take(self.pool.get().await.map_err(pool_error)?);
        lane.generation += 1;
        lane.connection = Some(connection.clone());
        Ok((connection, lane.generation))
    }

    async fn drop_lane(&self, at: usize, generation: u64) {
        let mut lane = self.lanes[at].lock().await;
        if lane.generation == generation {
            lane.connection = None;
        }
    }
}

fn pool_error(error: PoolError) -> Error {
    match error {
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => error::of(&error),
        PoolError::PostCreateHook(HookError::Message(text)) => Error::Unusable(text.into_owned()),
        other => error::unavailable(other),
    }
}

impl Greeter {
    fn known(&self) -> String {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn forget(&self) {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    async fn greet(&self, connection: &mut MultiplexedConnection) -> Result<(), HookError> {
        match self.open(connection).await {
            Ok(()) => Ok(()),
            Err(Error::Unusable(text)) => Err(HookError::Message(text.into())),
            Err(other) => Err(HookError::Backend(RedisError::from((
                redis::ErrorKind::Io,
                "the server can't be used yet",
                other.to_string(),
            )))),
        }
    }

    /// Sets the epochs where the server is not the one seen last.
    async fn open(&self, connection: &mut MultiplexedConnection) -> Result<(), Error> {
        let info: String = redis::cmd("INFO")
            .arg("server")
            .query_async(connection)
            .await
            .map_err(|error| error::of(&error))?;
        let server = field(&info, "run_id").unwrap_or("").to_owned();
        if server == self.known() {
            return Ok(());
        }
        let epoch = uuid::Uuid::now_v7().simple().to_string();
        let shards = self.shards.len().to_string();
        let mut back = false;
        for keys in &self.shards {
            let before: Option<String> = redis::cmd("HGET")
                .arg(&keys.meta)
                .arg("epoch")
                .query_async(connection)
                .await
                .map_err(|error| error::of(&error))?;
            let mut call = redis::cmd("EVAL");
            call.arg(&script::OPEN.text)
                .arg(2)
                .arg(&keys.meta)
                .arg(&keys.fleet)
                .arg(&server)
                .arg(&epoch)
                .arg(&shards)
                .arg(self.spoken.oldest)
                .arg(self.spoken.newest)
                .arg(&self.member)
                .arg(ALIVE_MS);
            let (now, theirs, layout): (String, String, String) =
                call.query_async(connection).await.map_err(|error| error::of(&error))?;
            if theirs != shards {
                return Err(Error::Unusable(format!(
                    "the store is divided into {theirs} shards, the configuration says {shards}: set shards to \
                     {theirs}, or use another prefix"
                )));
            }
            if !self.spoken.reads(&layout) {
                return Err(Error::Unusable(format!(
                    "the store has layout {layout}, this version reads {}: use another prefix or a version that \
                     reads it",
                    self.spoken
                )));
            }
            if now == epoch {
                // at the very first start there is nothing to go back from
                back |= before.is_some() || self.met.load(Relaxed);
                tracing::info!(
                    epoch,
                    server,
                    "redis has not been seen before or was restarted: a new epoch begins"
                );
            }
        }
        self.met.store(true, Relaxed);
        if let Some(metrics) = self.metrics.as_ref().filter(|_| back) {
            metrics.went_back();
        }
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
        Ok(())
    }
}

/// A value of an INFO reply.
pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
