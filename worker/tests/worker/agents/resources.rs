//! Tools that name a resource never overlap on the same one, whoever calls them; and how urgent an agent's tasks are.

use std::sync::atomic::Ordering::SeqCst;

use trireme_model::{Priority, TaskStatus};

use super::{calls, one_turn, runs, stage};
use crate::support::{Stage, config};

/// That no two calls of `locked` were open at once, of so many.
fn apart(stage: &Stage, count: usize) {
    let mut calls = calls(stage, "locked");
    calls.sort_unstable();
    assert_eq!(calls.len(), count, "{calls:?}");
    assert!(calls.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{calls:?}");
}

#[tokio::test]
async fn calls_on_one_resource_never_overlap() {
    let scenario = one_turn(["locked", "locked", "locked"]);
    let (stage, run, _) = runs(&scenario, "agent: {goal: go, model: sim/m, tools: [locked]}").await;
    apart(&stage, 3);
    assert!(stage.run(&run).await.lines.is_empty());
}

#[tokio::test]
async fn nodes_of_a_plan_on_one_resource_never_overlap() {
    let scenario = r#"rules:
  - when: {system: {contains: Write a PLAN}}
    respond: {text: "1 locked {\"q\":\"a\"}\n2 remote {\"q\":\"b\"}\n3 locked {\"q\":\"${2.value}\"}\n4 locked {\"q\":\"c\"}\njoin"}
  - respond: {text: done}
tools: [{tool: '*', latency: 20ms, respond: {json: {value: x}}}]"#;
    let spec = "agent: {goal: go, model: sim/m, tools: [locked, remote], strategy: plan, max_replans: 0}";
    let (stage, _, _) = runs(scenario, spec).await;
    apart(&stage, 3);
}

#[tokio::test]
async fn agents_and_tasks_side_by_side_never_overlap_on_one_resource() {
    let scenario = "rules:
  - when: {turn: 1}
    respond: {tool_calls: [{name: locked, arguments: {q: '{{ goal }} one'}},
      {name: locked, arguments: {q: '{{ goal }} two'}}]}
  - respond: {text: done}
tools: [{tool: '*', latency: 30ms, respond: {text: fine}}]";
    let spec = "tasks:
  a: {agent: {goal: a, model: sim/m, tools: [locked]}}
  b: {agent: {goal: b, model: sim/m, tools: [locked]}}
  c: {tool: {name: locked, args: {q: c}}}
  each: {map: {over: [1, 2, 3], do: {tool: {name: locked, args: {q: 'each {{ item }}'}}}}}
output: [\"{{ a.text }}\", \"{{ b.text }}\", \"{{ c }}\", \"{{ each }}\"]";
    for _ in 0..3 {
        let (stage, run, output) = runs(scenario, spec).await;
        assert_eq!(output, serde_json::json!(["done", "done", "fine", ["fine", "fine", "fine"]]));
        apart(&stage, 8);
        assert!(stage.run(&run).await.lines.is_empty(), "somebody stands in a line still");
    }
}

#[tokio::test]
async fn what_waits_for_a_resource_needs_no_worker_and_survives_lost_answers() {
    let scenario = "tools: [{tool: '*', latency: 20ms, respond: {text: '{{ args.q }}'}}]";
    let (stage, worker) = stage(scenario).await;
    // every answer about a resource is lost once: the attempt asks again and is told that it is not its turn, or is
    stage.tap.lose("extend", 3);
    stage.tap.duplicate.store(true, SeqCst);
    let run = stage
        .submit(
            "tasks: {each: {map: {over: [1, 2, 3, 4], do: {tool: {name: locked, args: {q: 'n{{ item }}'}}}}}}",
        )
        .await;
    assert_eq!(stage.output(&run).await, serde_json::json!({"each": ["n1", "n2", "n3", "n4"]}));
    apart(&stage, 4);
    worker.stop().await;
}

#[tokio::test]
async fn a_call_does_not_overtake_a_change_of_the_same_thing() {
    let scenario = one_turn(["locked", "rewrite", "locked"]);
    let (stage, run, _) = runs(&scenario, "agent: {goal: go, model: sim/m, tools: [locked, rewrite]}").await;
    let mut all = [calls(&stage, "locked"), calls(&stage, "rewrite")].concat();
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{all:?}");
    assert_eq!(calls(&stage, "rewrite")[0], all[1], "the model's order was not kept");
    let added = stage.run(&run).await;
    let done = |id: &&trireme_model::TaskId| added.tasks[*id].status == TaskStatus::Succeeded;
    assert!(added.added.iter().all(|id| done(&id)));
}

#[tokio::test]
async fn an_agents_tasks_are_as_urgent_as_the_agent() {
    let scenario = "rules:
  - when: {turn: 1}
    respond: {tool_calls: [{name: remote, arguments: {q: x}}, {name: helper, arguments: {task: part}}]}
  - respond: {text: done}
tools: [{tool: '*', respond: {text: fine}}]";
    let stage = Stage::new().await.simulating(scenario).await;
    let worker = stage.hire(config(&[("llm", 4), ("tool", 4)])).await;
    let agent = "agent: {goal: go, model: sim/m, tools: [remote], agents: {helper: {description: d}}}";
    for (line, priority) in [("", Priority::Normal), (", priority: high", Priority::High)] {
        let run = stage.submit(&format!("tasks: {{a: {{{agent}{line}}}}}")).await;
        stage.output(&run).await;
        let ended = stage.run(&run).await;
        assert!(ended.added.len() > 4, "{:?}", ended.added);
        for id in &ended.added {
            let exec = &ended.tasks[id].spec.as_ref().unwrap().exec;
            assert_eq!(exec.priority, priority, "{id}");
        }
    }
    worker.stop().await;
}
