//! A planner call: its nodes become tasks while it still writes, each to run the moment its inputs exist.

mod planner;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};
use trireme_agent::{
    plan::{Item, Known, PlanParser},
    prompt,
    record::{First, JoinRecord, PlanNode, PlanRecord},
    work::ids,
};
use trireme_llm::{ChatEvent, ChatRequest, Message};
use trireme_model::TaskId;
use trireme_spec::agent::{AgentCall, READ_RESULT};

use super::{
    cached, fits,
    observe::{Given, given, text},
    offer::{Offer, offers},
    past::values,
    record,
    time::Time,
};
use crate::{
    executors::{Executors, Job, llm},
    outcome::{Ended, Failure},
};
use planner::Planner;

/// Nodes of one plan: with what comes after, they fit into one step of the store.
const MAX_NODES: usize = 100;
/// How long the end of a stream is waited for when its plan has ended.
const AFTER_PLAN: Duration = Duration::from_millis(250);

/// The plans of an agent so far, and what came of them.
pub(super) struct Plans {
    pub(super) first: First,
    pub(super) rounds: Vec<PlanRecord>,
    /// Why each plan after the first was asked for.
    pub(super) reasons: Vec<String>,
    longest: u64,
}

/// Reads the plans before `round`.
pub(super) async fn read(job: &Job<'_>, agent: &TaskId, rounds: u32) -> Result<Plans, Failure> {
    let plans = (0..rounds).map(|round| fits(ids::plan(agent, round)));
    let joins = (0..rounds.saturating_sub(1)).map(|round| fits(ids::joiner(agent, round)));
    let wanted = plans.chain(joins).collect::<Result<Vec<_>, _>>()?;
    let mut read = wanted.iter().zip(values(job, &wanted).await?);
    let mut rounds = read
        .by_ref()
        .take(rounds as usize)
        .map(|(id, value)| record::<PlanRecord>(id, value))
        .collect::<Result<Vec<_>, _>>()?;
    let joins = read.map(|(id, value)| record::<JoinRecord>(id, value)).collect::<Result<Vec<_>, _>>()?;
    let longest = rounds.iter().map(|plan| plan.took_ms).chain(joins.iter().map(|join| join.took_ms)).max();
    let reasons = joins.into_iter().map(|join| join.replan).collect();
    let first = rounds.first_mut().and_then(|plan| plan.first.take());
    let first =
        first.ok_or_else(|| Failure::permanent("invalid_record", "the first plan has no settings"))?;
    Ok(Plans { first, rounds, reasons, longest: longest.unwrap_or(0) })
}

impl Plans {
    pub(super) fn time(&self, job: &Job<'_>) -> Time {
        Time::new(job, self.first.time, self.longest)
    }

    /// Every node with what it gave, as the last plan's join froze it; and those that gave nothing.
    pub(super) async fn results(
        &self,
        job: &Job<'_>,
        agent: &TaskId,
    ) -> Result<(String, HashSet<TaskId>), Failure> {
        let mut failed = HashSet::new();
        let Some(last) = self.rounds.len().checked_sub(1) else { return Ok((String::new(), failed)) };
        let join = fits(ids::join(&fits(ids::plan(agent, last as u32))?))?;
        let nodes: Vec<&PlanNode> = self.rounds.iter().flat_map(|plan| &plan.nodes).collect();
        let tasks: BTreeSet<TaskId> = nodes.iter().map(|node| node.task.clone()).collect();
        let tasks: Vec<TaskId> = tasks.into_iter().collect();
        let given = if tasks.is_empty() { HashMap::new() } else { given(job, &join, &tasks).await? };
        let elide_over = self.first.agent.context.elide_over as usize;
        let mut lines = String::new();
        for node in nodes {
            let given = given.get(&node.task).unwrap_or(&Given::Missing);
            if matches!(given, Given::Unneeded) {
                continue;
            }
            let (result, error) = text(given, self.first.agent.agents.contains_key(&node.tool));
            if error {
                failed.insert(node.task.clone());
            }
            let result = trireme_agent::elide::elide(&result, elide_over, node.task.as_str()).text;
            lines.push_str(&format!("{} {} {} -> {result}\n", node.number, node.tool, node.args));
        }
        for problem in self.rounds.iter().flat_map(|plan| &plan.problems) {
            lines.push_str(&format!("(not done: {problem})\n"));
        }
        Ok((lines, failed))
    }
}

/// Writes plan number `round`.
pub(super) async fn write(
    executors: &Executors,
    job: &Job<'_>,
    agent: &TaskId,
    round: u32,
    config: Option<Box<AgentCall>>,
) -> Result<Ended, Failure> {
    let plans = match config {
        Some(config) if round == 0 => Plans {
            first: First { agent: *config, time: Time::total(job) },
            rounds: Vec::new(),
            reasons: Vec::new(),
            longest: 0,
        },
        _ => {
            let mut plans = read(job, agent, round).await?;
            let joiner = fits(ids::joiner(agent, round - 1))?;
            let value = values(job, std::slice::from_ref(&joiner)).await?.pop().flatten();
            plans.reasons.push(record::<JoinRecord>(&joiner, value)?.replan);
            plans
        }
    };
    let config = &plans.first.agent;
    let mut offers = offers(&executors.tools, config).await?;
    offers.retain(|offer| offer.name != READ_RESULT);
    let prompts: Vec<prompt::Offer<'_>> = offers.iter().map(Offer::prompt).collect();
    let mut goal = config.goal.clone();
    let mut failed = HashSet::new();
    if let Some(reason) = plans.reasons.last() {
        let (results, none) = plans.results(job, agent).await?;
        failed = none;
        goal = prompt::replan(&goal, &results, reason);
    }
    let request = ChatRequest {
        system: Some(prompt::planner(config, &prompts)),
        messages: vec![Message::user(goal)],
        max_tokens: config.max_tokens.planner,
        temperature: config.temperature.map(|temperature| temperature as f32),
        ..llm::request_of(job, config.models.planner.clone(), 0)
    };
    let request = cached(job, request);
    let mut planner = Planner::new(executors, job, agent, config, &offers, fits(ids::plan(agent, round))?);
    planner.remember(&plans, &failed);
    let known = Known {
        tools: offers.iter().map(|offer| offer.name.clone()).collect(),
        nodes: planner.tasks.keys().copied().collect(),
        max_nodes: MAX_NODES,
    };
    let mut parser = Some(PlanParser::new(known));
    // bounded by the parser: nodes up to MAX_NODES, and a problem per line of an answer of at most 16 MiB
    let (items, mut read) = mpsc::unbounded_channel::<Item>();
    let time = plans.time(job);
    let written = Notify::new();
    let asked = async {
        let on_event = |event: ChatEvent<'_>| {
            if let (ChatEvent::TextDelta(text), Some(parser)) = (event, parser.as_mut()) {
                for item in parser.push(text) {
                    // nobody listens any more only when the attempt is over
                    let _ = items.send(item);
                }
                if parser.done() {
                    written.notify_one();
                }
            }
        };
        // what comes after the plan's end is not waited for, but for its count of tokens
        let answered = tokio::select! {
            answered = llm::ask(&executors.providers, job, &request, time.soft(), on_event) => answered.map(drop),
            () = async { written.notified().await; sleep(AFTER_PLAN).await } => Ok(()),
        };
        // what was written before a cut counts only if there is no time for another try
        let whole = answered.is_ok() || time.short();
        for item in parser.take().filter(|_| whole).into_iter().flat_map(PlanParser::finish) {
            let _ = items.send(item);
        }
        drop(items);
        answered
    };
    let (answered, dispatched) = tokio::join!(asked, planner.run(&mut read));
    dispatched?;
    if let Err(error) = answered
        && !time.short()
    {
        return Err(llm::failure(&error));
    }
    let within = time.within(config.turn.within);
    let first = (round == 0).then(|| plans.first.clone());
    planner.finish(round, within, first)
}
