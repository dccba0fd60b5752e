//! Random operations on random graphs. [`World`] checks the invariants after every step.

use proptest::prelude::*;

use crate::{
    Added, Budget, Claimed, Complete, Completed, Extended, FailureClass, Kind, Ms, Need, OnMiss, Outcome,
    RunStatus, Submit, TaskId, TaskSpec, TaskStatus, Token,
};

use super::world::*;

/// One random task: what it is, which earlier tasks it reads (a bit each), and its settings.
#[derive(Debug, Clone)]
struct Node {
    shape: u8,
    reads: u8,
    need: u32,
    on_miss: OnMiss,
    within: Option<Ms>,
    timeout: Option<Ms>,
    fallback: bool,
    paid: bool,
}

#[derive(Debug, Clone)]
enum Act {
    Claim(u8),
    Complete { whose: u8, next: bool, answers: bool, adds: Vec<Lot> },
    Add { whose: u8, lots: Vec<Lot> },
    Fail { whose: u8, class: u8 },
    Extend { whose: u8, start: u8, count: u8 },
    Expanded { whose: u8, adds: Vec<Lot> },
    Renew(u8),
    Touch { whose: u8, resource: u8 },
    Pass(Ms),
    Cancel,
}

/// One task to be added: its name, what it is, and which of the names it reads (a bit each).
#[derive(Debug, Clone)]
struct Lot {
    name: u8,
    shape: u8,
    reads: u8,
    vital: bool,
    within: Option<Ms>,
    resource: u8,
}

/// Names that an agent's tasks have.
const NAMES: u8 = 6;

fn lots() -> impl Strategy<Value = Vec<Lot>> {
    let within = prop_oneof![3 => Just(None), 1 => (1_u64..30_000).prop_map(Some)];
    let lot = (0..NAMES, 0_u8..12, any::<u8>(), any::<u8>(), prop::bool::weighted(0.2), within, 0_u8..4);
    let lot = lot.prop_map(|(name, shape, reads, also, vital, within, resource)| Lot {
        name,
        shape,
        reads: reads & also,
        vital,
        within,
        resource,
    });
    prop::collection::vec(lot, 0..4)
}

fn node() -> impl Strategy<Value = Node> {
    let on_miss = prop_oneof![Just(OnMiss::Fail), Just(OnMiss::Partial), Just(OnMiss::Default)];
    let limit = || prop_oneof![3 => Just(None), 1 => (1_u64..30_000).prop_map(Some)];
    (0_u8..8, any::<u8>(), 1_u32..4, on_miss, limit(), limit(), prop::bool::weighted(0.3), any::<bool>())
        .prop_map(|(shape, reads, need, on_miss, within, timeout, fallback, paid)| Node {
            shape,
            reads,
            need,
            on_miss,
            within,
            timeout,
            fallback,
            paid,
        })
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => any::<u8>().prop_map(Act::Claim),
        6 => (any::<u8>(), any::<bool>(), prop::bool::weighted(0.2), lots(), any::<bool>()).prop_map(
            |(whose, next, answers, adds, few)| {
                Act::Complete { whose, next, answers, adds: if few { Vec::new() } else { adds } }
            }
        ),
        3 => (any::<u8>(), lots()).prop_map(|(whose, lots)| Act::Add { whose, lots }),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(whose, class)| Act::Fail { whose, class }),
        3 => (any::<u8>(), 0_u8..4, 0_u8..4).prop_map(|(whose, start, count)| Act::Extend { whose, start, count }),
        3 => (any::<u8>(), lots()).prop_map(|(whose, adds)| Act::Expanded { whose, adds }),
        1 => any::<u8>().prop_map(Act::Renew),
        2 => (any::<u8>(), 0_u8..3).prop_map(|(whose, resource)| Act::Touch { whose, resource }),
        3 => prop_oneof![1_u64..100, 1_u64..12_000, Just(10_000)].prop_map(Act::Pass),
        1 => prop::bool::weighted(0.05).prop_map(|cancel| if cancel { Act::Cancel } else { Act::Pass(1) }),
    ]
}

/// Lays the nodes out as a graph; the last one reads everything that nobody reads.
fn graph(nodes: &[Node]) -> Vec<TaskSpec> {
    let mut specs: Vec<TaskSpec> = Vec::new();
    let mut read = vec![false; nodes.len()];
    for (at, node) in nodes.iter().enumerate() {
        let last = at + 1 == nodes.len();
        let reads: Vec<usize> = (0..at)
            .filter(|input| if last { !read[*input] } else { node.reads >> (input % 8) & 1 == 1 })
            .collect();
        reads.iter().for_each(|input| read[*input] = true);
        let names: Vec<String> = reads.iter().map(|input| format!("t{input}")).collect();
        let inputs: Vec<&str> = names.iter().map(String::as_str).collect();
        let name = format!("t{at}");
        let need = if node.need == 3 { Need::All } else { Need::Count(node.need) };
        let mut spec = match node.shape {
            0 | 1 if !inputs.is_empty() => {
                let need = match need {
                    Need::Count(count) => Need::Count(count.min(inputs.len() as u32)),
                    Need::All => need,
                };
                join(&name, &inputs, policy(need, node.on_miss, node.within))
            }
            2 => {
                let mut spec = map(&name, &inputs, node.need, policy(need, node.on_miss, node.within));
                let children = spec.children.as_mut().unwrap();
                children.exec.timeout = node.timeout;
                children.exec.fallback = node.fallback.then(|| text("child"));
                spec
            }
            3 | 4 => TaskSpec { exec: exec(Kind::Agent), ..tool(&name, &inputs) },
            _ => tool(&name, &inputs),
        };
        spec.exec.timeout = node.timeout;
        spec.exec.fallback = node.fallback.then(|| text("instead"));
        spec.exec.paid = node.paid;
        specs.push(spec);
    }
    specs
}

/// Does `operation` twice: the same answer, and the second changes nothing.
fn twice<T: PartialEq + std::fmt::Debug>(world: &mut World, mut operation: impl FnMut(&mut World) -> T) -> T {
    let first = operation(world);
    let before = world.run.clone();
    let again = operation(world);
    assert_eq!(again, first, "a repeat was answered otherwise");
    assert_eq!(world.run, before, "a repeat changed the run");
    first
}

struct Fleet {
    world: World,
    /// Every attempt ever granted: late ones write too.
    attempts: Vec<(TaskId, Token, Kind)>,
    claims: u32,
}

impl Fleet {
    fn attempt(&self, whose: u8) -> Option<(TaskId, Token, Kind)> {
        // the latest ones are the likeliest to be alive
        let count = self.attempts.len();
        let back = (usize::from(whose) * usize::from(whose) / 256) * count / 256;
        (count > 0).then(|| self.attempts[count - 1 - back].clone())
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Claim(which) => self.claim(*which),
            Act::Complete { whose, next, answers, adds } => {
                let Some((task, token, _)) = self.attempt(*whose) else { return };
                let next = next.then(|| self.world.next()).flatten();
                let value = text(token.as_str());
                let outcome = if *answers {
                    Outcome::Answer { value, degraded: false }
                } else {
                    Outcome::Result(value)
                };
                let owned = self.world.run.tasks.get(&task).is_some_and(|task| task.owner.is_some());
                let tasks = if owned { self.added(&task, adds) } else { Vec::new() };
                let complete = Complete { next, tasks, ..self.world.completion(&task, &token, outcome) };
                let held = self.world.run.tasks.get(&task).is_some_and(|t| t.token.as_ref() == Some(&token));
                let answer = twice(&mut self.world, |world| world.complete(&complete));
                if let Completed::Recorded { next } = answer {
                    assert!(held, "{token} recorded a result of {task} without holding it");
                    if let Some(next) = next {
                        self.attempts.push((next.task, next.token, next.kind));
                    }
                }
            }
            Act::Fail { whose, class } => {
                use FailureClass::*;
                let Some((task, token, _)) = self.attempt(*whose) else { return };
                let class = [Retryable, Retryable, RateLimited, Permanent, Released][usize::from(*class) % 5];
                let fail = self.world.failure(&task, &token, class);
                twice(&mut self.world, |world| world.fail(&fail));
            }
            Act::Extend { whose, start, count } => {
                let Some((task, token, _)) = self.attempt(*whose) else { return };
                let args = (0..*count).map(|at| crate::Payload::of(&(start + at))).collect();
                let run = self.world.run.id.clone();
                let more = crate::More::Children { start: u32::from(*start), args };
                let extend = crate::Extend { run, task, token, more };
                twice(&mut self.world, |world| {
                    world.step(|run, now, effects| run.extend(&extend, now, effects))
                });
            }
            Act::Add { whose, lots } => {
                let Some((task, token, _)) = self.attempt(*whose) else { return };
                let tasks = self.added(&task, lots);
                let first = self.world.add(&task, &token, tasks.clone());
                let before = self.world.run.clone();
                let again = self.world.add(&task, &token, tasks);
                match first {
                    // what it adds may end the agent, and with it the attempt
                    Extended::Added(_) => assert!(!matches!(again, Extended::Added(1..)), "{again:?}"),
                    other => assert_eq!(again, other, "a repeat was answered otherwise"),
                }
                assert_eq!(self.world.run, before, "a repeat, or a refusal, changed the run");
            }
            Act::Expanded { whose, adds } => {
                let Some((task, token, kind @ (Kind::Map | Kind::Agent))) = self.attempt(*whose) else {
                    return;
                };
                let tasks = if kind == Kind::Agent { self.added(&task, adds) } else { Vec::new() };
                let outcome = self.world.completion(&task, &token, Outcome::Expanded);
                let complete = Complete { tasks, ..outcome };
                twice(&mut self.world, |world| world.complete(&complete));
            }
            Act::Renew(whose) => {
                let Some((task, token, _)) = self.attempt(*whose) else { return };
                twice(&mut self.world, |world| world.renew(&task, &token));
            }
            Act::Touch { whose, resource } => {
                let Some((task, token, _)) = self.attempt(*whose) else { return };
                let resource = ["", "r0", "r1"][usize::from(*resource)];
                match self.world.touch(&task, &token, resource) {
                    // the attempt has ended
                    Extended::Queued => {
                        assert_eq!(self.world.touch(&task, &token, resource), Extended::Stale);
                    }
                    answer => assert_eq!(self.world.touch(&task, &token, resource), answer),
                }
            }
            Act::Pass(by) => self.world.pass(*by),
            Act::Cancel => {
                self.world.cancel();
            }
        }
    }

    /// What `lots` stand for where `by` adds them; not all of them fit.
    fn added(&self, by: &TaskId, lots: &[Lot]) -> Vec<Added> {
        let owner = self.world.run.tasks.get(by).and_then(|task| task.owner.clone());
        let agent = self.world.run.exec(by).is_some_and(|exec| exec.kind == Kind::Agent);
        let owner = owner.filter(|_| !agent).unwrap_or_else(|| by.clone());
        let make = |lot: &Lot| {
            let reads = (0..NAMES).filter(|name| *name != lot.name && lot.reads >> name & 1 == 1);
            let names: Vec<String> = reads.map(|name| format!("{owner}/{name}")).collect();
            // mostly of what is there
            let known = |name: &&str| lot.shape == 0 || self.world.run.tasks.contains_key(*name);
            let inputs: Vec<&str> = names.iter().map(String::as_str).filter(known).collect();
            let name = format!("{owner}/{}", lot.name);
            let spec = match lot.shape {
                0 if inputs.is_empty() => map(&name, &[], 1, policy(Need::All, OnMiss::Fail, None)),
                0..5 if !inputs.is_empty() => {
                    let on_miss = if lot.shape < 3 { OnMiss::Fail } else { OnMiss::Partial };
                    let need = if lot.reads & 64 == 0 { Need::All } else { Need::Count(1) };
                    join(&name, &inputs, policy(need, on_miss, lot.within))
                }
                5 | 6 => TaskSpec { exec: exec(Kind::Agent), ..tool(&name, &inputs) },
                _ => tool(&name, &inputs),
            };
            // what is no tool call has none, and now and then is refused for it
            let tool = spec.exec.kind == Kind::Tool || lot.reads == 0;
            let resource = (tool && lot.resource < 2).then(|| format!("r{}", lot.resource));
            Added { spec, vital: lot.vital, resource }
        };
        lots.iter().map(make).collect()
    }

    fn claim(&mut self, which: u8) {
        let ready: Vec<TaskId> = self.world.ready().into_iter().collect();
        let mut known: Vec<TaskId> = self.world.run.tasks.keys().cloned().collect();
        known.sort();
        // mostly what is ready, now and then anything
        let from = if ready.is_empty() || which >= 230 { &known } else { &ready };
        let task = from[usize::from(which) % from.len()].clone();
        self.claims += 1;
        let claim = format!("f{}", self.claims);
        let answer = self.world.claim_as(&task, &claim);
        if let Claimed::Run(assignment) = answer {
            let again = self.world.claim_as(&task, &claim);
            assert_eq!(again, Claimed::Run(assignment.clone()), "a repeat was answered otherwise");
            self.attempts.push((assignment.task, assignment.token, assignment.kind));
        }
    }
}

/// Nothing with a result runs again, everything else comes to an end.
fn replays(failed: &World) {
    let mut again = failed.replayed();
    let good = |id: &TaskId| failed.run.tasks.get(id).and_then(|task| task.result.clone());
    again.finish_fairly(|| 7);
    for (id, task) in &again.run.tasks {
        if let Some(result) = good(id).filter(|_| failed.run.tasks[id].status == TaskStatus::Succeeded) {
            assert_eq!((task.attempt, &task.result), (0, &Some(result)), "{id} was done again");
        }
    }
    again.retire();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold_under_any_schedule(
        nodes in prop::collection::vec(node(), 1..8),
        acts in prop::collection::vec(act(), 0..60),
        deadline in prop::option::weighted(0.2, 1_u64..60_000),
        tokens in prop::option::weighted(0.2, 0_u64..3),
        luck in prop::collection::vec(any::<u8>(), 16),
    ) {
        let budget = Budget { tokens, usd_micros: None };
        let world = World::of(Submit { deadline, budget, ..request(graph(&nodes)) });
        let mut fleet = Fleet { world, attempts: Vec::new(), claims: 0 };
        for act in &acts {
            fleet.act(act);
        }
        let mut at = 0;
        fleet.world.finish_fairly(|| {
            at += 1;
            luck[at % luck.len()]
        });
        // whatever comes after the end changes nothing
        for act in acts.iter().filter(|act| !matches!(act, Act::Pass(_))) {
            fleet.act(act);
        }
        if fleet.world.run.status == RunStatus::Failed {
            replays(&fleet.world);
        }
        fleet.world.retire();
    }
}
