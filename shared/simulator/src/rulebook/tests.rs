use super::*;
use crate::Scenario;

fn book(yaml: &str) -> Rulebook {
    Rulebook::compile(&Scenario::parse(yaml).unwrap()).unwrap()
}

fn ask(text: &str) -> Prompt {
    let body = json!({"model": "sim/fast", "messages": [{"role": "system", "content": "sys"}, {"role": "user", "content": text}]});
    Prompt::parse(Kind::OpenAi, body.to_string().as_bytes()).unwrap()
}

fn rule(book: &Rulebook, text: &str) -> String {
    book.answer(&ask(text)).unwrap().plan.rule
}

fn text(reply: Reply) -> String {
    match reply.segments.into_iter().next() {
        Some(Segment::Text(text)) => text,
        other => panic!("no text but {other:?}"),
    }
}

fn args(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn the_first_rule_that_matches_wins() {
    let book = book(
        "
rules:
  - {name: other, when: {model: 'gpt-*'}}
  - {name: claude, when: {api: anthropic}}
  - {name: regex, when: {last_user: {regex: '^\\d+$'}}}
  - {name: both, when: {system: sys, anywhere: {contains: hello, lacks: world}}}
  - {name: late, when: {turn: {min: 2}}}
  - {name: rest}
",
    );
    assert_eq!("regex", rule(&book, "123"));
    assert_eq!("both", rule(&book, "hello"));
    assert_eq!("rest", rule(&book, "hello world"));
}

#[test]
fn nth_times_and_times_each_limit_a_rule() {
    let nth = book("rules: [{name: second, when: {nth: 2}}]");
    assert_eq!(
        ["echo", "second", "echo"],
        ["a", "b", "c"].map(|t| rule(&nth, t)).each_ref().map(String::as_str)
    );
    let times = book("rules: [{name: first, times: 2}]");
    assert_eq!(
        ["first", "first", "echo"],
        ["a", "a", "b"].map(|t| rule(&times, t)).each_ref().map(String::as_str)
    );
    let each = book("rules: [{name: once, times_each: 1}]");
    assert_eq!(
        ["once", "once", "echo"],
        ["a", "b", "a"].map(|t| rule(&each, t)).each_ref().map(String::as_str)
    );
    each.reset();
    assert_eq!("once", rule(&each, "a"));
}

#[test]
fn chance_and_latency_do_not_depend_on_the_order() {
    let yaml = "
seed: 9
rules:
  - {name: unlucky, chance: 0.3, respond: {time_to_first_token: {log_normal: {median: 1s, sigma: 0.5}}}}
";
    let decide = |order: &mut dyn Iterator<Item = u32>| {
        let book = book(yaml);
        let mut seen: Vec<_> = order
            .map(|i| {
                let reply = book.answer(&ask(&i.to_string())).unwrap();
                (i, reply.plan.rule, reply.pace.first_token, reply.id)
            })
            .collect();
        seen.sort();
        seen
    };
    let forward = decide(&mut (0..300));
    assert_eq!(forward, decide(&mut (0..300).rev()));
    let unlucky = forward.iter().filter(|seen| seen.1 == "unlucky").count();
    assert!((60..120).contains(&unlucky), "{unlucky}");
}

#[test]
fn a_repeat_draws_afresh_but_says_the_same() {
    let book = book("time_to_first_token: {uniform: {min: 0, max: 1s}}");
    let (first, second) = (book.answer(&ask("a")).unwrap(), book.answer(&ask("a")).unwrap());
    assert_ne!(first.pace.first_token, second.pace.first_token);
    assert_ne!(first.id, second.id);
    assert_eq!(text(first), text(second));
}

#[test]
fn templates_see_the_call() {
    let book = book("
rules:
  - when: {has_tool_results: true, tool_result_of: 'sea*'}
    respond: {text: '{{ tool_results[0].name }}: {{ tool_results[0].content.hits }} on turn {{ turn }}'}
  - respond:
      text: '{{ model }}|{{ last_user }}|{{ n }}|{{ hash|length }}'
      tool_calls: [{name: search, arguments: {q: '{{ last_user }}', n: '{{ n }}'}}, {name: broken, arguments: '{\"q\": '}]
");
    let reply = book.answer(&ask("x\"y")).unwrap();
    assert_eq!(Stop::ToolCalls, reply.stop);
    let said: Vec<_> = reply
        .segments
        .iter()
        .map(|segment| match segment {
            Segment::Text(text) => text.clone(),
            Segment::Call { name, arguments, .. } => format!("{name} {arguments}"),
        })
        .collect();
    assert_eq!(
        ["sim/fast|x\"y|1|16", "search {\"q\":\"x\\\"y\",\"n\":1}", "broken {\"q\": "],
        said.as_slice()
    );
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "u"},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "search", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "{\"hits\": 3}"}]});
    let prompt = Prompt::parse(Kind::OpenAi, body.to_string().as_bytes()).unwrap();
    assert_eq!("search: 3 on turn 2", text(book.answer(&prompt).unwrap()));
}

#[test]
fn a_failing_template_is_a_server_error() {
    let book = book("rules: [{respond: {text: '{{ nobody }}'}}]");
    let refusal = book.answer(&ask("a")).unwrap_err();
    assert_eq!(500, refusal.status);
    assert!(refusal.message.contains("rules[0].respond.text"), "{}", refusal.message);
}

#[test]
fn unknown_models_and_unmatched_calls_can_be_errors() {
    assert_eq!(404, book("models: [sim/best]").answer(&ask("a")).unwrap_err().status);
    assert_eq!(404, book("unmatched: error").answer(&ask("a")).unwrap_err().status);
    let tools = book("tools: [{tool: search}]");
    assert!(tools.tool("search", &Map::new()).is_ok());
    assert_eq!(404, tools.tool("other", &Map::new()).unwrap_err().status);
}

#[test]
fn the_token_limit_cuts_the_answer() {
    let book = book("rules: [{respond: {text: abcdefghij, tool_calls: [{name: tool, arguments: {a: b}}]}}]");
    let mut prompt = ask("a");
    prompt.max_tokens = Some(2);
    let reply = book.answer(&prompt).unwrap();
    assert_eq!((Stop::Length, 2), (reply.stop, reply.usage.completion));
    assert_eq!("abcdefgh", text(reply));
}

#[test]
fn tools_match_on_arguments() {
    let book = book("
tools:
  - {name: acme, tool: search, when: {args: {q: {regex: '(?i)acme'}}}, latency: 5ms, respond: {json: {q: '{{ args.q }}', ids: [1]}}}
  - {name: three, tool: search, when: {args: {n: {equals: '3'}}}, respond: {text: three}}
  - {tool: '*'}
");
    let reply = book.tool("search", &args(json!({"q": "ACME news"}))).unwrap();
    assert_eq!(("acme", Duration::from_millis(5)), (reply.plan.rule.as_str(), reply.latency));
    assert!(matches!(reply.body, ToolBody::Json(body) if body == json!({"q": "ACME news", "ids": [1]})));
    assert_eq!("three", book.tool("search", &args(json!({"n": 3}))).unwrap().plan.rule);
    assert_eq!("tools[2]", book.tool("search", &Map::new()).unwrap().plan.rule);
}

#[test]
fn a_tool_call_is_known_by_its_arguments_in_any_order() {
    let hash = |value: Value| tool_hash("t", &value);
    assert_eq!(hash(json!({"a": 1, "b": 2})), hash(json!({"b": 2, "a": 1})));
    assert_ne!(hash(json!({"a": 1})), hash(json!({"a": "1"})));
}

#[test]
fn rules_see_the_goal_all_results_and_what_is_offered() {
    let book = book("
rules:
  - {name: done, when: {goal: find, result_count: {min: 2}, all_results: r1}, respond: {text: '{{ goal }} {{ all_results|length }} {{ all_results[0].text }}'}}
  - {name: bare, when: {offers_tools: false}}
  - {name: single, when: {parallel: false}}
  - {name: offered, when: {offers_tools: true}}
");
    let turn = |id: &str| {
        let call = json!({"id": id, "type": "function", "function": {"name": "t", "arguments": "{}"}});
        [
            json!({"role": "assistant", "content": null, "tool_calls": [call]}),
            json!({"role": "tool", "tool_call_id": id, "content": format!("r{id}")}),
        ]
    };
    let mut messages = vec![json!({"role": "user", "content": "find it"})];
    let tools = json!([{"type": "function", "function": {"name": "t"}}]);
    let answer = |body: Value| {
        let prompt = Prompt::parse(Kind::OpenAi, body.to_string().as_bytes()).unwrap();
        book.answer(&prompt).unwrap()
    };
    let name = |body: Value| answer(body).plan.rule;
    assert_eq!("bare", name(json!({"model": "m", "messages": messages})));
    assert_eq!("offered", name(json!({"model": "m", "messages": messages, "tools": tools})));
    let single = json!({"model": "m", "messages": messages, "tools": tools, "parallel_tool_calls": false});
    assert_eq!("single", name(single));
    messages.extend(turn("1"));
    assert_eq!("offered", name(json!({"model": "m", "messages": messages, "tools": tools})));
    messages.extend(turn("2"));
    messages.push(json!({"role": "user", "content": "go on"}));
    assert_eq!("find it 2 r1", text(answer(json!({"model": "m", "messages": messages}))));
}

#[test]
fn tools_answer_from_the_scenarios_data() {
    let book = book(
        "
data: {facts: {A: 3}}
tools: [{tool: search, respond: {json: {value: '{{ data.facts[args.q] }}'}}}]
",
    );
    let reply = book.tool("search", &args(json!({"q": "A"}))).unwrap();
    assert!(matches!(reply.body, ToolBody::Json(body) if body == json!({"value": 3})));
}
