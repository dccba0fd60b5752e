//! The examples of agents: exact answers, and how they come about.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::{
    examples::{output, view},
    support::{
        agent_names,
        process::{finish_with, trireme},
        simulator::Simulator,
    },
};

const BRIEF: &str = "Figures: revenue rose by a tenth to 4.2 billion dollars; the margin fell to 11 percent; debt \
stands at 1.9 billion dollars. Business: Acme opened a second smelter in Antofagasta; Globex and Initech expand in the \
same region; three customers buy half of the copper. Outlook: Chile plans a higher royalty; the wage agreement runs \
until 2028.";

/// What each example gives.
fn expected(name: &str) -> Value {
    match name {
        "agent-brief" | "agent-brief-plan" => json!(BRIEF),
        "agent-compare" => json!({"winner": "France", "per_km2": {"France": 125.0, "Spain": 96.0}}),
        "agent-branches" => json!("On average 68733.8 dollars a head"),
        "agent-loop" => {
            json!({"text": "The twelve figures add up to 1746", "steps": 14, "finish_reason": "answer"})
        }
        "agent-team" => json!(
            "Chile: 51940000. Peru: 25480000. Congo: 32340000. Checked Chile: 51940000. Peru: 25480000. Congo: 32340000."
        ),
        "agent-in-tasks" => json!({
            "letter": "Dear investors, Chile's copper is worth 51940 million dollars a year. And Chile plans a higher \
                       royalty. Yours, the fund",
            "how": "answer",
        }),
        "agent-mcp" => json!("Delhi 13:00, Dubai 11:30"),
        name => panic!("no answer is written down for {name}"),
    }
}

/// The calls to `target`.
fn calls<'a>(calls: &'a [Value], target: &str) -> Vec<&'a Value> {
    calls.iter().filter(|call| call["target"] == target).collect()
}

fn at(call: &Value, field: &str) -> u64 {
    call[field].as_u64().unwrap()
}

/// How many of `calls` were open when the last of them began.
fn open_at_once(calls: &[&Value]) -> usize {
    let last = calls.iter().map(|call| at(call, "at_us")).max().unwrap();
    calls.iter().filter(|call| at(call, "ended_at_us") > last).count()
}

#[tokio::test]
async fn answers_are_exact_in_parallel_and_one_at_a_time() {
    let simulator = Simulator::agents().await;
    let names = agent_names();
    assert!(names.len() >= 8, "{names:?}");
    let given = names.iter().map(async |name| {
        let parallel = output(name, &simulator, &[]).await;
        (name, parallel, output(name, &simulator, &["--sequential"]).await)
    });
    for (name, parallel, sequential) in join_all(given).await {
        assert_eq!(parallel, expected(name), "{name}");
        assert_eq!(sequential, expected(name), "{name}, sequential");
    }
}

#[tokio::test]
async fn eight_searches_run_at_once_and_begin_while_the_model_speaks() {
    for name in ["agent-brief", "agent-brief-plan"] {
        let simulator = Simulator::agents().await;
        let view = view(name, &simulator, &[]).await;
        let ledger = simulator.calls().await;
        let searches = calls(&ledger, "search");
        assert_eq!(searches.len(), 8, "{name}");
        let models: Vec<&Value> = ledger.iter().filter(|call| call["kind"] != "tool").collect();
        assert_eq!(models.len(), 2, "{name}");
        assert!(open_at_once(&searches) >= 4, "{name}: the searches were not at once");
        assert!(at(searches[0], "at_us") < at(models[0], "ended_at_us"), "{name}: no search began early");
        assert_eq!(view["usage"]["calls"], 2);
    }
}

#[tokio::test]
async fn a_long_loop_elides_and_condenses_and_repeats_nothing() {
    let simulator = Simulator::agents().await;
    let view = view("agent-loop", &simulator, &[]).await;
    let ledger = simulator.calls().await;
    assert_eq!(calls(&ledger, "page").len(), 12);
    let tasks: BTreeSet<&str> = ledger.iter().map(|call| call["task"].as_str().unwrap()).collect();
    assert_eq!(tasks.len(), ledger.len(), "a task's call was made twice");
    let summaries = calls(&ledger, "fast");
    let condensed = view["tasks"].as_array().unwrap().iter();
    let condensed = condensed.filter(|task| task["id"].as_str().unwrap().contains("/condense-")).count();
    assert!(
        condensed > 0 && summaries.len() == condensed,
        "{condensed} summaries, {} calls",
        summaries.len()
    );
    // a page has 1,500 tokens
    let turns: Vec<u64> = calls(&ledger, "best").iter().map(|call| at(call, "prompt_tokens")).collect();
    assert_eq!(turns.len(), 14);
    assert!(turns[1] - turns[0] < 1_000, "a page was shown whole: {turns:?}");
    assert!(turns.windows(2).any(|pair| pair[1] < pair[0]), "no summary shortened the prompt: {turns:?}");
    assert!(turns.iter().all(|tokens| *tokens < 10_000), "{turns:?}");
}

#[tokio::test]
async fn a_team_works_at_the_same_time() {
    let simulator = Simulator::agents().await;
    let view = view("agent-team", &simulator, &[]).await;
    let ledger = simulator.calls().await;
    let agents = view["tasks"].as_array().unwrap().iter().filter(|task| task["kind"] == "agent");
    assert_eq!(agents.count(), 5, "the lead, three analysts and a reviewer: {view}");
    let searches = calls(&ledger, "search");
    assert_eq!(searches.len(), 6);
    assert!(open_at_once(&searches) > 2, "one analyst waited for another");
}

/// A model that asks for a tool and then answers.
const ASKS: &str = "
rules:
  - {when: {has_tool_results: true}, respond: {text: done}}
  - {respond: {tool_calls: [{name: calculator, arguments: {expression: 1 + 1}}]}}
";

#[tokio::test]
async fn one_start_of_a_prompt_is_one_cache_at_openai_and_nothing_that_others_refuse() {
    let simulator = Simulator::text(ASKS).await;
    let run = async |model: &str, tools: &str| {
        let before = simulator.calls().await.len();
        let spec = format!("agent: {{goal: go, model: {model}, tools: [{tools}]}}");
        let mut command = trireme(&["run", "-", "--config", simulator.config()]);
        command.env("OPENAI_BASE_URL", format!("{}/v1", simulator.api.base)).env("OPENAI_API_KEY", "k");
        finish_with(command, spec.as_bytes()).await.expect(0, &[]);
        let calls = simulator.calls().await.split_off(before);
        assert_eq!(calls.len(), 2, "{calls:?}");
        let keys: BTreeSet<String> = calls.iter().map(|call| call["cache_key"].to_string()).collect();
        assert_eq!(keys.len(), 1, "the turns of a run share one: {keys:?}");
        keys.into_iter().next().unwrap()
    };
    let start =
        |key: &str| key.strip_prefix("\"trireme-").and_then(|key| key.rsplit_once('-')).unwrap().0.to_owned();
    let first = run("openai/gpt-4.1-mini", "calculator").await;
    let again = run("openai/gpt-4.1-mini", "calculator").await;
    let other = run("openai/gpt-4.1-mini", "calculator, json_query").await;
    assert_eq!(start(&first), start(&again), "runs of one agent share the start");
    assert_ne!(start(&first), start(&other), "other tools are another prompt");
    assert_eq!(run("sim/fast", "calculator").await, "null");
}
