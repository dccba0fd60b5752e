//! Random operations on random graphs. [`World`] checks the invariants after every step.

use proptest::prelude::*;

use crate::{
    Budget, Claimed, Complete, Completed, Failed, FailureClass, Kind, Ms, Need, OnMiss, Outcome, Run, Submit,
    TaskId, TaskSpec, Token, Usage,
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
    Complete { whose: u8, next: bool },
    Fail { whose: u8, class: u8 },
    Extend { whose: u8, start: u8, count: u8 },
    Expanded(u8),
    Renew(u8),
    Pass(Ms),
    Cancel,
}

fn node() -> impl Strategy<Value = Node> {
    let on_miss = prop_oneof![Just(OnMiss::Fail), Just(OnMiss::Partial), Just(OnMiss::Default)];
    let limit = || prop_oneof![3 => Just(None), 1 => (1_u64..30_000).prop_map(Some)];
    (0_u8..6, any::<u8>(), 1_u32..4, on_miss, limit(), limit(), prop::bool::weighted(0.3), any::<bool>())
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
        6 => (any::<u8>(), any::<bool>()).prop_map(|(whose, next)| Act::Complete { whose, next }),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(whose, class)| Act::Fail { whose, class }),
        3 => (any::<u8>(), 0_u8..4, 0_u8..4).prop_map(|(whose, start, count)| Act::Extend { whose, start, count }),
        2 => any::<u8>().prop_map(Act::Expanded),
        1 => any::<u8>().prop_map(Act::Renew),
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
            _ => tool(&name, &inputs),
        };
        spec.exec.timeout = node.timeout;
        spec.exec.fallback = node.fallback.then(|| text("instead"));
        spec.exec.paid = node.paid;
        specs.push(spec);
    }
    specs
}

/// The state apart from what late attempts cost, which a repeat books again.
fn but_for_waste(run: &Run) -> Run {
    Run { wasted: Usage::default(), ..run.clone() }
}

/// Does `operation` twice: the same answer, and the second changes nothing.
fn twice<T: PartialEq + std::fmt::Debug>(world: &mut World, mut operation: impl FnMut(&mut World) -> T) -> T {
    let first = operation(world);
    let before = but_for_waste(&world.run);
    let again = operation(world);
    assert_eq!(again, first, "a repeat was answered otherwise");
    assert_eq!(but_for_waste(&world.run), before, "a repeat changed the run");
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
            Act::Complete { whose, next } => {
                let Some((task, token, _)) = self.attempt(*whose) else { return };
                let next = next.then(|| self.world.next()).flatten();
                let outcome = Outcome::Result(text(token.as_str()));
                let complete = Complete { next, ..self.world.completion(&task, &token, outcome) };
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
                if class == Released {
                    // a task handed back is anybody's: a repeat finds it gone
                    if self.world.fail(&fail) == Failed::Released {
                        assert_eq!(self.world.fail(&fail), Failed::Stale);
                    }
                } else {
                    twice(&mut self.world, |world| world.fail(&fail));
                }
            }
            Act::Extend { whose, start, count } => {
                let Some((task, token, _)) = self.attempt(*whose) else { return };
                let args = (0..*count).map(|at| crate::Payload::of(&(start + at))).collect();
                let run = self.world.run.id.clone();
                let extend = crate::Extend { run, task, token, start: u32::from(*start), args };
                twice(&mut self.world, |world| {
                    world.step(|run, now, effects| run.extend(&extend, now, effects))
                });
            }
            Act::Expanded(whose) => {
                let Some((task, token, Kind::Map)) = self.attempt(*whose) else { return };
                let complete = self.world.completion(&task, &token, Outcome::Expanded);
                twice(&mut self.world, |world| world.complete(&complete));
            }
            Act::Renew(whose) => {
                let Some((task, token, _)) = self.attempt(*whose) else { return };
                twice(&mut self.world, |world| world.renew(&task, &token));
            }
            Act::Pass(by) => self.world.pass(*by),
            Act::Cancel => {
                self.world.cancel();
            }
        }
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
        fleet.world.retire();
    }
}
