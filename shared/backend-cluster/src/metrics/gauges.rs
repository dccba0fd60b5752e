//! What is told of the deployment as a whole: name, unit, meaning.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use trireme_backend::Backlog;
use trireme_model::{Priority, RunStatus};
use trireme_telemetry::OTHER;

use super::{add, seconds};

/// Pools with series of their own: a spec may name any, so that their number needs a bound.
const MAX_POOLS: usize = 64;

/// A look at what waits is of no use any more after this time: six looks.
const BACKLOG_AGE: Duration = Duration::from_secs(30);

/// Gauges about store and broker, and counters of what ended.
#[derive(Debug)]
pub(crate) struct Gauges {
    oldest: GaugeVec,
    ready: IntGaugeVec,
    messages: IntGaugeVec,
    consumers: IntGaugeVec,
    paused: IntGaugeVec,
    /// Tasks in quarantine.
    pub(crate) dead_letters: IntGauge,
    /// Joins with an input that have not fired.
    pub(crate) open_joins: IntGauge,
    /// Seconds.
    pub(crate) oldest_join: Gauge,
    /// Bytes.
    pub(crate) memory_used: IntGauge,
    /// Bytes, 0 for no limit.
    pub(crate) memory_max: IntGauge,
    policy: IntGaugeVec,
    quarantined: IntCounterVec,
    fired: [IntCounter; 4],
    durations: [Histogram; 3],
    misses: [IntCounter; 3],
    budget: IntCounter,
    /// Every pool that was heard of.
    pools: Mutex<BTreeMap<String, ()>>,
    backlog: Mutex<(Option<Instant>, Backlog)>,
}

/// The ready tasks of one pool and priority.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Ready {
    pub(crate) count: u64,
    pub(crate) oldest: Duration,
}

/// How a join ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fired {
    /// With every input.
    All,
    /// With as many as it needs.
    Quorum,
    /// With fewer than it needs, as its policy allows.
    Partial,
    /// Without what it needs: it failed, or gave its fallback.
    Missed,
}

/// What a deadline was of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Run,
    Task,
    Join,
}

/// What is counted of a run that has ended.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Ended {
    pub(crate) status: Option<RunStatus>,
    pub(crate) took: Duration,
    pub(crate) over_budget: bool,
    pub(crate) misses: Vec<Scope>,
    pub(crate) fired: Vec<Fired>,
    /// Pools of quarantined tasks.
    pub(crate) quarantined: Vec<String>,
}

fn word(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "high",
        Priority::Normal => "normal",
    }
}

impl Gauges {
    pub(crate) fn register(registry: &Registry, pools: &[String]) -> Result<Self, prometheus::Error> {
        let gauges = |name: &str, help: &str| {
            add(registry, IntGaugeVec::new(Opts::new(name, help), &["pool", "priority"])?)
        };
        let counters = |name: &str, help: &str, label: &str| {
            add(registry, IntCounterVec::new(Opts::new(name, help), &[label])?)
        };
        let oldest = Opts::new(
            "trireme_oldest_ready_task_age_seconds",
            "Age of the oldest task that is ready and not claimed; 0 for none",
        );
        let fired = counters(
            "trireme_joins_fired_total",
            "Joins that ended, counted at the end of their run, by how: all, quorum, partial, missed",
            "how",
        )?;
        let durations = HistogramVec::new(
            seconds("trireme_run_duration_seconds", "From the acceptance of a run to its end"),
            &["outcome"],
        )?;
        let durations = add(registry, durations)?;
        let misses = counters(
            "trireme_deadline_misses_total",
            "Deadlines that passed unmet, counted at the end of their run, by scope: run, task, join",
            "scope",
        )?;
        let this = Self {
            oldest: add(registry, GaugeVec::new(oldest, &["pool", "priority"])?)?,
            ready: gauges("trireme_ready_tasks", "Tasks that are ready and not claimed, from the store")?,
            messages: gauges("trireme_queue_messages", "Messages ready in the queue, from RabbitMQ")?,
            consumers: gauges("trireme_queue_consumers", "Consumers of the queue, from RabbitMQ")?,
            paused: add(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "trireme_pool_paused",
                        "1 while the pool is paused: nothing of it starts; else 0",
                    ),
                    &["pool"],
                )?,
            )?,
            dead_letters: add(
                registry,
                IntGauge::new("trireme_dead_letters", "Tasks in quarantine, of runs that are still kept")?,
            )?,
            open_joins: add(
                registry,
                IntGauge::new("trireme_open_joins", "Joins that have an input and have not fired")?,
            )?,
            oldest_join: add(
                registry,
                Gauge::new(
                    "trireme_oldest_open_join_age_seconds",
                    "Time since the first input of the open join that has waited longest; 0 for none",
                )?,
            )?,
            memory_used: add(
                registry,
                IntGauge::new("trireme_store_memory_used_bytes", "Memory that Redis uses")?,
            )?,
            memory_max: add(
                registry,
                IntGauge::new("trireme_store_memory_max_bytes", "Memory that Redis may use; 0 for no limit")?,
            )?,
            policy: add(
                registry,
                IntGaugeVec::new(
                    Opts::new("trireme_store_eviction_policy", "maxmemory-policy of Redis; always 1"),
                    &["policy"],
                )?,
            )?,
            quarantined: counters(
                "trireme_quarantined_tasks_total",
                "Tasks put into quarantine, counted at the end of their run",
                "pool",
            )?,
            fired: ["all", "quorum", "partial", "missed"].map(|how| fired.with_label_values(&[how])),
            durations: ["succeeded", "failed", "cancelled"]
                .map(|outcome| durations.with_label_values(&[outcome])),
            misses: ["run", "task", "join"].map(|scope| misses.with_label_values(&[scope])),
            budget: add(
                registry,
                IntCounter::new(
                    "trireme_budget_exhausted_runs_total",
                    "Runs that failed because their budget was spent",
                )?,
            )?,
            pools: Mutex::default(),
            backlog: Mutex::default(),
        };
        for pool in pools {
            this.pool(pool);
        }
        // until the first sample nothing is known, and an alert on what is absent must not fire
        this.sampled(&BTreeMap::new());
        Ok(this)
    }

    /// The name under which `pool` is told, and whether it is its own.
    pub(crate) fn pool<'a>(&self, pool: &'a str) -> &'a str {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if !pools.contains_key(pool) {
            if pools.len() >= MAX_POOLS {
                return OTHER;
            }
            pools.insert(pool.to_owned(), ());
            self.quarantined.with_label_values(&[pool]);
        }
        pool
    }

    /// Every pool that was heard of.
    pub(crate) fn pools(&self) -> Vec<String> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Tells of the ready tasks; of pools that are not in it, that there are none.
    pub(crate) fn sampled(&self, found: &BTreeMap<(String, Priority), Ready>) {
        for (pool, _) in found.keys() {
            self.pool(pool);
        }
        for pool in self.pools() {
            for priority in [Priority::High, Priority::Normal] {
                let ready = found.get(&(pool.clone(), priority)).copied().unwrap_or_default();
                let labels = [pool.as_str(), word(priority)];
                self.ready.with_label_values(&labels).set(i64::try_from(ready.count).unwrap_or(i64::MAX));
                self.oldest.with_label_values(&labels).set(ready.oldest.as_secs_f64());
            }
        }
    }

    /// Takes note of what waits, for whoever decides whether more may come.
    pub(crate) fn waits(&self, found: &BTreeMap<(String, Priority), Ready>, used: u64, max: u64) {
        let mut ready = BTreeMap::<String, u64>::new();
        for ((pool, _), of) in found {
            *ready.entry(pool.clone()).or_default() += of.count;
        }
        let backlog = Backlog { ready, memory_used: used, memory_max: max };
        *self.backlog.lock().unwrap_or_else(PoisonError::into_inner) = (Some(Instant::now()), backlog);
    }

    /// What was last taken note of, unless that is too long ago.
    pub(crate) fn backlog(&self) -> Option<Backlog> {
        let backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, found) = &*backlog;
        at.is_some_and(|at| at.elapsed() < BACKLOG_AGE).then(|| found.clone())
    }

    /// Tells which pools are paused; of all others, that they are not.
    pub(crate) fn paused(&self, paused: &[String]) {
        for pool in paused {
            self.pool(pool);
        }
        for pool in self.pools() {
            self.paused.with_label_values(&[&pool]).set(i64::from(paused.contains(&pool)));
        }
    }

    /// Tells of a queue.
    pub(crate) fn queue(&self, pool: &str, priority: Priority, messages: u32, consumers: u32) {
        let labels = [pool, word(priority)];
        self.messages.with_label_values(&labels).set(messages.into());
        self.consumers.with_label_values(&labels).set(consumers.into());
    }

    /// Tells of the eviction policy; the series of a former one goes away.
    pub(crate) fn policy(&self, policy: &str) {
        self.policy.reset();
        self.policy.with_label_values(&[policy]).set(1);
    }

    /// Counts a run that has ended.
    pub(crate) fn ended(&self, ended: &Ended) {
        let [succeeded, failed, cancelled] = &self.durations;
        let outcome = match ended.status {
            Some(RunStatus::Succeeded) => succeeded,
            Some(RunStatus::Failed) => failed,
            Some(RunStatus::Cancelled) => cancelled,
            Some(RunStatus::Running) | None => return,
        };
        outcome.observe(ended.took.as_secs_f64());
        self.budget.inc_by(u64::from(ended.over_budget));
        ended.misses.iter().for_each(|scope| self.misses[*scope as usize].inc());
        ended.fired.iter().for_each(|how| self.fired[*how as usize].inc());
        for pool in &ended.quarantined {
            self.quarantined.with_label_values(&[self.pool(pool)]).inc();
        }
    }
}
