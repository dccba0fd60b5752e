//! One run is one trace over coordinator, broker and workers, whoever dies; a receiver that is not ours is the judge.

use std::{collections::HashSet, time::Duration};

use serde_json::json;
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};
use trireme_test_servers::free_port;

use crate::support::{
    SOON, eventually,
    fleet::{Fleet, Member},
    process::{finish_with, trireme},
    simulator::Simulator,
    tap::{Span, Tap, orphans},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// Stands in a prompt.
const CANARY: &str = "xanthous-canary";

/// A lease, the work that follows, and patience for a loaded machine.
const RECOVERED: Duration = Duration::from_secs(60);

/// Calls of models: eight children of the map, the agent's one turn, the end.
const CALLS: usize = 10;

const SPEC: &str = r#"
name: audit
input: {subject: xanthous-canary, items: [1, 2, 3, 4, 5, 6, 7, 8]}
tasks:
  each:
    map:
      over: "{{ input.items }}"
      do: {llm: {model: sim/fast, prompt: "{{ item }} about {{ input.subject }}", max_tokens: 50, stream: true}}
  sum: {tool: {name: calculator, args: {expression: "1 + 2"}}}
  who: {agent: {goal: "Say something", tools: [calculator], strategy: react, model: sim/fast}}
  facts: {join: {from: [each, sum, who], need: all}}
  end: {llm: {model: sim/fast, prompt: "{{ facts }}"}}
output: "{{ end.text }}"
"#;

/// Coordinator or worker that sends what it has to `tap` soon.
async fn member(fleet: &Fleet, name: &str, tap: &Tap) -> Member {
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", tap.endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("TRIREME_LOG", "info,trireme_worker=debug"),
    ];
    let port = free_port().unwrap();
    let member = match name {
        "coordinator" => fleet.spawn_coordinator(name, port, &env),
        _ => fleet.spawn_worker(name, port, &env),
    };
    member.ready().await
}

/// All spans of the trace, once the run's own is among them and none lacks its parent.
async fn tree(taps: &[&Tap], trace: &str, outside: &str) -> Vec<Span> {
    let end = Instant::now() + SOON;
    loop {
        let spans: Vec<Span> =
            taps.iter().flat_map(|tap| tap.spans()).filter(|span| span.trace() == trace).collect();
        let whole = spans.iter().any(|span| span.name() == "invoke_workflow audit");
        let lost = orphans(&spans, outside);
        if whole && lost.is_empty() {
            return spans;
        }
        let names: Vec<&str> = spans.iter().map(Span::name).collect();
        assert!(Instant::now() < end, "the tree is not complete: {names:?}, without a parent: {lost:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn named<'a>(spans: &'a [Span], start: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name().starts_with(start)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_run_is_one_trace_over_a_coordinator_and_two_workers() {
    let simulator = Simulator::text("rules: [{respond: {text: fine, time_to_first_token: 300ms}}]").await;
    let fleet = Fleet::shared(Some(simulator.config.clone())).await;
    let (at_coordinator, at_first, at_second) =
        tokio::join!(Tap::start("tap c"), Tap::start("tap 1"), Tap::start("tap 2"));
    let coordinator = member(&fleet, "coordinator", &at_coordinator).await;
    let (first, second) = (member(&fleet, "w1", &at_first).await, member(&fleet, "w2", &at_second).await);
    let id = coordinator.api.submit_in(SPEC, &format!("00-{TRACE}-{CALLER}-01")).await;
    assert_eq!(coordinator.api.ended(&id, SOON).await["output"], "fine");

    let taps = [&at_coordinator, &at_first, &at_second];
    // the last attempt's spans may still be on their way when the run's are there
    let spans = eventually("all calls are told of", SOON, || async {
        let spans = tree(&taps, TRACE, CALLER).await;
        (named(&spans, "chat ").len() == CALLS).then_some(spans)
    })
    .await;
    let ids: HashSet<&str> = spans.iter().map(Span::id).collect();
    assert_eq!(ids.len(), spans.len(), "no span is sent twice");
    let roots: Vec<&str> = spans.iter().filter(|span| span.parent() == CALLER).map(Span::name).collect();
    assert_eq!(roots, ["invoke_workflow audit"]);
    for (tap, kind) in [(&at_first, "process "), (&at_second, "process "), (&at_coordinator, "publish ")] {
        assert!(!named(&tap.spans(), kind).is_empty(), "{}", tap.output());
    }

    let whole = named(&spans, "invoke_workflow")[0];
    assert_eq!(
        (whole.attribute("trireme.run.status"), whole.attribute("trireme.run.id")),
        (json!("succeeded"), json!(id))
    );
    assert_eq!(whole.attribute("gen_ai.workflow.name"), "audit");
    let (map, agent) = (named(&spans, "map each")[0], named(&spans, "invoke_agent who")[0]);
    assert_eq!((agent.parent(), agent.attribute("gen_ai.agent.name")), (whole.id(), json!("who")));
    assert!(spans.iter().any(|span| span.parent() == agent.id()), "{spans:?}");
    for chat in named(&spans, "chat ") {
        let above = spans.iter().find(|span| span.id() == chat.parent()).unwrap();
        assert!(above.name().starts_with("process ") || above.name() == "attempt llm", "{above:?}");
        assert!([map.id(), agent.id(), whole.id()].contains(&above.parent()), "{above:?}");
        // a client's
        assert_eq!(chat.json["kind"], 3);
        for (name, value) in [
            ("gen_ai.operation.name", json!("chat")),
            ("gen_ai.provider.name", json!("sim")),
            ("gen_ai.request.model", json!("fast")),
            ("gen_ai.response.finish_reasons", json!("stop")),
            ("gen_ai.conversation.id", json!(id)),
        ] {
            assert_eq!(chat.attribute(name), value, "{name} of {chat:?}");
        }
        for name in ["gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.response.id"] {
            assert!(chat.attribute(name).is_string(), "{name} of {chat:?}");
        }
        assert!(chat.attribute("gen_ai.response.time_to_first_chunk").as_f64().unwrap() > 0.2, "{chat:?}");
    }
    let bound = |span: &&&Span| span.attribute("gen_ai.request.max_tokens") == "50";
    assert_eq!(named(&spans, "chat ").iter().filter(bound).count(), 8);
    let tool = named(&spans, "execute_tool calculator")[0];
    assert_eq!((tool.attribute("gen_ai.tool.name"), &tool.json["kind"]), (json!("calculator"), &json!(1)));
    assert_eq!(named(&spans, "join facts")[0].parent(), whole.id());

    // what a message brought points to what sent it
    let sent: HashSet<&str> = named(&spans, "publish ").iter().map(|span| span.id()).collect();
    let processed = named(&spans, "process ");
    let linked = processed.iter().filter_map(|span| span.json.pointer("/links/0/spanId")?.as_str());
    assert_eq!(linked.filter(|id| sent.contains(id)).count(), processed.len());

    let all: String = taps.iter().map(|tap| tap.output()).collect();
    assert!(
        !all.contains(CANARY) && !all.contains("fine"),
        "content stands on spans without being asked for"
    );
    for member in [coordinator, first, second] {
        member.stop().await;
    }
    fleet.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_a_run_survives_a_killed_worker() {
    // the first call fails and the last one never ends, the first time
    let scenario = "rules:
  - {when: {last_user: hi}, times: 1, fault: {error: {status: 500}}}
  - {when: {last_user: {contains: done}}, times: 1, fault: {hang: {}}}
  - {respond: {text: done}}";
    let simulator = Simulator::text(scenario).await;
    let fleet = Fleet::shared(Some(simulator.config.clone())).await;
    let (at_coordinator, at_first, at_second) =
        tokio::join!(Tap::start("tap c"), Tap::start("tap 1"), Tap::start("tap 2"));
    let coordinator = member(&fleet, "coordinator", &at_coordinator).await;
    let mut first = member(&fleet, "w1", &at_first).await;
    let spec = "name: audit
tasks:
  a: {llm: {model: sim/fast, prompt: hi}}
  b: {llm: {model: sim/fast, prompt: \"{{ a.text }}\"}}
output: \"{{ b.text }}\"";
    // a header that is none, and a run that is its own
    let id = coordinator.api.submit_in(spec, "00-garbage").await;
    eventually("both calls are made", SOON, || async { (simulator.calls().await.len() == 3).then_some(()) })
        .await;
    let seen = eventually("the first call is told of", SOON, || async {
        let spans = at_first.spans();
        let chats = named(&spans, "chat ");
        let failed: Vec<_> = chats.iter().map(|chat| chat.attribute("error.type")).collect();
        (failed == [json!("provider_failed"), json!(null)]).then(|| chats[0].trace().to_owned())
    })
    .await;
    // what the worker says of the failure names the run, the task and the trace
    let line = first.process.line("attempt failed").await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let expected = json!([id, "a", 1, seen]);
    assert_eq!(json!([line["run"], line["task"], line["attempt"], line["trace_id"]]), expected, "{line}");
    first.process.kill().await;
    let second = member(&fleet, "w2", &at_second).await;
    assert_eq!(coordinator.api.ended(&id, RECOVERED).await["output"], "done");

    let taps = [&at_coordinator, &at_first, &at_second];
    let spans = eventually("the second call is told of", SOON, || async {
        let spans = tree(&taps, &seen, "").await;
        (named(&spans, "chat ").len() == 3).then_some(spans)
    })
    .await;
    let roots: Vec<&str> = spans.iter().filter(|span| span.parent().is_empty()).map(Span::name).collect();
    assert_eq!(roots, ["invoke_workflow audit"]);
    let resumed = at_second.spans().into_iter().find(|span| span.name().starts_with("process ")).unwrap();
    assert_eq!((resumed.attribute("trireme.attempt"), resumed.trace()), (json!("2"), seen.as_str()));
    for member in [coordinator, second] {
        member.stop().await;
    }
    fleet.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_stands_on_spans_where_it_is_asked_for() {
    let simulator = Simulator::text("rules: [{respond: {text: fine}}]").await;
    let tap = Tap::start("tap").await;
    let mut command = trireme(&["run", "-"]);
    command
        .env("TRIREME_CONFIG", &simulator.config)
        .env("TRIREME__TELEMETRY__CONTENT", "true")
        .env("TRIREME__TELEMETRY__OTLP__ENDPOINT", &tap.endpoint)
        .env("TRACEPARENT", format!("00-{TRACE}-{CALLER}-01"));
    let ended = finish_with(command, SPEC.as_bytes()).await;
    ended.expect(0, &[]);
    eprintln!("{}", ended.err);
    // it has sent everything before it ended
    let spans = tree(&[&tap], TRACE, CALLER).await;
    let chats = named(&spans, "chat ");
    assert_eq!(chats.len(), CALLS);
    for chat in chats {
        assert!(chat.attribute("gen_ai.output.messages").as_str().unwrap().contains("fine"), "{chat:?}");
    }
    assert!(tap.output().contains(CANARY));
    let tool = named(&spans, "execute_tool")[0];
    assert!(tool.attribute("gen_ai.tool.call.arguments").as_str().unwrap().contains("1 + 2"), "{tool:?}");
    assert!(!tool.attribute("gen_ai.tool.call.result").is_null(), "{tool:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_or_silent_fails_no_run() {
    let simulator = Simulator::text("rules: [{respond: {text: fine}}]").await;
    // takes connections and never answers
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [silent.local_addr().unwrap().port(), free_port().unwrap()];
    for port in addresses {
        let mut command = trireme(&["run", "-"]);
        command
            .env("TRIREME_CONFIG", &simulator.config)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}"));
        let ended = finish_with(command, SPEC.as_bytes()).await;
        ended.expect(0, &[]);
        assert_eq!(ended.out.trim(), "fine", "{ended:?}");
    }
}
