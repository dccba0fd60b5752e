//! What all batched scripts have in common: their keys, their arguments, their reply, and what follows from it.

use std::{collections::HashMap, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, SeqAccess, Visitor},
};
use trireme_backend::{Abort, Error};
use trireme_model::{Hint, Ms, RunId, TaskId};

use super::{
    layout::{priority_of, unpack},
    link::Link,
    packer::Packer,
    read::{list, strange},
    script::Script,
};
use crate::{batch::Call, keys::Keys};

/// What must leave the store after a step.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Emitted {
    /// Tasks that became ready.
    pub hints: Vec<Hint>,
    /// Attempts that need not go on; Redis has told the subscribers already.
    pub aborts: Vec<Abort>,
}

/// Takes what follows from steps, without blocking.
pub type Sink = Arc<dyn Fn(Emitted) + Send + Sync>;

/// The time in place of the server's, in tests.
pub type Clock = Arc<dyn Fn() -> Ms + Send + Sync>;

/// One shard of the store.
pub(crate) struct Shard {
    pub(crate) keys: Keys,
    pub(crate) link: Arc<Link>,
    pub(crate) sink: Sink,
    pub(crate) clock: Option<Clock>,
}

/// The key before the due index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    Meta,
    Runs,
    /// The meta hash; the held tasks follow the index of runs under way.
    Claim,
    /// The index of runs; the dead letters, the held tasks and the meta hash follow the index of runs under way.
    Sweep,
    /// None: the due index comes first; the index of runs under way follows it in any case.
    Due,
}

/// A batched script seen from Rust.
pub(crate) trait Transition: Send + Sync + 'static {
    type Item: Send + Sync + 'static;
    type Answer: Send + 'static;
    /// An answer as the script packs it.
    type Wire: DeserializeOwned + Send;

    const FIRST: First = First::Meta;
    /// Whether the blobs of each run are among the keys.
    const BLOBS: bool = false;
    /// The fields of an item, as the script's header lists them.
    #[cfg_attr(not(test), expect(dead_code))]
    const ITEM: &'static str;
    /// Crash point behind the publishing of hints, where there are any.
    const AFTER_HINTS: Option<&'static str> = None;

    fn script() -> &'static Script;
    fn run(item: &Self::Item) -> &RunId;
    fn weight(item: &Self::Item) -> usize;
    /// Writes the item, with the place of its run, from 1, as its first field.
    fn pack(item: &Self::Item, at: i64, out: &mut Packer) -> Result<(), Error>;
    fn answer(item: &Self::Item, wire: Self::Wire, now: Ms) -> Result<Self::Answer, Error>;
}

/// Time, answers, hints, aborts.
#[derive(Deserialize)]
#[serde(bound = "W: DeserializeOwned")]
struct Reply<W>(Ms, Vec<W>, Found, Vec<(RunId, String)>);

/// Tasks that became ready: place of the run, task, pool, priority; a list of all in turn on the wire.
struct Found(Vec<(usize, TaskId, String, u8)>);

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Found;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list with four values for each hint")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Found, A::Error> {
                let mut found = Vec::with_capacity(list.size_hint().unwrap_or(0) / 4);
                let short = || serde::de::Error::custom("a hint is not whole");
                while let Some(at) = list.next_element()? {
                    let task = list.next_element()?.ok_or_else(short)?;
                    let pool = list.next_element()?.ok_or_else(short)?;
                    found.push((at, task, pool, list.next_element()?.ok_or_else(short)?));
                }
                Ok(Found(found))
            }
        }
        deserializer.deserialize_seq(Each)
    }
}

/// One answer per item of a batch.
type Answers<T> = Vec<Result<<T as Transition>::Answer, Error>>;

/// A script on one shard, to be driven by a [`Batcher`](crate::batch::Batcher).
pub(crate) struct On<T>(pub(crate) Arc<Shard>, pub(crate) std::marker::PhantomData<T>);

impl<T: Transition> On<T> {
    pub(crate) fn new(shard: Arc<Shard>) -> Self {
        Self(shard, std::marker::PhantomData)
    }
}

impl<T: Transition> Call for On<T> {
    type Item = T::Item;
    type Answer = T::Answer;

    fn weight(item: &T::Item) -> usize {
        T::weight(item)
    }

    async fn call(&self, items: Vec<T::Item>) -> Vec<Result<T::Answer, Error>> {
        self.0.steps::<T>(items).await.0
    }
}

impl Shard {
    /// The clock argument of every script.
    pub(crate) fn time(&self) -> String {
        self.clock.as_ref().map_or_else(String::new, |clock| clock().to_string())
    }

    /// Now, as the scripts of this shard see it.
    pub(crate) async fn now(&self) -> Result<Ms, Error> {
        if let Some(clock) = &self.clock {
            return Ok(clock());
        }
        let parts = list("the time", self.link.query(&redis::cmd("TIME")).await?)?;
        let number = |value: Option<&redis::Value>| match value {
            Some(redis::Value::BulkString(digits)) => String::from_utf8_lossy(digits).parse::<Ms>().ok(),
            _ => None,
        };
        match (number(parts.first()), number(parts.get(1))) {
            (Some(seconds), Some(micros)) => Ok(seconds * 1000 + micros / 1000),
            _ => Err(strange("the time", &redis::Value::Array(parts))),
        }
    }

    /// Runs one batch: one answer per item, in order. Where the script stopped at something that it could not read,
    /// nothing was written: then each item goes alone, so that a spoilt run does not hold up others. Also says how
    /// many hints followed.
    pub(crate) async fn steps<T: Transition>(&self, items: Vec<T::Item>) -> (Answers<T>, usize) {
        if items.is_empty() {
            return (Vec::new(), 0);
        }
        let all: Vec<&T::Item> = items.iter().collect();
        let error = match self.step::<T>(&all).await {
            Ok(answers) => return answers,
            Err(error) => error,
        };
        if items.len() == 1 || !matches!(error, Error::Unusable(_)) {
            return (items.iter().map(|_| Err(error.clone())).collect(), 0);
        }
        tracing::error!(%error, script = T::script().name, "a batch failed; trying its items one by one");
        let (mut answers, mut published) = (Vec::with_capacity(items.len()), 0);
        for item in &items {
            let alone = self.step::<T>(&[item]).await;
            answers.push(alone.and_then(|(mut answers, hints)| {
                published += hints;
                answers.pop().unwrap_or_else(|| Err(error.clone()))
            }));
        }
        (answers, published)
    }

    async fn step<T: Transition>(&self, items: &[&T::Item]) -> Result<(Answers<T>, usize), Error> {
        let (mut runs, mut index) = (Vec::<RunId>::new(), HashMap::<RunId, usize>::new());
        let mut packed = Packer::default();
        for item in items {
            let run = T::run(item);
            let at = match index.get(run) {
                Some(at) => *at,
                None => {
                    runs.push(run.clone());
                    index.insert(run.clone(), runs.len());
                    runs.len()
                }
            };
            T::pack(item, at as i64, &mut packed)?;
        }
        let mut keys = match T::FIRST {
            First::Meta | First::Claim => vec![self.keys.meta.clone()],
            First::Runs | First::Sweep => vec![self.keys.runs.clone()],
            First::Due => vec![],
        };
        keys.extend([self.keys.due.clone(), self.keys.flying.clone()]);
        match T::FIRST {
            First::Claim => keys.push(self.keys.held.clone()),
            First::Sweep => {
                keys.extend([&self.keys.dead, &self.keys.held, &self.keys.meta].map(String::clone));
            }
            _ => {}
        }
        for run in &runs {
            keys.extend([self.keys.run(run.as_str()), self.keys.log(run.as_str())]);
            if T::BLOBS {
                keys.push(self.keys.blobs(run.as_str()));
            }
        }
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let (time, mut ids) = (self.time(), Packer::default());
        ids.list(&runs.iter().map(RunId::as_str).collect::<Vec<_>>());
        let args = [
            time.as_bytes(),
            self.keys.watch.as_bytes(),
            self.keys.abort.as_bytes(),
            ids.as_slice(),
            packed.as_slice(),
        ];
        let reply = self.link.eval(T::script(), &keys, &args).await?;
        let redis::Value::BulkString(reply) = reply else {
            return Err(Error::Unusable(format!("script {} answered {reply:?}", T::script().name)));
        };
        let Reply(now, wires, Found(hints), aborts) = unpack::<Reply<T::Wire>>("a script's reply", &reply)?;
        let published = hints.len();
        self.emit(&runs, hints, aborts);
        if let Some(point) = T::AFTER_HINTS {
            trireme_backend::crash_point(point);
        }
        Ok((items.iter().zip(wires).map(|(item, wire)| T::answer(item, wire, now)).collect(), published))
    }

    fn emit(&self, runs: &[RunId], hints: Vec<(usize, TaskId, String, u8)>, aborts: Vec<(RunId, String)>) {
        if hints.is_empty() && aborts.is_empty() {
            return;
        }
        let run = |at: usize| runs.get(at.wrapping_sub(1)).cloned();
        let hints = hints.into_iter().filter_map(|(at, task, pool, priority)| {
            Some(Hint { run: run(at)?, task, pool, priority: priority_of(priority) })
        });
        let aborts = aborts.into_iter().map(|(run, task)| Abort { run, task: TaskId::new(task).ok() });
        (self.sink)(Emitted { hints: hints.collect(), aborts: aborts.collect() });
    }
}
