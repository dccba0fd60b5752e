//! A whole run as fields of its hash, as the reverse of `store::read`: what a replay is written as. None of its
//! attempts has been told anything yet.

use bytes::Bytes;
use trireme_backend::Error;
use trireme_model::{Kind, Run, RunStatus, Task, TaskId, TaskStatus};

use super::{Fields, Head, Spec, State, number, optional, pack};
use crate::store::constants::{self, run_status, status};

impl Head {
    fn of(run: &Run, watched: bool) -> Self {
        let (usage, wasted) = (run.usage, run.wasted);
        Self {
            status: match run.status {
                RunStatus::Running => run_status::RUNNING,
                RunStatus::Succeeded => run_status::SUCCEEDED,
                RunStatus::Failed => run_status::FAILED,
                RunStatus::Cancelled => run_status::CANCELLED,
            },
            watched: u8::from(watched),
            degraded: u8::from(run.degraded),
            created: run.created,
            ended: run.ended,
            keep: number(run.keep.ended),
            keep_failed: number(run.keep.failed),
            budget_tokens: optional(run.budget.tokens),
            budget_usd: optional(run.budget.usd_micros),
            calls: usage.calls,
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cached_tokens: usage.cached_tokens,
            usd_micros: usage.usd_micros,
            wasted_calls: wasted.calls,
            wasted_input_tokens: wasted.input_tokens,
            wasted_output_tokens: wasted.output_tokens,
            wasted_cached_tokens: wasted.cached_tokens,
            wasted_usd_micros: wasted.usd_micros,
            tenant: run.tenant.clone(),
            api_key: run.key.as_ref().map_or_else(String::new, |key| key.to_string()),
        }
    }
}

impl State {
    fn of(task: &Task) -> Self {
        let group = task.group.as_ref();
        Self {
            status: match task.status {
                TaskStatus::Waiting => status::WAITING,
                TaskStatus::Ready => status::READY,
                TaskStatus::Running => status::RUNNING,
                TaskStatus::Retrying => status::RETRYING,
                TaskStatus::Expanded => status::EXPANDED,
                TaskStatus::Succeeded => status::SUCCEEDED,
                TaskStatus::Failed => status::FAILED,
                TaskStatus::Cancelled => status::CANCELLED,
                TaskStatus::Skipped => status::SKIPPED,
            },
            attempt: task.attempt,
            failures: task.failures,
            limited: task.limited,
            lost: task.lost,
            republished: task.republished,
            token: task.token.as_ref().map_or_else(String::new, |token| token.as_str().to_owned()),
            deadline: task.deadline,
            ready_at: task.ready_at,
            started_at: task.started_at,
            ended_at: task.ended_at,
            pending: task.pending,
            done: task.done,
            missed: task.missed,
            degraded: u8::from(task.degraded),
            frozen: task.frozen.clone().unwrap_or_default(),
            next: task.next.as_ref().map_or_else(String::new, TaskId::to_string),
            first_ready_at: task.first_ready_at,
            first_token: task.first_token,
            resource: task.resource.clone().unwrap_or_default(),
            width: group.map(|group| group.args.len() as u32),
            next_child: group.map_or(0, |group| group.next),
            active: group.map_or(0, |group| group.active),
        }
    }

    /// As the scripts pack it: without the last three fields where the task has no children.
    fn packed(&self) -> Result<Bytes, Error> {
        let mut packed = pack(self)?;
        if self.width.is_none() {
            // an array of 23 has a header of three bytes, as has one of 20; the last three values take a byte each
            packed.truncate(packed.len() - 3);
            packed[2] = 20;
        }
        Ok(packed.into())
    }
}

/// Names and values of the fields of `run` in turn, the head last. Large results must be references by now.
pub(crate) fn whole(run: &Run, watched: bool) -> Result<Vec<Bytes>, Error> {
    let mut fields = Fields(Vec::with_capacity(16 + run.tasks.len() * 12));
    fields.add("name", "", run.name.clone().into());
    fields.add("fp", "", run.fingerprint.clone().into());
    fields.add("in", "", run.input.as_bytes().clone());
    fields.add("order", "", pack(&run.order)?.into());
    if run.deadline != 0 {
        fields.add("d", "", run.deadline.to_string().into());
    }
    if !run.added.is_empty() {
        fields.add("added", "", run.added.len().to_string().into());
    }
    for (at, id) in run.added.iter().enumerate() {
        fields.add("z:", &at.to_string(), id.as_str().to_owned().into());
    }
    if let Some(trace) = run.trace {
        fields.add("tp", "", trace.to_string().into());
    }
    for (resource, line) in &run.lines {
        fields.add("q:", resource, pack(line)?.into());
    }
    for (id, task) in &run.tasks {
        let name = id.as_str();
        if let Some(spec) = &task.spec {
            let packed = Spec {
                last: u8::from(id == run.output()),
                opens: u8::from(!task.opens.is_empty()),
                owned: match (&task.owner, task.vital) {
                    (None, _) => constants::NOT_OWNED,
                    (Some(_), false) => constants::OWNED,
                    (Some(_), true) => constants::VITAL,
                },
                owner: task.owner.as_ref().map_or_else(String::new, TaskId::to_string),
                ..Spec::of(spec)
            };
            fields.add("g:", name, pack(&packed)?.into());
            fields.task(spec)?;
            fields.list("n:", id, &task.successors)?;
            fields.list("o:", id, &task.opens)?;
            fields.list("y:", id, &task.added)?;
        }
        fields.add("s:", name, State::of(task).packed()?);
        if let Some(result) = &task.result {
            fields.add("r:", name, result.as_bytes().clone());
        }
        if let Some(error) = &task.error {
            fields.add("e:", name, error.as_bytes().clone());
        }
        let map = task.spec.as_ref().is_some_and(|spec| spec.exec.kind == Kind::Map);
        if let Some(group) = task.group.as_ref().filter(|_| map) {
            for (index, arg) in (0..).zip(&group.args) {
                fields.add("a:", id.child(index).as_str(), arg.as_bytes().clone());
            }
        }
    }
    fields.add("m", "", pack(&Head::of(run, watched))?.into());
    Ok(fields.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::layout::unpack;

    #[test]
    fn a_state_without_children_is_as_short_as_the_scripts_write_it() {
        let task = Task { attempt: 7, ended_at: 1_700_000_000_000, ..Task::waiting(None) };
        let packed = State::of(&task).packed().unwrap();
        let values: Vec<rmpv_free::Any> = unpack("a state", &packed).unwrap();
        assert_eq!(values.len(), 20);
        let back: State = unpack("a state", &packed).unwrap();
        assert_eq!((back.attempt, back.ended_at, back.width), (7, 1_700_000_000_000, None));
    }

    mod rmpv_free {
        /// Any value of a packed array.
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        #[allow(dead_code, reason = "only counted")]
        pub(super) enum Any {
            Number(u64),
            Text(String),
        }
    }
}
