//! What is read off the outcomes of one suite: a table for people and JSON lines for machines.

use serde_json::{Value, json};
use trireme_model::Run;

use super::{
    Outcome,
    own_time::OwnTime,
    statistics::{Interval, median, quantile, ratio_of_medians},
    suite::Suite,
};

/// What one system did in one suite.
pub(super) struct Measured {
    /// Its name.
    pub(super) system: String,
    /// In the order of the items.
    pub(super) outcomes: Vec<Outcome>,
    /// What the simulator received.
    pub(super) stats: trireme_simulator::Stats,
    /// CPU seconds of all processes over those that the machine had: near 1, latencies are not sleeps.
    pub(super) cpu_share: f64,
    /// Of the product: the runs as they ended, in the order of the items; else nothing.
    pub(super) runs: Vec<Run>,
    /// Workers that were killed meanwhile.
    pub(super) kills: usize,
}

/// Wrong answers that are printed for each system.
const SHOWN: usize = 3;
/// How much of each.
const CHARACTERS: usize = 300;

impl Measured {
    pub(super) fn walls(&self) -> Vec<f64> {
        self.outcomes.iter().map(|outcome| outcome.wall.as_secs_f64()).collect()
    }

    /// Ids of the items whose answer is not the known one, with what was said instead.
    fn wrong<'a>(&'a self, suite: &'a Suite) -> impl Iterator<Item = (&'a str, &'a str)> {
        suite.items.iter().zip(&self.outcomes).filter_map(|(item, outcome)| match &outcome.answer {
            Ok(answer) if item.known.is(answer) => None,
            Ok(answer) => Some((item.id.as_str(), answer.as_str())),
            Err(error) => Some((item.id.as_str(), error.as_str())),
        })
    }

    /// How many answers are others than those of `base`.
    fn differing(&self, base: &Self, suite: &Suite) -> usize {
        let pairs = self.outcomes.iter().zip(&base.outcomes).zip(&suite.items);
        let differ = pairs.filter(|((mine, other), item)| match (&mine.answer, &other.answer) {
            (Ok(mine), Ok(other)) => item.known.differ(mine, other),
            (mine, other) => mine.is_ok() || other.is_ok(),
        });
        differ.count()
    }

    /// Median and 99th percentile of the engine's own part of the runs, in percent.
    fn own_percent(&self) -> Option<[f64; 2]> {
        let own: Vec<f64> = self.runs.iter().map(|run| OwnTime::of(run).percent()).collect();
        (!own.is_empty()).then(|| [median(&own), quantile(&own, 0.99)])
    }

    /// The columns of [`COMMON`]; answers are compared with those of `first`.
    pub(super) fn columns(&self, suite: &Suite, first: &Self) -> Vec<String> {
        let count = suite.items.len() as f64;
        let each = |total: u64, digits: usize| format!("{:.digits$}", total as f64 / count);
        vec![
            self.wrong(suite).count().to_string(),
            self.differing(first, suite).to_string(),
            each(self.stats.openai + self.stats.anthropic, 1),
            each(self.stats.tool, 1),
            each(self.stats.prompt_tokens, 0),
            each(self.stats.cached_tokens, 0),
            each(self.stats.completion_tokens, 0),
            format!("{:.0} %", self.cpu_share * 100.0),
        ]
    }

    /// The same for machines: times in seconds as they were, tokens and calls for each item.
    pub(super) fn fields(&self, suite: &Suite, first: &Self) -> Value {
        let count = suite.items.len() as f64;
        let each = |total: u64| (total as f64 / count * 10.0).round() / 10.0;
        let walls = self.walls();
        json!({
            "suite": suite.name, "title": suite.title, "system": self.system, "items": suite.items.len(),
            "median_s": thousandths(median(&walls)), "p90_s": thousandths(quantile(&walls, 0.9)),
            "wrong": self.wrong(suite).count(), "differ": self.differing(first, suite),
            "llm_calls": each(self.stats.openai + self.stats.anthropic), "tool_calls": each(self.stats.tool),
            "prompt_tokens": each(self.stats.prompt_tokens), "cached_tokens": each(self.stats.cached_tokens),
            "completion_tokens": each(self.stats.completion_tokens), "cpu_share": thousandths(self.cpu_share),
        })
    }

    /// A few of the wrong answers, a line each.
    pub(super) fn examples(&self, suite: &Suite) -> String {
        let line = |(id, said): (&str, &str)| {
            let from = said.char_indices().rev().nth(CHARACTERS - 1).map_or(0, |(at, _)| at);
            format!("    {} on {id}: {:?}\n", self.system, &said[from..])
        };
        self.wrong(suite).take(SHOWN).map(line).collect()
    }
}

/// Columns that every comparison of systems has.
pub(super) const COMMON: [&str; 8] =
    ["wrong", "differ", "LLM calls", "tool calls", "tokens in", "cached", "out", "CPU"];

/// A JSON line for each system.
pub(super) fn lines(suite: &Suite, measured: &[Measured], seed: u64) -> Vec<Value> {
    let line = |one: &Measured| {
        let mut line = one.fields(suite, measured.first().unwrap_or(one));
        line["part"] = json!("agents");
        for base in measured.iter().filter(|base| base.system != one.system) {
            let ratio = ratio_of_medians(&base.walls(), &one.walls(), seed);
            line[format!("times_faster_than_{}", base.system)] = interval(ratio);
        }
        if let Some(own) = one.own_percent() {
            line["engine_percent"] = json!(own.map(thousandths));
        }
        line
    };
    measured.iter().map(line).collect()
}

/// The same for people: a column for how many times faster each is than each of the baselines.
pub(super) fn text(suite: &Suite, measured: &[Measured], how: &str, seed: u64) -> String {
    // the product's systems are compared, not compared with
    let bases: Vec<&Measured> = measured.iter().filter(|one| one.runs.is_empty()).collect();
    let mut header = vec!["system".to_owned(), "median s".to_owned()];
    header.extend(bases.iter().map(|base| format!("vs {} [95 %]", base.system)));
    header.extend(COMMON.map(str::to_owned));
    header.push("engine (p99)".to_owned());
    let row = |one: &Measured| {
        let mut row = vec![one.system.clone(), format!("{:.3}", median(&one.walls()))];
        row.extend(bases.iter().map(|base| {
            let other = base.system != one.system;
            let ratio = other.then(|| times(ratio_of_medians(&base.walls(), &one.walls(), seed)));
            ratio.unwrap_or_else(|| "-".to_owned())
        }));
        row.extend(one.columns(suite, measured.first().unwrap_or(one)));
        let own = one.own_percent().map(|[half, most]| format!("{half:.2} % ({most:.2} %)"));
        row.push(own.unwrap_or_else(|| "-".to_owned()));
        row
    };
    let examples: String = measured.iter().map(|one| one.examples(suite)).collect();
    format!(
        "\n({}) {}, {} items, {how}\n{}{examples}",
        suite.name,
        suite.title,
        suite.items.len(),
        table(&header, &measured.iter().map(row).collect::<Vec<_>>())
    )
}

/// Rows under a header; the first column stands left, the others right.
pub(super) fn table(header: &[String], rows: &[Vec<String>]) -> String {
    let all = || std::iter::once(header).chain(rows.iter().map(Vec::as_slice));
    let width =
        |column: usize| all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..header.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in all() {
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if at == 0 {
                text.push_str(&format!("  {cell:<width$}"));
            } else {
                text.push_str(&format!("  {cell:>width$}"));
            }
        }
        text.push('\n');
    }
    text
}

/// Such as `3.10x [3.02, 3.17]`.
pub(super) fn times(ratio: Interval) -> String {
    format!("{:.2}x [{:.2}, {:.2}]", ratio.value, ratio.low, ratio.high)
}

/// Value, lower and upper end.
pub(super) fn interval(ratio: Interval) -> Value {
    json!([ratio.value, ratio.low, ratio.high].map(thousandths))
}

/// Three decimals are more than a machine repeats.
pub(super) fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn measured(system: &str, answers: &[Result<&str, &str>]) -> Measured {
        let outcome = |answer: &Result<&str, &str>| Outcome {
            wall: Duration::from_secs(1),
            answer: answer.map(|said| format!("ANSWER: {said}")).map_err(str::to_owned),
        };
        Measured {
            system: system.into(),
            outcomes: answers.iter().map(outcome).collect(),
            stats: Default::default(),
            cpu_share: 0.5,
            runs: Vec::new(),
            kills: 0,
        }
    }

    #[test]
    fn wrong_and_differing_answers_are_counted() {
        let suite = Suite::generate("a", 3, 1, 1.0).unwrap();
        let right: Vec<String> = suite
            .items
            .iter()
            .map(|item| match &item.known {
                super::super::suite::Known::Text(text) => text.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        let base = measured("base", &[Ok(&right[0]), Ok("else"), Err("gone")]);
        let other = measured("other", &[Ok(&right[0]), Ok(&right[1]), Ok(&right[2])]);
        assert_eq!((2, 0), (base.wrong(&suite).count(), other.wrong(&suite).count()));
        assert_eq!((0, 2), (base.differing(&base, &suite), other.differing(&base, &suite)));
        let said = text(&suite, &[base, other], "1 at once", 1);
        assert!(
            said.contains("base on a-001: \"ANSWER: else\"") && said.contains("1.00x [1.00, 1.00]"),
            "{said}"
        );
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let cells = |row: &[&str]| row.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let said = table(&cells(&["name", "s"]), &[cells(&["a", "10.25"]), cells(&["longer", "1"])]);
        assert_eq!("  name        s\n  a       10.25\n  longer      1\n", said);
    }
}
