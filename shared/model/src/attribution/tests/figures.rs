//! Plain graphs: each category, slack and gain to the millisecond.

use super::*;

#[test]
fn queue_dispatch_tool_first_token_and_decode() {
    let brief = TaskView {
        first_token_ms: Some(40),
        ..task("brief", Kind::Llm, "best", [115, 115, 120, 220], &["news", "facts"])
    };
    let run = run(
        220,
        vec![
            task("news", Kind::Tool, "search", [5, 5, 15, 115], &[]),
            task("facts", Kind::Tool, "search", [5, 5, 15, 75], &[]),
            brief,
        ],
    );
    let found = check(&run);
    assert_eq!(
        path(&found),
        [
            "news dispatch 0+5",
            "news queue 5+10",
            "news tool 15+100",
            "brief queue 115+5",
            "brief first_token 120+40",
            "brief decode 160+60",
        ]
    );
    let split = Split { queue: 15, dispatch: 5, first_token: 40, decode: 60, tool: 100, ..Split::default() };
    assert_eq!(found.categories, split);
    assert_eq!(slack(&found), [("brief", 0), ("facts", 40), ("news", 0)]);
    let [model, search] = &found.what_if[..] else { panic!("{:?}", found.what_if) };
    // both searches get faster: the brief starts 50 ms sooner
    assert_eq!(
        (search.label.as_str(), search.kind, search.half_time_gain_percent),
        ("search", Kind::Tool, 22.7)
    );
    assert_eq!((model.label.as_str(), model.kind, model.half_time_gain_percent), ("best", Kind::Llm, 22.7));
    assert_eq!(search.share_of_wall, 0.4545);
}

#[test]
fn a_gain_ends_where_the_next_path_begins() {
    let run = run(
        110,
        vec![
            task("slow", Kind::Tool, "slow", [0, 0, 0, 100], &[]),
            task("near", Kind::Tool, "near", [0, 0, 0, 90], &[]),
            task("end", Kind::Tool, "end", [100, 100, 100, 110], &["slow", "near"]),
        ],
    );
    let found = check(&run);
    let gains: Vec<_> =
        found.what_if.iter().map(|what| (what.label.as_str(), what.half_time_gain_percent)).collect();
    // 10 of 110 ms, then `near` decides; 5 of 110 ms
    assert_eq!(gains, [("slow", 9.1), ("end", 4.5)]);
    assert_eq!(slack(&found), [("end", 0), ("near", 10), ("slow", 0)]);
}

#[test]
fn retries_and_a_call_without_a_first_token() {
    let run = run(300, vec![task("out", Kind::Llm, "model", [0, 200, 210, 300], &[])]);
    let found = check(&run);
    assert_eq!(path(&found), ["out retry 0+200", "out queue 200+10", "out first_token 210+90"]);
    assert_eq!(found.categories.retry, 200);
    // only the attempt that succeeded gets faster
    assert_eq!(found.what_if[0].half_time_gain_percent, 15.0);
}

#[test]
fn a_condensing_call_that_was_waited_for() {
    let run = run(
        100,
        vec![task("sum", Kind::Llm, CONDENSE, [0, 0, 10, 70], &[]), llm("out", 70, 10, 100, &["sum"])],
    );
    let found = check(&run);
    assert_eq!(path(&found)[1], "sum condense 10+60");
    assert_eq!((found.categories.condense, found.categories.queue), (60, 10));
}

#[test]
fn a_join_whose_window_closed() {
    let run = run(
        450,
        vec![
            tool("fast", 0, 100, &[]),
            cut(tool("slow", 0, 0, &[])),
            join("both", 400, &["fast", "slow"]),
            tool("out", 400, 450, &["both"]),
        ],
    );
    let found = check(&run);
    assert_eq!(path(&found), ["fast tool 0+100", "both join 100+300", "out tool 400+50"]);
    assert_eq!(found.categories.join, 300);
    // `fast` had until the window closed; nothing is said of what never ended
    assert_eq!(slack(&found), [("both", 0), ("fast", 300), ("out", 0)]);
    // the window would have closed no sooner
    let gains: Vec<_> =
        found.what_if.iter().map(|what| (what.label.as_str(), what.half_time_gain_percent)).collect();
    assert_eq!(gains, [("out", 5.6), ("fast", 0.0)]);
}

#[test]
fn a_window_that_nothing_came_into() {
    let run = run(
        400,
        vec![
            cut(tool("slow", 30, 30, &[])),
            cut(tool("slower", 40, 40, &[])),
            join("both", 400, &["slow", "slower"]),
        ],
    );
    assert_eq!(path(&check(&run)), ["slow dispatch 0+30", "slow tool 30+0", "both join 30+370"]);
}

#[test]
fn the_first_of_two_and_what_came_late() {
    let run = run(
        200,
        vec![
            tool("a", 0, 50, &[]),
            tool("b", 0, 80, &[]),
            join("any", 50, &["a", "b"]),
            tool("next", 50, 60, &["any"]),
            tool("out", 80, 200, &["b", "next"]),
        ],
    );
    let found = check(&run);
    assert_eq!(path(&found), ["b tool 0+80", "out tool 80+120"]);
    // `b` might have stood in for `a`, but only at 80
    assert_eq!(slack(&found), [("a", 20), ("any", 20), ("b", 0), ("next", 20), ("out", 0)]);
}

#[test]
fn a_map_two_at_a_time() {
    let map = task("each", Kind::Map, "read", [0, 0, 2, 105], &[]);
    let child = |index: u32, from, to| TaskView {
        label: String::new(),
        ..tool(&format!("each/{index}"), from, to, &[])
    };
    let run = run(
        125,
        vec![
            map,
            child(0, 5, 45),
            child(1, 5, 65),
            child(2, 45, 105),
            child(3, 65, 85),
            tool("out", 105, 125, &["each"]),
        ],
    );
    let found = check(&run);
    assert_eq!(
        path(&found),
        ["each queue 0+2", "each dispatch 2+3", "each/0 tool 5+40", "each/2 tool 45+60", "out tool 105+20"]
    );
    assert_eq!(
        slack(&found),
        [("each", 0), ("each/0", 0), ("each/1", 20), ("each/2", 0), ("each/3", 20), ("out", 0)]
    );
    // 50 of 125 ms: children have the label of their map
    assert_eq!((found.what_if[0].label.as_str(), found.what_if[0].half_time_gain_percent), ("read", 40.0));
}

#[test]
fn a_run_that_was_cut_off_waited_for_what_was_open_longest() {
    let mut run = run(
        500,
        vec![
            tool("a", 0, 100, &[]),
            cut(tool("slow", 100, 100, &["a"])),
            cut(tool("new", 450, 450, &["a"])),
            cut(join("out", 0, &["slow", "new"])),
        ],
    );
    run.status = RunStatus::Failed;
    let found = check(&run);
    assert_eq!(path(&found), ["a tool 0+100", "slow tool 100+400"]);
    assert_eq!(found.what_if, []);
    assert_eq!(slack(&found), [("a", 0)]);
}

#[test]
fn a_run_that_goes_on_ends_with_what_is_known() {
    let retrying = TaskView {
        status: TaskStatus::Retrying,
        ..cut(task("b", Kind::Tool, "b", [100, 100, 130, 130], &["a"]))
    };
    let mut run = run(0, vec![tool("a", 0, 100, &[]), retrying]);
    (run.status, run.ended_ms, run.wall_ms) = (RunStatus::Running, None, None);
    let found = check(&run);
    assert_eq!((found.wall_ms, path(&found)), (130, vec!["a tool 0+100".into(), "b retry 100+30".into()]));
}

#[test]
fn views_that_no_engine_makes_do_no_harm() {
    assert_eq!(attribution(&run(50, Vec::new())).path, []);
    let cycle = vec![tool("a", 0, 50, &["b"]), tool("b", 0, 50, &["a"])];
    let own = vec![tool("a", 50, 50, &["a", "nobody"])];
    let far = vec![TaskView { owner: Some(id("b")), ..tool("a", 70, 90, &[]) }, tool("b", 10, 60, &[])];
    for tasks in [cycle, own, far] {
        let run = run(50, tasks);
        let found = attribution(&run);
        assert_eq!((found.wall_ms, found.categories.total()), (50, 50), "{:?}", path(&found));
    }
}

#[test]
fn it_stands_beside_the_run_in_json() {
    let mut run = run(50, vec![tool("a", 0, 50, &[])]);
    run.output = Some(crate::Payload::from_json(&b"{\"n\":[1.50]}"[..]));
    let text = serde_json::to_string(&Attributed::from(run.clone())).unwrap();
    // payloads pass as they are, and who wants only the run reads only that
    assert!(text.contains(r#""output":{"n":[1.50]}"#), "{text}");
    assert_eq!(serde_json::from_str::<RunView>(&text).unwrap(), run);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["tasks"][0]["id"], "a");
    let expected = serde_json::json!({
        "wall_ms": 50,
        "categories": {"queue": 0, "dispatch": 0, "first_token": 0, "decode": 0, "tool": 50, "join": 0,
                       "condense": 0, "retry": 0},
        "path": [{"task": "a", "category": "tool", "from_ms": 0, "ms": 50}],
        "slack_ms": {"a": 0},
        "what_if": [{"label": "a", "kind": "tool", "share_of_wall": 1.0, "half_time_gain_percent": 50.0}],
    });
    assert_eq!(json["attribution"], expected);
}

#[test]
fn what_each_task_did() {
    let run = run(
        300,
        vec![
            task("each", Kind::Map, "read", [0, 0, 2, 100], &[]),
            tool("each/0", 5, 100, &[]),
            TaskView { first_token_ms: Some(30), ..task("b", Kind::Llm, "m", [0, 100, 110, 200], &[]) },
            join("out", 300, &["each", "b"]),
            cut(join("late", 0, &["out"])),
        ],
    );
    let (wall, done) = activities(&run);
    assert_eq!(wall, 300);
    assert_eq!(
        (done[0].span, done[1].parent, done[3].span, done[4].span),
        (Some((0, 100)), Some(0), Some((100, 300)), None)
    );
    use Category::*;
    assert_eq!(done[0].phases, [(Queue, 0, 2), (Dispatch, 2, 5)]);
    assert_eq!(
        done[2].phases,
        [(Retry, 0, 100), (Queue, 100, 110), (FirstToken, 110, 140), (Decode, 140, 200)]
    );
    assert_eq!(done[3].phases, [(Join, 100, 300)]);
}
