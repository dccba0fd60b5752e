//! Where a run's time went: `runs waterfall`, `run --waterfall`, `--trace`, and the run's JSON.

use serde_json::Value;

use crate::{
    dev::Dev,
    support::{SOON, examples, process::run, simulator::Simulator},
};

/// The categories add up to the wall time, and the path covers it.
#[track_caller]
fn adds_up(attribution: &Value, wall: &Value) {
    assert!(wall.as_u64().unwrap() > 0);
    assert_eq!(&attribution["wall_ms"], wall);
    let categories = attribution["categories"].as_object().unwrap();
    assert_eq!(categories.len(), 8);
    let total: u64 = categories.values().map(|ms| ms.as_u64().unwrap()).sum();
    assert_eq!(Some(total), wall.as_u64(), "{attribution}");
    let path = attribution["path"].as_array().unwrap();
    let covered: u64 = path.iter().map(|segment| segment["ms"].as_u64().unwrap()).sum();
    assert_eq!(covered, total, "{attribution}");
}

#[tokio::test]
async fn a_run_here_tells_where_its_time_went_in_json_text_and_a_trace() {
    let simulator = Simulator::examples().await;
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace.json");
    let spec = examples().join("market-brief.yaml");
    let args =
        ["run", spec.to_str().unwrap(), "--config", simulator.config(), "--json", "--waterfall", "--trace"];
    let ended = run(&[&args[..], &[trace.to_str().unwrap()]].concat()).await;
    let texts = [
        "* critical path",
        "on the critical path",
        "first token",
        "decode",
        "wall time",
        "at half its time: run -",
    ];
    let view = ended.expect(0, &texts).json();
    assert!(!ended.err.contains('\x1b'));
    adds_up(&view["attribution"], &view["wall_ms"]);
    let tasks = view["tasks"].as_array().unwrap();
    let slack = view["attribution"]["slack_ms"].as_object().unwrap();
    assert_eq!(slack.len(), tasks.len(), "every task has ended");
    assert_eq!(slack["output"], 0);
    let gains = view["attribution"]["what_if"].as_array().unwrap();
    assert!(gains[0]["half_time_gain_percent"].as_f64().unwrap() > 5.0, "{gains:?}");
    let trace: Value = serde_json::from_slice(&std::fs::read(trace).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    for task in tasks {
        assert!(events.iter().any(|event| event["ph"] == "X" && event["name"] == task["id"]), "{task}");
    }
    assert_eq!(trace["otherData"]["run_id"], view["run_id"]);
}

#[tokio::test]
async fn a_coordinators_run_tells_the_same() {
    let mut dev = Dev::start(&[]).await;
    let slow = "tasks: {a: {tool: {name: sleep, args: {ms: 30}}}, b: {tool: {name: sleep, args: {ms: 5}}}}";
    let id = dev.submit(slow).await;
    let answered = dev.api.ended(&id, SOON).await;
    adds_up(&answered["attribution"], &answered["wall_ms"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trace.json");
    let drawn = dev.run(&["runs", "waterfall", &id, "--trace", file.to_str().unwrap()]).await;
    for text in ["* critical path", "tool sleep at half its time: run -", "wall time"] {
        assert!(drawn.expect(0, &[]).out.contains(text), "{text:?} is not in: {}", drawn.out);
    }
    assert!(!drawn.out.contains('\x1b'));
    assert!(std::fs::read_to_string(&file).unwrap().contains("\"traceEvents\""));
    // computed here from the same view as there
    let json = dev.run(&["runs", "waterfall", &id, "--json"]).await.expect(0, &[]).json();
    assert_eq!(json, answered["attribution"]);
    let shown = dev.run(&["runs", "show", &id]).await.expect(0, &[]).json();
    assert_eq!(shown["attribution"], json);
    let nowhere = dir.path().join("no/such/trace.json");
    let refused = dev.run(&["runs", "waterfall", &id, "--trace", nowhere.to_str().unwrap()]).await;
    refused.expect(64, &["--trace", "no/such/trace.json", "No such file"]);
    dev.process.stop(SOON).await;
}
