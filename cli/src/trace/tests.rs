//! The trace against the rules of its format.

use std::collections::HashSet;

use trireme_model::attribution::attribution;

use super::*;

/// An agent with a turn and two calls that overlap, one of them retried, a join that takes no time, and the answer.
fn run() -> RunView {
    let task = |id: &str, kind: &str, times: [u64; 4], inputs: Value| {
        let [first, ready, started, ended] = times.map(|time| time + 5_000);
        json!({
            "id": id, "kind": kind, "label": "x", "owner": "a", "pool": "p", "status": "succeeded", "attempt": 1,
            "degraded": false, "queued_ms": started - ready, "run_ms": ended - started, "first_ready_ms": first,
            "ready_ms": ready, "started_ms": started, "ended_ms": ended, "inputs": inputs, "error": null,
        })
    };
    let mut agent = task("a", "agent", [0, 0, 3, 400], json!([]));
    agent["owner"] = json!(null);
    let mut step = task("a/step-0", "llm", [5, 5, 5, 100], json!([]));
    step["first_token_ms"] = json!(20);
    let mut join = task("a/step-0/join", "join", [300, 300, 300, 300], json!(["a/step-0/x", "a/step-0/y"]));
    for field in ["first_ready_ms", "ready_ms", "started_ms", "queued_ms", "run_ms"] {
        join[field] = json!(null);
    }
    let mut never = task("a/step-2", "llm", [0, 0, 0, 0], json!(["a/step-1"]));
    for field in ["first_ready_ms", "ready_ms", "started_ms", "ended_ms", "queued_ms", "run_ms"] {
        never[field] = json!(null);
    }
    never["status"] = json!("cancelled");
    serde_json::from_value(json!({
        "run_id": "r1", "name": "brief", "status": "succeeded", "degraded": false, "output": null, "error": null,
        "created_ms": 5_000, "ended_ms": 5_400, "wall_ms": 400, "deadline_ms": null, "usage": {}, "wasted": {},
        "tasks": [
            agent,
            step,
            task("a/step-0/x", "tool", [50, 50, 60, 300], json!([])),
            task("a/step-0/y", "tool", [60, 90, 95, 200], json!([])),
            join,
            task("a/step-1", "llm", [300, 300, 302, 400], json!(["a/step-0/join"])),
            never,
        ],
    }))
    .unwrap()
}

fn number(event: &Value, field: &str) -> u64 {
    event[field].as_u64().unwrap_or_else(|| panic!("{field} of {event}"))
}

/// Slices as (tid, from, to, name).
fn slices(events: &[Value]) -> Vec<(u64, u64, u64, String)> {
    let complete = events.iter().filter(|event| event["ph"] == "X");
    let slice = |event: &Value| {
        let (ts, dur) = (number(event, "ts"), number(event, "dur"));
        (number(event, "tid"), ts, ts + dur, event["name"].as_str().unwrap().to_owned())
    };
    complete.map(slice).collect()
}

/// What the format asks of a file.
fn check(trace: &Value) {
    let events = trace["traceEvents"].as_array().unwrap();
    let mut flows: HashMap<u64, Vec<&Value>> = HashMap::new();
    let mut names = HashSet::new();
    for event in events {
        assert!(event["name"].is_string() && event["pid"] == PID && event["tid"].is_u64(), "{event}");
        match event["ph"].as_str().unwrap() {
            "X" => assert!(event["cat"].is_string() && event["args"].is_object(), "{event}"),
            "M" => match event["name"].as_str().unwrap() {
                "thread_sort_index" => assert!(event["args"]["sort_index"].is_u64(), "{event}"),
                "process_name" | "thread_name" => {
                    assert!(event["args"]["name"].is_string(), "{event}");
                    names.insert(number(event, "tid"));
                }
                other => panic!("no metadata of the format: {other}"),
            },
            "s" | "f" => flows.entry(number(event, "id")).or_default().push(event),
            other => panic!("unexpected phase {other}"),
        }
    }
    let slices = slices(events);
    for (at, (tid, from, to, name)) in slices.iter().enumerate() {
        assert!(names.contains(tid), "lane {tid} has no name");
        for (_, other_from, other_to, other) in slices[..at].iter().filter(|slice| slice.0 == *tid) {
            let apart = to <= other_from || other_to <= from;
            let nested = (other_from <= from && to <= other_to) || (from <= other_from && other_to <= to);
            assert!(apart || nested, "{name} and {other} overlap in lane {tid}");
        }
    }
    for (id, ends) in flows {
        let [start, end] = ends[..] else { panic!("flow {id} has {} events", ends.len()) };
        assert_eq!((&start["ph"], &end["ph"], &end["bp"]), (&json!("s"), &json!("f"), &json!("e")));
        // both ends are matched by id, category and name
        assert_eq!((&start["name"], &start["cat"]), (&end["name"], &end["cat"]));
        assert!(number(start, "ts") <= number(end, "ts"), "flow {id} goes back in time");
        for event in [start, end] {
            let (tid, ts) = (number(event, "tid"), number(event, "ts"));
            assert!(
                slices.iter().any(|(lane, from, to, _)| *lane == tid && *from <= ts && ts < *to),
                "no slice around {event}"
            );
        }
    }
}

#[test]
fn the_trace_keeps_the_rules_of_its_format() {
    let run = run();
    let trace = trace(&run, &attribution(&run));
    check(&trace);
    let events = trace["traceEvents"].as_array().unwrap();
    let slices = slices(events);
    let of = |name: &str| slices.iter().find(|slice| slice.3 == name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!((of("a").1, of("a").2), (0, 400_000));
    assert_eq!((of("a/step-0").1, of("a/step-0").2), (5_000, 100_000));
    // waits and work lie inside their task
    let inside: Vec<_> =
        slices.iter().filter(|slice| slice.0 == of("a/step-0/y").0 && slice.1 >= 60_000).collect();
    let named: Vec<(&str, u64, u64)> =
        inside.iter().map(|slice| (slice.3.as_str(), slice.1, slice.2)).collect();
    assert_eq!(
        named[..4],
        [
            ("a/step-0/y", 60_000, 200_000),
            ("retry", 60_000, 90_000),
            ("queue", 90_000, 95_000),
            ("tool", 95_000, 200_000)
        ]
    );
    assert!(!slices.iter().any(|slice| slice.3 == "a/step-2"), "it never began");
    let task = |name: &str| events.iter().find(|event| event["name"] == name).unwrap();
    assert_eq!(task("a/step-0/y")["args"]["critical"], false);
    assert_eq!(task("a/step-0/y")["args"]["slack_ms"], 100);
    assert_eq!(task("a/step-0/x")["args"]["status"], "succeeded");
    // agent, turn, call, join, answer
    assert_eq!(events.iter().filter(|event| event["ph"] == "s").count(), 4);
    assert_eq!(trace["otherData"]["categories_ms"]["tool"], 240);
}

#[test]
fn a_wide_run_keeps_them_too() {
    let mut run = run();
    let call = run.tasks[3].clone();
    for at in 0..300_u64 {
        let shift = |time: Option<u64>| time.map(|time| time + at % 7 * 13);
        run.tasks.push(TaskView {
            id: TaskId::new(format!("a/step-0/c{at}")).unwrap(),
            ready_ms: shift(call.ready_ms),
            started_ms: shift(call.started_ms),
            ended_ms: shift(call.ended_ms),
            ..call.clone()
        });
    }
    check(&trace(&run, &attribution(&run)));
}
