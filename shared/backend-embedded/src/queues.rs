//! Hints on their way to consumers in the same process: per pool one queue for each priority.
//!
//! Nothing here runs by itself: whoever publishes hands the hint to a consumer with a free place, whoever
//! acks hands the freed place the next hint. A hint that is dropped (a full queue, a lost process) is
//! published again by the sweep, because its task is in the due index.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use trireme_backend::{Ack, Deliveries, Delivery};
use trireme_model::{Hint, Ms, Priority};

/// All pools. A pool exists from its first hint or consumer on; hints of pools that nobody consumes wait.
#[derive(Debug)]
pub(crate) struct Queues {
    pools: RwLock<HashMap<String, Arc<Pool>>>,
    /// Bound of each queue.
    capacity: usize,
}

#[derive(Debug, Default)]
struct Pool(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By [`lane`].
    waiting: [VecDeque<Queued>; 2],
    consumers: Vec<Consumer>,
    /// Consumers take turns.
    turn: usize,
    ids: u64,
}

#[derive(Debug)]
struct Queued {
    hint: Hint,
    published: Ms,
    redelivered: bool,
}

#[derive(Debug)]
struct Consumer {
    id: u64,
    sender: mpsc::Sender<Delivery>,
    /// How many more hints it may hold, by [`lane`].
    free: [usize; 2],
    /// Hints whose ack was dropped: they come again when the consumer ends.
    dropped: Vec<Queued>,
}

/// The unacked state of one delivery.
struct Unacked {
    pool: Arc<Pool>,
    consumer: u64,
    /// Taken by the ack.
    queued: Option<Queued>,
}

/// High before normal.
fn lane(priority: Priority) -> usize {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
    }
}

impl Queues {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { pools: RwLock::default(), capacity }
    }

    pub(crate) fn publish(&self, hints: Vec<Hint>, now: Ms) {
        // neighbours mostly share a pool: look it up once per row of them
        let mut pool: Option<(String, Arc<Pool>)> = None;
        for hint in hints {
            let known = pool.take().filter(|(name, _)| *name == hint.pool);
            let (name, at) = known.unwrap_or_else(|| (hint.pool.clone(), self.pool(&hint.pool)));
            at.offer(Queued { hint, published: now, redelivered: false }, self.capacity);
            pool = Some((name, at));
        }
    }

    pub(crate) fn consume(&self, pools: Vec<(String, usize)>) -> Deliveries {
        // both lanes of every pool fit, so that sending never has to wait
        let room = pools.iter().map(|(_, slots)| slots.saturating_mul(2)).sum::<usize>().max(1);
        let (sender, receiver) = mpsc::channel(room);
        let stop = CancellationToken::new();
        let mut joined = Vec::with_capacity(pools.len());
        for (name, slots) in pools {
            let pool = self.pool(&name);
            let id = pool.join(sender.clone(), slots);
            joined.push((pool, id));
        }
        let stopped = stop.clone();
        tokio::spawn(async move {
            stopped.cancelled().await;
            for (pool, id) in joined {
                pool.leave(id);
            }
        });
        Deliveries::new(receiver, stop)
    }

    /// Hints that wait for a consumer, by pool.
    pub(crate) fn waiting(&self) -> BTreeMap<String, u64> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        let waiting = |pool: &Pool| pool.lock().waiting.iter().map(VecDeque::len).sum::<usize>() as u64;
        pools.iter().map(|(name, pool)| (name.clone(), waiting(pool))).collect()
    }

    fn pool(&self, name: &str) -> Arc<Pool> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(name) {
            return pool.clone();
        }
        drop(pools);
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        pools.entry(name.to_owned()).or_default().clone()
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        // every change under this lock is a single push or pop: a panic can't leave it half done
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers `queued`, or lets it wait.
    fn offer(self: &Arc<Self>, queued: Queued, capacity: usize) {
        let mut state = self.lock();
        let lane = lane(queued.hint.priority);
        if state.waiting[lane].len() < capacity {
            state.waiting[lane].push_back(queued);
        }
        let unsent = self.hand_out(&mut state, lane);
        drop(state);
        // dropping them takes the lock again
        drop(unsent);
    }

    fn join(self: &Arc<Self>, sender: mpsc::Sender<Delivery>, slots: usize) -> u64 {
        let mut state = self.lock();
        state.ids += 1;
        let id = state.ids;
        state.consumers.push(Consumer { id, sender, free: [slots; 2], dropped: Vec::new() });
        let unsent = [self.hand_out(&mut state, 0), self.hand_out(&mut state, 1)];
        drop(state);
        drop(unsent);
        id
    }

    /// Removes a consumer; what it held unacked and gave up goes to the others.
    fn leave(self: &Arc<Self>, id: u64) {
        let mut state = self.lock();
        let Some(at) = state.consumers.iter().position(|consumer| consumer.id == id) else { return };
        let gone = state.consumers.swap_remove(at);
        for queued in gone.dropped {
            let lane = lane(queued.hint.priority);
            state.waiting[lane].push_front(queued);
        }
        let unsent = [self.hand_out(&mut state, 0), self.hand_out(&mut state, 1)];
        drop(state);
        drop(unsent);
    }

    /// Gives waiting hints of `lane` to consumers with a free place. Returns what could not be sent because
    /// its consumer is gone: drop it after the lock.
    fn hand_out(self: &Arc<Self>, state: &mut State, lane: usize) -> Vec<Delivery> {
        let mut unsent = Vec::new();
        while !state.waiting[lane].is_empty() {
            let count = state.consumers.len();
            let turn = state.turn;
            let Some(at) =
                (0..count).map(|step| (turn + step) % count).find(|at| state.consumers[*at].free[lane] > 0)
            else {
                break;
            };
            state.turn = at + 1;
            let Some(queued) = state.waiting[lane].pop_front() else { break };
            let consumer = &mut state.consumers[at];
            consumer.free[lane] -= 1;
            let delivery = self.delivery(consumer.id, queued);
            if let Err(error) = consumer.sender.try_send(delivery) {
                unsent.push(error.into_inner());
                // it stopped receiving; its `leave` follows
                consumer.free = [0; 2];
            }
        }
        unsent
    }

    fn delivery(self: &Arc<Self>, consumer: u64, queued: Queued) -> Delivery {
        let Queued { hint, published, redelivered } = &queued;
        let (published, redelivered) = (*published, *redelivered);
        let Hint { run, task, pool, priority } = hint.clone();
        let unacked = Unacked { pool: self.clone(), consumer, queued: Some(queued) };
        Delivery {
            run,
            task,
            pool,
            priority,
            published,
            redelivered,
            via: None,
            ack: Ack::new(|| unacked.done()),
        }
    }
}

impl Unacked {
    /// Acked: its place is free for the next hint.
    fn done(mut self) {
        let Some(queued) = self.queued.take() else { return };
        let lane = lane(queued.hint.priority);
        let mut state = self.pool.lock();
        let Some(consumer) = state.consumers.iter_mut().find(|consumer| consumer.id == self.consumer) else {
            return;
        };
        if !consumer.sender.is_closed() {
            consumer.free[lane] += 1;
        }
        let unsent = self.pool.hand_out(&mut state, lane);
        drop(state);
        drop(unsent);
    }
}

impl Drop for Unacked {
    fn drop(&mut self) {
        let Some(mut queued) = self.queued.take() else { return };
        queued.redelivered = true;
        let lane = lane(queued.hint.priority);
        let mut state = self.pool.lock();
        if let Some(consumer) = state.consumers.iter_mut().find(|consumer| consumer.id == self.consumer) {
            consumer.dropped.push(queued);
            return;
        }
        // its consumer has ended: the next one gets it
        state.waiting[lane].push_front(queued);
        let unsent = self.pool.hand_out(&mut state, lane);
        drop(state);
        drop(unsent);
    }
}
