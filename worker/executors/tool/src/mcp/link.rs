//! The way to one server: keeps the session, starts it again, and backs off when that fails.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rmcp::model::CallToolRequestParams;
use tokio::{
    sync::{Mutex, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    result::{self, Failure},
    session::Session,
};
use crate::{Effect, Error, Limits, McpConfig, ToolOutput};

/// Longest start, when the config does not say.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Most calls at once, when the config does not say.
const AT_ONCE: usize = 64;
/// First pause after a failure, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// The way to one server.
pub(super) struct Link {
    pub name: String,
    pub config: McpConfig,
    output_bytes: usize,
    permits: Semaphore,
    state: Arc<Mutex<State>>,
    /// Failures since the last call that worked: starts that failed, sessions that died.
    failures: AtomicU32,
    /// Cancelled once, by shutting down.
    closing: CancellationToken,
    listing: RwLock<Listing>,
}

/// How often the tools were listed (0: never), and the last list.
pub(super) type Listing = (u64, Arc<Vec<rmcp::model::Tool>>);

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    /// No new session before this.
    not_before: Option<Instant>,
}

// === impl Link ===

impl Link {
    pub fn new(name: &str, config: McpConfig, limits: &Limits) -> Result<Self, String> {
        Session::check(&config)?;
        let at_once = config.at_once.unwrap_or(AT_ONCE);
        if at_once == 0 || name.is_empty() || name.contains('.') {
            return Err("a server has a name without dots and an `at_once` over 0".to_owned());
        }
        Ok(Self {
            name: name.to_owned(),
            output_bytes: limits.output_bytes,
            permits: Semaphore::new(at_once.min(Semaphore::MAX_PERMITS)),
            state: Arc::default(),
            failures: AtomicU32::new(0),
            closing: CancellationToken::new(),
            listing: RwLock::default(),
            config,
        })
    }

    /// How often the tools were listed, and the last list.
    pub fn listing(&self) -> Listing {
        self.listing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls a tool, on a second session if the first turns out to be dead and that is safe.
    pub async fn call(
        self: &Arc<Self>,
        params: CallToolRequestParams,
        effect: Effect,
    ) -> Result<ToolOutput, Error> {
        // Never closed, so the only error cannot occur.
        let _permit = self.permits.acquire().await.ok();
        let mut second = false;
        loop {
            let session = self.session().await?;
            let failure = match session.call(params.clone()).await {
                Ok(answer) => {
                    self.failures.store(0, Ordering::Relaxed);
                    return result::output(answer);
                }
                Err(error) => result::failure(&error, self.output_bytes),
            };
            let target = self.target();
            let (error, safe) = match failure {
                Failure::Answered(error) => {
                    self.failures.store(0, Ordering::Relaxed);
                    return Err(error);
                }
                Failure::Refused(error) if second => {
                    self.failures.store(0, Ordering::Relaxed);
                    return Err(error);
                }
                Failure::Refused(error) => (error, true),
                Failure::NotSent(message) => (Error::Unreachable { target, message }, true),
                Failure::Lost(message) => {
                    (Error::Interrupted { target, message, effect }, effect.repeatable())
                }
            };
            self.forget(&session).await;
            if second || !safe {
                return Err(error);
            }
            second = true;
        }
    }

    /// The live session, or a new one. Only one is ever being started.
    pub async fn session(self: &Arc<Self>) -> Result<Arc<Session>, Error> {
        let mut state = self.state.clone().lock_owned().await;
        if self.closing.is_cancelled() {
            return Err(self.unreachable("the tools are shut down".to_owned()));
        }
        if let Some(session) = &state.session {
            if session.is_alive() {
                return Ok(session.clone());
            }
            state.session = None;
            self.died(&mut state);
        }
        let now = Instant::now();
        if let Some(until) = state.not_before.filter(|until| *until > now) {
            let pause = until - now;
            return Err(
                self.unreachable(format!("it keeps failing, the next start is in {} ms", pause.as_millis()))
            );
        }
        // A task of its own: a caller that gives up (its timeout may be shorter than a cold start)
        // must not abort a start that others, or its own next attempt, will need. The lock goes
        // with it, so nobody sees a half-made state.
        let link = self.clone();
        match tokio::spawn(async move { link.start(&mut state).await }).await {
            Ok(result) => result.map_err(|message| self.unreachable(message)),
            Err(panic) => Err(self.unreachable(panic.to_string())),
        }
    }

    async fn start(&self, state: &mut State) -> Result<Arc<Session>, String> {
        let limit = self.config.start_timeout.unwrap_or(START_TIMEOUT);
        let starting = Session::start(&self.name, &self.config, self.output_bytes);
        let started = tokio::select! {
            () = self.closing.cancelled() => return Err("the tools are shut down".to_owned()),
            started = tokio::time::timeout(limit, starting) => started,
        };
        match started.unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis()))) {
            Ok(session) => {
                let session = Arc::new(session);
                self.listed(&session);
                state.session = Some(session.clone());
                state.not_before = None;
                Ok(session)
            }
            Err(message) => {
                let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
                state.not_before = Some(Instant::now() + pause(failures));
                Err(message)
            }
        }
    }

    /// Ends the session, and refuses new ones.
    pub async fn shutdown(&self) {
        // First, so that a start in progress gives the lock back.
        self.closing.cancel();
        let mut state = self.state.lock().await;
        if let Some(session) = state.session.take() {
            session.shutdown().await;
        }
    }

    /// Process id of the running child.
    pub async fn pid(&self) -> Option<u32> {
        self.state.lock().await.session.as_ref().filter(|s| s.is_alive()).and_then(|s| s.pid())
    }

    /// Drops `session` unless another call has already replaced it.
    async fn forget(&self, session: &Arc<Session>) {
        let mut state = self.state.lock().await;
        if state.session.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            state.session = None;
            self.died(&mut state);
        }
    }

    /// Books a session's death. The first since a call worked is replaced at once.
    fn died(&self, state: &mut State) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::warn!(server = self.name, failures, "mcp session died");
        if failures > 1 {
            state.not_before = Some(Instant::now() + pause(failures - 1));
        }
    }

    fn listed(&self, session: &Session) {
        let mut listing = self.listing.write().unwrap_or_else(PoisonError::into_inner);
        *listing = (listing.0 + 1, session.tools.clone());
    }

    fn target(&self) -> String {
        format!("mcp server `{}`", self.name)
    }

    fn unreachable(&self, message: String) -> Error {
        Error::Unreachable { target: self.target(), message }
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LAST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_last() {
        assert_eq!(pause(1), FIRST_PAUSE);
        assert_eq!(pause(3), FIRST_PAUSE * 4);
        assert_eq!(pause(100), LAST_PAUSE);
    }
}
