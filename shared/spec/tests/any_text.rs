//! Whatever text comes in, the answer is a graph or a list of problems: never a panic, never a stack used up.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, sync::LazyLock};

use proptest::prelude::*;
use trireme_model::Payload;
use trireme_spec::{Bindings, Body, Permissive, Spec, compile};

const AGENT: &str = r#"
input: {a: {b: x}}
models: {m: sim/m}
tasks:
  a: {tool: {name: t}}
  b:
    agent:
      goal: "{{ input.a.b }} {{ a }}"
      model: m
      models: {planner: "{{ input.a.b }}", answer: m}
      strategy: plan
      tools: [t, u]
      agents: {c: {description: d, system: "{{ a }}", agents: {d: {description: e, model: "{{ a }}"}}}}
      max_steps: 9
      max_tokens: {step: 3}
      turn: {within: 1s, on_miss: fail}
      context: {elide_over: 300}
      output_schema: {type: object, properties: {x: {$ref: '#/$defs/y'}}, $defs: {y: {pattern: '^a'}}}
"#;

static EXAMPLES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut texts: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    // an agent with all that it may have
    texts.push(AGENT.to_owned());
    texts.sort();
    assert!(texts.len() >= 7);
    texts
});

/// Compiles, draws and renders as far as it goes; every problem must have words.
fn run(text: &str) {
    match compile(text, &[], &Permissive) {
        Ok(compiled) => {
            assert!(compiled.tree().lines().count() > compiled.graph.tasks().len());
            assert!(compiled.mermaid().starts_with("flowchart LR"));
            for task in compiled.graph.tasks() {
                let values =
                    task.inputs.iter().map(|id| (id.clone(), Payload::from_json("[{\"a\":[1]},\"x\"]")));
                let bindings = Bindings {
                    input: compiled.input.clone(),
                    values: values.collect(),
                    ..Bindings::default()
                };
                // a compiled body is one that the worker can read
                let body = Body::parse(&task.body).unwrap();
                let _ = body.call(&bindings);
                let _ =
                    body.call(&Bindings { item: Some(Payload::from_json("{}")), index: Some(0), ..bindings });
            }
            assert!(serde_json::from_slice::<serde_json::Value>(compiled.input.as_bytes()).is_ok());
        }
        Err(invalid) => {
            assert!(!invalid.problems.is_empty());
            assert!(invalid.problems.iter().all(|problem| !problem.message.is_empty()));
        }
    }
}

/// Anything that looks like a JSON schema from afar.
fn schemas() -> impl Strategy<Value = serde_json::Value> {
    let keyword = prop::sample::select(vec![
        "$ref",
        "$id",
        "$anchor",
        "$dynamicRef",
        "$recursiveRef",
        "$schema",
        "$defs",
        "type",
        "properties",
        "patternProperties",
        "additionalProperties",
        "unevaluatedProperties",
        "unevaluatedItems",
        "items",
        "prefixItems",
        "contains",
        "minContains",
        "allOf",
        "anyOf",
        "not",
        "if",
        "then",
        "required",
        "dependentSchemas",
        "enum",
        "const",
        "pattern",
        "format",
        "minimum",
        "multipleOf",
        "maxLength",
        "propertyNames",
    ]);
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "(#|#/\\$defs/[ab]|#/x|string|object|http://json-schema.org/draft-0[4567]/schema#|https://json-schema.org/draft/20(19-09|20-12)/schema|[a-z(\\[{*+?|)\\]}^$\\\\]{0,6})".prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::vec((keyword.clone(), inner), 0..5).prop_map(|members| {
                members
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in any::<String>()) {
        run(&text);
    }

    #[test]
    fn text_of_the_alphabet_of_specs(text in "([-{}\\[\\],:&*!|>'\"#%@`\\\\~ \n\t0-9a-f]|tasks|tool|: |\n  |\\{\\{|\\}\\}){0,60}") {
        run(&text);
    }

    #[test]
    fn any_template(body in "([a-z0-9.()\\[\\]'\"|~+*/%<>=!,:{} -]|\\{\\{ | \\}\\}|\\{% | %\\}|for |in |if |endif|endfor|else|set |input|item|a|range|\\| *join|\\| *tojson){0,40}") {
        let text = serde_json::json!({
            "input": {"a": [1, {"b": "c"}]},
            "tasks": {
                "a": {"tool": {"name": "value", "args": {"value": 1}}},
                "b": {"tool": {"name": "value", "args": {"value": body}}},
                "c": {"map": {"over": [1], "do": {"llm": {"model": "m", "prompt": format!("{{{{ item }}}}{body}")}}}},
            },
        });
        run(&text.to_string());
    }

    #[test]
    fn examples_with_something_changed(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        cut in 0_usize..20,
        insert in prop_oneof!["[\\x00-\\x7f]{0,4}", "(\\{\\{ ?[a-z]{0,6} ?\\}\\}|- |: |\n|null|-1|1e999|\\[|\\{|&a |\\*a)"],
    ) {
        let text = which.get(&EXAMPLES);
        let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let from = *at.get(&starts);
        let to = starts.iter().copied().find(|start| *start >= from + cut).unwrap_or(text.len());
        run(&format!("{}{insert}{}", &text[..from], &text[to..]));
    }

    #[test]
    fn any_schema(schema in schemas()) {
        let text = serde_json::json!({"agent": {"goal": "g", "model": "m", "output_schema": {"$defs": {"a": schema, "b": {"$ref": "#/$defs/a"}}, "x": schema}}});
        run(&text.to_string());
    }

    #[test]
    fn any_input_value_reaches_the_run(value in any::<String>(), key in "[^=]{1,40}") {
        let mut spec = Spec::parse("tasks: {a: {tool: {name: noop}}}").unwrap();
        if spec.set_input(&format!("{key}={value}")).is_err() {
            let json = value.trim_start().starts_with(['{', '[', '"']);
            prop_assert!(json);
            return Ok(());
        }
        let compiled = spec.compile(&Permissive).unwrap();
        let input: serde_json::Value = compiled.input.parse().unwrap();
        match serde_json::from_str::<serde_json::Value>(&value) {
            // the reader refuses what it can't keep: duplicate keys, and more than 64 levels
            Ok(json) if json.is_number() || json.is_boolean() || json.is_null() => prop_assert_eq!(&input[&key], &json),
            Ok(_) => {}
            Err(_) => prop_assert_eq!(&input[&key], &serde_json::Value::String(value)),
        }
    }

    #[test]
    fn numbers_keep_their_digits(number in "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?") {
        for text in [
            format!("input: {{n: {number}}}\ntasks: {{a: {{map: {{over: [1], do: {{tool: {{name: noop}}}}}}}}}}"),
            format!("{{\"input\": {{\"n\": {number}}}, \"tasks\": {{\"a\": {{\"tool\": {{\"name\": \"noop\"}}}}}}}}"),
        ] {
            let compiled = compile(&text, &[], &Permissive).unwrap();
            prop_assert_eq!(format!("{:?}", compiled.input), format!("{{\"n\":{number}}}"));
        }
    }
}
