//! The joiner of the last plan that an agent may make.

use serde_json::json;

use super::{runs, tasks};

/// A planner, and a joiner that has `says` to say of the last plan.
fn scenario(says: &str) -> String {
    format!(
        r#"rules:
  - when: {{system: {{contains: Write a PLAN}}, last_user: {{contains: Missing}}}}
    respond: {{text: "2 remote {{\"q\":\"b\"}}\njoin\n"}}
  - when: {{system: {{contains: Write a PLAN}}}}
    respond: {{text: "1 remote {{\"q\":\"a\"}}\njoin\n"}}
  - when: {{last_user: {{contains: "no more"}}}}
    respond: {{text: "what there is"}}
  - when: {{last_user: {{contains: "2 remote"}}}}
    respond: {says}
  - respond: {{tool_calls: [{{name: replan, arguments: {{reason: more of it}}}}]}}
tools: [{{tool: remote, respond: {{json: {{value: "{{{{ args.q }}}}"}}}}}}]"#
    )
}

const SPEC: &str = "agent: {goal: go, model: sim/m, tools: [remote], strategy: plan, max_replans: 1}";

#[tokio::test]
async fn if_the_results_suffice_the_answer_is_whole() {
    let (stage, run, answer) = runs(&scenario("{text: all there}"), SPEC).await;
    assert_eq!(answer, json!({"text": "all there", "finish_reason": "answer", "steps": 4}));
    assert!(!stage.run(&run).await.degraded);
}

#[tokio::test]
async fn if_they_do_not_another_call_answers_from_what_there_is() {
    let says = "{tool_calls: [{name: replan, arguments: {reason: never enough}}]}";
    let (stage, run, answer) = runs(&scenario(says), SPEC).await;
    assert_eq!(answer, json!({"text": "what there is", "finish_reason": "max_steps", "steps": 5}));
    let ended = stage.run(&run).await;
    assert!(ended.degraded);
    assert_eq!(ended.usage.calls, 5, "two plans, two joiners, and the last word");
    assert_eq!(tasks(&ended, "agent/answer").len(), 1);
    // the last word is cut: the limit is the reason all the same
    let short = scenario(says).replace("what there is", "what there is, at some length");
    let spec = SPEC.replace("max_replans: 1", "max_replans: 1, max_tokens: {answer: 2}");
    let (_, _, answer) = runs(&short, &spec).await;
    assert_eq!(answer["finish_reason"], "max_steps", "{answer}");
    let steps = SPEC.replace("max_replans: 1", "max_steps: 4");
    let (_, _, answer) = runs(&scenario(says), &steps).await;
    assert_eq!(answer["finish_reason"], "max_steps");
}
