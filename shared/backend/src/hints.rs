//! Hints on their way to a worker, and the word that an attempt need not go on.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use trireme_model::{Ms, Priority, RunId, TaskId, Trace};

/// A hint that reached this worker.
#[derive(Debug)]
pub struct Delivery {
    /// The run.
    pub run: RunId,
    /// The task.
    pub task: TaskId,
    /// The pool whose queue it came from.
    pub pool: String,
    /// Which of the pool's queues.
    pub priority: Priority,
    /// When it was published, on the publisher's clock.
    pub published: Ms,
    /// Whether the broker delivered it before.
    pub redelivered: bool,
    /// The message that brought it; `None` where there was none, or where nothing is traced.
    pub via: Option<Via>,
    /// To be called when its task's outcome, or the reason not to run it, is durable.
    pub ack: Ack,
}

/// The message behind a delivery, for traces: nothing else may depend on what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    /// The queue's name.
    pub queue: String,
    /// The span that published it, as the message's trace context says.
    pub trace: Option<Trace>,
}

/// Acknowledges one delivery. Dropped without [`Ack::done`], the delivery stays unacked and comes again
/// when its consumer ends.
pub struct Ack(Option<Box<dyn FnOnce() + Send>>);

/// A stream of deliveries.
#[derive(Debug)]
pub struct Deliveries {
    receiver: mpsc::Receiver<Delivery>,
    stop: CancellationToken,
}

/// An attempt that need not go on: of one task and everything below it, or of a whole run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abort {
    /// The run.
    pub run: RunId,
    /// The task; `None` for all of the run.
    pub task: Option<TaskId>,
}

impl Ack {
    /// An ack that calls `done`, which must not block.
    pub fn new(done: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(done)))
    }

    /// For backends whose deliveries need no ack.
    pub fn none() -> Self {
        Self(None)
    }

    /// Acknowledges.
    pub fn done(self) {
        if let Some(done) = self.0 {
            done();
        }
    }
}

impl std::fmt::Debug for Ack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ack")
    }
}

impl Deliveries {
    /// Wraps the receiving end of a backend's channel; cancelling `stop` makes the backend stop consuming.
    pub fn new(receiver: mpsc::Receiver<Delivery>, stop: CancellationToken) -> Self {
        Self { receiver, stop }
    }

    /// The next delivery; `None` once consuming has stopped and everything delivered was taken.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.receiver.recv().await
    }

    /// Stops consuming. Deliveries not taken by then go back to the broker; acks still count.
    pub fn stop(&mut self) {
        self.stop.cancel();
        self.receiver.close();
        while self.receiver.try_recv().is_ok() {}
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Abort {
    /// Whether it concerns `task` of `run`.
    pub fn concerns(&self, run: &RunId, task: &TaskId) -> bool {
        self.run == *run
            && self.task.as_ref().is_none_or(|root| {
                task == root
                    || task.as_str().strip_prefix(root.as_str()).is_some_and(|rest| rest.starts_with('/'))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abort_reaches_what_is_below_it() {
        let run = RunId::new("r").unwrap();
        let of =
            |task: Option<&str>| Abort { run: run.clone(), task: task.map(|id| TaskId::new(id).unwrap()) };
        let task = |id: &str| TaskId::new(id).unwrap();
        assert!(of(None).concerns(&run, &task("each/3")));
        assert!(of(Some("each")).concerns(&run, &task("each/3")));
        assert!(of(Some("each")).concerns(&run, &task("each")));
        assert!(!of(Some("each")).concerns(&run, &task("each-2/3")));
        assert!(!of(None).concerns(&RunId::new("s").unwrap(), &task("each")));
    }
}
