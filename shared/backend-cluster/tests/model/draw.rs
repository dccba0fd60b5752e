//! Random numbers, graphs and payloads from a seed.

use trireme_model::{
    Budget, Children, Exec, FailureClass, Graph, JoinPolicy, Kind, Need, OnMiss, Payload, Priority, RunId,
    Submit, TaskId, TaskSpec, Usage,
};

/// SplitMix64: small, and the same everywhere.
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// True `percent` times of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(self.below(of.len() as u64) as usize) }
    }

    pub fn maybe<T>(&mut self, percent: u64, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.chance(percent).then(|| make(self))
    }

    pub fn payload(&mut self) -> Payload {
        match self.below(300) {
            // kept apart from the run
            0 => Payload::from_json(format!("\"{}\"", "x".repeat(65_536 + self.below(10) as usize))),
            1..40 => Payload::from_json("[]"),
            40..80 => Payload::from_json(r#"{"n":9007199254740993,"quote":"\"\\","empty":{}}"#),
            _ => Payload::from_json(self.below(1_000_000).to_string()),
        }
    }

    pub fn error(&mut self) -> Payload {
        Payload::from_json(format!(r#"{{"class":"boom","message":"it's number {}"}}"#, self.below(100)))
    }

    pub fn usage(&mut self) -> Usage {
        if self.chance(50) {
            return Usage::default();
        }
        Usage {
            calls: 1,
            input_tokens: self.below(40),
            output_tokens: self.below(40),
            cached_tokens: self.below(10),
            usd_micros: self.below(50),
        }
    }

    pub fn class(&mut self) -> FailureClass {
        match self.below(10) {
            0..5 => FailureClass::Retryable,
            5..7 => FailureClass::RateLimited,
            7..9 => FailureClass::Permanent,
            _ => FailureClass::Released,
        }
    }

    fn exec(&mut self, kind: Kind) -> Exec {
        Exec {
            kind,
            pool: if self.chance(60) { "llm" } else { "tool" }.into(),
            priority: if self.chance(20) { Priority::High } else { Priority::Normal },
            timeout: self.maybe(35, |draw| if draw.chance(6) { 0 } else { draw.below(60_000) }),
            max_attempts: 1 + self.below(3) as u32,
            backoff: self.below(3_000),
            paid: self.chance(30),
            fallback: self.maybe(15, Self::payload),
        }
    }

    fn need(&mut self, inputs: u64) -> Need {
        match self.below(3) {
            0 => Need::All,
            1 => Need::Count(1),
            _ => Need::Count(1 + self.below(inputs) as u32),
        }
    }

    fn policy(&mut self, inputs: u64) -> JoinPolicy {
        JoinPolicy {
            need: self.need(inputs),
            within: self.maybe(40, |draw| draw.below(40_000)),
            on_miss: *self.pick(&[OnMiss::Fail, OnMiss::Partial, OnMiss::Default]).unwrap(),
        }
    }

    fn task(&mut self, id: TaskId, inputs: Vec<TaskId>) -> TaskSpec {
        let kind = match self.below(10) {
            0..4 if !inputs.is_empty() => Kind::Join,
            4..6 => Kind::Map,
            6 => Kind::Tool,
            7 => Kind::Agent,
            _ => Kind::Llm,
        };
        let policy = match kind {
            Kind::Join => Some(self.policy(inputs.len() as u64)),
            Kind::Map => Some(self.policy(6)),
            _ => None,
        };
        let children = (kind == Kind::Map).then(|| {
            let kind = if self.chance(50) { Kind::Llm } else { Kind::Tool };
            Children { exec: self.exec(kind), at_once: 1 + self.below(4) as u32 }
        });
        TaskSpec { id, exec: self.exec(kind), inputs, policy, children, body: self.payload() }
    }

    pub fn graph(&mut self) -> Graph {
        let count = 1 + self.below(9) as usize;
        let mut tasks: Vec<TaskSpec> = Vec::new();
        for at in 0..count {
            // some look like the child of a map and are none
            let name = if self.chance(10) { format!("group/{at}") } else { format!("t{at}") };
            let mut inputs: Vec<TaskId> = Vec::new();
            for task in &tasks {
                if self.chance(if at + 1 == count { 50 } else { 35 }) {
                    inputs.push(task.id.clone());
                }
            }
            if at + 1 == count {
                let used = |id: &TaskId| tasks.iter().any(|task| task.inputs.contains(id));
                let loose = tasks.iter().map(|task| &task.id).filter(|id| !used(id) && !inputs.contains(id));
                let loose: Vec<TaskId> = loose.cloned().collect();
                inputs.extend(loose);
            }
            let task = self.task(TaskId::new(name).unwrap(), inputs);
            tasks.push(task);
        }
        Graph::new(tasks).unwrap()
    }

    pub fn submit(&mut self, run: RunId) -> Submit {
        Submit {
            run,
            name: if self.chance(50) { String::new() } else { format!("näme \"{}\"", self.below(5)) },
            fingerprint: format!("fp{}", self.below(2)),
            graph: self.graph(),
            input: self.payload(),
            deadline: self.maybe(30, |draw| 1 + draw.below(120_000)),
            budget: Budget {
                tokens: self.maybe(20, |draw| draw.below(150)),
                usd_micros: self.maybe(10, |draw| draw.below(150)),
            },
        }
    }
}
