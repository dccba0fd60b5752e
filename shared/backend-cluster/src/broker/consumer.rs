//! The task that receives hints and sends acks, and the handle to it.

use super::Config;
use super::acks::{Acks, Window};
use super::counters::Counters;
use super::hint::Hint;
use super::link::{Error, Link, Pause, Report, State, within};
use super::topology::{self, Priority};
use super::traceparent;
use futures::StreamExt;
use futures::future::try_join_all;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// A hint and the duty to ack it.
#[derive(Debug)]
pub struct Delivery {
    /// What it says.
    pub hint: Hint,
    /// The pool whose queue it came from.
    pub pool: Arc<str>,
    /// The priority of that queue.
    pub priority: Priority,
    /// Whether the broker had handed it to somebody before.
    pub redelivered: bool,
    /// To be called when the task's result, or the reason not to run it, is durable in the store.
    pub ack: Ack,
}

/// Acks one delivery. Dropped without [`Ack::ack`], the broker keeps the message and one place of the prefetch
/// until the channel ends, then delivers it again.
#[derive(Debug)]
#[must_use = "a delivery that is not acked holds a place of the prefetch"]
pub struct Ack {
    generation: u64,
    tag: u64,
    shared: Arc<Shared>,
}

impl Ack {
    /// Notes the ack and returns at once; the consumer's task sends it with others. Dropped where the channel of
    /// the message is gone: the message is then the broker's again.
    pub fn ack(self) {
        if !self.shared.acks.finish(self.generation, self.tag) {
            self.shared.counters.stale_acks.add(1);
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        self.shared.acks.release();
    }
}

/// Receives hints from the queues of some pools. Dropping it closes it without waiting for acks to come.
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    state: watch::Receiver<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Run,
    // Nothing new; acks still go out.
    Stop,
    Close,
}

#[derive(Debug)]
struct Shared {
    acks: Acks,
    counters: Arc<Counters>,
    local: Mutex<Local>,
    arrived: Notify,
}

// Received and not yet taken: at most the prefetch of each queue.
#[derive(Debug, Default)]
struct Local {
    high: VecDeque<Delivery>,
    normal: VecDeque<Delivery>,
    stopped: bool,
}

impl Consumer {
    pub(super) fn start(config: Arc<Config>, counters: Arc<Counters>, pools: &[(String, u16)]) -> Self {
        let shared = Arc::new(Shared {
            acks: Acks::default(),
            counters,
            local: Mutex::default(),
            arrived: Notify::new(),
        });
        let (phase, phases) = watch::channel(Phase::Run);
        let (states, state) = watch::channel(State::Connecting);
        let task = Task {
            config,
            shared: shared.clone(),
            pools: pools.iter().map(|(pool, slots)| (Arc::from(pool.as_str()), *slots)).collect(),
            phase: phases,
            state: states,
            generation: 1,
        };
        tokio::spawn(task.run());
        Self { shared, phase, state }
    }

    /// The next hint, high priority first; `None` once stopped. May be called from many tasks at once, and
    /// dropping the future loses nothing.
    pub async fn recv(&self) -> Option<Delivery> {
        self.recv_many(1).await.pop()
    }

    /// At least one and at most `most` hints, high priority first; none once stopped.
    pub async fn recv_many(&self, most: usize) -> Vec<Delivery> {
        loop {
            let arrived = self.shared.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            {
                let mut local = self.shared.local();
                let taken = local.take(most.max(1));
                if local.stopped || !taken.is_empty() {
                    return taken;
                }
            }
            arrived.await;
        }
    }

    /// State of its connection, for readiness: `Ready` means consuming all queues.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Stops receiving: from now on [`Consumer::recv`] gives `None`. Acks of what was received still go out.
    /// What was received and not taken goes back to the broker when the consumer is closed.
    pub fn stop(&self) {
        self.phase.send_replace(Phase::Stop);
        self.shared.clear(true);
    }

    /// Stops receiving, waits at most `grace` until every delivery that was taken is acked or dropped, sends the
    /// acks, and closes the channel, which returns the rest to the broker. `true` when nothing was left over.
    pub async fn close(self, grace: Duration) -> bool {
        self.stop();
        let all = tokio::time::timeout(grace, self.shared.acks.none_held()).await.is_ok();
        self.phase.send_replace(Phase::Close);
        let mut state = self.state.clone();
        // The task ends by itself: its last requests have deadlines.
        let _ = state.wait_for(|state| *state == State::Closed).await;
        all
    }
}

impl Shared {
    fn local(&self) -> MutexGuard<'_, Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Forgets what nobody took; the broker still has it.
    fn clear(&self, stop: bool) {
        let forgotten = {
            let mut local = self.local();
            local.stopped |= stop;
            (std::mem::take(&mut local.high), std::mem::take(&mut local.normal))
        };
        drop(forgotten);
        if stop {
            self.arrived.notify_waiters();
        }
    }
}

impl Local {
    fn take(&mut self, most: usize) -> Vec<Delivery> {
        let high = self.high.len().min(most);
        let normal = self.normal.len().min(most - high);
        self.high.drain(..high).chain(self.normal.drain(..normal)).collect()
    }
}

struct Task {
    config: Arc<Config>,
    shared: Arc<Shared>,
    pools: Vec<(Arc<str>, u16)>,
    phase: watch::Receiver<Phase>,
    state: watch::Sender<State>,
    // Number of the present channel. A delivery's number means nothing on another one.
    generation: u64,
}

struct Source {
    stream: lapin::Consumer,
    pool: Arc<str>,
    priority: Priority,
}

impl Task {
    async fn run(mut self) {
        let mut pause = Pause::new(self.config.max_pause);
        while self.phase() == Phase::Run {
            self.shared.acks.begin(self.generation);
            let ended = self.session(&mut pause).await;
            self.generation += 1;
            self.shared.acks.begin(self.generation);
            self.shared.clear(false);
            let Err(error) = ended else { break };
            self.shared.counters.reconnects.add(1);
            tracing::warn!(%error, "hints cannot be received; trying again");
            self.state.send_replace(State::Lost(error.to_string()));
            tokio::select! {
                _ = self.phase.changed() => {}
                () = tokio::time::sleep(pause.next()) => {}
            }
        }
        self.shared.clear(true);
        self.state.send_replace(State::Closed);
    }

    fn phase(&self) -> Phase {
        if self.phase.has_changed().is_err() { Phase::Close } else { *self.phase.borrow() }
    }

    // Ends with `Ok` when it is closed. On an error the connection is dropped: the broker has its messages back.
    async fn session(&mut self, pause: &mut Pause) -> Result<(), Error> {
        let mut phases = self.phase.clone();
        let (mut link, mut sources) = tokio::select! {
            opened = self.open() => opened?,
            _ = phases.wait_for(|phase| *phase != Phase::Run) => return Ok(()),
        };
        pause.reset();
        self.state.send_replace(State::Ready);
        let mut window = Window::new();
        loop {
            match self.phase() {
                Phase::Run => {}
                Phase::Stop => cancel(&link, &mut sources).await?,
                Phase::Close => {
                    self.flush(&link, &mut window).await?;
                    link.close().await;
                    return Ok(());
                }
            }
            tokio::select! {
                biased;
                () = self.shared.acks.more() => {
                    // whoever is ready to run may finish one more; costs nothing where nobody is
                    tokio::task::yield_now().await;
                    self.flush(&link, &mut window).await?;
                }
                arrived = poll_fn(|context| self.receive(&mut sources, context)), if !sources.is_empty() => arrived?,
                report = link.report() => if let Report::Lost(error) = report {
                    return Err(error);
                },
                _ = phases.changed() => {}
            }
        }
    }

    async fn open(&self) -> Result<(Link, Vec<Source>), Error> {
        let link = Link::open(&self.config, "consume").await?;
        let mut sources = Vec::new();
        for priority in Priority::ALL {
            for (pool, slots) in self.pools.iter().filter(|(_, slots)| *slots > 0) {
                let queue = topology::queue_name(&self.config.prefix, pool, priority)?;
                topology::declare(&link, &self.config, &queue).await?;
                // Per consumer: it holds for the consumers that are started after it.
                let qos = link.channel.basic_qos(*slots, BasicQosOptions::default());
                link.ask("set prefetch", qos).await?;
                let stream = link.channel.basic_consume(
                    queue,
                    ShortString::default(),
                    BasicConsumeOptions::default(),
                    FieldTable::default(),
                );
                let stream = link.ask("consume", stream).await?;
                sources.push(Source { stream, pool: pool.clone(), priority });
            }
        }
        Ok((link, sources))
    }

    // Takes in all that has arrived: at most the prefetch, because no ack goes out meanwhile.
    fn receive(&self, sources: &mut [Source], context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut any = false;
        for source in sources {
            while let Poll::Ready(next) = source.stream.poll_next_unpin(context) {
                match next {
                    Some(Ok(message)) => self.accept(source, &message),
                    Some(Err(error)) => return Poll::Ready(Err(error.into())),
                    // The queue was deleted, or the channel closed without an error.
                    None => return Poll::Ready(Err(Error::Ended("consumer"))),
                }
                any = true;
            }
        }
        if any { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn accept(&self, source: &Source, message: &lapin::message::Delivery) {
        let counters = &self.shared.counters;
        counters.delivered.add(1);
        if message.redelivered {
            counters.redelivered.add(1);
        }
        self.shared.acks.hold();
        let ack = Ack { generation: self.generation, tag: message.delivery_tag, shared: self.shared.clone() };
        let hint = match Hint::decode(&message.data) {
            Ok(hint) => Hint { trace: traceparent::read(&message.properties), ..hint },
            Err(error) => {
                counters.decode_errors.add(1);
                tracing::warn!(%error, pool = %source.pool, "a message is no hint; dropped");
                return ack.ack();
            }
        };
        let delivery = Delivery {
            hint,
            pool: source.pool.clone(),
            priority: source.priority,
            redelivered: message.redelivered,
            ack,
        };
        let mut local = self.shared.local();
        if local.stopped {
            drop(local);
            return drop(delivery);
        }
        match delivery.priority {
            Priority::High => local.high.push_back(delivery),
            Priority::Normal => local.normal.push_back(delivery),
        }
        drop(local);
        self.shared.arrived.notify_one();
    }

    async fn flush(&self, link: &Link, window: &mut Window) -> Result<(), Error> {
        let finished = self.shared.acks.take();
        if finished.is_empty() {
            return Ok(());
        }
        let count = finished.len();
        let frames = window.acknowledge(finished);
        let up_to = frames.up_to.map(|tag| (tag, true));
        let single = frames.single.into_iter().map(|tag| (tag, false));
        let acks = up_to
            .into_iter()
            .chain(single)
            .map(|(tag, multiple)| link.channel.basic_ack(tag, BasicAckOptions { multiple }));
        within(self.config.confirm_timeout, "ack", try_join_all(acks)).await?;
        self.shared.counters.acked.add(count);
        Ok(())
    }
}

async fn cancel(link: &Link, sources: &mut Vec<Source>) -> Result<(), Error> {
    for source in sources.drain(..) {
        let tag = source.stream.tag();
        link.ask("cancel consumer", link.channel.basic_cancel(tag, BasicCancelOptions::default())).await?;
    }
    Ok(())
}
