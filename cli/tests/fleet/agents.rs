//! Workers die under agents: the answer stays the same, what was recorded is never done again, and each death costs
//! at most one model call.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use serde_json::{Value, json};
use trireme_test_servers::free_port;

use crate::support::{
    SOON,
    api::{Api, Sse, whole_log},
    eventually, example,
    fleet::{Fleet, Member},
    process::Process,
    simulator::Simulator,
};

/// A lease, the work that follows, and patience for a loaded machine.
const RECOVERED: Duration = Duration::from_secs(60);
/// The clocks of the store and of the simulator are read at different moments.
const MARGIN_MS: u64 = 50;

const TURNS: &str = r#"
chunk_interval: 10ms
tokens_per_second: 200
rules:
  - when: {turn: 1}
    times: 1
    respond: &first {tool_calls: [{name: search, arguments: {q: a}}, {name: search, arguments: {q: b}},
      {name: search, arguments: {q: c}}]}
    fault: {hang: {after_tokens: 11}}
  - {when: {turn: 1}, respond: *first}
  - {when: {turn: 2}, respond: {tool_calls: [{name: search, arguments: {q: d}}, {name: search, arguments: {q: e}}]}}
  - when: {turn: 3}
    times: 1
    respond: &last {text: "found {{ all_results | map(attribute='text') | join(' and ') }}, and that is the answer"}
    fault: {hang: {after_tokens: 6}}
  - {when: {turn: 3}, respond: *last}
tools:
  - {tool: search, when: {args: {q: e}}, times: 1, fault: {hang: {}}}
  - {tool: search, respond: {text: "{{ args.q | upper }}"}}
"#;

const PLAN: &str = r#"
chunk_interval: 10ms
tokens_per_second: 200
rules:
  - when: {system: {contains: Write a PLAN}}
    times: 1
    respond: &plan {text: "1 search {\"q\":\"a\"}\n2 search {\"q\":\"b\"}\n3 search {\"q\":\"${1}${2}\"}\n4 search {\"q\":\"c\"}\njoin 3 4"}
    fault: {hang: {after_tokens: 12}}
  - {when: {system: {contains: Write a PLAN}}, respond: *plan}
  - times: 1
    respond: &last {text: "found {% for line in last_user | lines if '->' in line %}{{ line | split('-> ') | last }} {% endfor %}and that is the answer"}
    fault: {hang: {after_tokens: 6}}
  - {respond: *last}
tools:
  - {tool: search, when: {args: {q: AB}}, times: 1, fault: {hang: {}}}
  - {tool: search, respond: {text: "{{ args.q | upper }}"}}
"#;

/// When the worker is killed: a call of the task whose id begins with `calls` is silent, and `done` tasks have
/// succeeded.
struct Moment {
    calls: &'static str,
    done: usize,
    /// Some of the answer has been told as an event.
    said: bool,
}

async fn moment(api: &Api, simulator: &Simulator, id: &str, moment: &Moment) -> String {
    let what = format!("{} is silent and {} tasks are done", moment.calls, moment.done);
    let silent = eventually(&what, SOON, || async {
        let run = api.run(id).await;
        let tasks = run["tasks"].as_array().unwrap();
        let done = tasks.iter().filter(|task| task["status"] == "succeeded").count();
        assert!(done <= moment.done, "{what}: too late, {done} are: {run}");
        let calls = simulator.calls().await;
        let silent = calls.iter().find(|call| {
            call["outcome"] == "in_flight"
                && !call["fault"].is_null()
                && call["task"].as_str().unwrap().starts_with(moment.calls)
        });
        silent.filter(|_| done == moment.done).map(|call| call["task"].as_str().unwrap().to_owned())
    })
    .await;
    if moment.said {
        api.until(id, |event| event.kind == "task.delta" && event.data["task"] == *silent).await;
    }
    silent
}

/// A run with a worker that is killed at each of `moments`.
async fn killed(strategy: &str, scenario: &str, moments: &[Moment], answer: &str) {
    let simulator = Simulator::text(scenario).await;
    let fleet = Fleet::shared(Some(simulator.config.clone())).await;
    let coordinator = fleet.coordinator(&format!("{strategy}: coordinator")).await;
    let mut worker = fleet.worker(&format!("{strategy}: worker"), &[]).await;
    let spec =
        format!("agent: {{goal: go, model: sim/m, strategy: {strategy}, max_replans: 0, tools: [search]}}");
    let id = coordinator.api.submit(&spec).await;
    let mut victims = BTreeMap::new();
    for (at, when) in moments.iter().enumerate() {
        let silent = moment(&coordinator.api, &simulator, &id, when).await;
        worker.process.kill().await;
        victims.insert(silent, at);
        worker = fleet.worker(&format!("{strategy}: worker {at}"), &[]).await;
    }
    let run = coordinator.api.ended(&id, RECOVERED).await;
    assert_eq!(run["output"]["text"], answer, "{run}");
    assert_eq!((&run["degraded"], &run["output"]["finish_reason"]), (&json!(false), &json!("answer")));
    whole_log(&coordinator.api.events(&id, None, usize::MAX).await);
    assert_eq!(victims.len(), moments.len(), "each kill hit another task: {victims:?}");
    let mut made: BTreeMap<String, usize> = BTreeMap::new();
    for call in simulator.calls().await {
        *made.entry(call["task"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    for (task, calls) in &made {
        let expected = if victims.contains_key(task) { 2 } else { 1 };
        assert_eq!(*calls, expected, "{strategy}: calls of {task}: {made:?}, killed at {victims:?}");
    }
    for task in run["tasks"].as_array().unwrap() {
        let killed = victims.contains_key(task["id"].as_str().unwrap());
        let attempts = if task["kind"] == "join" { 0 } else { 1 + u64::from(killed) };
        assert_eq!(task["attempt"], attempts, "{task}");
    }
    worker.stop().await;
    coordinator.stop().await;
    fleet.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_survive_kills_in_mid_stream_and_in_between() {
    let moments = [
        Moment { calls: "agent/step-0", done: 2, said: false },
        Moment { calls: "agent/step-1/search", done: 7, said: false },
        Moment { calls: "agent/step-2", done: 9, said: true },
    ];
    let answer = "found A and B and C and D and E, and that is the answer";
    killed("react", TURNS, &moments, answer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_survive_kills_in_mid_stream_and_in_between() {
    let moments = [
        Moment { calls: "agent/plan-0", done: 2, said: false },
        Moment { calls: "agent/plan-0/3-", done: 4, said: false },
        Moment { calls: "agent/join-0", done: 6, said: true },
    ];
    killed("plan", PLAN, &moments, "found A B AB C and that is the answer").await;
}

/// Where the worker dies: each step by which an agent adds tasks and records a turn, at several visits.
const CRASHES: [&str; 9] = [
    "extend.before_store",
    "extend.after_store",
    "extend.after_hints",
    "complete.before_store:2",
    "complete.after_store:3",
    "complete.after_hints:4",
    "complete.before_store:5",
    "complete.after_store:6",
    "claim.after_store:2",
];

#[tokio::test(flavor = "multi_thread")]
async fn agents_survive_every_crash_point_of_their_steps() {
    let simulator = Simulator::agents().await;
    for strategy in ["react", "plan"] {
        let spec = example("agent-compare").replace("sim/fast", &format!("sim/fast\n  strategy: {strategy}"));
        let (spec, simulator) = (&spec, &simulator);
        join_all(CRASHES.map(|point| crashed(point, strategy, spec, simulator))).await;
    }
}

async fn crashed(point: &str, strategy: &str, spec: &str, simulator: &Simulator) {
    let what = format!("{strategy} at {point}");
    let fleet = Fleet::shared(Some(simulator.config.clone())).await;
    let coordinator = fleet.coordinator(&format!("{what}: coordinator")).await;
    let chosen = [("TRIREME_CRASH_POINT", point)];
    let mut victim =
        fleet.spawn_worker(&format!("{what}: victim"), free_port().unwrap(), &chosen).ready().await;
    let id = coordinator.api.submit(spec).await;
    let status = victim.process.ended(SOON).await;
    assert!(Process::aborted(status), "{what}: ended with {status}: {}", victim.process.output());
    let successor: Member = fleet.worker(&format!("{what}: successor"), &[]).await;
    let run = coordinator.api.ended(&id, RECOVERED).await;
    let expected = json!({"winner": "France", "per_km2": {"France": 125.0, "Spain": 96.0}});
    assert_eq!(run["output"], expected, "{what}: {run}");
    let events = coordinator.api.events(&id, None, usize::MAX).await;
    whole_log(&events);
    let calls: Vec<Value> = simulator.calls().await.into_iter().filter(|call| call["run"] == *id).collect();
    let mut repeated = 0;
    for call in &calls {
        let recorded = recorded(&events, call["task"].as_str().unwrap());
        let at = call["at_ms"].as_u64().unwrap();
        assert!(at <= recorded + MARGIN_MS, "{what}: recorded at {recorded}, and then: {call}");
        let same = calls.iter().filter(|other| other["task"] == call["task"]);
        let first = same.map(|other| other["id"].as_u64().unwrap()).min();
        repeated += u32::from(call["kind"] != "tool" && call["id"].as_u64() != first);
    }
    assert!(repeated <= 1, "{what}: {repeated} model calls were repeated");
    successor.stop().await;
    coordinator.stop().await;
    fleet.clean().await;
}

/// When the result of `task` was recorded.
fn recorded(events: &[Sse], task: &str) -> u64 {
    let event = events.iter().find(|event| event.kind == "task.succeeded" && event.data["task"] == *task);
    event.unwrap_or_else(|| panic!("{task} has no result")).data["at"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_only_the_coordinator_knows_fails_the_agent_and_is_named() {
    let simulator = Simulator::text("rules: [{respond: {text: fine}}]").await;
    let fleet = Fleet::shared(Some(simulator.config.clone())).await;
    let coordinator = fleet.coordinator("coordinator").await;
    let text = std::fs::read_to_string(&simulator.config).unwrap();
    let without = simulator.config.with_file_name("without.toml");
    std::fs::write(&without, text.replace("[tools.search]", "[tools.find]")).unwrap();
    let worker = fleet.worker("worker", &[("TRIREME_CONFIG", without.to_str().unwrap())]).await;
    let run = |tool: &str| {
        let spec = format!("agent: {{goal: go, model: sim/m, tools: [{tool}]}}");
        let api = coordinator.api.clone();
        async move { api.ended(&api.submit(&spec).await, SOON).await }
    };
    let failed = run("search").await;
    let (task, error) = (&failed["error"]["task"], &failed["error"]["error"]);
    assert_eq!((task, &error["class"]), (&json!("agent/step-0"), &json!("unknown_tool")), "{failed}");
    assert!(
        error["message"].as_str().unwrap().contains("the agent's tool \"search\" can't be had"),
        "{error}"
    );
    assert_eq!(run("filings").await["output"]["text"], "fine");
    worker.stop().await;
    coordinator.stop().await;
    fleet.clean().await;
}
