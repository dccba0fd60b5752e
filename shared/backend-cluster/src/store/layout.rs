//! How a run lies in its hash, for writing it whole (submit) and for reading it whole.
//!
//! | field | holds |
//! |---|---|
//! | `m` | the head: what transitions change ([`Head`]) |
//! | `name`, `fp`, `in`, `order` | label, fingerprint, input, packed list of the tasks |
//! | `d` | its deadline, where it has one |
//! | `tp` | its trace as a `traceparent`, where it has one |
//! | `added`, `z:3` | how many tasks attempts have added; their ids in that order, from 0 |
//! | `dl` | packed list of its tasks in quarantine, where there are any |
//! | `rp` | set once another run goes on from what it recorded |
//! | `ft`, `fe` | why it failed: task (may be empty) and error |
//! | `g:T` `b:T` `i:T` `n:T` `o:T` `f:T` | what was submitted of a task: [`Spec`], body, inputs, successors, joins whose windows it opens, fallback |
//! | `l:T` | what it calls, as a JSON text, where it says so |
//! | `q:R` | the line of tasks for the resource R, the first of which has it; empty when there is none |
//! | `y:T` | the tasks that its attempts added before its end |
//! | `c:T` `F:T` | of a map: the [`Spec`] and the fallback of its children |
//! | `s:T` | a task's [`State`]; absent while it waits as it was submitted |
//! | `r:T` `e:T` | its result (or `@` and the name of a blob), its error |
//! | `p:T` | what attempts without the task were told: a list of token, code of the answer, time |
//! | `a:T/3` | argument of a map's child |
//!
//! `n:T`, `o:T` and the `opens` of a spec grow when tasks are added behind a task, which must belong to an agent;
//! everything else that was submitted or added stays as it is.
//!
//! Everything but texts for people and payloads is packed as msgpack arrays, which Lua reads natively.

mod whole;

pub(crate) use whole::whole;

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use trireme_backend::Error;
use trireme_model::{
    Added, Answer, Budget, Children, Exec, JoinPolicy, Keep, Kind, Ms, Need, OnMiss, Payload, Priority,
    RunStatus, Submit, TaskId, TaskSpec, TaskStatus, Tenant, Token, Told, Usage, limits::ADD_CHUNK,
};

use super::{
    constants::{self, NEED_ALL, NO_POLICY, kind, run_status, stand, status},
    packer::Packer,
};

/// Largest number that Lua keeps exactly.
const LARGEST: u64 = 1 << 53;

/// The head of a run. Fields in the order of `constants::HEAD`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) status: u8,
    pub(crate) watched: u8,
    pub(crate) degraded: u8,
    pub(crate) created: Ms,
    pub(crate) ended: Ms,
    pub(crate) keep: Ms,
    pub(crate) keep_failed: Ms,
    pub(crate) budget_tokens: i64,
    pub(crate) budget_usd: i64,
    pub(crate) calls: u64,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) cached_tokens: u64,
    pub(crate) usd_micros: u64,
    pub(crate) wasted_calls: u64,
    pub(crate) wasted_input_tokens: u64,
    pub(crate) wasted_output_tokens: u64,
    pub(crate) wasted_cached_tokens: u64,
    pub(crate) wasted_usd_micros: u64,
    pub(crate) tenant: Tenant,
    /// Its id; empty where there was none.
    pub(crate) api_key: String,
}

/// A task's state. Fields in the order of `constants::STATE`; the last three only of maps with children.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) status: u8,
    pub(crate) attempt: u32,
    pub(crate) failures: u32,
    pub(crate) limited: u32,
    pub(crate) lost: u32,
    pub(crate) republished: u32,
    pub(crate) token: String,
    pub(crate) deadline: Ms,
    pub(crate) ready_at: Ms,
    pub(crate) started_at: Ms,
    pub(crate) ended_at: Ms,
    pub(crate) pending: u32,
    pub(crate) done: u32,
    pub(crate) missed: u32,
    pub(crate) degraded: u8,
    pub(crate) frozen: String,
    pub(crate) next: String,
    pub(crate) first_ready_at: Ms,
    pub(crate) first_token: Ms,
    /// What it must not touch at the same time as another task; empty for nothing, or while that is not known.
    pub(crate) resource: String,
    #[serde(default)]
    pub(crate) width: Option<u32>,
    #[serde(default)]
    pub(crate) next_child: u32,
    #[serde(default)]
    pub(crate) active: u32,
}

/// What the scripts need to know of a task's spec. Fields in the order of `constants::SPEC`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) kind: u8,
    pub(crate) paid: u8,
    pub(crate) fallback: u8,
    pub(crate) opens: u8,
    pub(crate) last: u8,
    /// [`constants::NOT_OWNED`], [`constants::OWNED`] or [`constants::VITAL`].
    pub(crate) owned: u8,
    pub(crate) priority: u8,
    pub(crate) on_miss: u8,
    pub(crate) at_once: u32,
    pub(crate) pool: String,
    pub(crate) timeout: i64,
    pub(crate) max_attempts: u32,
    pub(crate) backoff: u64,
    pub(crate) inputs: u32,
    pub(crate) need: i64,
    pub(crate) within: i64,
    /// The agent that it belongs to; empty for none.
    pub(crate) owner: String,
}

pub(crate) fn pack<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    rmp_serde::to_vec(value).map_err(|error| Error::Unusable(format!("a value can't be packed: {error}")))
}

pub(crate) fn unpack<T: DeserializeOwned>(what: &str, packed: &[u8]) -> Result<T, Error> {
    rmp_serde::from_slice(packed).map_err(|error| Error::Unusable(format!("{what} can't be read: {error}")))
}

/// A number as Lua can hold it.
pub(crate) fn number(value: u64) -> u64 {
    value.min(LARGEST)
}

/// A number or -1 for none.
pub(crate) fn optional(value: Option<u64>) -> i64 {
    value.map_or(-1, |value| number(value) as i64)
}

/// What [`optional`] wrote.
pub(crate) fn present(value: i64) -> Option<u64> {
    u64::try_from(value).ok()
}

/// The five numbers of a usage, in the order of the head.
pub(crate) fn usage_numbers(usage: &Usage) -> [u64; 5] {
    let Usage { calls, input_tokens, output_tokens, cached_tokens, usd_micros } = *usage;
    [calls, input_tokens, output_tokens, cached_tokens, usd_micros].map(number)
}

impl Head {
    /// The head of a run that is about to be accepted; the store sets its times.
    fn fresh(submit: &Submit) -> Self {
        Self {
            status: run_status::RUNNING,
            watched: 0,
            degraded: 0,
            created: 0,
            ended: 0,
            keep: number(submit.keep.ended),
            keep_failed: number(submit.keep.failed),
            budget_tokens: optional(submit.budget.tokens),
            budget_usd: optional(submit.budget.usd_micros),
            calls: 0,
            input_tokens: 0,
            output_tokens: 0,
            cached_tokens: 0,
            usd_micros: 0,
            wasted_calls: 0,
            wasted_input_tokens: 0,
            wasted_output_tokens: 0,
            wasted_cached_tokens: 0,
            wasted_usd_micros: 0,
            tenant: submit.caller.tenant.clone(),
            api_key: submit.caller.key.as_ref().map_or_else(String::new, |key| key.to_string()),
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            calls: self.calls,
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            cached_tokens: self.cached_tokens,
            usd_micros: self.usd_micros,
        }
    }

    pub(crate) fn wasted(&self) -> Usage {
        Usage {
            calls: self.wasted_calls,
            input_tokens: self.wasted_input_tokens,
            output_tokens: self.wasted_output_tokens,
            cached_tokens: self.wasted_cached_tokens,
            usd_micros: self.wasted_usd_micros,
        }
    }

    pub(crate) fn budget(&self) -> Budget {
        Budget { tokens: present(self.budget_tokens), usd_micros: present(self.budget_usd) }
    }

    pub(crate) fn keep(&self) -> Keep {
        Keep { ended: self.keep, failed: self.keep_failed }
    }

    pub(crate) fn status(&self) -> Result<RunStatus, Error> {
        match self.status {
            run_status::RUNNING => Ok(RunStatus::Running),
            run_status::SUCCEEDED => Ok(RunStatus::Succeeded),
            run_status::FAILED => Ok(RunStatus::Failed),
            run_status::CANCELLED => Ok(RunStatus::Cancelled),
            other => Err(unknown("run status", other)),
        }
    }
}

impl State {
    pub(crate) fn status(&self) -> Result<TaskStatus, Error> {
        match self.status {
            status::WAITING => Ok(TaskStatus::Waiting),
            status::READY => Ok(TaskStatus::Ready),
            status::RUNNING => Ok(TaskStatus::Running),
            status::RETRYING => Ok(TaskStatus::Retrying),
            status::EXPANDED => Ok(TaskStatus::Expanded),
            status::SUCCEEDED => Ok(TaskStatus::Succeeded),
            status::FAILED => Ok(TaskStatus::Failed),
            status::CANCELLED => Ok(TaskStatus::Cancelled),
            status::SKIPPED => Ok(TaskStatus::Skipped),
            other => Err(unknown("task status", other)),
        }
    }
}

impl Spec {
    /// Of a map's children, and the part that every spec has.
    fn new(exec: &Exec) -> Self {
        Self {
            kind: match exec.kind {
                Kind::Llm => kind::LLM,
                Kind::Tool => kind::TOOL,
                Kind::Join => kind::JOIN,
                Kind::Map => kind::MAP,
                Kind::Agent => kind::AGENT,
            },
            pool: exec.pool.clone(),
            priority: u8::from(exec.priority == Priority::High),
            timeout: optional(exec.timeout),
            max_attempts: exec.max_attempts,
            backoff: number(exec.backoff),
            paid: u8::from(exec.paid),
            fallback: u8::from(exec.fallback.is_some()),
            inputs: 0,
            opens: 0,
            last: 0,
            owned: constants::NOT_OWNED,
            need: NO_POLICY,
            within: -1,
            on_miss: constants::MISS_FAIL,
            at_once: 0,
            owner: String::new(),
        }
    }

    /// Of a task that nothing follows yet.
    fn of(task: &TaskSpec) -> Self {
        let policy = task.policy;
        Self {
            inputs: u32::try_from(task.inputs.len()).unwrap_or(u32::MAX),
            need: match policy.map(|policy| policy.need) {
                None => NO_POLICY,
                Some(Need::All) => NEED_ALL,
                Some(Need::Count(count)) => count.into(),
            },
            within: optional(policy.and_then(|policy| policy.within)),
            on_miss: match policy.map(|policy| policy.on_miss) {
                None | Some(OnMiss::Fail) => constants::MISS_FAIL,
                Some(OnMiss::Partial) => constants::MISS_PARTIAL,
                Some(OnMiss::Default) => constants::MISS_DEFAULT,
            },
            at_once: task.children.as_ref().map_or(0, |children| children.at_once),
            ..Self::new(&task.exec)
        }
    }

    pub(crate) fn exec(&self, fallback: Option<Payload>) -> Result<Exec, Error> {
        Ok(Exec {
            kind: kind_of(self.kind)?,
            pool: self.pool.clone(),
            priority: priority_of(self.priority),
            timeout: present(self.timeout),
            max_attempts: self.max_attempts,
            backoff: self.backoff,
            paid: self.paid == 1,
            fallback,
        })
    }

    pub(crate) fn policy(&self) -> Option<JoinPolicy> {
        let need = match self.need {
            NO_POLICY => return None,
            NEED_ALL => Need::All,
            count => Need::Count(u32::try_from(count).unwrap_or(u32::MAX)),
        };
        let on_miss = match self.on_miss {
            constants::MISS_PARTIAL => OnMiss::Partial,
            constants::MISS_DEFAULT => OnMiss::Default,
            _ => OnMiss::Fail,
        };
        Some(JoinPolicy { need, within: present(self.within), on_miss })
    }
}

pub(crate) fn kind_of(code: u8) -> Result<Kind, Error> {
    match code {
        kind::LLM => Ok(Kind::Llm),
        kind::TOOL => Ok(Kind::Tool),
        kind::JOIN => Ok(Kind::Join),
        kind::MAP => Ok(Kind::Map),
        kind::AGENT => Ok(Kind::Agent),
        other => Err(unknown("kind", other)),
    }
}

/// What stands for one attempt in `p:`.
pub(crate) fn told((token, code, at): (String, u8, Ms)) -> Result<Told, Error> {
    let answer = match code {
        stand::FAIL_RETRYING => Answer::Retrying(at),
        stand::FAIL_RELEASED => Answer::Released,
        stand::STALE => Answer::Stale,
        stand::OVER => Answer::Cancelled,
        other => return Err(unknown("answer", other)),
    };
    Ok(Told { token: Token::from_raw(&token), answer })
}

pub(crate) fn priority_of(code: u8) -> Priority {
    if code == 1 { Priority::High } else { Priority::Normal }
}

pub(crate) fn unknown(what: &str, code: u8) -> Error {
    Error::Unusable(format!("{what} {code} is unknown: written by a newer version"))
}

/// A run as `submit` sends it.
pub(crate) struct Laid {
    pub(crate) head: Head,
    pub(crate) roots: Vec<String>,
    /// Names and values of fields in turn.
    pub(crate) fields: Vec<Bytes>,
}

impl Laid {
    pub(crate) fn out(submit: &Submit, watched: bool) -> Result<Self, Error> {
        let tasks = submit.graph.tasks();
        let mut successors: HashMap<&TaskId, (Vec<&str>, Vec<&str>)> = HashMap::new();
        for task in tasks {
            let timed = task.exec.kind == Kind::Join && task.policy.is_some_and(|p| p.within.is_some());
            for input in &task.inputs {
                let (all, opens) = successors.entry(input).or_default();
                all.push(task.id.as_str());
                if timed {
                    opens.push(task.id.as_str());
                }
            }
        }
        let last = submit.graph.tasks().last().map_or_else(|| "".into(), |task| task.id.to_string());
        let order: Vec<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
        let mut fields = Fields(Vec::with_capacity(8 + tasks.len() * 8));
        fields.add("name", "", submit.name.clone().into());
        fields.add("in", "", submit.input.as_bytes().clone());
        fields.add("order", "", pack(&order)?.into());
        if let Some(trace) = submit.trace {
            fields.add("tp", "", trace.to_string().into());
        }
        for task in tasks {
            let none = (Vec::new(), Vec::new());
            let (all, opens) = successors.get(&task.id).unwrap_or(&none);
            let last = u8::from(task.id.as_str() == last);
            let spec = Spec { last, opens: u8::from(!opens.is_empty()), ..Spec::of(task) };
            fields.add("g:", task.id.as_str(), pack(&spec)?.into());
            fields.task(task)?;
            fields.list("n:", &task.id, all)?;
            fields.list("o:", &task.id, opens)?;
        }
        let roots =
            tasks.iter().filter(|task| task.inputs.is_empty()).map(|task| task.id.as_str().to_owned());
        let head = Head { watched: u8::from(watched), ..Head::fresh(submit) };
        Ok(Self { head, roots: roots.collect(), fields: fields.0 })
    }
}

struct Fields(Vec<Bytes>);

impl Fields {
    fn add(&mut self, prefix: &str, id: &str, value: Bytes) {
        self.0.push(format!("{prefix}{id}").into());
        self.0.push(value);
    }

    /// A list of tasks that is not empty.
    fn list(&mut self, prefix: &str, id: &TaskId, tasks: &[impl Serialize]) -> Result<(), Error> {
        if !tasks.is_empty() {
            self.add(prefix, id.as_str(), pack(tasks)?.into());
        }
        Ok(())
    }

    /// What stands of a task beside its spec and what follows it.
    fn task(&mut self, task: &TaskSpec) -> Result<(), Error> {
        let id = task.id.as_str();
        self.add("b:", id, task.body.as_bytes().clone());
        self.list("i:", &task.id, &task.inputs)?;
        if !task.label.is_empty() {
            self.add("l:", id, json(&task.label)?.into());
        }
        if let Some(fallback) = &task.exec.fallback {
            self.add("f:", id, fallback.as_bytes().clone());
        }
        if let Some(Children { exec, .. }) = &task.children {
            self.add("c:", id, pack(&Spec::new(exec))?.into());
            if let Some(fallback) = &exec.fallback {
                self.add("F:", id, fallback.as_bytes().clone());
            }
        }
        Ok(())
    }
}

/// Writes `tasks` as `add.lua` reads them: a list of {id, spec, event, inputs, fields, resource}, where `event` is the
/// tail of the task's event, `fields` are names and values in turn and `resource` may be empty; false where there are
/// none, or 0 where they fit no agent.
pub(crate) fn added(tasks: &[Added], out: &mut Packer) -> Result<(), Error> {
    if tasks.is_empty() {
        out.flag(false);
        return Ok(());
    }
    if tasks.len() > ADD_CHUNK || !tasks.iter().all(Added::fits) {
        out.int(0);
        return Ok(());
    }
    out.array(tasks.len());
    for Added { spec: task, vital, resource } in tasks {
        // which agent it belongs to is for the script to find out
        let owned = if *vital { constants::VITAL } else { constants::OWNED };
        let event = format!("\"kind\":{},\"label\":{}", json(&task.exec.kind)?, json(&task.label)?);
        let inputs: Vec<&str> = task.inputs.iter().map(TaskId::as_str).collect();
        let mut fields = Fields(Vec::new());
        fields.task(task)?;
        out.array(6).bytes(task.id.as_str()).value(&Spec { owned, ..Spec::of(task) })?;
        out.bytes(event).list(&inputs).list(&fields.0).bytes(resource.as_deref().unwrap_or_default());
    }
    Ok(())
}

/// Bytes that [`added`] writes, roughly.
pub(crate) fn weight_of(tasks: &[Added]) -> usize {
    tasks.iter().map(|added| added.spec.body.len() + 64 * added.spec.inputs.len() + 256).sum()
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|error| Error::Unusable(format!("a value can't be written as JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scripts read these bytes without unpacking the rest.
    #[test]
    fn small_numbers_stand_where_scripts_look_for_them() {
        let at =
            |packed: &[u8], name: &str| packed[constants::value(name).unwrap().parse::<usize>().unwrap() - 1];
        let spec = Spec {
            kind: 4,
            paid: 1,
            fallback: 1,
            opens: 0,
            last: 1,
            owned: 2,
            priority: 0,
            on_miss: 2,
            at_once: 10_000,
            pool: "llm".into(),
            timeout: -1,
            max_attempts: 3,
            backoff: 500,
            inputs: 9,
            need: NEED_ALL,
            within: -1,
            owner: String::new(),
        };
        let packed = pack(&spec).unwrap();
        let names = ["KIND_BYTE", "PAID_BYTE", "FALLBACK_BYTE", "OPENS_BYTE", "LAST_BYTE", "OWNED_BYTE"];
        assert_eq!(names.map(|name| at(&packed, name)), [4, 1, 1, 0, 1, 2]);
        let head = pack(&[3_u8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(["RUN_STATUS_BYTE", "WATCHED_BYTE"].map(|name| at(&head, name)), [3, 1]);
        assert_eq!(constants::value("WASTED").unwrap(), "15");
        let state = pack(&[6_u8; 20]).unwrap();
        assert_eq!(at(&state, "STATUS_BYTE"), 6);
    }
}
