//! Random numbers, graphs and payloads from a seed.

use trireme_model::{
    Added, Budget, Caller, Children, Exec, FailureClass, Graph, JoinPolicy, Keep, KeyId, Kind, Need, OnMiss,
    Payload, Priority, RunId, Submit, TaskId, TaskSpec, Tenant, Trace, Usage,
    limits::{LINGER_MS, RETENTION_MS},
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

    /// Tasks for the agent `owner`, which has `known` ones: mostly good.
    pub fn added(&mut self, owner: &TaskId, known: &[TaskId], count: u64) -> Vec<Added> {
        let mut known: Vec<TaskId> = known.to_vec();
        let mut tasks = Vec::new();
        for _ in 0..count {
            let below = if self.chance(1) { "t0" } else { owner.as_str() };
            // a number makes it look like the child of a map
            let name = match self.below(100) {
                0..60 => self.below(40).to_string(),
                60..97 => format!("x{}", self.below(40)),
                // the name of a map's child, where there is such a map
                _ => format!("x{}/{}", self.below(9), self.below(4)),
            };
            let id = TaskId::new(format!("{below}/{name}")).unwrap();
            let mut inputs: Vec<TaskId> = Vec::new();
            let wanted = if self.chance(50) { 0 } else { 1 + self.below(4) };
            for _ in 0..wanted {
                let input = self.pick(&known).filter(|input| !inputs.contains(input) && **input != id);
                inputs.extend(input.cloned());
            }
            let spoilt = ["nothing", owner.as_str(), id.as_str()];
            if self.chance(1) {
                inputs.push(TaskId::new(self.pick(&spoilt).unwrap()).unwrap());
            }
            let kind = match self.below(100) {
                0 => Kind::Map,
                1..35 if !inputs.is_empty() => Kind::Join,
                35..55 => Kind::Agent,
                55..75 => Kind::Llm,
                _ => Kind::Tool,
            };
            let mut spec = self.of_kind(kind, id.clone(), inputs);
            if self.chance(1) {
                spec.label = "x".repeat(129);
            }
            // of what is no call it is refused
            let resource = if spec.exec.kind == Kind::Tool { self.resource(50) } else { self.resource(1) };
            tasks.push(Added { spec, vital: self.chance(12), resource });
            known.push(id);
        }
        tasks
    }

    /// What a call touches, `percent` times of a hundred.
    pub fn resource(&mut self, percent: u64) -> Option<String> {
        let name = match self.below(200) {
            0 => String::new(),
            1 => "x".repeat(257),
            lot => format!("thing/{}", lot % 3),
        };
        self.chance(percent).then_some(name)
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
            4 => Kind::Map,
            5 => Kind::Tool,
            6..9 => Kind::Agent,
            _ => Kind::Llm,
        };
        self.of_kind(kind, id, inputs)
    }

    fn of_kind(&mut self, kind: Kind, id: TaskId, inputs: Vec<TaskId>) -> TaskSpec {
        let policy = match kind {
            Kind::Join => Some(self.policy(inputs.len() as u64)),
            Kind::Map => Some(self.policy(6)),
            _ => None,
        };
        let children = (kind == Kind::Map).then(|| {
            let kind = if self.chance(50) { Kind::Llm } else { Kind::Tool };
            Children { exec: self.exec(kind), at_once: 1 + self.below(4) as u32 }
        });
        let label = self.pick(&["", "search", "quo\"te \\ é"]).unwrap().to_string();
        TaskSpec { id, label, exec: self.exec(kind), inputs, policy, children, body: self.payload() }
    }

    pub fn graph(&mut self) -> Graph {
        let count = 1 + self.below(9) as usize;
        let mut tasks: Vec<TaskSpec> = Vec::new();
        for at in 0..count {
            // some look like the child of a map and are none
            let name = match self.below(100) {
                0..10 => format!("group/{at}"),
                // as if it belonged to another
                10..20 if at > 0 => format!("t{}/x{at}", self.below(at as u64)),
                _ => format!("t{at}"),
            };
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

    /// One of two keys, of one of two tenants, mostly with a limit that is met now and then.
    pub fn caller(&mut self) -> Caller {
        Caller {
            tenant: Tenant::new(self.pick(&["default", "acme"]).unwrap()).unwrap(),
            key: self.maybe(70, |draw| KeyId::new(format!("{:016x}", draw.below(2))).unwrap()),
            in_flight: self.maybe(70, |draw| 1 + draw.below(4) as u32),
        }
    }

    fn keep(&mut self) -> u64 {
        LINGER_MS + if self.chance(50) { self.below(600_000) } else { RETENTION_MS - LINGER_MS }
    }

    pub fn submit(&mut self, run: RunId) -> Submit {
        Submit {
            run,
            caller: self.caller(),
            name: if self.chance(50) { String::new() } else { format!("näme \"{}\"", self.below(5)) },
            fingerprint: format!("fp{}", self.below(2)),
            graph: self.graph(),
            input: self.payload(),
            deadline: self.maybe(30, |draw| 1 + draw.below(120_000)),
            budget: Budget {
                tokens: self.maybe(20, |draw| draw.below(150)),
                usd_micros: self.maybe(10, |draw| draw.below(150)),
            },
            keep: Keep { ended: self.keep(), failed: self.keep() },
            trace: self.maybe(30, |draw| Trace {
                id: u128::from(1 + draw.below(9)),
                parent: draw.below(3),
                sampled: draw.chance(50),
            }),
        }
    }
}
