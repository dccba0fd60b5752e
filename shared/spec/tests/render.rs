//! Bodies become calls: references keep their types and digits, texts read well, and errors name what is missing.
#![allow(clippy::unwrap_used)]

use serde_json::json;
use trireme_model::{Payload, TaskId};
use trireme_spec::{Bindings, Body, Call, Permissive, RenderError, compile};

const LLM: &str = r#"{"text":"Copper \"rose\".","tool_calls":[],"finish_reason":"stop","usage":{"input":3}}"#;

/// The call of task `t` of a spec, with these values recorded.
fn call(tasks: &str, values: &[(&str, &str)]) -> Result<Call, RenderError> {
    call_item(tasks, values, None)
}

fn call_item(tasks: &str, values: &[(&str, &str)], item: Option<&str>) -> Result<Call, RenderError> {
    let stubs: String = values.iter().map(|(id, _)| format!("  {id}: {{tool: {{name: noop}}}}\n")).collect();
    let text = format!(
        "input: {{who: Ann, n: 9007199254740993, big: 123456789012345678901234567890}}\nmodels: {{fast: sim/fast}}\ntasks:\n{stubs}  t: {tasks}\n"
    );
    let compiled = compile(&text, &[], &Permissive).unwrap_or_else(|invalid| panic!("{text}\n{invalid}"));
    let task = compiled.graph.tasks().iter().find(|task| task.id.as_str() == "t").unwrap();
    let bindings = Bindings {
        input: compiled.input.clone(),
        values: values
            .iter()
            .map(|(id, value)| (TaskId::new(id).unwrap(), Payload::from_json((*value).to_owned())))
            .collect(),
        item: item.map(|item| Payload::from_json(item.to_owned())),
        index: item.map(|_| 3),
    };
    Body::parse(&task.body).unwrap().call(&bindings)
}

fn args(template: &str, values: &[(&str, &str)]) -> Result<serde_json::Value, RenderError> {
    let quoted = serde_json::to_string(template).unwrap();
    match call(&format!("{{tool: {{name: noop, args: {{a: [{quoted}]}}}}}}"), values)? {
        Call::Tool { args, .. } => Ok(args["a"][0].clone()),
        other => panic!("{other:?}"),
    }
}

fn prompt(template: &str, values: &[(&str, &str)]) -> Result<String, RenderError> {
    let quoted = serde_json::to_string(template).unwrap();
    match call(&format!("{{llm: {{model: fast, prompt: {quoted}}}}}"), values)? {
        Call::Llm(call) => {
            assert_eq!(call.model, "sim/fast");
            Ok(call.messages[0].content.clone())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reference_alone_keeps_its_type() {
    let values = [("x", r#"{"n":9007199254740993,"f":1.5,"l":[],"o":{},"t":"3","z":null,"b":true}"#)];
    for (template, expected) in [
        ("{{ x.n }}", json!(9_007_199_254_740_993_i64)),
        ("{{x.f}}", json!(1.5)),
        ("{{ x.l }}", json!([])),
        ("{{ x['o'] }}", json!({})),
        ("{{ x.t }}", json!("3")),
        ("{{ x.z }}", json!(null)),
        ("{{ x.b }}", json!(true)),
        ("{{ x.n + 1 }}", json!(9_007_199_254_740_994_i64)),
        ("{{ x.l | length }}", json!(0)),
        ("{{ x.t[0:1] }}", json!("3")),
        ("{{ (x.l)[1:] }}", json!([])),
        ("{{ [x.n, x.t] }}", json!([9_007_199_254_740_993_i64, "3"])),
        ("n={{ x.n }}", json!("n=9007199254740993")),
        ("{{ x.n }}{{ x.t }}", json!("90071992547409933")),
        ("{% if x.b %}yes{% endif %}", json!("yes")),
        ("no template { here }", json!("no template { here }")),
        ("{% raw %}{{ x }}{% endraw %}", json!("{{ x }}")),
    ] {
        assert_eq!(args(template, &values).unwrap(), expected, "{template}");
    }
}

#[test]
fn keys_keep_their_order_and_numbers_their_digits() {
    let Call::Map { items } = call(
        "{map: {over: \"{{ x }}\", do: {tool: {name: noop, args: {i: \"{{ item }}\"}}}}}",
        &[("x", r#"[123456789012345678901234567890, {"b": 1, "a": 1e400}, 0.10]"#)],
    )
    .unwrap() else {
        panic!("not a map")
    };
    let texts: Vec<String> = items.iter().map(|item| format!("{item:?}")).collect();
    assert_eq!(texts, ["123456789012345678901234567890", r#"{"b": 1, "a": 1e400}"#, "0.10"]);
    assert_eq!(
        prompt("{{ input.big }} {{ x }}", &[("x", r#"{ "b": [1, 2.50], "a": "x y" }"#)]).unwrap(),
        r#"123456789012345678901234567890 {"b":[1,2.50],"a":"x y"}"#
    );
}

#[test]
fn texts_read_well() {
    let list = format!("[{LLM},{LLM}]");
    let nested = format!(r#"{{"a":{LLM},"n":1}}"#);
    let values = [("m", LLM), ("list", list.as_str()), ("nested", nested.as_str()), ("s", "\"a\\nb\"")];
    for (template, expected) in [
        ("{{ m }}", "Copper \"rose\"."),
        ("{{ m.text }}", "Copper \"rose\"."),
        ("{{ m | upper }}", "COPPER \"ROSE\"."),
        ("{{ m.finish_reason }} {{ m.usage.input }}", "stop 3"),
        ("{{ list }}", r#"["Copper \"rose\".","Copper \"rose\"."]"#),
        ("{{ list | join('/') }}", "Copper \"rose\"./Copper \"rose\"."),
        (
            "{% for one in list %}{{ loop.index }}:{{ one }};{% endfor %}",
            "1:Copper \"rose\".;2:Copper \"rose\".;",
        ),
        ("{{ nested }}", r#"{"a":"Copper \"rose\".","n":1}"#),
        ("{% if true %}{{ nested }}{% endif %}", r#"{"a":"Copper \"rose\".","n":1}"#),
        ("{{ s }}", "a\nb"),
        ("{{ '<' ~ s }}", "<a\nb"),
        ("{{ input.who | default('x') }}", "Ann"),
        ("{{ m.nope | default('x') }}", "x"),
        ("{{ [1, 'a', none] }}", r#"[1,"a",null]"#),
        ("{{ {'a': '<'} | tojson }}", r#"{"a":"<"}"#),
    ] {
        assert_eq!(prompt(template, &values).unwrap(), expected, "{template}");
    }
}

#[test]
fn an_item_has_its_value_and_index() {
    let found = call_item(
        "{map: {over: [1], do: {llm: {model: \"{{ item.model }}\", prompt: \"{{ index }} {{ item.q }} {{ x }}\"}}}}",
        &[("x", "7")],
        Some(r#"{"q":"why","model":"fast"}"#),
    );
    let Call::Llm(call) = found.unwrap() else { panic!("not a call of a model") };
    assert_eq!((call.model.as_str(), call.messages[0].content.as_str()), ("sim/fast", "3 why 7"));
}

#[test]
fn what_is_missing_is_named() {
    let values = [("facts", r#"{"news":{"items":[1,2]},"n":1}"#)];
    for (template, expected) in [
        (
            "{{ facts.nws }}",
            "prompt: `facts.nws` does not exist: `facts` has no field `nws`; did you mean `news`?",
        ),
        (
            "{{ facts.news.items[2] }}",
            "prompt: `facts.news.items[2]` does not exist: `facts.news.items` has 2 items",
        ),
        ("{{ facts.n.x }}", "prompt: `facts.n.x` does not exist: `facts.n` is a number"),
        ("{{ facts.nws | upper }}", "prompt: `facts.nws | upper` refers to something that does not exist"),
        (
            "{{ facts.nws.items | length }}",
            "prompt: `facts.nws.items | length` refers to something that does not exist",
        ),
        (
            "{% if true %}\n{{ facts.nws }}{% endif %}",
            "prompt: the template refers to something that does not exist (line 2)",
        ),
    ] {
        let error = prompt(template, &values).unwrap_err();
        assert!(matches!(error, RenderError::Missing { .. }), "{template}: {error}");
        assert!(error.to_string().starts_with(expected), "{template}: {error}");
    }
    assert_eq!(prompt("{{ facts.news.items[-1] }}", &values).unwrap(), "2");
}

#[test]
fn a_value_that_is_absent_is_an_error() {
    let compiled = compile(
        "tasks: {a: {tool: {name: noop}}, b: {tool: {name: noop, args: {x: '{{ a }}'}}}}",
        &[],
        &Permissive,
    );
    let body = Body::parse(&compiled.unwrap().graph.tasks()[1].body).unwrap();
    let error = body.call(&Bindings::default()).unwrap_err();
    assert_eq!(error.to_string(), "args.x: `a` does not exist: `a` has no value");
}

#[test]
fn templates_end() {
    let endless =
        "{% for a in range(10000) %}{% for b in range(10000) %}{% set x = b %}{% endfor %}{% endfor %}";
    assert!(matches!(prompt(endless, &[]), Err(RenderError::Endless { .. })));
    let long = format!("{{% for a in range(100) %}}{}{{% endfor %}}", "x".repeat(20_000));
    assert!(matches!(prompt(&long, &[]), Err(RenderError::TooLarge { .. })));
    let value = format!("\"{}\"", "x".repeat(600_000));
    assert!(matches!(prompt("{{ x }}{{ x }}", &[("x", &value)]), Err(RenderError::TooLarge { .. })));
    let many = "{{ [range(99999) | list] * 10000 }}";
    assert!(matches!(prompt(many, &[]), Err(RenderError::TooLarge { .. })), "{:?}", prompt(many, &[]));
    let doubled = format!("{{% set s = 'xy' %}}{}{{{{ s | length }}}}", "{% set s = s ~ s %}".repeat(40));
    assert!(matches!(prompt(&doubled, &[]), Err(RenderError::Endless { .. })));
    assert!(matches!(prompt("{{ 1 // 0 }}", &[]), Err(RenderError::Template { .. })));
}

#[test]
fn a_map_needs_a_list_of_bounded_width() {
    let map = "{map: {over: \"{{ x }}\", do: {tool: {name: noop}}}}";
    assert_eq!(call(map, &[("x", "{}")]), Err(RenderError::NotAList { got: "an object" }));
    assert_eq!(call(map, &[("x", "\"[]\"")]), Err(RenderError::NotAList { got: "text" }));
    let wide = |count: usize| format!("[{}]", vec!["1"; count].join(","));
    assert_eq!(call(map, &[("x", &wide(10_001))]), Err(RenderError::TooWide { got: 10_001 }));
    let Call::Map { items } = call(map, &[("x", &wide(10_000))]).unwrap() else { panic!("not a map") };
    assert_eq!(items.len(), 10_000);
    let Call::Map { items } =
        call("{map: {over: [1, \"{{ x }}\"], do: {tool: {name: noop}}}}", &[("x", "[2]")]).unwrap()
    else {
        panic!("not a map")
    };
    assert_eq!(format!("{items:?}"), "[1, [2]]");
}

#[test]
fn a_call_of_a_model_has_all_its_parts() {
    let call = call(
        "{llm: {model: fast, system: \"s {{ input.who }}\", messages: [{role: user, content: hi}, {role: assistant, content: \"{{ x }}\"}], max_tokens: 9, temperature: 0.5, stop: END, schema: {type: object}, tools: [search], stream: true}}",
        &[("x", "[1]")],
    );
    let Call::Llm(call) = call.unwrap() else { panic!("not a call of a model") };
    assert_eq!(call.system.as_deref(), Some("s Ann"));
    assert_eq!(call.messages[1].content, "[1]");
    assert_eq!((call.max_tokens, call.temperature, call.stream), (Some(9), Some(0.5), true));
    assert_eq!(
        (call.stop.as_slice(), call.tools.as_slice()),
        (&["END".to_owned()][..], &["search".to_owned()][..])
    );
    assert_eq!(call.schema, Some(json!({"type": "object"})));
}

#[test]
fn bodies_of_another_version_are_refused() {
    for body in [
        "{}",
        "[]",
        "{\"agent\":{}}",
        "{\"llm\":{\"model\":\"x\"}}",
        "{\"tool\":{\"name\":\"x\",\"args\":\"{{\"}}",
    ] {
        assert!(matches!(Body::parse(&Payload::from_json(body)), Err(RenderError::Body(_))), "{body}");
    }
}
