//! The events in an order in which each comes behind what it waits for.

use super::{Event, Gate, Rule, Schedule, merges};
use crate::graph::Kind;

impl Schedule<'_> {
    /// Kahn's algorithm. Events on a cycle, which only a broken view has, come last.
    pub(super) fn sorted(&self) -> Vec<Event> {
        let events = || (0..self.tasks.len()).flat_map(|at| [Event::There(at), Event::End(at)]);
        let mut missing = vec![0_usize; 2 * self.tasks.len()];
        let mut followers: Vec<Vec<Event>> = vec![Vec::new(); missing.len()];
        for event in events() {
            self.awaits(event, |other| {
                missing[slot(event)] += 1;
                followers[slot(other)].push(event);
            });
        }
        let mut order: Vec<Event> = events().filter(|event| missing[slot(*event)] == 0).collect();
        let mut at = 0;
        while let Some(event) = order.get(at).copied() {
            at += 1;
            for follower in &followers[slot(event)] {
                missing[slot(*follower)] -= 1;
                if missing[slot(*follower)] == 0 {
                    order.push(*follower);
                }
            }
        }
        order.extend(events().filter(|event| missing[slot(*event)] > 0));
        order
    }

    /// Tells `visit` every event that `event` waits for.
    fn awaits(&self, event: Event, mut visit: impl FnMut(Event)) {
        let nodes = &self.timeline.nodes;
        match event {
            Event::There(at) => self.tasks[at].gates.iter().for_each(|gate| {
                visit(match gate {
                    Gate::End(at) => Event::End(*at),
                    Gate::Attempt(at, _) => Event::There(*at),
                });
            }),
            Event::End(at) => {
                visit(Event::There(at));
                let task = &self.tasks[at];
                task.among.iter().for_each(|input| visit(Event::End(*input)));
                match task.rule {
                    Rule::Follows(other, _) => visit(Event::End(other)),
                    Rule::Window(_) if nodes[at].view.kind == Kind::Join => {
                        for input in &nodes[at].inputs {
                            let end = merges(&nodes[*input]);
                            visit(if end { Event::End(*input) } else { Event::There(*input) });
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

fn slot(event: Event) -> usize {
    match event {
        Event::There(at) => 2 * at,
        Event::End(at) => 2 * at + 1,
    }
}
