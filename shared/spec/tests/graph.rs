//! What a spec becomes: kinds, pools, limits, edges, and the hidden output task.
#![allow(clippy::unwrap_used)]

use trireme_model::{
    Graph, Kind, Need, OnMiss, Payload, Priority, RunId, TaskSpec,
    merge::{Form, Merge},
};
use trireme_spec::{ATTEMPTS, BACKOFF_MS, Compiled, LLM_TIMEOUT_MS, Permissive, TOOL_TIMEOUT_MS, compile};

fn compiled(text: &str) -> Compiled {
    compile(text, &[], &Permissive).unwrap_or_else(|invalid| panic!("{text}\n{invalid}"))
}

fn task<'g>(graph: &'g Graph, id: &str) -> &'g TaskSpec {
    graph.tasks().iter().find(|task| task.id.as_str() == id).unwrap()
}

fn inputs(task: &TaskSpec) -> Vec<&str> {
    task.inputs.iter().map(|id| id.as_str()).collect()
}

#[test]
fn defaults_are_as_documented() {
    let graph = compiled("tasks: {a: {llm: {model: m, prompt: p}}, b: {tool: {name: t}}, c: {map: {over: [], do: {llm: {model: m, prompt: p}}}}, d: {join: {from: [a]}}}").graph;
    let (a, b, c, d) = (task(&graph, "a"), task(&graph, "b"), task(&graph, "c"), task(&graph, "d"));
    assert_eq!((a.exec.pool.as_str(), a.exec.timeout, a.exec.paid), ("llm", Some(LLM_TIMEOUT_MS), true));
    assert_eq!((b.exec.pool.as_str(), b.exec.timeout, b.exec.paid), ("tool", Some(TOOL_TIMEOUT_MS), false));
    assert_eq!(
        (a.exec.max_attempts, a.exec.backoff, a.exec.priority),
        (ATTEMPTS, BACKOFF_MS, Priority::Normal)
    );
    assert_eq!((c.exec.kind, c.exec.pool.as_str(), c.exec.timeout), (Kind::Map, "tool", None));
    let children = c.children.as_ref().unwrap();
    assert_eq!((children.at_once, children.exec.kind, children.exec.paid), (256, Kind::Llm, true));
    assert_eq!((children.exec.pool.as_str(), children.exec.timeout), ("llm", Some(LLM_TIMEOUT_MS)));
    let policy = d.policy.unwrap();
    assert_eq!((policy.need, policy.within, policy.on_miss), (Need::All, None, OnMiss::Fail));
    assert_eq!(Merge::of_body(&d.body).unwrap().form, Form::Object);
    assert_eq!(Merge::of_body(&c.body).unwrap().form, Form::List);
}

#[test]
fn settings_reach_the_task() {
    let graph = compiled(
        "defaults: {timeout: 1s, retry: {attempts: 7, backoff: 1s}, priority: high}\n\
         tasks:\n  a: {tool: {name: t}, fallback: null}\n  b: {tool: {name: t}, timeout: 2s, pool: gpu, retry: {attempts: 1}, priority: normal}\n\
         \x20 c: {map: {over: [], at_once: 2, need: any, within: 3s, on_miss: partial, do: {tool: {name: t}, pool: gpu, fallback: [1]}}, retry: {attempts: 2}}",
    )
    .graph;
    let (a, b, c) = (task(&graph, "a"), task(&graph, "b"), task(&graph, "c"));
    assert_eq!((a.exec.timeout, a.exec.max_attempts, a.exec.backoff), (Some(1000), 7, 1000));
    assert_eq!(
        (a.exec.priority, a.exec.fallback.clone()),
        (Priority::High, Some(Payload::from_json("null")))
    );
    assert_eq!((b.exec.timeout, b.exec.max_attempts, b.exec.backoff), (Some(2000), 1, 1000));
    assert_eq!((b.exec.pool.as_str(), b.exec.priority), ("gpu", Priority::Normal));
    let children = c.children.as_ref().unwrap();
    assert_eq!((children.at_once, children.exec.max_attempts, children.exec.pool.as_str()), (2, 2, "gpu"));
    assert_eq!(children.exec.fallback, Some(Payload::from_json("[1]")));
    let policy = c.policy.unwrap();
    assert_eq!((policy.need, policy.within, policy.on_miss), (Need::Count(1), Some(3000), OnMiss::Partial));
}

#[test]
fn without_an_output_it_is_all_sinks_by_name() {
    let graph = compiled(
        "tasks: {a: {tool: {name: t}}, b: {tool: {name: t, args: {x: '{{ a }}'}}}, c: {tool: {name: t}}}",
    )
    .graph;
    let output = graph.tasks().last().unwrap();
    assert_eq!(
        (output.id.as_str(), output.exec.kind, inputs(output)),
        ("output", Kind::Join, vec!["b", "c"])
    );
    let merge = Merge::of_body(&output.body).unwrap();
    let parts = [Some(Payload::from_json("1")), Some(Payload::from_json("2"))];
    assert_eq!(format!("{:?}", merge.merge(&parts).unwrap()), r#"{"b":1,"c":2}"#);
}

#[test]
fn an_output_that_is_a_task_is_that_tasks_value_and_waits_for_the_rest() {
    let graph = compiled("tasks: {z: {tool: {name: t}}, a: {tool: {name: t}}}\noutput: '{{ a }}'").graph;
    let output = graph.tasks().last().unwrap();
    assert_eq!((output.exec.kind, inputs(output)), (Kind::Join, vec!["a", "z"]));
    let policy = output.policy.unwrap();
    assert_eq!((policy.need, policy.on_miss), (Need::All, OnMiss::Fail));
    let parts = [Some(Payload::from_json("1")), Some(Payload::from_json("2"))];
    assert_eq!(format!("{:?}", Merge::of_body(&output.body).unwrap().merge(&parts).unwrap()), "1");
}

#[test]
fn any_other_output_is_a_value_made_where_its_last_input_ran() {
    let text = "tasks: {a: {llm: {model: m, prompt: p}, pool: gpu}, j: {join: {from: [a]}}, z: {tool: {name: t}}}\noutput: {x: '{{ j.a.text }}', n: 1}";
    let graph = compiled(text).graph;
    let output = graph.tasks().last().unwrap();
    assert_eq!((output.exec.kind, output.exec.pool.as_str()), (Kind::Tool, "gpu"));
    assert_eq!(inputs(output), ["j", "z"]);
    assert_eq!(
        format!("{:?}", output.body),
        r#"{"tool":{"name":"value","args":{"value":{"x":"{{ j.a.text }}","n":1}}}}"#
    );
}

#[test]
fn edges_come_from_every_reference_once() {
    let graph = compiled(
        "input: {k: 1}\n\
         tasks:\n  a: {tool: {name: t}}\n  b: {tool: {name: t}}\n  c: {tool: {name: t}}\n  d: {tool: {name: t}}\n\
         \x20 x: {map: {over: \"{{ a.l }}\", do: {tool: {name: t, args: {q: \"{% for k in b %}{{ k }}{{ item }}{{ index }}{% endfor %}{{ a }}{{ input.k }}\"}}}}, after: [d, a]}\n\
         \x20 y: {llm: {model: \"{{ c }}\", system: \"{{ a['x'] }}\", messages: [{role: user, content: \"{{ range(3) }}{{ b | join(d) }}\"}]}}",
    )
    .graph;
    assert_eq!(inputs(task(&graph, "x")), ["a", "b", "d"]);
    assert_eq!(inputs(task(&graph, "y")), ["c", "a", "b", "d"]);
}

#[test]
fn a_task_is_labelled_by_what_it_calls() {
    let long = "é".repeat(100);
    let graph = compiled(&format!(
        "models: {{fast: sim/fast}}\ntasks: {{a: {{tool: {{name: t}}}}, b: {{llm: {{model: fast, prompt: p}}}}, c: {{join: {{from: [a]}}}}, d: {{map: {{over: [1], do: {{tool: {{name: u}}}}}}}}, e: {{tool: {{name: {long}}}}}, f: {{agent: {{goal: g, model: m, strategy: plan, models: {{planner: fast}}}}}}}}"
    ))
    .graph;
    let labels: Vec<&str> = graph.tasks().iter().map(|task| task.label.as_str()).collect();
    // the limit of 128 bytes falls between two letters of two bytes each
    assert_eq!(labels, ["t", "sim/fast", "", "u", &long[..128], "sim/fast", ""]);
}

#[test]
fn a_long_chain_is_drawn_level_by_level() {
    let task = |at: usize| match at {
        0 => "t0: {tool: {name: t}}".to_owned(),
        _ => format!("t{at}: {{tool: {{name: t}}, after: [t{}]}}", at - 1),
    };
    let tasks: Vec<String> = (0..5_000).map(task).collect();
    let tree = compiled(&format!("tasks: {{{}}}", tasks.join(", "))).tree();
    assert!(tree.starts_with("run: 5001 tasks, 5000 edges, 5001 levels\nlevel 1\n"));
    assert!(
        tree.ends_with("level 5001\n  output  the run's output  <- t4999\n"),
        "{}",
        &tree[tree.len() - 80..]
    );
}

#[test]
fn a_submit_carries_it_all() {
    let text = "{\"name\": \"n\", \"input\": {\"a\": 1}, \"deadline\": \"1m 30s\", \"budget\": {\"tokens\": 5, \"usd\": 0.25}, \"tasks\": {\"a\": {\"tool\": {\"name\": \"t\"}}}}";
    let inputs = ["a=two".to_owned(), "b={\"c\": [3]}".to_owned()];
    let submit = compile(text, &inputs, &Permissive).unwrap().submit(RunId::new("r1").unwrap(), "f");
    assert_eq!((submit.run.as_str(), submit.name.as_str(), submit.fingerprint.as_str()), ("r1", "n", "f"));
    assert_eq!(format!("{:?}", submit.input), r#"{"a":"two","b":{"c":[3]}}"#);
    assert_eq!(submit.deadline, Some(90_000));
    assert_eq!((submit.budget.tokens, submit.budget.usd_micros), (Some(5), Some(250_000)));
    assert_eq!(
        compile(text, &["x".to_owned()], &Permissive).unwrap_err().to_string(),
        "input: `x` is not of the form key=value"
    );
}

#[test]
fn yaml_and_json_of_the_same_spec_are_the_same() {
    let yaml = compiled(
        "input: &in {s: \"a\\u00e4\", n: 0x10, f: 1.50, t: ~, copy: &c [yes, on, 012]}\ntasks: {a: {tool: {name: t, args: {x: *c}}}}",
    );
    let json = compiled(
        r#"{"input":{"s":"aä","n":16,"f":1.50,"t":null,"copy":["yes","on",12]},"tasks":{"a":{"tool":{"name":"t","args":{"x":["yes","on",12]}}}}}"#,
    );
    assert_eq!(yaml.input, json.input);
    assert_eq!(yaml.graph, json.graph);
}

#[test]
fn every_field_stands_in_the_reference() {
    let reference = include_str!("../../../docs/spec.md");
    for (object, fields) in trireme_spec::FIELDS {
        for field in *fields {
            assert!(
                reference.contains(&format!("`{field}`")),
                "docs/spec.md says nothing of `{field}` of {object}"
            );
        }
    }
}

#[test]
fn the_example_of_the_reference_compiles() {
    let reference = include_str!("../../../docs/spec.md");
    let example = reference.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let graph = compiled(example).graph;
    assert_eq!(inputs(task(&graph, "each")), ["news"]);
    assert_eq!(inputs(task(&graph, "brief")), ["each"]);
}
