//! `trireme demo`.

use std::collections::BTreeSet;

use crate::support::process::run;

#[tokio::test]
async fn demo_prints_one_object_with_equal_outputs() {
    let demo = run(&["demo", "--json"]).await;
    demo.expect(0, &["simulated"]);
    let result = demo.json();
    let fields: BTreeSet<&str> = result.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        BTreeSet::from(["sequential_ms", "parallel_ms", "ratio", "outputs_equal", "run"]),
        "{result}"
    );
    assert_eq!(result["outputs_equal"], true);
    assert!(result["ratio"].as_f64().unwrap() > 1.0, "{}", result["ratio"]);
    assert!(result["sequential_ms"].as_u64().unwrap() > result["parallel_ms"].as_u64().unwrap());
    let run = &result["run"];
    assert_eq!(run["status"], "succeeded");
    assert_eq!(run["degraded"], false);
    let tasks = run["tasks"].as_array().unwrap();
    assert!(tasks.len() >= 12, "{} tasks", tasks.len());
    let joins = tasks.iter().filter(|task| task["kind"] == "join").count();
    let maps = tasks.iter().filter(|task| task["kind"] == "map").count();
    assert!(joins >= 2 && maps >= 1, "{joins} joins, {maps} maps");
}

#[tokio::test]
async fn demo_draws_both_runs_without_colour_into_a_pipe() {
    let demo = run(&["demo"]).await;
    demo.expect(0, &["simulated"]);
    for text in [
        "One task at a time:",
        "In parallel:",
        "ratio",
        "equal",
        "simulated",
        "* critical path",
        "headlines/0",
    ] {
        assert!(demo.out.contains(text), "{text:?} is not in: {}", demo.out);
    }
    assert!(!demo.out.contains('\x1b') && !demo.err.contains('\x1b'), "{}", demo.out);
}
