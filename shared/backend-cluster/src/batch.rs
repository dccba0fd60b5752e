//! Group commit: calls that arrive while others are under way go out together.
//!
//! A call goes out at once while fewer than `flights` are under way. Otherwise it waits for one of them to come
//! back, which then takes along everything that has gathered. Nothing ever waits for more to come, so that a
//! lone call is as fast as without this, and the batches grow by themselves with the load.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use trireme_backend::Error;

/// Bounds of a batch and of what waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Calls under way at once.
    pub(crate) flights: usize,
    /// Items of one call.
    pub(crate) items: usize,
    /// Sum of the weights of one call's items; an item over it goes alone.
    pub(crate) weight: usize,
    /// Items that wait; over it callers wait to be let in.
    pub(crate) waiting: usize,
}

/// What is done with a batch.
pub(crate) trait Call: Send + Sync + 'static {
    type Item: Send + 'static;
    type Answer: Send + 'static;
    /// Roughly the bytes that the item sends.
    fn weight(item: &Self::Item) -> usize;
    /// One answer per item, in order.
    fn call(&self, items: Vec<Self::Item>) -> impl Future<Output = Vec<Result<Self::Answer, Error>>> + Send;
}

pub(crate) struct Batcher<C: Call>(Arc<Inner<C>>);

struct Inner<C: Call> {
    call: C,
    limits: Limits,
    queue: Mutex<Queue<C>>,
    room: Arc<Semaphore>,
}

struct Queue<C: Call> {
    waiting: VecDeque<Waiting<C>>,
    flights: usize,
}

struct Waiting<C: Call> {
    item: C::Item,
    answer: Sender<C>,
    _place: OwnedSemaphorePermit,
}

type Sender<C> = oneshot::Sender<Result<<C as Call>::Answer, Error>>;

/// Ends a flight also when its call panics; the callers of that batch see their channels closed.
struct Flight<C: Call>(Arc<Inner<C>>);

impl<C: Call> Batcher<C> {
    pub(crate) fn new(call: C, limits: Limits) -> Self {
        let queue = Mutex::new(Queue { waiting: VecDeque::new(), flights: 0 });
        Self(Arc::new(Inner { call, limits, queue, room: Arc::new(Semaphore::new(limits.waiting)) }))
    }

    /// Hands `item` over and waits for its answer. Dropping the future does not take it back.
    pub(crate) async fn submit(&self, item: C::Item) -> Result<C::Answer, Error> {
        let lost = || Error::Unavailable { service: "redis", reason: "the call was given up".into() };
        let place = self.0.room.clone().acquire_owned().await.map_err(|_| lost())?;
        let (answer, answered) = oneshot::channel();
        let start = {
            let mut queue = self.0.lock();
            queue.waiting.push_back(Waiting { item, answer, _place: place });
            let start = queue.flights < self.0.limits.flights;
            queue.flights += usize::from(start);
            start
        };
        if start {
            tokio::spawn(Flight(self.0.clone()).run());
        }
        answered.await.unwrap_or_else(|_| Err(lost()))
    }
}

impl<C: Call> Inner<C> {
    fn lock(&self) -> MutexGuard<'_, Queue<C>> {
        // the queue is whole at every point where a panic could come
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> (Vec<C::Item>, Vec<Sender<C>>) {
        let (mut items, mut answers, mut weight) = (Vec::new(), Vec::new(), 0);
        let mut queue = self.lock();
        while let Some(next) = queue.waiting.front() {
            weight += C::weight(&next.item);
            if items.len() >= self.limits.items || (!items.is_empty() && weight > self.limits.weight) {
                break;
            }
            if let Some(next) = queue.waiting.pop_front() {
                items.push(next.item);
                answers.push(next.answer);
            }
        }
        (items, answers)
    }
}

impl<C: Call> Flight<C> {
    async fn run(self) {
        // whoever is ready to run may add to the batch; costs nothing where nobody is
        tokio::task::yield_now().await;
        loop {
            let (items, answers) = self.0.take();
            if items.is_empty() {
                return;
            }
            let results = self.0.call.call(items).await;
            for (answer, result) in answers.into_iter().zip(results) {
                // a caller that has gone away does not want it
                let _ = answer.send(result);
            }
        }
    }
}

impl<C: Call> Drop for Flight<C> {
    fn drop(&mut self) {
        let again = {
            let mut queue = self.0.lock();
            // something may have come between the last look and now
            let again = !queue.waiting.is_empty();
            queue.flights -= usize::from(!again);
            again
        };
        if again && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(Flight(self.0.clone()).run());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex as Plain;

    type Seen = Arc<Plain<Vec<Vec<u32>>>>;

    /// Records batches; each call waits for a permit.
    struct Recorder {
        gate: Arc<Semaphore>,
        seen: Seen,
    }

    impl Call for Recorder {
        type Item = u32;
        type Answer = u32;
        fn weight(item: &u32) -> usize {
            *item as usize
        }
        async fn call(&self, items: Vec<u32>) -> Vec<Result<u32, Error>> {
            self.gate.acquire().await.unwrap().forget();
            self.seen.lock().unwrap().push(items.clone());
            assert!(!items.contains(&13), "an unlucky batch");
            items.into_iter().map(|item| Ok(item * 2)).collect()
        }
    }

    fn recorder(flights: usize, gate: usize) -> (Arc<Batcher<Recorder>>, Arc<Semaphore>, Seen) {
        let (gate, seen) = (Arc::new(Semaphore::new(gate)), Arc::new(Plain::new(Vec::new())));
        let limits = Limits { flights, items: 3, weight: 100, waiting: 100 };
        let call = Recorder { gate: gate.clone(), seen: seen.clone() };
        (Arc::new(Batcher::new(call, limits)), gate, seen)
    }

    #[tokio::test]
    async fn a_lone_call_goes_out_at_once() {
        let (batcher, _, seen) = recorder(1, 1);
        assert_eq!(batcher.submit(4).await.unwrap(), 8);
        assert_eq!(*seen.lock().unwrap(), [vec![4]]);
    }

    #[tokio::test]
    async fn what_gathers_goes_out_together_within_the_limits() {
        let (batcher, gate, seen) = recorder(1, 0);
        let calls: Vec<_> = [1, 2, 3, 4, 90, 20, 7]
            .into_iter()
            .map(|item| {
                let batcher = batcher.clone();
                tokio::spawn(async move { batcher.submit(item).await.unwrap() })
            })
            .collect();
        gate.add_permits(10);
        let mut answers = Vec::new();
        for call in calls {
            answers.push(call.await.unwrap());
        }
        assert_eq!(answers, [2, 4, 6, 8, 180, 40, 14]);
        let seen = seen.lock().unwrap();
        assert_eq!(seen.concat(), [1, 2, 3, 4, 90, 20, 7]);
        let fits =
            |batch: &Vec<u32>| batch.len() <= 3 && (batch.len() == 1 || batch.iter().sum::<u32>() <= 100);
        assert!(seen.len() < 7 && seen.iter().all(fits), "{seen:?}");
    }

    #[tokio::test]
    async fn a_panic_in_a_call_fails_its_callers_and_nobody_else() {
        let (batcher, _, _) = recorder(1, 10);
        assert!(batcher.submit(13).await.is_err());
        assert_eq!(batcher.submit(1).await.unwrap(), 2);
    }
}
