//! One typed transition per batched script. Nobody else calls them.

use serde::Deserialize;
use trireme_backend::Error;
use trireme_model::{
    Assignment, Cancelled, Claim, Claimed, Complete, Completed, Extend, Extended, Fail, Failed, FailureClass,
    Ms, Outcome, Payload, Renew, Renewed, RunId, Submit, Submitted, TaskId, Token, Usage,
};

use bytes::Bytes;

use super::{
    constants::{answer, claim, class, stand},
    layout::{Laid, Spec, kind_of, optional, unknown, unpack, usage_numbers},
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
}

impl Parts {
    fn assignment(self, run: &RunId, now: Ms, has_input: bool) -> Result<Box<Assignment>, Error> {
        let spec: Spec = unpack("a task's spec", &self.exec)?;
        let inputs =
            if self.inputs.is_empty() { Vec::new() } else { unpack("the inputs of a task", &self.inputs)? };
        let deadlines = [self.deadline, self.run_deadline.parse().unwrap_or(0)];
        Ok(Box::new(Assignment {
            run: run.clone(),
            task: self.task,
            kind: kind_of(spec.kind)?,
            pool: spec.pool,
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
            input: (!has_input).then(|| Payload::from_json(self.input)),
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

/// A submit, laid out for the store.
pub(crate) struct Accept {
    pub(crate) run: RunId,
    pub(crate) fingerprint: String,
    pub(crate) limit: i64,
    pub(crate) laid: Laid,
}

/// Looks at an entry of the due index.
pub(crate) struct Look {
    pub(crate) run: RunId,
    pub(crate) task: Option<TaskId>,
}

impl Accept {
    pub(crate) fn new(submit: &Submit, watched: bool) -> Result<Self, Error> {
        let laid = Laid::out(submit, watched)?;
        let (run, fingerprint) = (submit.run.clone(), submit.fingerprint.clone());
        Ok(Self { run, fingerprint, limit: optional(submit.deadline), laid })
    }
}

impl Transition for OnSubmit {
    type Item = Accept;
    type Answer = Submitted;
    type Wire = Code;
    const FIRST: First = First::Runs;
    const ITEM: &'static str = "at, fingerprint, head, limit, roots, fields";
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
        out.array(6).int(at).bytes(&item.fingerprint).value(head)?;
        out.int(item.limit).list(roots).list(fields);
        Ok(())
    }
    fn answer(_: &Accept, Code((code,)): Code, _: Ms) -> Result<Submitted, Error> {
        match code {
            answer::SUBMIT_CREATED => Ok(Submitted::Created),
            answer::SUBMIT_EXISTS => Ok(Submitted::Exists),
            answer::SUBMIT_CONFLICT => Ok(Submitted::Conflict),
            other => Err(unknown("answer", other)),
        }
    }
}

impl Transition for OnClaim {
    type Item = Claim;
    type Answer = Claimed;
    type Wire = Assigned;
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
        out.array(4).int(at).bytes(item.task.as_str()).bytes(&item.claim).flag(item.has_input);
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
        out.array(3).int(at).bytes(item.task.as_str()).bytes(item.token.as_str());
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
    const ITEM: &'static str = "at, task, token, start, args";
    const AFTER_HINTS: Option<&'static str> = Some("extend.after_hints");

    fn script() -> &'static Script {
        &script::EXTEND
    }
    fn run(item: &Extend) -> &RunId {
        &item.run
    }
    fn weight(item: &Extend) -> usize {
        item.args.iter().map(|arg| arg.len() + 8).sum()
    }
    fn pack(item: &Extend, at: i64, out: &mut Packer) -> Result<(), Error> {
        let args: Vec<&Bytes> = item.args.iter().map(Payload::as_bytes).collect();
        out.array(5)
            .int(at)
            .bytes(item.task.as_str())
            .bytes(item.token.as_str())
            .int(item.start.into())
            .list(&args);
        Ok(())
    }
    fn answer(_: &Extend, Numbered(code, width): Numbered, _: Ms) -> Result<Extended, Error> {
        match code {
            stand::HOLDS => Ok(Extended::Width(u32::try_from(width).unwrap_or(u32::MAX))),
            stand::EXTEND_REFUSED => Ok(Extended::Refused),
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
    const ITEM: &'static str = "at, task, token, result, usage, claim, pools";
    const AFTER_HINTS: Option<&'static str> = Some("complete.after_hints");

    fn script() -> &'static Script {
        &script::COMPLETE
    }
    fn run(item: &Complete) -> &RunId {
        &item.run
    }
    fn weight(item: &Complete) -> usize {
        let result = match &item.outcome {
            Outcome::Result(result) => result.len(),
            Outcome::Expanded => 0,
        };
        result + 256
    }
    fn pack(item: &Complete, at: i64, out: &mut Packer) -> Result<(), Error> {
        // a result is never empty in the store: that means a map that has handed over its children
        let result = match &item.outcome {
            Outcome::Result(result) if result.is_empty() => Bytes::from_static(b"null"),
            Outcome::Result(result) => result.as_bytes().clone(),
            Outcome::Expanded => Bytes::new(),
        };
        let (claim, pools) =
            item.next.as_ref().map_or(("", &[][..]), |next| (next.claim.as_str(), &next.pools[..]));
        out.array(7).int(at).bytes(item.task.as_str()).bytes(item.token.as_str()).bytes(&result);
        cost(&item.usage, out);
        out.bytes(claim).list(pools);
        Ok(())
    }
    fn answer(item: &Complete, Assigned(code, parts): Assigned, now: Ms) -> Result<Completed, Error> {
        match code {
            stand::HOLDS => {
                let next = parts.map(|parts| parts.assignment(&item.run, now, true)).transpose()?;
                Ok(Completed::Recorded { next })
            }
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
        out.array(8).int(at).bytes(item.task.as_str()).bytes(item.token.as_str());
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
        out.array(1).int(at);
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
    const FIRST: First = First::Runs;
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
        out.array(2).int(at).bytes(item.task.as_ref().map_or("", TaskId::as_str));
        Ok(())
    }
    fn answer(_: &Look, Code((code,)): Code, _: Ms) -> Result<bool, Error> {
        Ok(code == 1)
    }
}
