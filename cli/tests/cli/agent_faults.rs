//! Agents with bad specs, models without measure, and tools that answer nonsense.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{
    process::{Ended, finish_with, trireme},
    simulator::Simulator,
};

/// A model that never answers by itself: it calls something new in every turn, and no plan is ever enough.
const ENDLESS: &str = r#"
rules:
  - {when: {last_user: {contains: no more time}}, respond: {text: what I know}}
  - {when: {system: {contains: Write a PLAN}}, respond: {text: "{{ n }} search {\"q\":\"{{ n }}\"}\njoin\n"}}
  - {when: {offers_tool: replan}, respond: {tool_calls: [{name: replan, arguments: {reason: more}}]}}
  - {respond: {tool_calls: [{name: search, arguments: {q: "{{ turn }}"}}]}}
tools:
  - {tool: search, when: {args: {q: silent}}, fault: {hang: {}}}
  - {tool: search, respond: {text: "{{ args.q }}"}}
"#;

async fn command(name: &str, spec: &str, simulator: &Simulator) -> Ended {
    let mut args = vec![name, "-", "--config", simulator.config()];
    if name == "run" {
        args.push("--json");
    }
    finish_with(trireme(&args), spec.as_bytes()).await
}

/// Runs an agent with `fields`, and `more` beside it.
async fn agent(strategy: &str, fields: &str, more: &str, simulator: &Simulator) -> Ended {
    let spec =
        format!("{more}\nagent: {{goal: go, model: sim/m, strategy: {strategy}, tools: [search]{fields}}}\n");
    command("run", &spec, simulator).await
}

fn tasks<'a>(view: &'a Value, part: &'a str) -> impl Iterator<Item = &'a Value> {
    let tasks = view["tasks"].as_array().unwrap().iter();
    tasks.filter(move |task| task["id"].as_str().unwrap().contains(part))
}

#[tokio::test]
async fn a_bad_agent_exits_64_and_names_place_and_cure() {
    let simulator = Simulator::text("{}").await;
    let cases = [
        ("{model: sim/m}", "agent (line 1, column 8): the field `goal` is missing"),
        ("{goal: x}", "the field `model` is missing"),
        ("{goal: x, model: nope/m}", "agent.model (line 1, column 25): unknown model `nope/m`"),
        (
            "{goal: x, model: sim/m, strategy: dance}",
            "agent.strategy (line 1, column 42): expected one of `react`",
        ),
        ("{goal: x, model: sim/m, tools: [nope]}", "unknown tool \"nope\"; known: calculator"),
        ("{goal: x, model: sim/m, max_steps: 0}", "a whole number from 1 to 500, got `0`"),
        ("{goal: x, model: sim/m, models: {boss: sim/m}}", "unknown field `boss`; known are `step`"),
        ("{goal: x, model: sim/m, agents: {a: {model: sim/m}}}", "the field `description` is missing"),
        (
            "{goal: x, model: sim/m, tools: [search], agents: {search: {description: d}}}",
            "`search` is one of the agent's tools already",
        ),
        ("{goal: x, model: sim/m, output_schema: {type: odd}}", "agent.output_schema.type"),
        ("{goal: x, model: sim/m, context: {elide_over: 1}}", "from 256 to 1048576, got `1`"),
        ("{goal: x, model: sim/m, turn: {on_miss: default}}", "one of `partial`, `fail`, got `default`"),
        ("{goal: '{{ nope }}', model: sim/m}", "unknown reference `nope`"),
        ("{goal: x, model: sim/m}\ntasks: {a: {tool: {name: noop}}}", "either `tasks` or `agent`"),
    ];
    for (fields, text) in cases {
        for name in ["run", "check"] {
            let ended = command(name, &format!("agent: {fields}"), &simulator).await;
            ended.expect(64, &["trireme: standard input: ", text]);
            assert_eq!(ended.out, "");
        }
    }
    let mapped = "tasks: {a: {map: {over: [1], do: {agent: {goal: x, model: sim/m}}}}}";
    command("check", mapped, &simulator).await.expect(64, &["tasks.a.map.do.agent", "write a task for each"]);
    assert!(simulator.calls().await.is_empty());
}

#[tokio::test]
async fn every_limit_ends_with_an_answer_that_says_so() {
    for strategy in ["react", "plan"] {
        let limits = [
            ("max_steps", ", max_steps: 4", ""),
            ("budget", ", max_steps: 400, max_replans: 20", "budget: {tokens: 900}"),
        ];
        for (reason, fields, more) in limits {
            let simulator = Simulator::text(ENDLESS).await;
            let ended = agent(strategy, fields, more, &simulator).await;
            let view = ended.expect(0, &["run succeeded"]).json();
            let output = &view["output"];
            assert_eq!((&output["text"], &output["finish_reason"]), (&json!("what I know"), &json!(reason)));
            assert_eq!((&view["status"], &view["degraded"]), (&json!("succeeded"), &json!(true)), "{view}");
            let models = simulator.calls().await.iter().filter(|call| call["kind"] != "tool").count();
            assert_eq!(view["usage"]["calls"], models);
            assert!((4..=8).contains(&models), "{strategy}, {reason}: {models} calls of models");
        }
        // what is silent is left where it is, in time for an answer
        let scenario = ENDLESS.replace("{{ turn }}", "silent").replace(r#"\"{{ n }}\""#, r#"\"silent\""#);
        let simulator = Simulator::text(&scenario).await;
        let view = agent(strategy, "", "deadline: 3s", &simulator).await;
        let view = view.expect(0, &["run succeeded"]).json();
        let (output, wall) = (&view["output"], view["wall_ms"].as_u64().unwrap());
        assert_eq!((&output["text"], &output["finish_reason"]), (&json!("what I know"), &json!("deadline")));
        assert_eq!(view["degraded"], true);
        assert!((1_000..3_000).contains(&wall), "{strategy}: {wall} ms");
    }
}

#[tokio::test]
async fn arguments_and_results_that_are_no_text_are_named_or_mended() {
    let scenario = r#"
rules:
  - when: {turn: 1}
    respond:
      tool_calls:
        - {name: search, arguments: '{"q":"half \ud800 pair"}'}
        - {name: search, arguments: '{"q":"nul \u0000"}'}
        - {name: search, arguments: {q: bytes}}
        - {name: search, arguments: {q: surrogate}}
  - respond: {text: "{{ tool_results | map(attribute='text') | join(' | ') }}"}
tools:
  - {tool: search, when: {args: {q: bytes}}, fault: {garbage: {}}}
  - tool: search
    when: {args: {q: surrogate}}
    fault: {wrong_content_type: {content_type: application/json, body: '{"value":"half \ud800 pair"}'}}
  - {tool: search, respond: {text: "for {{ args.q }}"}}
"#;
    let simulator = Simulator::text(scenario).await;
    let view = agent("react", "", "", &simulator).await.expect(0, &[]).json();
    let text = view["output"]["text"].as_str().unwrap();
    let parts: Vec<&str> = text.split(" | ").collect();
    assert_eq!(parts[..2], ["for half \u{fffd} pair", "for nul \u{0}"], "{text}");
    assert!(parts[2].starts_with("Error (bad_output)") && parts[2].contains('\u{fffd}'), "{text}");
    assert!(parts[3].starts_with("Error (bad_output)") && parts[3].contains("hex escape"), "{text}");
    assert_eq!(parts.len(), 4);
}

#[tokio::test]
async fn five_megabytes_of_arguments_are_never_sent_on() {
    // 80 times 16,384 tokens of four bytes
    let large = "{% for i in range(80) %}{{ prose(hash, 16384) }}{% endfor %}";
    let scenario = format!(
        r#"
rules:
  - when: {{system: {{contains: Write a PLAN}}}}
    respond: {{text: "1 search {{\"q\":\"{large}\"}}\n2 search {{\"q\":\"small\"}}\njoin\n"}}
  - when: {{offers_tool: search}}
    respond: {{tool_calls: [{{name: search, arguments: {{q: "{large}"}}}}]}}
  - respond: {{text: "{{{{ last_user }}}}"}}
tools: [{{tool: search, respond: {{text: fine}}}}]
"#
    );
    let simulator = Simulator::text(&scenario).await;
    // a model whose answer can't be held is asked again, and then the agent fails
    let view = agent("react", "", "", &simulator).await.expect(1, &[]).json();
    let error = &view["error"]["error"];
    assert_eq!((&view["error"]["task"], &error["class"]), (&json!("agent/step-0"), &json!("invalid_output")));
    assert!(error["message"].as_str().unwrap().contains("1048576 bytes of tool-call arguments"), "{error}");
    assert!(simulator.calls().await.iter().all(|call| call["kind"] != "tool"));
    // a plan goes on with its other nodes
    let view = agent("plan", ", max_replans: 0", "", &simulator).await.expect(0, &[]).json();
    let text = view["output"]["text"].as_str().unwrap();
    assert!(text.contains("2 search {\"q\":\"small\"} -> fine"), "{text}");
    assert!(text.contains("node 1: the arguments have 52428"), "{text}");
}

/// A model that calls a tool `count` times in its first turn, or plans as many nodes.
fn many(count: usize) -> String {
    let calls: String =
        (0..count).map(|n| format!("        - {{name: search, arguments: {{q: '{n}'}}}}\n")).collect();
    format!(
        r#"
rules:
  - when: {{system: {{contains: Write a PLAN}}}}
    respond: {{text: "{{% for n in range({count}) %}}{{{{ n + 1 }}}} search {{\"q\":\"{{{{ n }}}}\"}}\n{{% endfor %}}join\n"}}
  - when: {{turn: 1, offers_tool: search}}
    respond:
      tool_calls:
{calls}
  - when: {{has_tool_results: true}}
    respond: {{text: "{{{{ tool_results | map(attribute='text') | unique | join(' | ') }}}}"}}
  - respond: {{text: "{{{{ last_user }}}}"}}
tools: [{{tool: search, respond: {{text: fine}}}}]
"#
    )
}

#[tokio::test]
async fn ten_thousand_calls_in_one_turn_are_not_made() {
    let simulator = Simulator::text(&many(300)).await;
    let view = agent("react", "", "", &simulator).await.expect(0, &[]).json();
    let refused = "fine | Error (too_many_calls): over 64 calls in one turn; call it again";
    assert_eq!(view["output"]["text"], refused);
    assert_eq!(tasks(&view, "/search-").count(), 64);

    let simulator = Simulator::text(&many(10_000)).await;
    let view = agent("react", "", "", &simulator).await.expect(1, &[]).json();
    let error = &view["error"]["error"];
    assert_eq!((&view["error"]["task"], &error["class"]), (&json!("agent/step-0"), &json!("invalid_output")));
    assert!(error["message"].as_str().unwrap().contains("1000 tool calls in one turn"), "{error}");
    // of each try the first 64 had begun, and are the same ones
    assert_eq!(tasks(&view, "/search-").count(), 64);
    let calls = simulator.calls().await;
    assert!(calls.iter().filter(|call| call["kind"] == "tool").count() <= 64, "a call was made twice");

    let simulator = Simulator::text(&many(10_000)).await;
    let view = agent("plan", ", max_replans: 0", "", &simulator).await.expect(0, &[]).json();
    assert_eq!(tasks(&view, "agent/plan-0/").count(), 100 + 1, "100 nodes and their join");
    let text = view["output"]["text"].as_str().unwrap();
    assert!(text.contains("100 search {\"q\":\"99\"} -> fine\n(not done: "), "{text}");
}

// what agents that may write do begins at the end of the turn, all at once
#[tokio::test]
async fn agents_with_large_settings_that_write_are_called_over_several_turns() {
    let calls: String =
        (0..40).map(|n| format!("        - {{name: helper, arguments: {{task: '{n}'}}}}\n")).collect();
    let scenario = format!(
        "
rules:
  - when: {{turn: 1, offers_tool: helper}}
    respond:
      tool_calls:
{calls}
  - when: {{has_tool_results: true}}
    respond: {{text: \"{{{{ tool_results | map(attribute='text') | unique | join(' | ') }}}}\"}}
  - respond: {{text: helped}}
"
    );
    let simulator = Simulator::text(&scenario).await;
    let note = format!("\n[tools.note]\nurl = \"{}/tools/note\"\neffect = \"write\"\n", simulator.api.base);
    let settings = std::fs::read_to_string(&simulator.config).unwrap() + &note;
    std::fs::write(&simulator.config, settings).unwrap();
    let system = "x".repeat(250_000);
    let spec = format!(
        "agent:\n  goal: go\n  model: sim/m\n  agents: {{helper: {{description: helps, tools: [note], system: {system}, max_steps: 1}}}}\n"
    );
    let view = command("run", &spec, &simulator).await.expect(0, &[]).json();
    let refused = "the settings of so many agents are too large for one turn; call it in the next";
    assert_eq!(view["output"]["text"], format!("helped | Error (too_many_calls): {refused}"));
    // 6 MiB of settings go into one turn
    let helpers: BTreeSet<&str> = view["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|task| task["kind"] == "agent" && task["id"] != "agent")
        .map(|task| task["id"].as_str().unwrap())
        .collect();
    assert!((20..=25).contains(&helpers.len()), "{helpers:?}");
}
