//! `bench autoscale` as it is called, with minutes as seconds.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;

#[test]
fn workers_come_and_go_and_no_task_is_lost_or_runs_twice() {
    let arguments = "--base 10 --factor 6 --phases 3,15,12 --work-ms 200 --slots 4 --most 6 --speed 10";
    let mut command = Command::new(env!("CARGO_BIN_EXE_load-tests"));
    let ended = command.args(["bench", "autoscale"]).args(arguments.split_whitespace()).output().unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    let line = said.lines().rfind(|line| line.starts_with('{')).unwrap_or_else(|| {
        panic!("{said}{}", String::from_utf8_lossy(&ended.stderr));
    });
    // how fast it was is not for a test to say: whether anything got lost is
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["lost"], &line["twice"]), (&0.into(), &0.into()), "{said}");
    assert_eq!(line["runs"], 30 + 900 + 120, "{said}");
    let (most, last) = (line["most_workers"].as_u64().unwrap(), line["last_workers"].as_u64().unwrap());
    assert!(most > 2 && last < most, "{said}");
}
