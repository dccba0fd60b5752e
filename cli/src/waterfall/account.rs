//! Where a run's time went, as a table, and what would have made it shorter, in sentences.

use std::fmt::Write;

use trireme_model::{
    Kind,
    attribution::{Attribution, CONDENSE, Category, WhatIf},
};

/// Tools and models named.
const MAX_WHAT_IFS: usize = 10;

/// The time on the critical path by category, and what the run would have gained from faster tools and models.
pub fn account(found: &Attribution) -> String {
    let mut out = String::from("on the critical path        ms       %\n");
    let percent = |ms: u64| 100.0 * ms as f64 / found.wall_ms.max(1) as f64;
    for category in Category::ALL {
        let ms = found.categories.of(category);
        if ms > 0 {
            let _ = writeln!(out, "{:18} {ms:>11}  {:>6.1}", described(category), percent(ms));
        }
    }
    let _ = writeln!(out, "{:18} {:>11}  {:>6.1}", "wall time", found.wall_ms, 100.0);
    for what_if in found.what_if.iter().take(MAX_WHAT_IFS) {
        let _ = writeln!(out, "{}", sentence(what_if));
    }
    out
}

fn sentence(what_if: &WhatIf) -> String {
    let WhatIf { label, kind, share_of_wall, half_time_gain_percent: gain } = what_if;
    let what = match kind {
        Kind::Llm if label == CONDENSE => "condensing".to_owned(),
        Kind::Llm => format!("model {label}"),
        _ => format!("tool {label}"),
    };
    let share = 100.0 * share_of_wall;
    // a gain of nothing is not a negative one
    let gain = if *gain > 0.0 { format!("-{gain:.1} %") } else { "no gain".to_owned() };
    format!("{what} at half its time: run {gain} ({share:.1} % of the critical path)")
}

fn described(category: Category) -> &'static str {
    match category {
        Category::Queue => "queue wait",
        Category::Dispatch => "dispatch",
        Category::FirstToken => "first token",
        Category::Decode => "decode",
        Category::Tool => "tool",
        Category::Join => "join wait",
        Category::Condense => "condense",
        Category::Retry => "retry",
    }
}

#[cfg(test)]
mod tests {
    use trireme_model::attribution::Split;

    use super::*;

    #[test]
    fn a_table_that_adds_up_and_what_would_be_gained() {
        let what_if = |label: &str, kind, gain| WhatIf {
            label: label.into(),
            kind,
            share_of_wall: 0.25,
            half_time_gain_percent: gain,
        };
        let found = Attribution {
            wall_ms: 400,
            categories: Split { queue: 4, decode: 296, tool: 100, ..Split::default() },
            path: Vec::new(),
            slack_ms: Default::default(),
            what_if: vec![
                what_if("sim/best", Kind::Llm, 36.0),
                what_if("search", Kind::Tool, 12.0),
                what_if(CONDENSE, Kind::Llm, 0.0),
            ],
        };
        assert_eq!(
            account(&found),
            "on the critical path        ms       %
queue wait                   4     1.0
decode                     296    74.0
tool                       100    25.0
wall time                  400   100.0
model sim/best at half its time: run -36.0 % (25.0 % of the critical path)
tool search at half its time: run -12.0 % (25.0 % of the critical path)
condensing at half its time: run no gain (25.0 % of the critical path)
"
        );
    }
}
