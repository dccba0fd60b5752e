//! A backend between worker and store: records every call, fails those it is told to, repeats and forges hints.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use async_trait::async_trait;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use trireme_backend::{Abort, Ack, Around, Backend, Deliveries, Delivery, Delta, Error, Recorded};
use trireme_backend_embedded::Embedded;
use trireme_model::{
    Claim, Claimed, Complete, Completed, Extend, Extended, Fail, Failed, More, Priority, Renew, Renewed,
    RunId, TaskId,
};

use super::within;

/// A call of the worker, or what befell a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `delivered`, `acked`, `claim`, `complete`, ...
    pub what: &'static str,
    /// The task; empty for calls about several.
    pub task: String,
    /// Claim id, token, or the number of entries.
    pub id: String,
    /// Whether the store's answer reached the worker.
    pub answered: bool,
}

/// How a call fails.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The store never sees it.
    Refuse,
    /// The store carries it out, the answer gets lost.
    Lose,
    /// There is never an answer.
    Stall,
}

pub struct Tap {
    inner: Embedded,
    calls: watch::Sender<Vec<Call>>,
    faults: Mutex<HashMap<&'static str, (Fault, usize)>>,
    /// Every delivery comes twice.
    pub duplicate: AtomicBool,
    /// Aborts are lost.
    pub mute: AtomicBool,
    /// Where forged deliveries go in.
    consumers: Mutex<Vec<mpsc::Sender<Delivery>>>,
    silence: broadcast::Sender<Abort>,
}

impl Tap {
    pub fn new(inner: Embedded) -> Self {
        Self {
            inner,
            calls: watch::Sender::new(Vec::new()),
            faults: Mutex::default(),
            duplicate: AtomicBool::new(false),
            mute: AtomicBool::new(false),
            consumers: Mutex::default(),
            silence: broadcast::channel(1).0,
        }
    }

    /// The next `times` calls of `what` do not reach the store.
    pub fn refuse(&self, what: &'static str, times: usize) {
        self.faults.lock().unwrap().insert(what, (Fault::Refuse, times));
    }

    /// The next `times` calls of `what` are carried out, but their answers get lost.
    pub fn lose(&self, what: &'static str, times: usize) {
        self.faults.lock().unwrap().insert(what, (Fault::Lose, times));
    }

    /// The next `times` calls of `what` are never answered.
    pub fn stall(&self, what: &'static str, times: usize) {
        self.faults.lock().unwrap().insert(what, (Fault::Stall, times));
    }

    /// What happened so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.borrow().clone()
    }

    /// What happened of one kind.
    pub fn of(&self, what: &str) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.what == what).collect()
    }

    /// What happened to one task of one kind.
    pub fn of_task(&self, what: &str, task: &str) -> Vec<Call> {
        self.of(what).into_iter().filter(|call| call.task == task).collect()
    }

    /// Where in the order of things the last `what` of `task` stands.
    pub fn last(&self, what: &str, task: &str) -> usize {
        let position = self.calls().iter().rposition(|call| call.what == what && call.task == task);
        position.unwrap_or_else(|| panic!("there was no {what} of {task}"))
    }

    pub async fn until(&self, what: &str, wanted: impl Fn(&[Call]) -> bool) {
        let mut calls = self.calls.subscribe();
        within(what, calls.wait_for(|calls| wanted(calls))).await.unwrap();
    }

    /// Delivers a hint that nobody published.
    pub async fn forge(&self, run: &RunId, task: &str, pool: &str) {
        let consumer = self.consumers.lock().unwrap().last().unwrap().clone();
        let ack = self.ack(task, Ack::none());
        let delivery = Delivery {
            run: run.clone(),
            task: TaskId::new(task).unwrap(),
            pool: pool.into(),
            priority: Priority::Normal,
            published: 0,
            redelivered: false,
            via: None,
            ack,
        };
        consumer.send(delivery).await.unwrap();
    }

    fn note(&self, what: &'static str, task: &str, id: impl ToString, answered: bool) {
        let call = Call { what, task: task.into(), id: id.to_string(), answered };
        self.calls.send_modify(|calls| calls.push(call));
    }

    fn ack(&self, task: &str, ack: Ack) -> Ack {
        let (calls, task) = (self.calls.clone(), task.to_owned());
        Ack::new(move || {
            let call = Call { what: "acked", task, id: String::new(), answered: true };
            calls.send_modify(|calls| calls.push(call));
            ack.done();
        })
    }

    async fn pass<T>(
        &self,
        what: &'static str,
        task: &str,
        id: impl ToString,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let fault = {
            let mut faults = self.faults.lock().unwrap();
            match faults.get_mut(what) {
                Some((fault, left)) if *left > 0 => {
                    *left -= 1;
                    Some(*fault)
                }
                _ => None,
            }
        };
        let answer = match fault {
            Some(Fault::Refuse) => None,
            Some(Fault::Stall) => {
                self.note(what, task, id, false);
                return std::future::pending().await;
            }
            Some(Fault::Lose) => {
                call.await?;
                None
            }
            None => Some(call.await),
        };
        self.note(what, task, id, answer.is_some());
        answer.unwrap_or_else(|| Err(Error::Unavailable { service: "store", reason: "told to be".into() }))
    }
}

#[async_trait]
impl Around for Tap {
    fn inner(&self) -> &dyn Backend {
        &self.inner
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        let (task, id) = (claim.task.to_string(), claim.claim.clone());
        self.pass("claim", &task, id, self.inner.claim(claim)).await
    }

    async fn renew(&self, renewals: Vec<Renew>) -> Result<Vec<Renewed>, Error> {
        self.pass("renew", "", renewals.len(), self.inner.renew(renewals)).await
    }

    async fn extend(&self, extend: Extend) -> Result<Extended, Error> {
        let id = match &extend.more {
            More::Children { start, .. } => start.to_string(),
            More::Tasks(tasks) => {
                tasks.iter().map(|added| added.spec.id.to_string()).collect::<Vec<_>>().join(" ")
            }
            More::Resource(name) => name.clone(),
        };
        let task = extend.task.to_string();
        self.pass("extend", &task, id, self.inner.extend(extend)).await
    }

    async fn complete(&self, complete: Complete) -> Result<Completed, Error> {
        let (task, id) = (complete.task.to_string(), complete.token.as_str().to_owned());
        self.pass("complete", &task, id, self.inner.complete(complete)).await
    }

    async fn fail(&self, fail: Fail) -> Result<Failed, Error> {
        let (task, id) = (fail.task.to_string(), fail.token.as_str().to_owned());
        self.pass("fail", &task, id, self.inner.fail(fail)).await
    }

    async fn append(&self, deltas: Vec<Delta>) -> Result<(), Error> {
        self.pass("append", "", deltas.len(), self.inner.append(deltas)).await
    }

    async fn recorded(&self, run: &RunId, tasks: &[TaskId]) -> Result<Vec<Option<Recorded>>, Error> {
        self.pass("recorded", "", tasks.len(), self.inner.recorded(run, tasks)).await
    }

    async fn consume(&self, pools: Vec<(String, usize)>) -> Result<Deliveries, Error> {
        let mut from = self.pass("consume", "", pools.len(), self.inner.consume(pools)).await?;
        let (sender, receiver) = mpsc::channel(1024);
        let stop = CancellationToken::new();
        self.consumers.lock().unwrap().push(sender.clone());
        let stopped = stop.clone();
        let (calls, duplicate) = (self.calls.clone(), self.duplicate.load(SeqCst));
        let tap = Self::noting(&self.inner, calls);
        tokio::spawn(async move {
            loop {
                let delivery = tokio::select! {
                    biased;
                    () = stopped.cancelled() => {
                        tap.note("stopped", "", "", true);
                        return from.stop();
                    }
                    delivery = from.next() => delivery,
                };
                let Some(mut delivery) = delivery else { return };
                let task = delivery.task.to_string();
                tap.note("delivered", &task, "", true);
                delivery.ack = tap.ack(&task, delivery.ack);
                let twin = Delivery {
                    run: delivery.run.clone(),
                    task: delivery.task.clone(),
                    pool: delivery.pool.clone(),
                    priority: delivery.priority,
                    published: delivery.published,
                    redelivered: true,
                    via: delivery.via.clone(),
                    ack: tap.ack(&task, Ack::none()),
                };
                // a closed end drops it unacked, as a broker's connection would
                drop(sender.send(delivery).await);
                if duplicate {
                    drop(sender.send(twin).await);
                }
            }
        });
        Ok(Deliveries::new(receiver, stop))
    }

    fn aborts(&self) -> broadcast::Receiver<Abort> {
        if self.mute.load(SeqCst) { self.silence.subscribe() } else { self.inner.aborts() }
    }
}

impl Tap {
    /// A second hand that notes in the same book.
    fn noting(inner: &Embedded, calls: watch::Sender<Vec<Call>>) -> Arc<Self> {
        Arc::new(Self { calls, ..Self::new(inner.clone()) })
    }
}
