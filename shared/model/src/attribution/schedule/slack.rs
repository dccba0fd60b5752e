//! Slack: the rules followed backwards from the run's end.

use super::{Event, Gate, Rule, Schedule, Times, begins, merges, opens, same};
use crate::{graph::Kind, id::Ms};

/// How much later each event could have come without the run ending later.
struct Slack {
    there: Vec<Ms>,
    end: Vec<Ms>,
}

impl Schedule<'_> {
    /// How much longer each task could have taken, by itself, without the run ending later.
    ///
    /// Never too much, sometimes too little: joins keep to the inputs that they took, though another one might have
    /// stood in. A task that nobody waited for could have gone on to the run's end. A step that takes longer holds up by
    /// as much what it adds. An input of a join whose window closed could have taken until then.
    pub(in crate::attribution) fn slack(&self) -> Vec<Ms> {
        let nodes = &self.timeline.nodes;
        let times = self.follow(same);
        let left = |times: &[Ms]| times.iter().map(|time| self.timeline.wall.saturating_sub(*time)).collect();
        let mut slack = Slack { there: left(&times.there), end: left(&times.end) };
        for event in self.order.iter().rev() {
            match *event {
                Event::There(at) => {
                    let task = &self.tasks[at];
                    let gates = || task.gates.iter().map(|gate| (*gate, self.gate(&times, *gate, same)));
                    let last = gates().map(|(_, time)| time).max().unwrap_or(0);
                    for (gate, time) in gates() {
                        let most = slack.there[at] + (last - time);
                        match gate {
                            Gate::End(other) => lower(&mut slack.end[other], most),
                            Gate::Attempt(other, _) => {
                                lower(&mut slack.there[other], most);
                                if !nodes[other].container() {
                                    lower(&mut slack.end[other], most);
                                }
                            }
                        }
                    }
                }
                Event::End(at) => {
                    let most = slack.end[at];
                    match self.tasks[at].rule {
                        Rule::Lasts => lower(&mut slack.there[at], most),
                        Rule::Follows(other, _) => lower(&mut slack.end[other], most),
                        Rule::Takes { .. } => {
                            let fires = self.taken(&times.end, at).max().unwrap_or(0).max(times.there[at]);
                            lower(&mut slack.there[at], most + (fires - times.there[at]));
                            for input in self.taken_by(&times.end, at) {
                                lower(&mut slack.end[input], most + (fires - times.end[input]));
                            }
                        }
                        Rule::Window(_) => {
                            let opened = opens(self.timeline, &times, at);
                            lower(&mut slack.there[at], most + (opened - times.there[at]));
                            if let Some((first, opener)) = self.opener(&times, at) {
                                let merges = merges(&nodes[opener]);
                                let of = if merges { &mut slack.end } else { &mut slack.there };
                                lower(&mut of[opener], most + (opened - first));
                            }
                            for input in self.taken_by(&times.end, at) {
                                lower(&mut slack.end[input], times.end[at] - times.end[input]);
                            }
                        }
                    }
                }
            }
        }
        slack.end
    }

    /// What opened the window of a join.
    fn opener(&self, times: &Times, at: usize) -> Option<(Ms, usize)> {
        let node = &self.timeline.nodes[at];
        let join = node.view.kind == Kind::Join;
        let begins = |input: &usize| (begins(self.timeline, times, *input), *input);
        node.inputs.iter().filter(|_| join).map(begins).min()
    }

    /// The inputs or children that a join or map took.
    fn taken_by<'a>(&'a self, ends: &'a [Ms], at: usize) -> impl Iterator<Item = usize> + 'a {
        self.tasks[at].among.iter().copied().filter(move |input| ends[*input] <= ends[at])
    }

    /// When those ended.
    fn taken<'a>(&'a self, ends: &'a [Ms], at: usize) -> impl Iterator<Item = Ms> + 'a {
        self.taken_by(ends, at).map(move |input| ends[input])
    }
}

fn lower(slack: &mut Ms, most: Ms) {
    *slack = (*slack).min(most);
}
