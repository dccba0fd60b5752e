//! All suites together: the tables that the README has, and what must not be.

use serde_json::Value;

/// The parts, as the lines of [`super::report`], [`super::engine`] and [`super::faults`] name them.
const PARTS: [&str; 3] = ["agents", "engine", "faults"];

fn text<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().unwrap_or("?")
}

fn number(value: &Value) -> String {
    value.as_f64().map_or_else(|| "?".to_owned(), |value| format!("{value:.2}"))
}

/// Value and interval.
fn times(value: &Value) -> Option<String> {
    let [value, low, high] = value.as_array()?.as_slice() else { return None };
    Some(format!("{}x [{}, {}]", number(value), number(low), number(high)))
}

/// What one line says in its part's table.
fn cell(line: &Value) -> String {
    let median = number(&line["median_s"]);
    match text(line, "part") {
        "engine" => {
            format!("{} % (p99 {} %)", number(&line["share_percent"]), number(&line["share_percent_p99"]))
        }
        "faults" if text(line, "system") == "clean" => median,
        "faults" => {
            let ratio = times(&line["time_vs_clean"]).unwrap_or_default();
            format!("{median}, {ratio}, {} kills, {} runs hit", line["kills"], line["runs_hit"])
        }
        _ => times(&line["times_faster_than_sequential"])
            .map_or_else(|| median.clone(), |ratio| format!("{median}, {ratio}")),
    }
}

fn column(line: &Value) -> String {
    let system = text(line, "system");
    match line["at_once"].as_u64().filter(|_| text(line, "part") == "engine") {
        Some(at_once) => format!("{system}, {at_once} at once"),
        None => system.to_owned(),
    }
}

/// A Markdown table for each part: a row for each suite, a column for each system.
pub(super) fn tables(lines: &[Value]) -> String {
    let mut all = String::new();
    for part in PARTS {
        let of: Vec<&Value> = lines.iter().filter(|line| line["part"] == part).collect();
        let (mut columns, mut suites) = (Vec::new(), Vec::new());
        for line in &of {
            let suite = (text(line, "suite"), text(line, "title"));
            if !columns.contains(&column(line)) {
                columns.push(column(line));
            }
            if !suites.contains(&suite) {
                suites.push(suite);
            }
        }
        if of.is_empty() {
            continue;
        }
        all.push_str(&format!("\n{part}:\n\n| suite | {} |\n|---|", columns.join(" | ")));
        all.push_str(&"---|".repeat(columns.len()));
        for (suite, title) in suites {
            all.push_str(&format!("\n| ({suite}) {title} |"));
            for name in &columns {
                let of = of.iter().find(|line| line["suite"] == suite && column(line) == *name);
                all.push_str(&format!(" {} |", of.map(|line| cell(line)).unwrap_or_default()));
            }
        }
        all.push('\n');
    }
    all
}

/// Answers that are wrong or differ, and suites with faults in which none fell on a run.
pub(super) fn problems(lines: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    for line in lines {
        let place = format!("({}) {}, {}", text(line, "suite"), text(line, "part"), column(line));
        for what in ["wrong", "differ"] {
            match line[what].as_u64() {
                Some(count) if count > 0 => problems.push(format!("{place}: {count} answers {what}")),
                _ => {}
            }
        }
        if line["part"] == "faults" && line["system"] == "faults" && line["runs_hit"] == 0 {
            problems.push(format!("{place}: no kill fell into a run"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines() -> Vec<Value> {
        vec![
            json!({"part": "agents", "suite": "a", "title": "two", "system": "sequential", "median_s": 6.2, "wrong": 0,
                   "differ": 0}),
            json!({"part": "agents", "suite": "a", "title": "two", "system": "embedded", "median_s": 1.7, "wrong": 0,
                   "differ": 0, "times_faster_than_sequential": [3.65, 3.6, 3.8]}),
            json!({"part": "engine", "suite": "a", "title": "two", "system": "cluster", "at_once": 200, "wrong": 0,
                   "share_percent": 0.1, "share_percent_p99": 0.25}),
            json!({"part": "faults", "suite": "a", "title": "two", "system": "clean", "median_s": 1.7, "wrong": 0,
                   "differ": 0, "kills": 0, "runs_hit": 0}),
            json!({"part": "faults", "suite": "a", "title": "two", "system": "faults", "median_s": 1.9, "wrong": 0,
                   "differ": 0, "kills": 4, "runs_hit": 9, "time_vs_clean": [1.12, 1.1, 1.2]}),
        ]
    }

    #[test]
    fn every_part_has_a_table() {
        let said = tables(&lines());
        for part in [
            "| suite | sequential | embedded |\n|---|---|---|\n| (a) two | 6.20 | 1.70, 3.65x [3.60, 3.80] |\n",
            "| suite | cluster, 200 at once |\n|---|---|\n| (a) two | 0.10 % (p99 0.25 %) |\n",
            "| (a) two | 1.70 | 1.90, 1.12x [1.10, 1.20], 4 kills, 9 runs hit |\n",
        ] {
            assert!(said.contains(part), "{part} is not in\n{said}");
        }
    }

    #[test]
    fn what_must_not_be_is_told() {
        assert_eq!(problems(&lines()), [""; 0]);
        let mut bad = lines();
        bad[1]["wrong"] = json!(2);
        bad[4]["differ"] = json!(1);
        bad[4]["runs_hit"] = json!(0);
        let said = problems(&bad);
        assert_eq!(
            said,
            [
                "(a) agents, embedded: 2 answers wrong",
                "(a) faults, faults: 1 answers differ",
                "(a) faults, faults: no kill fell into a run"
            ]
        );
    }
}
