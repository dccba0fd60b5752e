//! The one task that sends hints.
//!
//! What makes it cheap: a publish is polled once, which puts its frames on lapin's list, and is then left alone;
//! only the oldest one has a waker. Confirms come in order or in groups, so that when the oldest has its answer
//! most others have theirs, and thousands in flight cost a wake-up or two.

use super::backlog::{Backlog, Outgoing};
use super::counters::Counters;
use super::link::{Error, Link, Pause, Report, State};
use super::{Config, topology, traceparent};
use futures::FutureExt;
use futures::future::BoxFuture;
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Confirmation};
use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// How often deadlines are looked at: exact enough for limits of seconds.
const TICK: Duration = Duration::from_millis(250);
/// Most time between attempts to send what the broker refused.
const MAX_REST: Duration = Duration::from_secs(1);

pub(super) struct Publisher {
    config: Arc<Config>,
    counters: Arc<Counters>,
    backlog: Arc<Backlog>,
    state: watch::Sender<State>,
    // Sent and without an answer, oldest first; at most `config.window`.
    sent: VecDeque<Sent>,
    // Every queue that was ever published to: declared before a new connection counts as ready.
    known: BTreeSet<ShortString>,
    properties: BasicProperties,
}

struct Sent {
    message: Outgoing,
    answer: BoxFuture<'static, lapin::Result<Confirmation>>,
    at: Instant,
}

impl Publisher {
    pub(super) fn new(
        config: Arc<Config>,
        counters: Arc<Counters>,
        backlog: Arc<Backlog>,
        state: watch::Sender<State>,
    ) -> Self {
        let properties = BasicProperties::default().with_delivery_mode(if config.persistent { 2 } else { 1 });
        Self { config, counters, backlog, state, sent: VecDeque::new(), known: BTreeSet::new(), properties }
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let mut pause = Pause::new(self.config.max_pause);
        loop {
            let Err(error) = self.session(&shutdown, &mut pause).await else { break };
            self.counters.reconnects.add(1);
            self.counters.unconfirmed.add(self.sent.len());
            let again = self.sent.drain(..).map(|sent| sent.message);
            self.backlog.put_back(again);
            tracing::warn!(%error, "hints cannot be published; trying again");
            self.state.send_replace(State::Lost(error.to_string()));
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(pause.next()) => {}
            }
        }
        self.state.send_replace(State::Closed);
    }

    // Ends with `Ok` on shutdown. On an error the connection is dropped with all that it had in flight.
    async fn session(&mut self, shutdown: &CancellationToken, pause: &mut Pause) -> Result<(), Error> {
        let backlog = self.backlog.clone();
        let mut link = tokio::select! {
            link = self.connect() => link?,
            // With something to send, shutdown still waits for this one attempt, which has deadlines.
            () = shutdown.cancelled(), if backlog.unsettled() == 0 => return Ok(()),
        };
        self.state.send_replace(State::Ready);
        let mut declared = self.known.clone();
        let mut refused = Pause::new(MAX_REST);
        let mut rest = None;
        let mut blocked = false;
        let mut end = None;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if rest.is_none() && !blocked {
                self.send_waiting(&link, &mut declared).await?;
            }
            if end.is_some() && (self.backlog.unsettled() == 0 || end < Some(Instant::now())) {
                link.close().await;
                return Ok(());
            }
            let room = self.sent.len() < self.config.window.max(1);
            tokio::select! {
                biased;
                answer = next_answer(&mut self.sent), if !self.sent.is_empty() => {
                    let settled = self.settle(answer, &mut declared)?;
                    if settled.refused {
                        rest = Some(Instant::now() + refused.next());
                    } else {
                        refused.reset();
                        pause.reset();
                    }
                }
                report = link.report() => match report {
                    Report::Lost(error) => return Err(error),
                    Report::Blocked(reason) => {
                        blocked = reason.is_some();
                        self.note_blocked(reason);
                    }
                },
                () = self.backlog.more(), if room && rest.is_none() && !blocked => {}
                () = sleep_until(rest), if rest.is_some() => rest = None,
                () = shutdown.cancelled(), if end.is_none() => {
                    end = Some(Instant::now() + self.config.confirm_timeout);
                }
                _ = tick.tick() => {
                    let late = self.sent.front().is_some_and(|sent| sent.at.elapsed() > self.config.confirm_timeout);
                    if late && !blocked {
                        return Err(Error::NoAnswer("confirm", self.config.confirm_timeout));
                    }
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<Link, Error> {
        let link = Link::open(&self.config, "publish").await?;
        link.ask("confirm mode", link.channel.confirm_select(ConfirmSelectOptions::default())).await?;
        for queue in &self.known {
            topology::declare(&link, &self.config, queue).await?;
        }
        Ok(link)
    }

    async fn send_waiting(&mut self, link: &Link, declared: &mut BTreeSet<ShortString>) -> Result<(), Error> {
        while self.sent.len() < self.config.window.max(1) {
            let Some(message) = self.backlog.take() else { break };
            if !declared.contains(&message.queue) {
                self.known.insert(message.queue.clone());
                if let Err(error) = topology::declare(link, &self.config, &message.queue).await {
                    self.backlog.put_back([message].into_iter());
                    return Err(error);
                }
                declared.insert(message.queue.clone());
            }
            self.send(link, message);
        }
        Ok(())
    }

    fn send(&mut self, link: &Link, message: Outgoing) {
        let channel = link.channel.clone();
        let Outgoing { queue, body, trace } = message.clone();
        let mut properties = self.properties.clone();
        if let Some(trace) = &trace {
            properties = traceparent::write(properties, trace);
        }
        let mut answer = async move {
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            channel.basic_publish("".into(), queue, options, &body, properties).await?.await
        }
        .boxed();
        // Polled once so that the frames are on their way. An answer that is there at once can only be an error
        // of the channel, which every later poll meets again: `next_answer` must see it, so it is kept.
        if let Some(early) = (&mut answer).now_or_never() {
            answer = std::future::ready(early).boxed();
        }
        self.counters.published.add(1);
        self.sent.push_back(Sent { message, answer, at: Instant::now() });
    }

    // Books the answer of the oldest message, and those of the following ones that are there already.
    fn settle(
        &mut self,
        oldest: lapin::Result<Confirmation>,
        declared: &mut BTreeSet<ShortString>,
    ) -> Result<Settled, Error> {
        let mut answer = Some(oldest);
        let now = Instant::now();
        let mut confirmed = 0;
        let mut again = Vec::new();
        let mut failed = None;
        while let Some(confirmation) = answer {
            // On an error the message stays in `sent`, from where all are put back.
            let confirmation = match confirmation {
                Ok(confirmation) => confirmation,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            let Some(sent) = self.sent.pop_front() else { break };
            match confirmation {
                Confirmation::Ack(None) | Confirmation::NotRequested => {
                    confirmed += 1;
                    if let Some(seconds) = &self.config.confirm_seconds {
                        seconds.observe((now - sent.at).as_secs_f64());
                    }
                }
                Confirmation::Ack(Some(returned)) => again.push(self.returned(returned, declared)),
                Confirmation::Nack(returned) => {
                    self.counters.nacked.add(1);
                    let returned = returned.map(|returned| self.returned(returned, declared));
                    // A returned message comes with some answer, not surely its own; its own then says "taken".
                    if let Some(other) = returned.filter(|other| other.body != sent.message.body) {
                        self.backlog.unsettle(1);
                        again.push(other);
                    }
                    again.push(sent.message);
                }
            }
            answer = self.sent.front_mut().and_then(|next| (&mut next.answer).now_or_never());
        }
        self.counters.confirmed.add(confirmed);
        self.backlog.settle(confirmed);
        let refused = !again.is_empty();
        self.backlog.put_back(again.into_iter());
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(Settled { refused }),
        }
    }

    // No queue took it: the queue was deleted under us. It is declared again before the message goes out again.
    fn returned(&self, returned: BasicReturnMessage, declared: &mut BTreeSet<ShortString>) -> Outgoing {
        self.counters.returned.add(1);
        let delivery = returned.delivery;
        declared.remove(&delivery.routing_key);
        let trace = traceparent::read(&delivery.properties);
        Outgoing { queue: delivery.routing_key, body: delivery.data.into(), trace }
    }

    fn note_blocked(&mut self, reason: Option<String>) {
        let now = Instant::now();
        // The time it was blocked does not count against the deadline of a confirm.
        self.sent.iter_mut().for_each(|sent| sent.at = now);
        match reason {
            Some(reason) => {
                tracing::warn!(reason, "rabbitmq blocks publishers");
                self.state.send_replace(State::Lost(format!("rabbitmq blocks publishers: {reason}")));
            }
            None => {
                self.state.send_replace(State::Ready);
            }
        }
    }
}

struct Settled {
    refused: bool,
}

async fn next_answer(sent: &mut VecDeque<Sent>) -> lapin::Result<Confirmation> {
    poll_fn(|context| match sent.front_mut() {
        Some(oldest) => oldest.answer.poll_unpin(context),
        None => std::task::Poll::Pending,
    })
    .await
}

async fn sleep_until(when: Option<Instant>) {
    if let Some(when) = when {
        tokio::time::sleep_until(when).await;
    }
}
