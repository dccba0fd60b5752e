//! A plan at work: its nodes become tasks while it is written.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tokio::sync::mpsc::UnboundedReceiver;
use trireme_agent::{
    Arguments, Work, call_key, canonical,
    plan::{Item, Join, Node, THINK},
    record::{First, PlanNode, PlanRecord},
    work::ids,
};
use trireme_model::{Added, Ms, Need, Outcome, Payload, TaskId};
use trireme_spec::agent::AgentCall;
use trireme_tool::Effect;

use super::{
    super::{
        dispatch::{MAX_DEFERRED, extend, fit},
        fits,
        offer::{Offer, Target},
        resources, tasks,
        time::took,
    },
    Plans,
};
use crate::{
    executors::{Executors, Job},
    outcome::{Ended, Failure},
};

/// Nodes added in one step.
const BATCH: usize = 64;

/// A plan at work.
pub(super) struct Planner<'a> {
    job: &'a Job<'a>,
    executors: &'a Executors,
    agent: &'a TaskId,
    config: &'a AgentCall,
    offers: &'a [Offer],
    plan: TaskId,
    /// The tasks of all nodes, those of earlier plans included.
    pub(super) tasks: BTreeMap<u32, TaskId>,
    /// What has been done before, by tool and canonical arguments.
    done: HashMap<String, TaskId>,
    /// Tasks of earlier plans.
    earlier: HashSet<TaskId>,
    /// Tasks that change the world: the joiner waits for them even if the plan does not say so.
    writes: Vec<TaskId>,
    record: PlanRecord,
    deferred: Vec<Added>,
    /// Bytes of these.
    deferred_bytes: usize,
    touched: resources::Deferred,
    waiting: BTreeSet<TaskId>,
    join: Option<Join>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        executors: &'a Executors,
        job: &'a Job<'a>,
        agent: &'a TaskId,
        config: &'a AgentCall,
        offers: &'a [Offer],
        plan: TaskId,
    ) -> Self {
        Self {
            job,
            executors,
            agent,
            config,
            offers,
            plan,
            tasks: BTreeMap::new(),
            done: HashMap::new(),
            earlier: HashSet::new(),
            writes: Vec::new(),
            record: PlanRecord::default(),
            deferred: Vec::new(),
            deferred_bytes: 0,
            touched: resources::Deferred::default(),
            waiting: BTreeSet::new(),
            join: None,
        }
    }

    /// What earlier plans did is never done again; what failed may be.
    pub(super) fn remember(&mut self, plans: &Plans, failed: &HashSet<TaskId>) {
        for node in plans.rounds.iter().flat_map(|plan| &plan.nodes) {
            self.tasks.insert(node.number, node.task.clone());
            let named = |offer: &&Offer| offer.name == node.tool;
            let writes = self.offers.iter().find(named).is_some_and(|offer| offer.effect == Effect::Write);
            // a change that failed may have been made all the same
            if failed.contains(&node.task) && !writes {
                continue;
            }
            self.earlier.insert(node.task.clone());
            self.done.insert(format!("{} {}", node.tool, canonical(&node.args)), node.task.clone());
        }
    }

    pub(super) async fn run(&mut self, items: &mut UnboundedReceiver<Item>) -> Result<(), Failure> {
        let mut batch = Vec::new();
        while items.recv_many(&mut batch, BATCH).await > 0 {
            let mut tasks = Vec::new();
            for item in batch.drain(..) {
                match item {
                    Item::Node(node) => tasks.extend(self.admit(node)?),
                    Item::Join(join) => self.join = Some(join),
                    Item::Problem(problem) => self.record.problems.push(problem.to_string()),
                }
            }
            if !tasks.is_empty() {
                // dying here loses nothing: a repeated plan finds what was added by its id
                extend(self.job, tasks).await?;
            }
        }
        Ok(())
    }

    /// The task of `node`, if it is new and may begin before the plan has ended.
    fn admit(&mut self, node: Node) -> Result<Option<Added>, Failure> {
        let same = format!("{} {}", node.tool, canonical(&node.args));
        let needs = node.needs();
        let inputs: BTreeMap<u32, TaskId> =
            needs.iter().filter_map(|number| Some((*number, self.tasks.get(number)?.clone()))).collect();
        let offer = self.offers.iter().find(|offer| offer.name == node.tool);
        if let (Some(Offer { target: Target::Tool(tool), parameters, .. }), true) = (offer, needs.is_empty())
            && let Err(error) = fit(&self.executors.tools, tool, parameters, &mut node.args.clone())
        {
            self.record.problems.push(format!("node {}: {error}", node.number));
            self.job.shared.metrics.calls_refused.with_label_values(&[error.code()]).inc();
            return Ok(None);
        }
        let writes = offer.is_some_and(|offer| offer.effect == Effect::Write);
        if self.deferred_bytes + offer.map_or(0, |offer| offer.weight) > MAX_DEFERRED {
            let text = "the settings of so many agents are too large for one plan";
            self.record.problems.push(format!("node {}: {text}", node.number));
            return Ok(None);
        }
        let (number, tool, args) = (node.number, node.tool, node.args);
        // the same change twice in a plan is two changes; one of an earlier plan is made
        let known = self.done.get(&same).cloned().filter(|id| !writes || self.earlier.contains(id));
        let again = known.is_some();
        let id = match known {
            Some(id) => id,
            None => {
                // the same number may mean something else when a plan is written again
                let from: Vec<String> = inputs.values().map(ToString::to_string).collect();
                let mut key = call_key(&tool, &serde_json::json!([args, from]));
                key.truncate(8);
                fits(ids::node(&self.plan, number, &key))?
            }
        };
        self.tasks.insert(number, id.clone());
        self.done.insert(same, id.clone());
        self.record.nodes.push(PlanNode { number, tool: tool.clone(), args: args.clone(), task: id.clone() });
        if again {
            return Ok(None);
        }
        if writes {
            self.writes.push(id.clone());
        }
        let mut waits = writes;
        let mut behind: Vec<TaskId> = Vec::new();
        for input in inputs.values() {
            waits |= self.waiting.contains(input);
            if !behind.contains(input) {
                behind.push(input.clone());
            }
        }
        let mut touches = None;
        if let Some(Offer { target: Target::Tool(name), .. }) = offer {
            let given = (&args, needs.is_empty());
            (touches, waits) = self.touched.touch(&self.executors.tools, name, given, waits);
        }
        let arguments = Arguments { args, nodes: Some(inputs) };
        let task = self.task(id.clone(), &tool, offer, arguments, behind);
        let task = Added { resource: touches, ..task };
        if waits {
            self.waiting.insert(id);
            self.deferred_bytes += task.spec.body.len();
            self.deferred.push(task);
            return Ok(None);
        }
        Ok(Some(task))
    }

    fn task(
        &self,
        id: TaskId,
        tool: &str,
        offer: Option<&Offer>,
        arguments: Arguments,
        inputs: Vec<TaskId>,
    ) -> Added {
        match offer.map(|offer| &offer.target) {
            Some(Target::Agent(agent)) => {
                let work = Work::Agent { agent: agent.clone(), arguments };
                tasks::agent(self.job, id, tool, work, inputs)
            }
            Some(Target::Tool(name)) => {
                let work = Work::Call { agent: self.agent.clone(), tool: name.clone(), arguments };
                tasks::tool(self.job, id, tool, work, inputs)
            }
            // the parser lets nothing else through
            Some(Target::ReadResult) | None => {
                debug_assert_eq!(tool, THINK);
                let work = Work::Think {
                    model: self.config.models.step.clone(),
                    max_tokens: self.config.max_tokens.step,
                    temperature: self.config.temperature,
                    arguments,
                };
                tasks::model(self.job, id, &self.config.models.step, work, inputs).paid()
            }
        }
        .added()
    }

    /// Records the plan, with its late nodes, their join, and the joiner.
    pub(super) fn finish(
        mut self,
        round: u32,
        within: Option<Ms>,
        first: Option<First>,
    ) -> Result<Ended, Failure> {
        let join = self.join.take();
        let mut inputs: Vec<TaskId> = Vec::new();
        for number in join.iter().flat_map(|join| &join.nodes) {
            if let Some(task) = self.tasks.get(number).filter(|task| !inputs.contains(task)) {
                inputs.push(task.clone());
            }
        }
        let need = match join.map(|join| join.need) {
            Some(Need::Count(count)) => Need::Count(count.min(inputs.len() as u32).max(1)),
            _ => Need::All,
        };
        let mut tasks = std::mem::take(&mut self.deferred);
        let behind = if inputs.is_empty() {
            Vec::new()
        } else {
            let id = fits(ids::join(&self.plan))?;
            let on_miss = self.config.turn.on_miss;
            let writes: Vec<TaskId> =
                self.writes.iter().filter(|write| !inputs.contains(*write)).cloned().collect();
            tasks.push(tasks::join(self.job, id.clone(), inputs, (need, on_miss, within)).added());
            if writes.is_empty() {
                vec![id]
            } else {
                let all = fits(ids::after(&self.plan, "writes"))?;
                let inputs = std::iter::once(id).chain(writes).collect();
                tasks.push(tasks::join(self.job, all.clone(), inputs, (Need::All, on_miss, within)).added());
                vec![all]
            }
        };
        let work = Work::Join { agent: self.agent.clone(), round, last: None };
        let id = fits(ids::joiner(self.agent, round))?;
        tasks.push(tasks::model(self.job, id, &self.config.models.joiner, work, behind).vital().added());
        let record = PlanRecord { first, took_ms: took(self.job), ..self.record };
        Ok(Ended::Done { outcome: Outcome::Result(Payload::of(&record)), tasks })
    }
}
