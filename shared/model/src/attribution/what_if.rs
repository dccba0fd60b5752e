//! What a tool or model at half its time would have changed.

use std::collections::HashMap;

use super::{
    Category, MAX_WHAT_IFS, WhatIf,
    cause::{Cause, Causes},
    path::Stretch,
    schedule::Schedule,
    timeline::{Node, Timeline},
};
use crate::{graph::Kind, id::Ms};

/// The gains of the tools and models that stand for most of `path`. Only the last attempt of a task gets faster, and
/// an input that came too late for its join, or was cancelled, stays out of it.
pub(super) fn ask(
    timeline: &Timeline,
    causes: &Causes,
    path: &[Stretch],
    schedule: &Schedule,
) -> Vec<WhatIf> {
    let (nodes, wall) = (&timeline.nodes, timeline.wall);
    // a run that was cut off would have been so all the same
    let Cause::End(output) = causes.run else { return Vec::new() };
    if timeline.output() != Some(output) || nodes[output].cut || wall == 0 {
        return Vec::new();
    }
    let mut parts: HashMap<(Kind, &str), Ms> = HashMap::new();
    for stretch in path {
        use Category::{Condense, Decode, FirstToken, Tool};
        let node = &nodes[stretch.node];
        let works = matches!(stretch.category, FirstToken | Decode | Tool | Condense);
        if works && !node.label.is_empty() && stretch.to > stretch.from {
            *parts.entry((node.view.kind, node.label)).or_default() += stretch.to - stretch.from;
        }
    }
    let mut parts: Vec<_> = parts.into_iter().collect();
    parts.sort_by_key(|((_, label), part)| (std::cmp::Reverse(*part), *label));
    parts.truncate(MAX_WHAT_IFS);
    let mut answers: Vec<WhatIf> = parts
        .into_iter()
        .map(|((kind, label), part)| {
            let faster = |node: &Node| node.view.kind == kind && node.label == label && !node.cut;
            // half, rounded up
            let times = schedule.follow(|at, ran| if faster(&nodes[at]) { ran - ran / 2 } else { ran });
            let gain = nodes[output].end.saturating_sub(times.end[output]);
            WhatIf {
                label: label.to_owned(),
                kind,
                share_of_wall: round(part as f64 / wall as f64, 1e4),
                half_time_gain_percent: round(100.0 * gain as f64 / wall as f64, 10.0),
            }
        })
        .collect();
    // stable: equal gains stay in the order of their parts
    answers.sort_by(|a, b| b.half_time_gain_percent.total_cmp(&a.half_time_gain_percent));
    answers
}

fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}
