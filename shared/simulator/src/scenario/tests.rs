use super::*;

fn problem(text: &str) -> String {
    Scenario::parse(text).unwrap_err().to_string()
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(Scenario::default(), Scenario::parse("").unwrap());
    assert_eq!(Scenario::default(), Scenario::parse("# nothing\n\n").unwrap());
    assert_eq!(Scenario::default(), Scenario::parse("{}").unwrap());
}

#[test]
fn yaml_and_json_say_the_same() {
    let yaml = "
seed: 3
rules:
  - name: a
    when: {model: 'sim/*', last_user: hello, turn: 1, nth: {min: 2}}
    times_each: 1
    respond: {text: hi}
    fault: empty
  - fault: {hang: {after_tokens: 2, for: 1s}}
tools:
  - tool: search
    when: {args: {q: {regex: '^a'}}}
    latency: {log_normal: {median: 600ms, sigma: 0.3}}
    fault: {error: {status: 429, retry_after: 250ms}}
";
    let json = r#"{"seed": 3, "rules": [
        {"name": "a", "when": {"model": "sim/*", "last_user": "hello", "turn": 1, "nth": {"min": 2}},
         "times_each": 1, "respond": {"text": "hi"}, "fault": "empty"},
        {"fault": {"hang": {"after_tokens": 2, "for": "1s"}}}],
      "tools": [{"tool": "search", "when": {"args": {"q": {"regex": "^a"}}},
        "latency": {"log_normal": {"median": "600ms", "sigma": 0.3}},
        "fault": {"error": {"status": 429, "retry_after": "250ms"}}}]}"#;
    let scenario = Scenario::parse(yaml).unwrap();
    assert_eq!(scenario, Scenario::parse(json).unwrap());
    assert_eq!(Some(Fault::Empty), scenario.rules[0].fault);
    let hang = Fault::Hang { after_tokens: 2, before_headers: false, pause: Some(Span::from_millis(1000)) };
    assert_eq!(Some(hang), scenario.rules[1].fault);
}

#[test]
fn unknown_fields_and_wrong_types_are_told_with_their_line() {
    let unknown = problem("seed: 1\nrules:\n  - wen: {model: x}\n");
    assert!(unknown.contains("wen") && unknown.contains("3"), "{unknown}");
    let wrong = problem("seed: 1\nmodels: 7\n");
    assert!(wrong.contains("2"), "{wrong}");
    let json = problem("{\"seed\": 1,\n \"sed\": 2}");
    assert!(json.contains("sed") && json.contains("line 2"), "{json}");
    assert!(problem("rules:\n  - fault: {explode: {}}\n").contains("explode"));
}

#[test]
fn values_that_cannot_be_used_are_told_with_their_place() {
    assert!(problem("rules: [{when: {last_user: {regex: '('}}}]").contains("rules[0].when.last_user"));
    assert!(problem("rules: [{respond: {text: '{{ broken'}}]").contains("rules[0].respond.text"));
    assert!(problem("rules: [{respond: {text: a, json: {}}}]").contains("not both"));
    assert!(
        problem("rules: [{respond: {tool_calls: [{name: a, arguments: [1]}]}}]")
            .contains("tool_calls[0].arguments")
    );
    assert!(problem("rules: [{fault: {error: {status: 200}}}]").contains("rules[0].fault.error.status"));
    assert!(problem("rules: [{chance: 2}]").contains("rules[0].chance"));
    assert!(problem("rules: [{when: {nth: {min: 3, max: 2}}}]").contains("rules[0].when.nth"));
    assert!(problem("rules: [{when: {api: tool}}]").contains("rules[0].when.api"));
    assert!(problem("tokens_per_second: 0").contains("tokens_per_second"));
    assert!(problem("chunk_interval: 1us").contains("chunk_interval"));
    assert!(problem("tools: [{tool: a, respond: {json: 1, text: b}}]").contains("tools[0].respond"));
}

#[test]
fn a_missing_file_is_named() {
    let error = Scenario::from_file("/nowhere/at/all.yaml").unwrap_err().to_string();
    assert!(error.contains("/nowhere/at/all.yaml"));
}
