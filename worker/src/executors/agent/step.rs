//! A turn of `react`: the model is shown what happened so far and calls tools, or answers.

use serde_json::{Value, json};
use tokio::sync::mpsc;
use trireme_agent::{
    Finish, Work, history, prompt,
    record::{Called, Condensing, Observed, StepRecord},
    stuck,
    work::ids,
};
use trireme_llm::{ChatEvent, ChatRequest, ChatResponse, FinishReason, Message, ToolCall, ToolChoice};
use trireme_model::{Added, Need, Outcome, Payload, TaskId, attribution::CONDENSE};
use trireme_spec::agent::AgentCall;
use trireme_tool::Effect;

use super::{
    cached,
    dispatch::{Dispatch, MAX_CALLS, TASKS_REFUSED},
    fits,
    observe::observe,
    offer::{Offer, offers},
    past::{self, Past},
    siblings::{self, observation},
    tasks,
    time::{Time, broke, took},
};
use crate::{
    executors::{Executors, Job, llm},
    outcome::{Ended, Failure},
};

/// Turns that are kept as they are when older ones are condensed, and the fewest that are worth condensing.
const KEEP: u32 = 1;
const WORTH: u32 = 3;
/// Observations are cleared in pieces of this many turns, once the prompt is twice as long as what is condensed.
const CLEAR: u32 = 4;
/// Bytes of a last resort answer, put together from results without a model.
const RESORT_BYTES: usize = 4 * 1024;

/// Which turn to take.
pub(super) struct Turn {
    pub(super) agent: TaskId,
    pub(super) turn: u32,
    pub(super) last: Option<Finish>,
    pub(super) config: Option<Box<AgentCall>>,
}

/// A turn at work.
struct Step<'a> {
    executors: &'a Executors,
    job: &'a Job<'a>,
    agent: &'a TaskId,
    turn: u32,
    past: Past,
    observed: Vec<Observed>,
    nudge: Option<String>,
    offers: Vec<Offer>,
    time: Time,
}

/// Takes a turn.
pub(super) async fn take(executors: &Executors, job: &Job<'_>, turn: Turn) -> Result<Ended, Failure> {
    let mut past = past::read(job, &turn.agent, turn.turn, turn.config).await?;
    let context = past.first.agent.context;
    let observed = match past.records.last() {
        Some(last) => {
            let step = fits(ids::step(&turn.agent, turn.turn - 1))?;
            observe(job, &step, &last.calls, &past.first.agent).await?
        }
        None => Vec::new(),
    };
    let long =
        past.records.last().is_some_and(|last| last.prompt_tokens > 2 * u64::from(context.condense_over));
    if long && turn.turn >= past.seen.cleared + CLEAR {
        past.seen.cleared = turn.turn - 1;
    }
    let (nudge, stuck) = judge(job, &turn.agent, &past, &observed).await?;
    let time = Time::new(job, past.first.time, past.longest());
    let finish = if turn.last.is_some() {
        turn.last
    } else if time.short() {
        Some(Finish::Deadline)
    } else if broke(job) {
        Some(Finish::Budget)
    } else if turn.turn >= past.first.agent.max_steps {
        Some(Finish::MaxSteps)
    } else {
        stuck.then_some(Finish::Stuck)
    };
    let offers = offers(&executors.tools, &past.first.agent).await?;
    let agent = &turn.agent;
    let step = Step { executors, job, agent, turn: turn.turn, past, observed, nudge, offers, time };
    match finish {
        Some(finish) => step.answer(finish).await,
        None => step.go_on().await,
    }
}

/// Whether the agent goes in circles: at the first sign it is told so, at the second it has to answer.
async fn judge(
    job: &Job<'_>,
    agent: &TaskId,
    past: &Past,
    observed: &[Observed],
) -> Result<(Option<String>, bool), Failure> {
    let records = &past.records;
    let results = records.iter().skip(1).map(|record| &record.observed[..]).chain([observed]);
    let mut turns: Vec<stuck::Turn> = records
        .iter()
        .zip(results)
        .map(|(record, observed)| stuck::Turn {
            observations: record
                .calls
                .iter()
                .zip(observed)
                .map(|(call, one)| observation("", call, one))
                .collect(),
            text_only: record.calls.is_empty() && !record.text.is_empty(),
            nudged: record.nudge.is_some(),
        })
        .collect();
    siblings::observe(job, agent, past.seen.from, &mut turns).await?;
    Ok(match stuck::judge(&turns) {
        stuck::Verdict::Stop(_) => (None, true),
        stuck::Verdict::Nudge(sign) => (Some(sign.text()), false),
        stuck::Verdict::Clear => {
            let empty = records.last().is_some_and(|last| last.calls.is_empty() && last.text.is_empty());
            (empty.then(|| prompt::EMPTY.to_owned()), false)
        }
    })
}

impl Step<'_> {
    fn config(&self) -> &AgentCall {
        &self.past.first.agent
    }

    /// Asks the model, and lets its calls begin while it still speaks.
    async fn go_on(self) -> Result<Ended, Failure> {
        let (job, config) = (self.job, self.config());
        let request = ChatRequest {
            tools: self.offers.iter().map(Offer::tool).collect(),
            max_tokens: config.max_tokens.step,
            keep_broken_calls: true,
            output_schema: config
                .output_schema
                .clone()
                .filter(|_| config.models.answer == config.models.step),
            messages: self.messages(),
            ..self.request(&config.models.step, 0)
        };
        // bounded by the calls that the client takes in one answer, 1,000
        let (calls, mut closed) = mpsc::unbounded_channel::<ToolCall>();
        let mut dispatch = Dispatch::new(job, &self.executors.tools, self.agent, &self.offers);
        // the draft of an answer that another model will write is nobody's business
        let shown = config.stream && config.models.answer == config.models.step;
        let on_event = move |event: ChatEvent<'_>| match event {
            ChatEvent::TextDelta(text) if shown => job.shared.deltas.push(job.assignment, text),
            // nobody listens any more only when the attempt is over
            ChatEvent::ToolCall(call) => drop(calls.send(call.clone())),
            _ => {}
        };
        let request = cached(job, request);
        let asked = llm::ask(&self.executors.providers, job, &request, self.time.soft(), on_event);
        let (answered, dispatched) = tokio::join!(asked, dispatch.run(&mut closed));
        match dispatched {
            // the run takes no more tasks: what is there has to do
            Err(failure) if failure.code == TASKS_REFUSED => return self.answer(Finish::MaxSteps).await,
            dispatched => dispatched?,
        }
        let mut response = match answered {
            Ok(response) => response,
            Err(_) if self.time.short() => return self.answer(Finish::Deadline).await,
            Err(error) => return Err(llm::failure(&error)),
        };
        let mut tasks = Vec::new();
        if response.tool_calls.is_empty()
            && self.config().output_schema.is_none()
            && let Some(call) = written_call(&response.text, &self.offers)
        {
            tasks = dispatch.admit(call)?;
            response.text.clear();
        }
        let (calls, deferred) = dispatch.finish();
        tasks.extend(deferred);
        if calls.is_empty() && !response.text.trim().is_empty() {
            return self.answered(response);
        }
        self.record(response, calls, tasks)
    }

    /// The model has answered: that is the agent's answer, or the sign for another model to give it.
    fn answered(self, response: ChatResponse) -> Result<Ended, Failure> {
        let config = self.config();
        if config.models.answer == config.models.step {
            let finish =
                if response.finish_reason == FinishReason::Length { Finish::Length } else { Finish::Answer };
            return Ok(answer(response.text, response.json, finish, self.turn + 1));
        }
        let model = config.models.answer.clone();
        let (agent, turn) = (self.agent.clone(), self.turn + 1);
        let work = Work::Step { agent, turn, last: Some(Finish::Answer), config: None };
        let next = tasks::model(self.job, fits(ids::answer(self.agent))?, &model, work, Vec::new());
        let text = String::new();
        self.record(ChatResponse { text, ..response }, Vec::new(), vec![next.vital().added()])
    }

    /// Records the turn, with the tasks of its late calls, their join, and the next turn.
    fn record(
        mut self,
        response: ChatResponse,
        calls: Vec<Called>,
        mut tasks: Vec<Added>,
    ) -> Result<Ended, Failure> {
        let (job, turn) = (self.job, self.turn);
        let answers = calls.is_empty() && !tasks.is_empty();
        if !answers {
            let inputs = self.join(&calls, &mut tasks)?;
            let model = self.config().models.step.clone();
            let work = Work::Step { agent: self.agent.clone(), turn: turn + 1, last: None, config: None };
            let next = tasks::model(job, fits(ids::step(self.agent, turn + 1))?, &model, work, inputs);
            tasks.push(next.vital().added());
        }
        let prompt_tokens = if response.usage_reported {
            response.usage.input
        } else {
            // four bytes are about one token
            self.messages().iter().map(|message| format!("{message:?}").len() as u64 / 4).sum()
        };
        self.condense(prompt_tokens, &mut tasks)?;
        let record = StepRecord {
            observed: std::mem::take(&mut self.observed),
            nudge: self.nudge.take(),
            condensing: self.past.condensing.take(),
            // providers refuse a message of white space
            text: if response.text.trim().is_empty() { String::new() } else { response.text },
            calls,
            prompt_tokens,
            took_ms: took(job),
            seen: self.past.seen,
            first: (turn == 0).then_some(self.past.first),
        };
        Ok(Ended::Done { outcome: Outcome::Result(Payload::of(&record)), tasks })
    }

    /// Adds the join of the turn's calls; gives back what the next turn waits for.
    fn join(&self, calls: &[Called], tasks: &mut Vec<Added>) -> Result<Vec<TaskId>, Failure> {
        let mut inputs: Vec<TaskId> = Vec::with_capacity(calls.len().min(MAX_CALLS));
        for task in calls.iter().filter_map(|call| call.task.as_ref()) {
            if !inputs.contains(task) {
                inputs.push(task.clone());
            }
        }
        if inputs.is_empty() {
            return Ok(Vec::new());
        }
        let job = self.job;
        let join = fits(ids::join(&job.assignment.task))?;
        let turn = self.config().turn;
        let within = self.time.within(turn.within);
        tasks.push(tasks::join(job, join.clone(), inputs, (Need::All, turn.on_miss, within)).added());
        Ok(vec![join])
    }

    /// Lets older turns be condensed, off the critical path, when the prompt has become long.
    fn condense(&mut self, prompt_tokens: u64, tasks: &mut Vec<Added>) -> Result<(), Failure> {
        let seen = &self.past.seen;
        let upto = self.turn.saturating_sub(KEEP);
        let worth =
            upto >= seen.from + WORTH && prompt_tokens > u64::from(self.config().context.condense_over);
        if !worth || self.past.condensing.is_some() {
            return Ok(());
        }
        let task = fits(ids::condense(self.agent, self.turn))?;
        let work = Work::Condense { agent: self.agent.clone(), seen: seen.clone(), upto };
        tasks.push(tasks::model(self.job, task.clone(), CONDENSE, work, Vec::new()).paid().added());
        self.past.condensing = Some(Condensing { task, upto, seen: seen.clone() });
        Ok(())
    }

    /// One last call without tools, which answers from what is there.
    async fn answer(self, finish: Finish) -> Result<Ended, Failure> {
        let (job, config) = (self.job, self.config());
        let mut messages = self.messages();
        messages.push(Message::user(prompt::last(finish)));
        let request = ChatRequest {
            // the tools stay: they are the start of the prompt that the provider has cached
            tools: self.offers.iter().map(Offer::tool).collect(),
            tool_choice: ToolChoice::None,
            max_tokens: config.max_tokens.answer,
            output_schema: config.output_schema.clone(),
            messages,
            ..self.request(&config.models.answer, 1)
        };
        let request = cached(job, request);
        let stream = config.stream;
        let mut said = String::new();
        let on_event = |event: ChatEvent<'_>| {
            if let ChatEvent::TextDelta(text) = event {
                said.push_str(text);
                if stream {
                    job.shared.deltas.push(job.assignment, text);
                }
            }
        };
        let until = self.time.last().or(job.deadline);
        let failure = match llm::ask(&self.executors.providers, job, &request, until, on_event).await {
            Ok(response) if !response.text.trim().is_empty() => {
                let cut = response.finish_reason == FinishReason::Length && finish == Finish::Answer;
                let finish = if cut { Finish::Length } else { finish };
                return Ok(answer(response.text, response.json, finish, self.turn + 1));
            }
            Ok(_) => Failure::empty(),
            Err(error) => llm::failure(&error),
        };
        let tried = job.assignment.attempt >= job.assignment.max_attempts;
        if finish == Finish::Answer || (failure.again() && !tried && finish != Finish::Deadline) {
            return Err(failure);
        }
        // an answer that was cut says more than none
        let text = if said.trim().is_empty() { self.resort(&failure) } else { said };
        Ok(answer(text, None, finish, self.turn + 1))
    }

    /// An answer without a model: what was said or found last.
    fn resort(&self, failure: &Failure) -> String {
        let said = self.past.records.iter().rev().map(|record| record.text.trim());
        if let Some(said) = said.into_iter().find(|text| !text.is_empty()) {
            return said.to_owned();
        }
        let past = self.past.records.iter().rev().flat_map(|record| record.observed.iter().rev());
        let mut found = String::new();
        for one in self.observed.iter().rev().chain(past).filter(|one| !one.error) {
            if found.len() + one.content.len() > RESORT_BYTES {
                break;
            }
            found.push_str(&one.content);
            found.push('\n');
        }
        if found.is_empty() { format!("No answer could be made: {}", failure.message) } else { found }
    }

    fn messages(&self) -> Vec<Message> {
        let past = &self.past;
        let (goal, nudge) = (&past.first.agent.goal, self.nudge.as_deref());
        history::messages(goal, past.summary.as_deref(), &past.seen, &past.records, &self.observed, nudge)
    }

    fn request(&self, model: &str, call: u32) -> ChatRequest {
        let config = self.config();
        ChatRequest {
            system: Some(prompt::react(config)),
            temperature: config.temperature.map(|temperature| temperature as f32),
            ..llm::request_of(self.job, model.to_owned(), call)
        }
    }
}

/// The end of an agent.
pub(super) fn answer(text: String, json: Option<Value>, finish: Finish, steps: u32) -> Ended {
    let mut value = json!({"text": text, "finish_reason": finish, "steps": steps});
    if let Some(json) = json {
        value["json"] = json;
    }
    let outcome = Outcome::Answer { value: Payload::of(&value), degraded: finish != Finish::Answer };
    Ended::Done { outcome, tasks: Vec::new() }
}

/// Some models write a call as text where a call was due: a JSON object with the name of a tool and its arguments, and
/// nothing else. An answer may look the same, so nothing that changes the world is called on such evidence.
fn written_call(text: &str, offers: &[Offer]) -> Option<ToolCall> {
    let text = text.trim().trim_start_matches("```json").trim_matches('`').trim();
    let value: Value = text.starts_with('{').then(|| serde_json::from_str(text).ok())??;
    let name = ["name", "tool"].iter().find_map(|key| value.get(key)?.as_str())?;
    let arguments = ["arguments", "args", "parameters"].iter().find_map(|key| value.get(key))?;
    let bare = value.as_object().is_some_and(|fields| fields.len() == 2);
    let harmless = |offer: &Offer| offer.name == name && offer.effect != Effect::Write;
    (bare && arguments.is_object() && offers.iter().any(harmless)).then(|| ToolCall {
        index: 0,
        id: "call_0".to_owned(),
        name: name.to_owned(),
        arguments: arguments.clone(),
    })
}
