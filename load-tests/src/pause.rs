//! The task that sleeps: exact to the system's timers. tokio's are rounded up to whole milliseconds, by 1.2 to 1.4 ms
//! on average for ten at once, which would count as the engine's own time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use trireme_tool::{CallContext, Effect, Error, Tool, ToolOutput, ToolSpec};

/// The tool's name.
pub const NAME: &str = "pause";

/// Who waits until when; one thread of its own wakes them, because a thread's time limit is exact to some 50 us.
#[derive(Default)]
struct Clock {
    waiting: Mutex<Waiting>,
    sooner: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// The second number tells those apart that wait until the same moment.
    until: BTreeMap<(Instant, u64), oneshot::Sender<()>>,
    count: u64,
}

/// Waits for `time`.
pub async fn pause(time: Duration) {
    static CLOCK: OnceLock<Arc<Clock>> = OnceLock::new();
    let clock = CLOCK.get_or_init(|| {
        let clock = Arc::new(Clock::default());
        let own = clock.clone();
        std::thread::spawn(move || own.run());
        clock
    });
    let (wake, woken) = oneshot::channel();
    {
        let mut waiting = clock.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.count += 1;
        let key = (Instant::now() + time, waiting.count);
        waiting.until.insert(key, wake);
        if waiting.until.first_key_value().is_some_and(|(first, _)| *first == key) {
            clock.sooner.notify_one();
        }
    }
    // the thread never ends and drops nobody
    let _ = woken.await;
}

impl Clock {
    fn run(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            while let Some(first) = waiting.until.first_entry().filter(|first| first.key().0 <= now) {
                // whoever does not wait any more was cut
                let _ = first.remove().send(());
            }
            let next = waiting.until.first_key_value().map(|((at, _), _)| at.saturating_duration_since(now));
            waiting = match next {
                Some(time) => {
                    let woken = self.sooner.wait_timeout(waiting, time);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.sooner.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// [`pause`] as a tool: `{ms: 50}`.
pub struct Pause(ToolSpec);

impl Pause {
    /// The tool.
    pub fn new() -> Self {
        let args = json!({
            "type": "object", "required": ["ms"], "additionalProperties": false,
            "properties": {"ms": {"type": "integer", "minimum": 0, "maximum": 10_000}},
        });
        Self(ToolSpec {
            name: NAME.into(),
            description: "Waits for `ms` milliseconds.".into(),
            args,
            effect: Effect::Read,
            resource: None,
            timeout: Duration::from_secs(20),
            at_once: None,
        })
    }
}

#[async_trait]
impl Tool for Pause {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    async fn call(&self, _ctx: &CallContext, args: Value) -> Result<ToolOutput, Error> {
        let time = Duration::from_millis(args["ms"].as_u64().unwrap_or_default());
        pause(time).await;
        Ok(Value::Null.into())
    }
}
