use serde_json::{Value, json};

use super::*;
use crate::{Scenario, rulebook::Rulebook};

const SUM: &str = "
scripts:
  - name: sum
    goal: 'add A and B'
    thought: 'Thinking on turn {{ turn }}.'
    steps:
      - {id: a, tool: search, arguments: {q: A}}
      - {id: b, tool: search, arguments: {q: B}}
      - {id: c, tool: add, arguments: {left: $a.value, note: 'of ${a.name}', right: $b.value}}
    answer: 'ANSWER: {{ results.c.value }}'
    json: {answer: '{{ results.c.value }}'}
";

fn book(yaml: &str) -> Rulebook {
    Rulebook::compile(&Scenario::parse(yaml).unwrap()).unwrap()
}

fn request(system: &str, messages: Vec<Value>, tools: &[&str]) -> Value {
    let mut all = vec![json!({"role": "system", "content": system})];
    all.extend(messages);
    let mut body = json!({"model": "m", "messages": all});
    if !tools.is_empty() {
        let tool = |name: &&str| json!({"type": "function", "function": {"name": name}});
        body["tools"] = tools.iter().map(tool).collect();
    }
    body
}

fn say(book: &Rulebook, body: &Value) -> Vec<String> {
    let prompt = Prompt::parse(Kind::OpenAi, body.to_string().as_bytes()).unwrap();
    let said = book.answer(&prompt).unwrap().segments.into_iter().map(|segment| match segment {
        Segment::Text(text) => text,
        Segment::Call { name, arguments, .. } => format!("{name} {arguments}"),
    });
    said.collect()
}

fn goal() -> Value {
    json!({"role": "user", "content": "Please add A and B."})
}

/// An assistant turn with these calls, and their results.
fn turn(calls: &[(&str, Value, &str)]) -> Vec<Value> {
    let asked = calls.iter().enumerate().map(|(i, (name, arguments, _))| {
        json!({"id": format!("c{i}"), "type": "function", "function": {"name": name, "arguments": arguments.to_string()}})
    });
    let mut messages =
        vec![json!({"role": "assistant", "content": null, "tool_calls": asked.collect::<Vec<_>>()})];
    messages.extend(
        calls
            .iter()
            .enumerate()
            .map(|(i, call)| json!({"role": "tool", "tool_call_id": format!("c{i}"), "content": call.2})),
    );
    messages
}

const TOOLS: &[&str] = &["add", "search"];

#[test]
fn all_calls_whose_inputs_are_known_come_in_one_turn_or_one_by_one() {
    let book = book(SUM);
    let mut body = request("", vec![goal()], TOOLS);
    assert_eq!(
        ["Thinking on turn 1.", r#"search {"q":"A"}"#, r#"search {"q":"B"}"#],
        say(&book, &body).as_slice()
    );
    body["parallel_tool_calls"] = json!(false);
    assert_eq!(["Thinking on turn 1.", r#"search {"q":"A"}"#], say(&book, &body).as_slice());
}

#[test]
fn later_calls_and_the_answer_follow_from_the_results() {
    let book = book(SUM);
    let mut messages = vec![goal()];
    messages.extend(turn(&[
        ("search", json!({"q": "B"}), r#"{"value": 2.5}"#),
        ("search", json!({"q": "A"}), r#"{"value": 4, "name": "Abel"}"#),
    ]));
    let said = say(&book, &request("", messages.clone(), TOOLS));
    assert_eq!(["Thinking on turn 2.", r#"add {"left":4,"note":"of Abel","right":2.5}"#], said.as_slice());
    messages.extend(turn(&[(
        "add",
        json!({"left": 4.0, "right": 2.5, "note": "of Abel"}),
        r#"{"value": 6.5}"#,
    )]));
    assert_eq!(["ANSWER: 6.5"], say(&book, &request("", messages.clone(), TOOLS)).as_slice());
    let mut wrong = messages.clone();
    wrong[5]["content"] = json!(r#"{"value": 7}"#);
    assert_eq!(["ANSWER: 7"], say(&book, &request("", wrong, TOOLS)).as_slice());
    let mut structured = request("", messages, TOOLS);
    structured["response_format"] =
        json!({"type": "json_schema", "json_schema": {"name": "a", "schema": {}}});
    assert_eq!([r#"{"answer":6.5}"#], say(&book, &structured).as_slice());
}

#[test]
fn without_tools_it_answers_from_what_is_there() {
    let book = book(SUM);
    assert_eq!([UNKNOWN], say(&book, &request("", vec![goal()], &[])).as_slice());
}

#[test]
fn a_plan_refers_by_number_and_an_answer_reads_its_results() {
    let book = book(SUM);
    let plan = say(&book, &request("Be brief.\nWrite a PLAN of tool calls.", vec![goal()], &[]));
    let lines = r#"1 search {"q":"A"}
2 search {"q":"B"}
3 add {"left":"$1.value","note":"of ${1.name}","right":"$2.value"}
join 3"#;
    assert_eq!([lines], plan.as_slice());
    for results in [
        "1 search {\"q\":\"A\"} -> {\"value\":4}\n3 add {\"note\":\"of ${1.name}\"} -> {\"value\":6.5}\n(not done: 2)",
        "1 search {\"q\":\"A\"} -> {\"value\":4,\"name\":\"Abel\"}\n2 search {\"q\":\"B\"} -> {\"value\":2.5}\n3 add {\"left\":\"$1.value\",\"right\":\"$2.value\"} -> {\"value\":6.5}",
        "- 1. search {\"q\":\"A\"}\n  {\"value\":4,\"name\":\"Abel\"}\n- 2. search {\"q\":\"B\"}\n  {\"value\":2.5}\n- 3. add {\"left\":4,\"right\":2.5,\"note\":\"of Abel\"}:\n  {\"value\":6.5, \"text\": \"cut off he",
    ] {
        let asked =
            json!({"role": "user", "content": format!("Please add A and B.\n\nResults:\n{results}\n")});
        assert_eq!(
            ["ANSWER: 6.5"],
            say(&book, &request("Answer from the results of the PLAN's nodes.", vec![asked], &["replan"]))
                .as_slice()
        );
    }
}

#[test]
fn a_second_plan_asks_only_for_what_is_missing() {
    let book = book(SUM);
    let asked = json!({"role": "user", "content": "add A and B\n1 search {\"q\":\"A\"} -> {\"value\":4,\"name\":\"Abel\"}"});
    let said = say(&book, &request("PLAN", vec![asked], &[]));
    let lines = "2 search {\"q\":\"B\"}\n3 add {\"left\":\"$1.value\",\"note\":\"of ${1.name}\",\"right\":\"$2.value\"}\njoin 3";
    assert_eq!([lines], said.as_slice());
}

#[test]
fn a_joiner_that_lacks_results_asks_for_another_plan_of_what_is_missing() {
    let yaml = "
scripts:
  - goal: both
    needs: 2
    steps: [{id: a, tool: s}, {id: b, tool: t}]
    answer: 'ANSWER: {{ results.a.value + results.b.value }}'
";
    let book = book(yaml);
    let asked = |results: &str| vec![json!({"role": "user", "content": format!("both\n{results}")})];
    let lacking = "1 s {} -> {\"value\":3}\n2 t {} -> No result came in time.";
    let join =
        |results: &str, tools: &[&str]| say(&book, &request("Answer from the PLAN.", asked(results), tools));
    assert_eq!([r#"replan {"reason":"results of t"}"#], join(lacking, &["replan"]).as_slice());
    // whoever may not ask answers
    assert_eq!([UNKNOWN], join(lacking, &[]).as_slice());
    assert_eq!(["3 t {}\njoin"], say(&book, &request("PLAN", asked(lacking), &[])).as_slice());
    let all = format!("{lacking}\n3 t {{}} -> {{\"value\":4}}");
    assert_eq!(["ANSWER: 7"], join(&all, &["replan"]).as_slice());
}

#[test]
fn a_stuck_model_repeats_itself_until_it_is_nudged_or_has_had_enough() {
    let book = book(&format!("{SUM}    stuck: {{at: a, times: 2}}\n"));
    let again = turn(&[("search", json!({"q": "A"}), r#"{"value": 4, "name": "x"}"#)]);
    let mut body = request("", vec![goal()], TOOLS);
    body["parallel_tool_calls"] = json!(false);
    let mut messages = vec![body["messages"][0].clone(), goal()];
    for expected in ["A", "A", "A", "B"] {
        assert!(say(&book, &body).last().unwrap().contains(expected), "{messages:?}");
        messages.extend(again.clone());
        body["messages"] = json!(messages);
    }
    let mut nudged = vec![goal()];
    nudged.extend(again.clone());
    nudged.push(json!({"role": "user", "content": "You have asked that before."}));
    let said = say(&book, &request("", nudged, TOOLS));
    assert!(said.last().unwrap().contains("\"B\""), "{said:?}");
    let told =
        turn(&[("search", json!({"q": "A"}), "You already called this. {\"value\": 4, \"name\": \"x\"}")]);
    let mut messages = vec![goal()];
    messages.extend(told);
    let said = say(&book, &request("", messages, TOOLS));
    assert!(said.last().unwrap().contains("\"B\""), "{said:?}");
}

#[test]
fn mistakes_are_told_with_their_place() {
    let error = |steps: &str| {
        let yaml = format!("scripts: [{{goal: g, answer: a, steps: [{steps}]}}]");
        Scenario::parse(&yaml).unwrap_err().to_string()
    };
    assert!(error("{id: a, tool: t, arguments: {x: $b}}").contains("scripts[0].steps[0]: refers to `b`"));
    assert!(error("{id: a, tool: t}, {id: a, tool: t}").contains("unique"));
    let stuck = Scenario::parse("scripts: [{goal: g, answer: a, steps: [], stuck: {at: x, times: 1}}]");
    assert!(stuck.unwrap_err().to_string().contains("stuck.at"));
}

#[test]
fn a_plan_joins_everything_when_the_answer_takes_everything() {
    let book = book(
        "
scripts:
  - goal: both
    steps: [{id: a, tool: t}, {id: b, tool: t}]
    answer: '{% for id, result in results|items %}{{ result.value }} {% endfor %}'
",
    );
    let asked = json!({"role": "user", "content": "both"});
    assert_eq!(["1 t {}\n2 t {}\njoin"], say(&book, &request("PLAN", vec![asked], &[])).as_slice());
}

#[test]
fn values_are_read_from_cut_and_wrapped_text() {
    let read = |text: &str| known::value(text);
    assert_eq!(json!({"value": 3}), read("{\"value\": 3} [elided]"));
    assert_eq!(
        json!({"value": -3.5, "next": "r2"}),
        read("<r>{\"value\": -3.5, \"next\": \"r2\", \"text\": \"cut")
    );
    assert_eq!(json!("no such page"), read("no such page"));
}
