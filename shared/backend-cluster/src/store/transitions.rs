//! One typed transition per batched script. Nobody else calls them.

use serde::Deserialize;
use trireme_backend::Error;
use trireme_model::{
    Assignment, Budget, Cancelled, Claim, Claimed, Complete, Completed, Extend, Extended, Fail, Failed,
    FailureClass, More, Ms, Outcome, Payload, Renew, Renewed, RunId, Submit, Submitted, TaskId, Token, Usage,
};

use bytes::Bytes;

use super::{
    constants::{answer, claim, class, stand},
    layout::{
        Laid, Spec, added, kind_of, number, optional, present, priority_of, unknown, unpack, usage_numbers,
        weight_of,
    },
    packer::Packer,
    script::{self, Script},
    transition::{First, Transition},
};

/// An answer that is only a code.
#[derive(Debug, Deserialize)]
pub(crate) struct Code((u8,));

/// A code and a number.
#[derive(Debug, Deserialize)]
pub(crate) struct Numbered(u8, #[serde(default)] u64);

/// A code, and an assignment where there is one.
#[derive(Debug, Deserialize)]
pub(crate) struct Assigned(u8, #[serde(default)] Option<Box<Parts>>);

/// An assignment as `start.lua` packs it.
#[derive(Debug, Deserialize)]
pub(crate) struct Parts {
    task: TaskId,
    token: Token,
    attempt: u32,
    deadline: Ms,
    ready_at: Ms,
    /// Of the run, as text.
    run_deadline: String,
    exec: Bytes,
    body: Bytes,
    inputs: Bytes,
    arg: Bytes,
    input: Bytes,
    trace: Bytes,
    /// Only of a task that belongs to an agent.
    #[serde(default)]
    left: Option<(i64, i64)>,
}

impl Parts {
    fn assignment(self, run: &RunId, now: Ms, has_input: bool) -> Result<Box<Assignment>, Error> {
        let spec: Spec = unpack("a task's spec", &self.exec)?;
        let inputs =
            if self.inputs.is_empty() { Vec::new() } else { unpack("the inputs of a task", &self.inputs)? };
        // a map's child has what only a child has; of anything else its spec says it
        let owner = match self.task.split_child() {
            Some((map, _)) if !self.arg.is_empty() => TaskId::new(map).ok(),
            _ => TaskId::new(&spec.owner).ok(),
        };
        let deadlines = [self.deadline, self.run_deadline.parse().unwrap_or(0)];
        Ok(Box::new(Assignment {
            run: run.clone(),
            task: self.task,
            kind: kind_of(spec.kind)?,
            pool: spec.pool,
            priority: priority_of(spec.priority),
            token: self.token,
            attempt: self.attempt,
            max_attempts: spec.max_attempts,
            now,
            // 0 is never
            deadline: deadlines.into_iter().filter(|at| *at != 0).min().unwrap_or(0),
            ready_at: self.ready_at,
            body: Payload::from_json(self.body),
            arg: (!self.arg.is_empty()).then(|| Payload::from_json(self.arg)),
            inputs,
            owner,
            left: self.left.map(|(tokens, usd)| Budget { tokens: present(tokens), usd_micros: present(usd) }),
            input: (!has_input).then(|| Payload::from_json(self.input)),
            // one that can't be read costs spans and nothing else
            trace: std::str::from_utf8(&self.trace).ok().and_then(|text| text.parse().ok()),
        }))
    }
}

/// Five numbers, or 0 where nothing was used.
fn cost(usage: &Usage, out: &mut Packer) {
    if *usage == Usage::default() {
        out.int(0);
    } else {
        out.array(5);
        // bounded to what Lua keeps exactly
        for number in usage_numbers(usage) {
            out.int(number as i64);
        }
    }
}

pub(crate) enum OnSubmit {}
pub(crate) enum OnClaim {}
pub(crate) enum OnRenew {}
pub(crate) enum OnExtend {}
pub(crate) enum OnComplete {}
pub(crate) enum OnFail {}
pub(crate) enum OnCancel {}
pub(crate) enum OnSweep {}
pub(crate) enum OnWake {}

/// A submit, laid out for the store.
pub(crate) struct Accept {
    pub(crate) run: RunId,
    pub(crate) fingerprint: String,
    pub(crate) limit: i64,
    /// Most runs of the key under way, -1 for any number, and those in other shards.
    pub(crate) in_flight: (i64, u64),
    pub(crate) laid: Laid,
}

/// Looks at an entry of the due index.
pub(crate) struct Look {
    pub(crate) run: RunId,
    pub(crate) task: Option<TaskId>,
}

/// Wakes a task whose pool was resumed.
pub(crate) struct Wake {
    pub(crate) run: RunId,
    pub(crate) task: TaskId,
    pub(crate) member: String,
}

impl Accept {
    /// `elsewhere` is how many runs of the caller's key are under way in other shards.
    pub(crate) fn new(submit: &Submit, watched: bool, elsewhere: u64) -> Result<Self, Error> {
        let laid = Laid::out(submit, watched)?;
        let (run, fingerprint) = (submit.run.clone(), submit.fingerprint.clone());
        let in_flight = (optional(submit.caller.in_flight.map(u64::from)), elsewhere);
        Ok(Self { run, fingerprint, limit: optional(submit.deadline), in_flight, laid })
    }
}

impl Transition for OnSubmit {
    type Item = Accept;
    type Answer = Submitted;
    type Wire = Code;
    const FIRST: First = First::Runs;
    const ITEM: &'static str = "at, fingerprint, head, limit, most, elsewhere, roots, fields";
    const AFTER_HINTS: Option<&'static str> = Some("submit.after_hints");

    fn script() -> &'static Script {
        &script::SUBMIT
    }
    fn run(item: &Accept) -> &RunId {
        &item.run
    }
    fn weight(item: &Accept) -> usize {
        item.laid.fields.iter().map(|field| field.len() + 8).sum()
    }
    fn pack(item: &Accept, at: i64, out: &mut Packer) -> Result<(), Error> {
        let Laid { head, roots, fields } = &item.laid;
        out.int(at).bytes(&item.fingerprint).value(head)?;
        out.int(item.limit).int(item.in_flight.0).int(number(item.in_flight.1) as i64);
        out.list(roots).list(fields);
        Ok(())
    }
    fn answer(_: &Accept, Code((code,)): Code, _: Ms) -> Result<Submitted, Error> {
        match code {
            answer::SUBMIT_CREATED => Ok(Submitted::Created),
            answer::SUBMIT_EXISTS => Ok(Submitted::Exists),
            answer::SUBMIT_CONFLICT => Ok(Submitted::Conflict),
            answer::SUBMIT_LIMITED => Ok(Submitted::Limited),
            other => Err(unknown("answer", other)),
        }
    }
}

impl Transition for OnClaim {
    type Item = Claim;
    type Answer = Claimed;
    type Wire = Assigned;
    const FIRST: First = First::Claim;
    const ITEM: &'static str = "at, task, claim, has_input";
    const AFTER_HINTS: Option<&'static str> = Some("claim.after_hints");

    fn script() -> &'static Script {
        &script::CLAIM
    }
    fn run(item: &Claim) -> &RunId {
        &item.run
    }
    fn weight(item: &Claim) -> usize {
        item.task.as_str().len() + item.claim.len() + 32
    }
    fn pack(item: &Claim, at: i64, out: &mut Packer) -> Result<(), Error> {
        out.int(at).bytes(item.task.as_str()).bytes(&item.claim).flag(item.has_input);
        Ok(())
    }
    fn answer(item: &Claim, Assigned(code, parts): Assigned, now: Ms) -> Result<Claimed, Error> {
        match (code, parts) {
            (claim::RUN, Some(parts)) => {
                Ok(Claimed::Run(parts.assignment(&item.run, now, item.has_input)?))
            }
            (claim::BUSY, _) => Ok(Claimed::Busy),
            (claim::DONE, _) => Ok(Claimed::Done),
            (claim::NOT_READY, _) => Ok(Claimed::NotReady),
            (claim::CANCELLED, _) => Ok(Claimed::Cancelled),
            (claim::GONE, _) => Ok(Claimed::Gone),
            (claim::PAUSED, _) => Ok(Claimed::Paused),
            (other, _) => Err(unknown("answer", other)),
        }
    }
}

impl Transition for OnRenew {
    type Item = Renew;
    type Answer = Renewed;
    type Wire = Code;
    const FIRST: First = First::Due;
    const ITEM: &'static str = "at, task, token";

    fn script() -> &'static Script {
        &script::RENEW
    }
    fn run(item: &Renew) -> &RunId {
        &item.run
    }
    fn weight(_: &Renew) -> usize {
        128
    }
    fn pack(item: &Renew, at: i64, out: &mut Packer) -> Result<(), Error> {
        out.int(at).bytes(item.task.as_str()).bytes(item.token.as_str());
        Ok(())
    }
    fn answer(_: &Renew, Code((code,)): Code, _: Ms) -> Result<Renewed, Error> {
        match code {
            answer::RENEW_HELD => Ok(Renewed::Held),
            answer::RENEW_LOST => Ok(Renewed::Lost),
            answer::RENEW_CANCELLED => Ok(Renewed::Cancelled),
            other => Err(unknown("answer", other)),
        }
    }
}

impl Transition for OnExtend {
    type Item = Extend;
    type Answer = Extended;
    type Wire = Numbered;
    const FIRST: First = First::Due;
    const ITEM: &'static str = "at, task, token, start, args, tasks, resource";
    const AFTER_HINTS: Option<&'static str> = Some("extend.after_hints");

    fn script() -> &'static Script {
        &script::EXTEND
    }
    fn run(item: &Extend) -> &RunId {
        &item.run
    }
    fn weight(item: &Extend) -> usize {
        match &item.more {
            More::Children { args, .. } => args.iter().map(|arg| arg.len() + 8).sum(),
            More::Tasks(tasks) => weight_of(tasks),
            More::Resource(name) => name.len() + 128,
        }
    }
    fn pack(item: &Extend, at: i64, out: &mut Packer) -> Result<(), Error> {
        out.int(at).bytes(item.task.as_str()).bytes(item.token.as_str());
        match &item.more {
            More::Children { start, args } => {
                let args: Vec<&Bytes> = args.iter().map(Payload::as_bytes).collect();
                out.int((*start).into()).list(&args).flag(false).int(0);
                Ok(())
            }
            More::Tasks(tasks) => {
                added(tasks, out.int(-1).flag(false))?;
                out.int(0);
                Ok(())
            }
            More::Resource(name) => {
                out.int(-1).flag(false).flag(false).bytes(name);
                Ok(())
            }
        }
    }
    fn answer(item: &Extend, Numbered(code, count): Numbered, _: Ms) -> Result<Extended, Error> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        match code {
            stand::HOLDS => Ok(match &item.more {
                More::Children { .. } => Extended::Width(count),
                More::Tasks(_) => Extended::Added(count),
                More::Resource(_) => Extended::Held,
            }),
            stand::QUEUED => Ok(Extended::Queued),
            stand::REFUSED => Ok(Extended::Refused),
            stand::STALE => Ok(Extended::Stale),
            stand::OVER => Ok(Extended::Cancelled),
            stand::GONE => Ok(Extended::Gone),
            other => Err(unknown("answer", other)),
        }
    }
}

impl Transition for OnComplete {
    type Item = Complete;
    type Answer = Completed;
    type Wire = Assigned;
    const ITEM: &'static str = "at, task, token, result, answer, tasks, first_token, usage, claim, pools";
    const AFTER_HINTS: Option<&'static str> = Some("complete.after_hints");

    fn script() -> &'static Script {
        &script::COMPLETE
    }
    fn run(item: &Complete) -> &RunId {
        &item.run
    }
    fn weight(item: &Complete) -> usize {
        let result = match &item.outcome {
            Outcome::Result(value) | Outcome::Answer { value, .. } => value.len(),
            Outcome::Expanded => 0,
        };
        result + weight_of(&item.tasks) + 256
    }
    fn pack(item: &Complete, at: i64, out: &mut Packer) -> Result<(), Error> {
        // a result is never empty in the store: that means a map or agent that is expanded
        let (result, answer) = match &item.outcome {
            Outcome::Result(value) => (Some(value), 0),
            Outcome::Answer { value, degraded } => (Some(value), 1 + i64::from(*degraded)),
            Outcome::Expanded => (None, 0),
        };
        let result = match result {
            Some(value) if value.is_empty() => Bytes::from_static(b"null"),
            Some(value) => value.as_bytes().clone(),
            None => Bytes::new(),
        };
        let (claim, pools) = match &item.next {
            Some(next) => (next.claim.as_str(), format!(" {} ", next.pools.join(" "))),
            None => ("", String::new()),
        };
        out.int(at).bytes(item.task.as_str()).bytes(item.token.as_str());
        added(&item.tasks, out.bytes(&result).int(answer))?;
        out.int(number(item.first_token.unwrap_or(0)) as i64);
        cost(&item.usage, out);
        out.bytes(claim).bytes(&pools);
        Ok(())
    }
    fn answer(item: &Complete, Assigned(code, parts): Assigned, now: Ms) -> Result<Completed, Error> {
        match code {
            stand::HOLDS => {
                let next = parts.map(|parts| parts.assignment(&item.run, now, true)).transpose()?;
                Ok(Completed::Recorded { next })
            }
            stand::REFUSED => Ok(Completed::Refused),
            stand::STALE => Ok(Completed::Stale),
            stand::OVER => Ok(Completed::Cancelled),
            stand::GONE => Ok(Completed::Gone),
            other => Err(unknown("answer", other)),
        }
    }
}

impl Transition for OnFail {
    type Item = Fail;
    type Answer = Failed;
    type Wire = Numbered;
    const FIRST: First = First::Due;
    const ITEM: &'static str = "at, task, token, class, error, after, jitter, usage";
    const AFTER_HINTS: Option<&'static str> = Some("fail.after_hints");

    fn script() -> &'static Script {
        &script::FAIL
    }
    fn run(item: &Fail) -> &RunId {
        &item.run
    }
    fn weight(item: &Fail) -> usize {
        item.error.len() + 256
    }
    fn pack(item: &Fail, at: i64, out: &mut Packer) -> Result<(), Error> {
        let class = match item.class {
            FailureClass::Retryable => class::RETRYABLE,
            FailureClass::RateLimited => class::RATE_LIMITED,
            FailureClass::Permanent => class::PERMANENT,
            FailureClass::Released => class::RELEASED,
        };
        // empty is not JSON, and the error stands in events
        let error =
            if item.error.is_empty() { Bytes::from_static(b"null") } else { item.error.as_bytes().clone() };
        let (after, jitter) = (optional(item.retry_after), i64::from(item.jitter.min(999)));
        out.int(at).bytes(item.task.as_str()).bytes(item.token.as_str());
        out.int(class.into()).bytes(&error).int(after).int(jitter);
        cost(&item.usage, out);
        Ok(())
    }
    fn answer(_: &Fail, Numbered(code, at): Numbered, _: Ms) -> Result<Failed, Error> {
        match code {
            stand::FAIL_RETRYING => Ok(Failed::Retrying(at)),
            stand::FAIL_ENDED => Ok(Failed::Ended),
            stand::FAIL_RELEASED => Ok(Failed::Released),
            stand::STALE => Ok(Failed::Stale),
            stand::OVER => Ok(Failed::Cancelled),
            stand::GONE => Ok(Failed::Gone),
            other => Err(unknown("answer", other)),
        }
    }
}

impl Transition for OnCancel {
    type Item = RunId;
    type Answer = Cancelled;
    type Wire = Code;
    const FIRST: First = First::Due;
    const ITEM: &'static str = "at";

    fn script() -> &'static Script {
        &script::CANCEL
    }
    fn run(item: &RunId) -> &RunId {
        item
    }
    fn weight(_: &RunId) -> usize {
        64
    }
    fn pack(_: &RunId, at: i64, out: &mut Packer) -> Result<(), Error> {
        out.int(at);
        Ok(())
    }
    fn answer(_: &RunId, Code((code,)): Code, _: Ms) -> Result<Cancelled, Error> {
        match code {
            answer::CANCEL_DONE => Ok(Cancelled::Cancelled),
            answer::CANCEL_ENDED => Ok(Cancelled::Ended),
            answer::CANCEL_GONE => Ok(Cancelled::Gone),
            other => Err(unknown("answer", other)),
        }
    }
}

impl Transition for OnSweep {
    type Item = Look;
    /// Whether the run was purged.
    type Answer = bool;
    type Wire = Code;
    const FIRST: First = First::Sweep;
    const BLOBS: bool = true;
    const ITEM: &'static str = "at, task";
    const AFTER_HINTS: Option<&'static str> = Some("sweep.after_hints");

    fn script() -> &'static Script {
        &script::SWEEP
    }
    fn run(item: &Look) -> &RunId {
        &item.run
    }
    fn weight(_: &Look) -> usize {
        64
    }
    fn pack(item: &Look, at: i64, out: &mut Packer) -> Result<(), Error> {
        out.int(at).bytes(item.task.as_ref().map_or("", TaskId::as_str));
        Ok(())
    }
    fn answer(_: &Look, Code((code,)): Code, _: Ms) -> Result<bool, Error> {
        Ok(code == 1)
    }
}

impl Transition for OnWake {
    type Item = Wake;
    /// Whether its hint is published.
    type Answer = bool;
    type Wire = Code;
    const FIRST: First = First::Claim;
    const ITEM: &'static str = "at, task, member";
    const AFTER_HINTS: Option<&'static str> = Some("wake.after_hints");

    fn script() -> &'static Script {
        &script::WAKE
    }
    fn run(item: &Wake) -> &RunId {
        &item.run
    }
    fn weight(_: &Wake) -> usize {
        128
    }
    fn pack(item: &Wake, at: i64, out: &mut Packer) -> Result<(), Error> {
        out.int(at).bytes(item.task.as_str()).bytes(&item.member);
        Ok(())
    }
    fn answer(_: &Wake, Code((code,)): Code, _: Ms) -> Result<bool, Error> {
        Ok(code == 1)
    }
}
