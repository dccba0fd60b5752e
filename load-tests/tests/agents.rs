//! `bench agents` as it is called, on a few items with short latencies.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;

/// What is printed, and the JSON lines, each as `part system at_once` and whole.
fn bench(arguments: &str) -> (String, Vec<(String, Value)>) {
    let words = arguments.split_whitespace();
    let out =
        std::env::temp_dir().join(format!("agents-{}-{}.jsonl", std::process::id(), words.clone().count()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_load-tests"));
    let ended = command.args(["bench", "agents"]).args(words).arg("--out").arg(&out).output().unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success(), "{said}{}", String::from_utf8_lossy(&ended.stderr));
    let text = std::fs::read_to_string(&out).unwrap();
    std::fs::remove_file(&out).unwrap();
    let lines = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |field: &str| line[field].as_str().unwrap();
        (format!("{} {} {}", text("part"), text("system"), line["at_once"]), line)
    });
    (said, lines.collect())
}

fn number(line: &Value, field: &str) -> f64 {
    line[field].as_f64().unwrap_or_else(|| panic!("{field} of {line}"))
}

#[test]
fn the_product_is_compared_and_its_own_time_is_measured() {
    let compared = "--only a --systems sequential,trireme --items 12 --concurrency 2 --speed 10";
    let (said, lines) = bench(compared);
    let found: Vec<&str> = lines.iter().map(|(what, _)| what.as_str()).collect();
    assert_eq!(vec!["agents sequential 2", "agents embedded 2"], found);
    assert!(said.contains("vs sequential [95 %]") && said.contains("12 items, 2 at a time"), "{said}");
    for (_, line) in &lines {
        assert_eq!((0.0, 0.0), (number(line, "wrong"), number(line, "differ")), "{line}\n{said}");
    }
    assert!(lines[1].1["times_faster_than_sequential"][1].as_f64().unwrap() > 1.0, "{}", lines[1].1);

    let (said, lines) = bench(&format!("{compared} --engine --loads 1,4"));
    let found: Vec<&str> = lines.iter().map(|(what, _)| what.as_str()).collect();
    assert_eq!(vec!["engine embedded 1", "engine embedded 4"], found);
    for ((_, line), runs) in lines.iter().zip([20.0, 4.0]) {
        assert_eq!((runs, 0.0), (number(line, "runs"), number(line, "wrong")), "{line}\n{said}");
        let (share, most) = (number(line, "share_percent"), number(line, "share_percent_p99"));
        assert!(0.0 < most && share <= most && most < 100.0, "{line}");
    }
}

#[test]
fn answers_stay_right_while_workers_are_killed() {
    // six runs under way have tasks with every worker, whichever is killed
    let (said, lines) = bench("--faults --only a --items 24 --concurrency 6 --speed 10 --kills 2");
    let found: Vec<&str> = lines.iter().map(|(what, _)| what.as_str()).collect();
    assert_eq!(vec!["faults clean 6", "faults faults 6"], found);
    for (_, line) in &lines {
        assert_eq!((0.0, 0.0), (number(line, "wrong"), number(line, "differ")), "{line}\n{said}");
    }
    assert_eq!(0.0, number(&lines[0].1, "kills"));
    assert_eq!(2.0, number(&lines[1].1, "kills"), "{said}");
    assert!(number(&lines[1].1, "runs_hit") > 0.0, "{said}");
    assert!(said.contains("| suite | clean | faults |"), "{said}");
}
