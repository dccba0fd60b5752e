//! A turn's tool calls become tasks the moment their arguments close in the model's stream.

use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use trireme_agent::{
    Arguments, Work, call_key,
    record::{Called, Refusal},
    repair,
    work::ids,
};
use trireme_llm::ToolCall;
use trireme_model::{Added, Extend, Extended, More, TaskId, limits::MAX_ADDED, wide_integer};
use trireme_spec::agent::{READ_RESULT, callable};
use trireme_tool::{Effect, Tools};

use super::{
    fits,
    offer::{Offer, Target},
    resources, tasks,
};
use crate::{executors::Job, outcome::Failure};

/// Calls of one turn that are made; the model is told that the others were too many.
pub(super) const MAX_CALLS: usize = 64;

/// What an agent fails with when its run takes no more tasks.
pub(super) const TASKS_REFUSED: &str = "tasks_refused";
/// Bodies added in one piece; a larger one goes alone.
const PIECE_BYTES: usize = 2 << 20;
/// Bytes of the arguments of one turn's calls: they are all in the turn's record.
const MAX_ARGUMENTS: usize = 2 << 20;
/// Bytes of the tasks that wait for the end of a turn or plan: one step of the store takes 8 MiB.
pub(super) const MAX_DEFERRED: usize = 6 << 20;
/// Characters that are kept of arguments that are no JSON.
const MAX_BROKEN: usize = 1_000;

/// The calls of a turn while it streams.
pub(super) struct Dispatch<'a> {
    job: &'a Job<'a>,
    tools: &'a Tools,
    agent: &'a TaskId,
    offers: &'a [Offer],
    called: Vec<(u32, Called)>,
    /// Bytes of their arguments.
    arguments: usize,
    /// Tasks of calls that change the world: they wait until the turn has ended.
    deferred: Vec<Added>,
    /// Bytes of these.
    deferred_bytes: usize,
    touched: resources::Deferred,
}

/// Adds `tasks` to the run, in pieces that the store takes. When the attempt does not hold its task any more, whoever
/// does will do the same; dying between two pieces is as harmless as dying before the first.
pub(super) async fn extend(job: &Job<'_>, mut tasks: Vec<Added>) -> Result<(), Failure> {
    while !tasks.is_empty() {
        let mut bytes = 0;
        let fits = |task: &&Added| {
            bytes += task.spec.body.len();
            bytes <= PIECE_BYTES
        };
        let count = tasks.iter().take_while(fits).count().max(1);
        let rest = tasks.split_off(count);
        extend_once(job, tasks).await?;
        tasks = rest;
    }
    Ok(())
}

async fn extend_once(job: &Job<'_>, tasks: Vec<Added>) -> Result<(), Failure> {
    let extend = Extend {
        run: job.assignment.run.clone(),
        task: job.assignment.task.clone(),
        token: job.assignment.token.clone(),
        more: More::Tasks(tasks),
    };
    match job.shared.read(|| job.shared.backend.extend(extend.clone())).await? {
        Extended::Added(_) | Extended::Width(_) => Ok(()),
        Extended::Refused | Extended::Held | Extended::Queued => {
            let text = format!("the run takes no more tasks of its agents: {MAX_ADDED} in all are the limit");
            Err(Failure::permanent(TASKS_REFUSED, text))
        }
        Extended::Stale | Extended::Cancelled | Extended::Gone => {
            Err(Failure::permanent("cancelled", "the turn is not held any more"))
        }
    }
}

/// Checks the arguments of a call of `tool` against its schema, after bringing them into its types if that makes them
/// right.
pub(super) fn fit(
    tools: &Tools,
    tool: &str,
    schema: &Value,
    args: &mut Value,
) -> Result<(), trireme_tool::Error> {
    let checked = tools.check(tool, args);
    // text is no object that has the wrong types: it may be half of one
    if let Err(trireme_tool::Error::InvalidArgs { .. }) = &checked
        && !args.is_string()
        && let Ok(fitted) = repair::fit(args.clone(), schema)
    {
        *args = fitted.value;
        return tools.check(tool, args);
    }
    checked
}

impl<'a> Dispatch<'a> {
    pub(super) fn new(job: &'a Job<'a>, tools: &'a Tools, agent: &'a TaskId, offers: &'a [Offer]) -> Self {
        let (called, deferred, touched) = (Vec::new(), Vec::new(), resources::Deferred::default());
        Self { job, tools, agent, offers, called, arguments: 0, deferred, deferred_bytes: 0, touched }
    }

    /// Adds calls as they close, all that are there in one step, until the stream ends.
    pub(super) async fn run(&mut self, closed: &mut UnboundedReceiver<ToolCall>) -> Result<(), Failure> {
        let mut calls = Vec::new();
        while closed.recv_many(&mut calls, MAX_CALLS).await > 0 {
            let mut tasks = Vec::new();
            for call in calls.drain(..) {
                tasks.extend(self.admit(call)?);
            }
            if !tasks.is_empty() {
                // dying here loses nothing: a repeated turn finds what was added by its id
                extend(self.job, tasks).await?;
            }
        }
        Ok(())
    }

    /// The calls in the model's order, and the tasks that wait for the end of the turn.
    pub(super) fn finish(mut self) -> (Vec<Called>, Vec<Added>) {
        self.called.sort_by_key(|(index, _)| *index);
        (self.called.into_iter().map(|(_, called)| called).collect(), self.deferred)
    }

    /// The tasks of `call` that may begin now.
    pub(super) fn admit(&mut self, mut call: ToolCall) -> Result<Vec<Added>, Failure> {
        let mut now = Vec::new();
        let (task, refused) = match self.check(&mut call) {
            Ok(offer) => (Some(self.place(offer, &call.arguments, &mut now)?), None),
            Err(refused) => {
                tracing::debug!(
                    run = %self.job.assignment.run, task = %self.job.assignment.task,
                    tool = call.name, class = refused.class, "call refused"
                );
                self.job.shared.metrics.calls_refused.with_label_values(&[&refused.class]).inc();
                (None, Some(refused))
            }
        };
        let ToolCall { index, id, name, arguments } = call;
        // what was refused for its size is not kept
        let kept = refused.as_ref().is_none_or(|refused| refused.class != "args_too_large");
        let arguments = match arguments {
            Value::Object(fields) if kept => Value::Object(fields),
            Value::String(text) if kept => json!({"text": text.chars().take(MAX_BROKEN).collect::<String>()}),
            // providers take nothing but an object back
            _ => json!({}),
        };
        self.arguments += serde_json::to_string(&arguments).map_or(0, |text| text.len());
        // a name that no provider would take back is shown as near as it can be
        let name = callable(&name);
        let name = if name.is_empty() { "unknown".to_owned() } else { name };
        self.called.push((index, Called { id, name, arguments, task, refused }));
        Ok(now)
    }

    /// Finds what is called; arguments that are nearly right are made right rather than asked for again.
    fn check(&self, call: &mut ToolCall) -> Result<&'a Offer, Refusal> {
        let refuse = |class: &str, message: String| Refusal { class: class.to_owned(), message };
        if self.called.len() >= MAX_CALLS {
            return Err(refuse(
                "too_many_calls",
                format!("over {MAX_CALLS} calls in one turn; call it again"),
            ));
        }
        let size = serde_json::to_string(&call.arguments).map_or(0, |text| text.len());
        if self.arguments + size > MAX_ARGUMENTS {
            let message = format!("the arguments of one turn are over {MAX_ARGUMENTS} bytes");
            return Err(refuse("args_too_large", message));
        }
        let Some(offer) = self.offers.iter().find(|offer| offer.name == call.name) else {
            let known: Vec<&str> = self.offers.iter().map(|offer| offer.name.as_str()).collect();
            let class = if self.tools.get(&call.name).is_some() { "denied" } else { "unknown_tool" };
            let name: String = call.name.chars().take(64).collect();
            return Err(refuse(class, format!("there is no tool {name:?}; there are: {}", known.join(", "))));
        };
        if offer.effect == Effect::Write && self.deferred_bytes + offer.weight + size > MAX_DEFERRED {
            let message = "the settings of so many agents are too large for one turn; call it in the next";
            return Err(refuse("too_many_calls", message.to_owned()));
        }
        if let Value::String(text) = &call.arguments
            && let Some(number) = wide_integer(text)
        {
            let message = format!("the number {number} is over 64 bits: give it as text, in quotes");
            return Err(refuse("invalid_args", message));
        }
        if let Value::String(text) = &call.arguments
            && offer.effect != Effect::Write
            && let Ok(repaired) = repair::repair(text, Some(&offer.parameters))
        {
            call.arguments = repaired.value;
        }
        match &offer.target {
            Target::Tool(tool) => fit(self.tools, tool, &offer.parameters, &mut call.arguments)
                .map_err(|error| refuse(error.code(), error.to_string()))?,
            Target::Agent(_) if !call.arguments.get("task").is_some_and(Value::is_string) => {
                return Err(refuse("invalid_args", "task: expected the task as text".to_owned()));
            }
            Target::Agent(_) | Target::ReadResult => {}
        }
        Ok(offer)
    }

    /// Makes the task of a call; it goes into `now`, or waits for the end of the turn.
    fn place(&mut self, offer: &Offer, args: &Value, now: &mut Vec<Added>) -> Result<TaskId, Failure> {
        let step = &self.job.assignment.task;
        let mut key = call_key(&offer.name, args);
        key.truncate(8);
        let writes = offer.effect == Effect::Write;
        if writes {
            // the same change twice is two changes
            let twin = |id: &Option<TaskId>| id.as_ref().is_some_and(|id| id.as_str().contains(&key));
            let twins = self.called.iter().filter(|(_, called)| twin(&called.task)).count();
            key = format!("{key}-{twins}");
        }
        let id = fits(ids::call(step, &offer.name, &key))?;
        if self.called.iter().any(|(_, called)| called.task.as_ref() == Some(&id)) {
            return Ok(id);
        }
        let (touches, deferred) = match &offer.target {
            Target::Tool(tool) => self.touched.touch(self.tools, tool, (args, true), writes),
            Target::Agent(_) | Target::ReadResult => (None, writes),
        };
        let task = self.task(id.clone(), offer, args, touches);
        if deferred {
            self.deferred_bytes += task.spec.body.len();
            self.deferred.push(task);
        } else {
            now.push(task);
        }
        Ok(id)
    }

    fn task(&self, id: TaskId, offer: &Offer, args: &Value, touches: Option<String>) -> Added {
        let arguments = Arguments::plain(args.clone());
        match &offer.target {
            Target::Agent(agent) => {
                let work = Work::Agent { agent: agent.clone(), arguments };
                tasks::agent(self.job, id, &offer.name, work, Vec::new())
            }
            Target::Tool(tool) => {
                let work = Work::Call { agent: self.agent.clone(), tool: tool.clone(), arguments };
                tasks::tool(self.job, id, &offer.name, work, Vec::new()).touching(touches)
            }
            Target::ReadResult => {
                let work = Work::Call { agent: self.agent.clone(), tool: READ_RESULT.to_owned(), arguments };
                tasks::tool(self.job, id, &offer.name, work, Vec::new())
            }
        }
        .added()
    }
}
