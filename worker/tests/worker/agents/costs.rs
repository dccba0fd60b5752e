//! What an agent's calls cost is booked whatever comes of them, and a budget sees it.

use serde_json::json;
use trireme_model::RunId;

use super::{runs, stage};
use crate::support::Stage;

/// The run's tokens, prompt and answer, and those of the simulator's ledger.
async fn tokens(stage: &Stage, run: &RunId) -> [(u64, u64); 2] {
    let ended = stage.run(run).await;
    let (usage, wasted) = (ended.usage, ended.wasted);
    let calls = stage.simulator().ledger().calls();
    let models = calls.iter().filter(|call| call.target == "m");
    let sum = models.fold((0, 0), |sum, call| (sum.0 + call.prompt_tokens, sum.1 + call.completion_tokens));
    let booked = (usage.input_tokens + wasted.input_tokens, usage.output_tokens + wasted.output_tokens);
    [booked, sum]
}

#[tokio::test]
async fn what_is_reported_is_booked_to_the_token() {
    // one that is no JSON where JSON was asked for, one that is empty, and one that is good
    let scenario = "rules:
  - {times: 1, respond: {text: 'this is no object at all, but it has tokens'}}
  - {times: 1, respond: {text: ' '}}
  - {respond: {json: {winner: France}}}";
    let schema = "{type: object, properties: {winner: {type: string}}, required: [winner]}";
    for model in ["sim/m", "claude/m"] {
        let spec = format!("agent: {{goal: go, model: {model}, output_schema: {schema}}}");
        let (stage, run, answer) = runs(scenario, &spec).await;
        assert_eq!(answer["json"], json!({"winner": "France"}));
        let [booked, ledger] = tokens(&stage, &run).await;
        assert_eq!(booked, ledger, "{model}");
    }
}

#[tokio::test]
async fn what_is_not_reported_is_estimated() {
    // the plan goes on after its join, which is not waited for; the provider reports at the end only
    let scenario = r#"rules:
  - when: {system: {contains: Write a PLAN}}
    respond: {text: "1 remote {\"q\":\"a\"}\njoin\nand now a long explanation that nobody waits for, word after word, on and on", tokens_per_second: 12}
  - respond: {text: done}
tools: [{tool: remote, respond: {text: found}}]"#;
    let spec = "agent: {goal: go, model: sim/m, tools: [remote], strategy: plan, max_replans: 0}";
    let (stage, run, _) = runs(scenario, spec).await;
    let [booked, ledger] = tokens(&stage, &run).await;
    let near = |booked: u64, ledger: u64| booked * 2 >= ledger && booked <= ledger * 2;
    assert!(near(booked.0, ledger.0) && near(booked.1, ledger.1), "{booked:?} {ledger:?}");
    let planner = &stage.run(&run).await.usage;
    assert_eq!(planner.calls, 2);
}

#[tokio::test]
async fn a_budget_sees_the_calls_that_were_cut() {
    let scenario = "rules:
  - respond: {text: 'some words that come before the stream is cut, again and again and again'}
    fault: {cut: {after_tokens: 8}}";
    let (stage, worker) = stage(scenario).await;
    let spec = "budget: {tokens: 60}\nagent: {goal: go, model: sim/m}";
    let run = stage.submit(spec).await;
    let ended = stage.ended(&run).await;
    assert!(ended.usage.input_tokens > 0 && ended.usage.output_tokens > 0, "{:?}", ended.usage);
    worker.stop().await;
}
