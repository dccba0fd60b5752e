//! `trireme run`: results, exit codes and errors.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;

use crate::support::{
    examples,
    process::{Ended, Process, finish_with, run, trireme},
    simulator::Simulator,
    wide,
};

/// Runs `spec` from standard input.
async fn run_text(spec: &str, args: &[&str]) -> Ended {
    finish_with(trireme(&[&["run", "-"], args].concat()), spec.as_bytes()).await
}

fn hello() -> String {
    examples().join("hello.yaml").to_str().unwrap().to_owned()
}

#[tokio::test]
async fn json_has_the_fields_that_scripts_read() {
    let ended = run(&["run", &hello(), "--json"]).await;
    let view = ended.expect(0, &["run succeeded"]).json();
    for field in ["run_id", "status", "output", "error", "wall_ms", "tasks", "usage"] {
        assert!(view.get(field).is_some(), "{field} is not in {view}");
    }
    assert_eq!(ended.out.lines().count(), 1, "one object on one line");
    assert_eq!(view["status"], "succeeded");
    assert_eq!(view["output"], json!({"total": 52, "goods": 50, "text": "4 pieces cost 52"}));
    assert_eq!(view["error"], json!(null));
    let tasks = view["tasks"].as_array().unwrap();
    let ids: BTreeSet<&str> = tasks.iter().map(|task| task["id"].as_str().unwrap()).collect();
    assert_eq!(ids, BTreeSet::from(["net", "fee", "total", "order", "goods", "output"]));
    for task in tasks {
        assert_eq!((&task["status"], &task["attempt"]), (&json!("succeeded"), &json!(1)), "{task}");
        assert_eq!(task["kind"], "tool");
        assert!(task["queued_ms"].is_u64() && task["run_ms"].is_u64(), "{task}");
    }
}

#[tokio::test]
async fn output_goes_to_standard_output_and_progress_to_standard_error() {
    let ended = run(&["run", &hello()]).await;
    ended.expect(0, &["net started", "total done", "run succeeded"]);
    assert_eq!(ended.out, "{\"total\":52,\"goods\":50,\"text\":\"4 pieces cost 52\"}\n");
    let text = run_text("tasks: {a: {tool: {name: noop, args: {}}}}\noutput: plain", &[]).await;
    assert_eq!(text.expect(0, &[]).out, "plain\n", "a text is not quoted");
}

#[tokio::test]
async fn a_terminal_does_not_obey_what_a_tool_or_model_says() {
    let dir = tempfile::tempdir().unwrap();
    let spec = dir.path().join("spec.yaml");
    let says = r#"tasks: {a: {tool: {name: value, args: {value: "\u001b[2Jgone\u009b31m"}}}}"#;
    for output in ["{{ a }}", "{said: '{{ a }}'}"] {
        let output = if output.starts_with("{{") { format!("'{output}'") } else { output.to_owned() };
        std::fs::write(&spec, format!("{says}\noutput: {output}\n")).unwrap();
        let line = format!("{} run {} 2>/dev/null", env!("CARGO_BIN_EXE_trireme"), spec.display());
        // a reader of a pipe gets it as it is
        let mut piped = tokio::process::Command::new("sh");
        piped.args(["-c", &line]);
        assert!(finish_with(piped, b"").await.expect(0, &[]).out.contains('\u{9b}'));
        let mut terminal = tokio::process::Command::new("script");
        terminal.args(["-qec", &line, "/dev/null"]);
        let shown = finish_with(terminal, b"").await.expect(0, &[]).out.clone();
        assert!(shown.contains("\\u{9b}31m") && !shown.contains(['\u{1b}', '\u{9b}']), "{shown:?}");
    }
}

#[tokio::test]
async fn inputs_from_the_command_line_go_over_those_of_the_file() {
    let ended = run(&["run", &hello(), "--input", "price=20", "--input", "amount=3"]).await;
    assert_eq!(ended.expect(0, &[]).json()["total"], json!(61.5));
    let spec = "input: {a: {b: 1}, c: old}\ntasks: {t: {tool: {name: value, args: {value: \"{{ input }}\"}}}}\noutput: \"{{ t }}\"";
    let ended = run_text(spec, &["--input", "a=[1, 2]", "--input", "c=x=y z"]).await;
    assert_eq!(ended.expect(0, &[]).json(), json!({"a": [1, 2], "c": "x=y z"}));
}

#[tokio::test]
async fn sequential_runs_one_task_at_a_time() {
    let file = examples().join("map.yaml");
    let ended = run(&["run", file.to_str().unwrap(), "--sequential", "--json"]).await;
    let view = ended.expect(0, &[]).json();
    assert_eq!(view["output"]["sum"], 385);
    let mut open: BTreeSet<String> = BTreeSet::new();
    for line in ended.err.lines() {
        let mut words = line.split_whitespace().skip(1);
        let (Some(task), Some(what)) = (words.next(), words.next()) else { continue };
        // a map waits for its children while they run; it holds no slot
        if task == "squares" || task == "run" {
            continue;
        }
        match what {
            "started" => assert!(open.insert(task.to_owned()) && open.len() == 1, "at once: {open:?}"),
            "done" => assert!(open.remove(task), "{task} ended twice"),
            _ => {}
        }
    }
    assert!(open.is_empty());
}

#[tokio::test]
async fn a_failed_run_exits_1_and_names_the_task_and_its_error() {
    let spec = "tasks:\n  a: {tool: {name: json_query, args: {data: {}, query: /x}}}\n  b: {tool: {name: value, args: {value: \"{{ a }}\"}}}\n";
    let ended = run_text(spec, &[]).await;
    ended.expect(1, &["trireme: the run failed", "a: ", "there is nothing at `/x`"]);
    assert_eq!(ended.out, "");
    let view = run_text(spec, &["--json"]).await;
    let view = view.expect(1, &[]).json();
    assert_eq!((&view["status"], &view["output"]), (&json!("failed"), &json!(null)));
    assert!(view["error"].is_object(), "{view}");
    let a = view["tasks"].as_array().unwrap().iter().find(|task| task["id"] == "a").unwrap().clone();
    assert_eq!((&a["status"], &a["error"]["class"]), (&json!("failed"), &json!("tool_failed")));
    let b = view["tasks"].as_array().unwrap().iter().find(|task| task["id"] == "b").unwrap().clone();
    assert_eq!(b["status"], "skipped");
}

#[tokio::test]
async fn a_run_past_its_deadline_fails() {
    let spec = "deadline: 50ms\ntasks: {a: {tool: {name: sleep, args: {ms: 60000}}}}";
    let view = run_text(spec, &["--json"]).await;
    let view = view.expect(1, &[]).json();
    assert_eq!(view["status"], "failed");
    // the worker, whose attempt may not outlive the run, and the sweep race to say so
    let said = view.to_string();
    assert!(
        said.contains("the run's deadline passed") || said.contains("the task's time limit passed"),
        "{view}"
    );
    // on a busy machine it may not have begun
    assert!(view["tasks"][0]["run_ms"].as_u64().is_none_or(|ms| ms < 60_000), "{view}");
}

#[tokio::test]
async fn a_bad_spec_exits_64_and_names_file_place_and_cure() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.yaml");
    let path = file.to_str().unwrap();
    let cases: &[(&str, &[&str])] = &[
        ("tasks: [\n", &["bad.yaml", "line 1", "YAML"]),
        ("{\"tasks\": ", &["bad.yaml", "line 1", "JSON"]),
        ("", &["bad.yaml", "empty"]),
        ("tasks: {}\n", &["bad.yaml", "tasks"]),
        (
            "tasks:\n  a: {tool: {name: nope}}\n",
            &["tasks.a.tool.name (line 2, column 20)", "unknown tool", "calculator"],
        ),
        (
            "tasks:\n  a: {llm: {model: gpt, prompt: hi}}\n",
            &["tasks.a.llm.model (line 2", "unknown model", "openai/..."],
        ),
        (
            "tasks:\n  a: {llm: {model: openai/gpt-4o, prompt: hi}}\n",
            &["tasks.a.llm.model", "OPENAI_API_KEY"],
        ),
        ("tasks:\n  a: {llm: {model: anthropic/claude, prompt: hi}}\n", &["ANTHROPIC_API_KEY"]),
        ("tasks:\n  a: {tool: {name: noop}}\n  a: {tool: {name: noop}}\n", &["tasks.a (line 3", "twice"]),
        (
            "tasks:\n  a: {tool: {name: value, args: {value: \"{{ b }}\"}}}\n  b: {tool: {name: value, args: {value: \"{{ a }}\"}}}\n",
            &["cycle: ", "a", "b", "->"],
        ),
        (
            "tasks:\n  a: {tool: {name: value, args: {value: \"{{ c }}\"}}}\n",
            &["tasks.a.tool.args.value", "`c`"],
        ),
        ("tasks:\n  a: {tool: {name: calculator, args: {expr: 1}}}\n", &["tasks.a.tool", "expr"]),
        ("tasks:\n  a: {tool: {nam: noop}}\n", &["unknown field `nam`", "did you mean `name`"]),
        ("tasks:\n  a: {tool: {name: noop}, timeout: soon}\n", &["tasks.a.timeout", "soon"]),
        ("tasks:\n  a: {tool: {name: noop}}\n  j: {join: {from: [a], need: 2}}\n", &["tasks.j.join.need"]),
        ("deadline: 1h\nbogus: 1\ntasks: {a: {tool: {name: noop}}}\n", &["unknown field `bogus`"]),
    ];
    for (spec, texts) in cases {
        std::fs::write(&file, spec).unwrap();
        let ended = run(&["run", path]).await;
        ended.expect(64, texts).expect(64, &["trireme: ", "bad.yaml"]);
        assert_eq!(ended.out, "");
        assert!(ended.err.lines().count() <= 3, "too long: {}", ended.err);
    }
}

#[tokio::test]
async fn limits_of_a_spec_are_named() {
    let deep = format!("{{\"tasks\": {}1{}}}", "[".repeat(70), "]".repeat(70));
    run_text(&deep, &[]).await.expect(64, &["64"]);
    let many: String = (0..10_000).map(|n| format!("  t{n}: {{tool: {{name: noop}}}}\n")).collect();
    run_text(&format!("tasks:\n{many}"), &[]).await.expect(64, &["10000 tasks", "9999"]);
    let big = format!("name: \"{}\"\n", "x".repeat(1 << 20));
    run_text(&big, &[]).await.expect(64, &["standard input", "1 MiB"]);
}

#[tokio::test]
async fn what_can_not_be_read_is_named() {
    run(&["run", "/no/such/spec.yaml"]).await.expect(64, &["/no/such/spec.yaml", "No such file"]);
    run(&["run", "/"]).await.expect(64, &["/: ", "directory"]);
    let bytes = finish_with(trireme(&["run", "-"]), b"name: \xff").await;
    bytes.expect(64, &["standard input", "UTF-8", "byte 6"]);
    for input in ["novalue", "=x"] {
        run(&["run", &hello(), "--input", input]).await.expect(64, &["--input", input, "KEY=VALUE"]);
    }
    let list = run_text("input: [1]\ntasks: {a: {tool: {name: noop}}}", &["--input", "a=1"]).await;
    list.expect(64, &["input", "object"]);
}

#[tokio::test]
async fn an_input_that_begins_like_json_is_json() {
    let deep = format!("a={}{}", "[".repeat(70), "]".repeat(70));
    for (input, why) in [(r#"a={"x":1,"x":2}"#, "twice"), (&deep, "64"), ("a=[1", "malformed")] {
        run(&["run", &hello(), "--input", input]).await.expect(64, &["input.a", why]);
        run(&["submit", &hello(), "--input", input]).await.expect(64, &["input.a", why]);
    }
}

#[tokio::test]
async fn a_trace_that_can_not_be_written_costs_no_run() {
    let simulator = Simulator::text("rules: [{respond: {text: fine}}]").await;
    let spec = "tasks: {a: {llm: {model: sim/fast, prompt: hi}}}\noutput: \"{{ a.text }}\"";
    let with = |trace| ["--config", simulator.config(), "--trace", trace];
    run_text(spec, &with("/nonexist/x")).await.expect(64, &["--trace /nonexist/x"]);
    assert_eq!(simulator.calls().await.len(), 0);
    // a disk that fills up meanwhile
    let full = run_text(spec, &with("/dev/full")).await;
    assert_eq!(full.expect(64, &["--trace /dev/full"]).out, "fine\n");
}

#[tokio::test]
async fn a_run_says_that_traces_are_off() {
    let mut command = trireme(&["run", &hello()]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1").env("OTEL_TRACES_SAMPLER", "odd");
    finish_with(command, b"").await.expect(0, &["traces are off"]);
    let quiet = run(&["run", &hello()]).await;
    assert!(!quiet.expect(0, &[]).err.to_lowercase().contains("warn"), "{}", quiet.err);
}

#[tokio::test]
async fn json_specs_run_like_yaml() {
    let spec = r#"{"tasks": {"a": {"tool": {"name": "value", "args": {"value": [1, {"x": null}]}}}}, "output": "{{ a }}"}"#;
    assert_eq!(run_text(spec, &[]).await.expect(0, &[]).out, "[1,{\"x\":null}]\n");
}

#[tokio::test]
async fn a_signal_cancels_a_run_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("long.yaml");
    std::fs::write(&file, "tasks: {a: {tool: {name: sleep, args: {ms: 60000}}}}").unwrap();
    for signal in ["INT", "TERM"] {
        let mut process = Process::start("run", trireme(&["run", file.to_str().unwrap()]));
        process.line("a started").await;
        process.signal(signal);
        let status = process.ended(Duration::from_secs(20)).await;
        assert_eq!(status.code(), Some(1), "{}", process.output());
        process.line_kept("the run was cancelled").await;
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_panic() {
    let mut command = trireme(&["run", &hello()]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().await.unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !err.contains("panicked"), "{}: {err}", output.status);
}

#[tokio::test]
async fn a_passing_failure_is_retried() {
    let scenario = "rules: [{times_each: 1, fault: {error: {status: 500}}}, {respond: {text: fine}}]";
    let simulator = Simulator::text(scenario).await;
    let spec =
        "tasks: {a: {llm: {model: sim/fast, prompt: hi}, retry: {backoff: 10ms}}}\noutput: \"{{ a.text }}\"";
    let ended = run_text(spec, &["--config", simulator.config(), "--json"]).await;
    let view = ended.expect(0, &["a will be retried", "a started, attempt 2"]).json();
    assert_eq!((&view["output"], &view["tasks"][0]["attempt"]), (&json!("fine"), &json!(2)));
}

#[tokio::test]
async fn a_map_may_be_10000_wide() {
    let ended = run_text(&wide(), &[]).await;
    assert_eq!(ended.expect(0, &["wide has 10000 children"]).out, "49995000\n");
}
