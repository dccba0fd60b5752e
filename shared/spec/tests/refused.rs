//! Bad specs and the exact words they are refused with.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use trireme_spec::{Checker, MAX_DEPTH, MAX_TEXT_BYTES, Permissive, compile};

struct Known;

impl Checker for Known {
    fn model(&self, name: &str) -> Result<(), String> {
        if name == "sim/fast" { Ok(()) } else { Err(format!("unknown model `{name}`")) }
    }

    fn tool(&self, name: &str) -> Result<(), String> {
        if name == "search" { Ok(()) } else { Err(format!("unknown tool `{name}`")) }
    }

    fn args(&self, _: &str, args: &Value) -> Result<(), String> {
        if args.get("q").is_some_and(Value::is_number) { Err("`q` must be text".to_owned()) } else { Ok(()) }
    }
}

fn refused(text: &str) -> String {
    compile(text, &[], &Known).expect_err(text).to_string()
}

/// Specs and what is said of them, one line per problem.
const BAD: &[(&str, &str)] = &[
    ("", "spec: the spec is empty"),
    ("tasks: [", "tasks[0] (line 1, column 8): malformed YAML: "),
    (
        "{\"tasks\": {",
        "tasks (line 1, column 12): malformed JSON: expected a key in double quotes, but the text ends",
    ),
    ("{\"input\": {\"n\": NaN}}", "input.n (line 1, column 17): malformed JSON: `NaN` is not a JSON value"),
    (
        "{\"tasks\": {}} x",
        "spec (line 1, column 15): malformed JSON: nothing may follow the spec's closing brace",
    ),
    ("input: {n: .nan}\ntasks: {}", "input.n (line 1, column 12): `.nan` is not a number that JSON can hold"),
    ("- 1", "spec (line 1, column 1): expected an object, got a list"),
    ("{}", "spec (line 1, column 1): a run has either `tasks` or `agent`, this one has neither"),
    ("tasks: {}", "tasks (line 1, column 8): a run needs at least one task"),
    (
        "tasks: {a: {tool: {name: search}}}\ntask: 1",
        "task (line 2, column 1): unknown field `task`; did you mean `tasks`?",
    ),
    (
        "input: 3\ntasks: {a: {tool: {name: search}}}",
        "input (line 1, column 8): expected an object, got a number",
    ),
    ("name: [x]\ntasks: {a: {tool: {name: search}}}", "name (line 1, column 7): expected text, got a list"),
    (
        "deadline: soon\ntasks: {a: {tool: {name: search}, timeout: 30}}",
        "deadline (line 1, column 11): `soon` is not a duration: write `30s`, `250ms` or `1m 30s`\n\
         tasks.a.timeout (line 2, column 44): a duration needs a unit: `30s` or `30ms`",
    ),
    (
        "deadline: 0s\ntasks: {a: {tool: {name: search}}}",
        "deadline (line 1, column 11): a duration is from 1ms to 7days, not `0s`",
    ),
    (
        "budget: {tokens: -1}\ntasks: {a: {tool: {name: search}}}",
        "budget.tokens (line 1, column 18): expected a whole number from 1 to 18446744073709551615, got `-1`",
    ),
    (
        "tasks:\n  a: {tool: {name: search}}\n  a: {tool: {name: search}}",
        "tasks.a (line 3, column 3): the key `a` stands twice",
    ),
    (
        "{\"tasks\": {\"a\": {\"tool\": {\"name\": \"search\"}, \"tool\": 1}}}",
        "tasks.a.tool (line 1, column 46): the key `tool` stands twice",
    ),
    (
        "tasks: {1a: {tool: {name: search}}}",
        "tasks.1a (line 1, column 9): `1a` can't be a task's id: a letter or `_`, then up to 63 letters, digits or `_` (templates use it as a name)",
    ),
    (
        "tasks: {output: {tool: {name: search}}}",
        "tasks.output (line 1, column 9): `output` can't be a task's id: it has a meaning in templates",
    ),
    (
        "tasks: {a: {}}",
        "tasks.a (line 1, column 12): a task is exactly one of `llm`, `tool`, `join`, `map`, `agent`, this one has none",
    ),
    (
        "tasks: {a: {tool: {name: search}, llm: {model: sim/fast, prompt: x}}}",
        "tasks.a (line 1, column 12): a task is exactly one of `llm`, `tool`, `join`, `map`, `agent`, this one has `llm`, `tool`",
    ),
    ("tasks: {a: {agent: {goal: x}}}", "tasks.a.agent (line 1, column 20): the field `model` is missing"),
    ("tasks: {a: {tool: {name: serch}}}", "tasks.a.tool.name (line 1, column 26): unknown tool `serch`"),
    (
        "tasks: {a: {tool: {name: search, args: {q: 3}}}}",
        "tasks.a.tool.args (line 1, column 40): `q` must be text",
    ),
    (
        "tasks: {a: {llm: {model: fast, prompt: x}}}",
        "tasks.a.llm.model (line 1, column 26): unknown model `fast`",
    ),
    (
        "models: {fast: sim/fst}\ntasks: {a: {llm: {model: fast, prompt: x}}}",
        "models.fast (line 1, column 16): unknown model `sim/fst`",
    ),
    (
        "tasks: {a: {llm: {model: sim/fast}}}",
        "tasks.a.llm (line 1, column 18): an llm task has either `prompt` or `messages`, this one has neither",
    ),
    (
        "tasks: {a: {llm: {model: sim/fast, prompt: x, temperature: 3}}}",
        "tasks.a.llm.temperature (line 1, column 60): expected a number from 0 to 2, got `3`",
    ),
    (
        "tasks: {a: {llm: {model: sim/fast, messages: [{role: robot, content: x}]}}}",
        "tasks.a.llm.messages[0].role (line 1, column 54): expected one of `system`, `user`, `assistant`, got `robot`",
    ),
    (
        "tasks:\n  facts: {tool: {name: search}}\n  b: {tool: {name: search, args: {q: \"{{ fcts.x }}\"}}}",
        "tasks.b.tool.args.q (line 3, column 38): unknown reference `fcts`; did you mean `facts`?",
    ),
    (
        "tasks: {a: {tool: {name: search, args: {n: [1, 18446744073709551616]}}}}",
        "tasks.a.tool.args.n[1] (line 1, column 48): `18446744073709551616` is over 64 bits and would become another one: give it as text, in quotes",
    ),
    (
        "tasks: {a: {tool: {name: search, args: {q: \"{{ item }}\"}}}}",
        "tasks.a.tool.args.q (line 1, column 44): `item` exists only inside the `do` of a map",
    ),
    (
        "input: {company: x}\ntasks: {a: {tool: {name: search, args: {q: \"{{ input.compny }}\"}}}}",
        "tasks.a.tool.args.q (line 2, column 44): `input.compny` does not exist: `input` has no field `compny`; did you mean `company`?",
    ),
    (
        "tasks: {news: {tool: {name: search}}, all: {join: {from: [news]}}}\noutput: \"{{ all.nws }}\"",
        "output (line 2, column 9): `all.nws` does not exist: `all` has no field `nws`; did you mean `news`?",
    ),
    (
        "tasks: {a: {tool: {name: search, args: {q: \"{{ a.b\"}}}}",
        "tasks.a.tool.args.q (line 1, column 44): template error in line 1 of the text: unexpected end of input, expected end of variable block",
    ),
    (
        "tasks: {a: {tool: {name: search, args: {q: \"{{ 1 | shout }}\"}}}}",
        "tasks.a.tool.args.q (line 1, column 44): unknown filter `shout`",
    ),
    (
        "tasks: {a: {tool: {name: search, args: {q: \"{% include 'x' %}\"}}}}",
        "tasks.a.tool.args.q (line 1, column 44): include, import, extends, block, macro, call, do, autoescape and a set without `=` are not supported in templates",
    ),
    (
        "tasks: {a: {tool: {name: search, args: {q: \"{{ a }}\"}}}}",
        "tasks (line 1, column 9): task `a` waits for itself",
    ),
    (
        "tasks:\n  a: {tool: {name: search, args: {q: \"{{ c }}\"}}}\n  b: {tool: {name: search, args: {q: \"{{ a }}\"}}}\n  c: {tool: {name: search}, after: [b]}",
        "tasks (line 3, column 3): tasks wait for each other in a cycle: b -> c -> a -> b",
    ),
    (
        "tasks: {a: {tool: {name: search}}, j: {join: {from: []}}}",
        "tasks.j.join.from (line 1, column 53): a join needs at least one input",
    ),
    (
        "tasks: {a: {tool: {name: search}}, j: {join: {from: [a], need: 2}}}",
        "tasks.j.join.need (line 1, column 64): needs 2 of 1 inputs",
    ),
    (
        "tasks: {a: {tool: {name: search}}, j: {join: {from: [a, a]}}}",
        "tasks.j.join.from[1] (line 1, column 57): `a` stands twice",
    ),
    (
        "tasks: {a: {tool: {name: search}}, j: {join: {from: [b]}}}",
        "tasks.j.join.from[0] (line 1, column 54): unknown task `b`; did you mean `a`?",
    ),
    (
        "tasks: {a: {tool: {name: search}}, j: {join: {from: [a], on_miss: default}}}",
        "tasks.j.join (line 1, column 46): `on_miss: default` needs the field `default`",
    ),
    (
        "tasks: {a: {tool: {name: search}}, j: {join: {from: [a]}, timeout: 3s}}",
        "tasks.j.timeout (line 1, column 68): a join has no `timeout`: set `within` in the join",
    ),
    (
        "tasks: {a: {map: {over: \"{{ input.x }} \", do: {tool: {name: search}}}}}\ninput: {x: []}",
        "tasks.a.map.over (line 1, column 25): expected a list, or exactly one reference such as `{{ news.items }}`: anything around it makes it text",
    ),
    (
        "tasks: {a: {map: {over: [1], do: {tool: {name: search}}, at_once: 10001}}}",
        "tasks.a.map.at_once (line 1, column 67): expected a whole number from 1 to 10000, got `10001`",
    ),
    (
        "tasks: {a: {map: {over: [1], do: {join: {from: [a]}}}}}",
        "tasks.a.map.do (line 1, column 34): a task is exactly one of `llm`, `tool`, this one has none\n\
      tasks.a.map.do.join (line 1, column 35): unknown field `join`; known are `llm`, `tool`, `timeout`, `fallback`, `retry`, `pool`",
    ),
    (
        "tasks: {a: {tool: {name: search}, fallback: \"{{ x }}\"}}",
        "tasks.a.fallback (line 1, column 45): this is a plain value: templates are not filled in here",
    ),
    (
        "tasks: {a: {tool: {name: search}, retry: {attempts: 0}}}",
        "tasks.a.retry.attempts (line 1, column 53): expected a whole number from 1 to 20, got `0`",
    ),
    (
        "tasks: {a: {tool: {name: search}, pool: GPU}}",
        "tasks.a.pool (line 1, column 41): a pool is 1 to 64 of a-z 0-9 _ -, not `GPU`",
    ),
    (
        "tasks: {a: {tool: {name: search}, after: [b]}}",
        "tasks.a.after[0] (line 1, column 43): unknown task `b`; did you mean `a`?",
    ),
    ("a: &x [*x]", "a[0] (line 1, column 8): an alias inside its own anchor never ends"),
    ("a: !mine 3", "a (line 1, column 10): YAML tags of one's own are not supported"),
    ("a: 1\n---\nb: 2", "spec (line 2, column 1): a spec is one YAML document, and here a second one starts"),
    ("a: {<<: {}}", "a.<< (line 1, column 5): merge keys are not supported"),
];

#[test]
fn bad_specs_are_refused_in_these_words() {
    let mut wrong = Vec::new();
    for (text, expected) in BAD {
        let found = refused(text);
        // of a parser's own words only ours are fixed
        let fits = if expected.ends_with(": ") { found.starts_with(expected) } else { found == *expected };
        if !fits {
            wrong.push(format!("--- {text}\nexpected: {expected}\nfound:    {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_text() {
    let text = "nme: x\ntasks:\n  a: {tool: {name: serch, args: {q: \"{{ b }}\"}}}\n  c: {llm: {model: x}}\n  a: {}\n";
    assert_eq!(
        refused(text).lines().map(|line| line.split(':').next().unwrap()).collect::<Vec<_>>(),
        [
            "nme (line 1, column 1)",
            "tasks.a.tool.name (line 3, column 20)",
            "tasks.a.tool.args.q (line 3, column 37)",
            "tasks.c.llm (line 4, column 12)",
            "tasks.a (line 5, column 3)",
        ]
    );
}

#[test]
fn limits_hold() {
    let deep = format!("{{\"input\": {}1{}}}", "{\"a\":".repeat(MAX_DEPTH), "}".repeat(MAX_DEPTH));
    assert!(refused(&deep).contains("malformed JSON: deeper than 64 levels"));
    let deep = format!("input: {}1{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    assert!(refused(&deep).contains("deeper than 64 levels"));
    assert_eq!(refused(&"x".repeat(MAX_TEXT_BYTES + 1)), "spec: 1048577 bytes are over the limit of 1048576");
    let name = format!("name: {}\ntasks: {{a: {{tool: {{name: search}}}}}}", "n".repeat(257));
    assert_eq!(refused(&name), "name (line 1, column 7): a name has 1 to 256 bytes, this one 257");

    let many = |count: usize| {
        let tasks: Vec<String> = (0..count).map(|at| format!("t{at}: {{tool: {{name: search}}}}")).collect();
        format!("tasks: {{{}}}", tasks.join(", "))
    };
    assert_eq!(compile(&many(9_999), &[], &Known).unwrap().graph.tasks().len(), 10_000);
    assert_eq!(refused(&many(10_000)), "tasks (line 1, column 8): 10000 tasks are over the limit of 9999");

    // 240 tasks that wait for each of 240 others: 57,600 edges
    let names: Vec<String> = (0..240).map(|at| format!("s{at}")).collect();
    let mut text = String::from("tasks:\n");
    for name in &names {
        text.push_str(&format!("  {name}: {{tool: {{name: search}}}}\n"));
    }
    text.push_str("  x: &after {tool: {name: search}, after: &ids [");
    text.push_str(&names.join(", "));
    text.push_str("]}\n");
    for at in 0..240 {
        text.push_str(&format!("  j{at}: *after\n"));
    }
    assert!(refused(&text).ends_with("edges are over the limit of 50000"), "{}", refused(&text));
}

#[test]
fn a_broken_schema_is_refused_where_it_is_broken() {
    let of = |schema: &str| {
        refused(&format!("tasks:\n  a: {{llm: {{model: sim/fast, prompt: x, schema: {schema}}}}}"))
    };
    for (schema, expected) in [
        ("{type: objct}", "schema.type (line 2, column 56): this is no JSON schema: \"objct\" is not valid"),
        (
            "{required: [1]}",
            "schema.required[0] (line 2, column 61): this is no JSON schema: 1 is not of type",
        ),
        (
            "{properties: {'x~/y': {pattern: '('}}}",
            "schema.properties.x~/y.pattern (line 2, column 81): this is no JSON schema: \"(\" is not a \"regex\"",
        ),
        ("{$ref: 'http://localhost/x'}", "schema (line 2, column 49): this is no JSON schema: Resource"),
        (
            "{$ref: '#/$defs/x'}",
            "schema (line 2, column 49): this is no JSON schema: Pointer '/$defs/x' does not",
        ),
    ] {
        let found = of(schema);
        assert!(found.starts_with(&format!("tasks.a.llm.{expected}")), "{schema}: {found}");
    }
}

#[test]
fn schemas_that_would_take_minutes_to_compile_are_refused() {
    let of = |schema: &serde_json::Value, tasks: usize| {
        let task = serde_json::json!({"llm": {"model": "sim/fast", "prompt": "x", "schema": schema}});
        let tasks: serde_json::Map<_, _> = (0..tasks).map(|at| (format!("t{at}"), task.clone())).collect();
        compile(&serde_json::json!({"tasks": tasks}).to_string(), &[], &Known)
    };
    // every level doubles the work of the one before
    let refs = |levels: usize| {
        let level = |at: usize| {
            let next = serde_json::json!({"$ref": format!("#/$defs/d{}", at + 1)});
            (format!("d{at}"), serde_json::json!({"allOf": [next, next], "unevaluatedProperties": false}))
        };
        let mut defs: serde_json::Map<_, _> = (0..levels).map(level).collect();
        defs.insert(format!("d{levels}"), serde_json::json!({}));
        serde_json::json!({"$defs": defs, "allOf": [{"$ref": "#/$defs/d0"}]})
    };
    of(&refs(3), 1).unwrap();
    let found = of(&refs(5), 1).unwrap_err().to_string();
    assert!(found.ends_with("has at most 8 references, this one 11"), "{found}");
    let patterns = |count: usize| {
        let patterns: serde_json::Map<_, _> =
            (0..count).map(|at| (format!("p{at}"), serde_json::json!({"pattern": "x"}))).collect();
        serde_json::json!({"properties": patterns})
    };
    // equal ones count once
    of(&patterns(500), 10).unwrap();
    let found = of(&patterns(501), 1).unwrap_err().to_string();
    assert!(found.ends_with("there are more than 500 patterns in the spec's schemas"), "{found}");
    let large = serde_json::json!({"description": "x".repeat(256 * 1024)});
    let found = of(&large, 1).unwrap_err().to_string();
    assert!(found.ends_with("a schema has at most 262144 bytes, this one 262162"), "{found}");
}

#[test]
fn what_steers_a_terminal_is_written_as_an_escape() {
    let found = refused("tasks: {\"a\\e[31m\\u202e\\r\\n\": {tool: {name: search}}}");
    assert_eq!(
        found,
        "tasks.a\\u{1b}[31m\\u{202e}\\r\\n (line 1, column 9): `a\\u{1b}[31m\\u{202e}\\r\\n` can't be a task's id: a letter or `_`, then up to 63 letters, digits or `_` (templates use it as a name)"
    );
    let compiled =
        compile("name: \"a\\e[31m\"\ntasks: {a: {tool: {name: \"t\\e[0m\"}}}", &[], &Permissive).unwrap();
    let drawn = compiled.tree() + &compiled.mermaid();
    assert!(drawn.contains("a\\u{1b}[31m: 2 tasks") && drawn.contains("tool t\\u{1b}[0m"), "{drawn}");
    assert!(!drawn.contains('\u{1b}'));
}

#[test]
fn hints_end_where_nobody_reads_them() {
    let tasks: Vec<String> =
        (0..300).map(|at| format!("task{at}: {{tool: {{name: search}}, after: [taks{at}]}}")).collect();
    let invalid = compile(&format!("tasks: {{{}}}", tasks.join(", ")), &[], &Known).unwrap_err();
    assert_eq!((invalid.problems.len(), invalid.more), (100, 200));
    assert!(invalid.problems.iter().all(|problem| problem.message.contains("did you mean `task")));
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for at in 1..9 {
        let before = format!("*a{}", at - 1);
        text.push_str(&format!("a{at}: &a{at} [{}]\n", vec![before; 10].join(", ")));
    }
    assert!(refused(&text).contains("anchors and aliases stand for more than"), "{}", refused(&text));
}

#[test]
fn templates_that_would_exhaust_a_parser_are_refused() {
    let of = |body: &str| {
        let text = serde_json::json!({"tasks": {"a": {"tool": {"name": "search", "args": {"q": body}}}}});
        refused(&text.to_string())
    };
    for body in [
        format!("{{{{ 1{} }}}}", "+1".repeat(100_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(100_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(100_000)),
        format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("{{{{ {}1{} }}}}", "[".repeat(40), "]".repeat(40)),
        "{% if 1 %}".repeat(50_000),
        format!("{{% if 1 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(50_000)),
    ] {
        let found = of(&body);
        assert!(found.contains("has more than"), "{}: {found}", &body[..30]);
    }
}

#[test]
fn what_is_just_within_the_limits_of_a_template_does_not_exhaust_a_stack() {
    let bodies = [
        format!("{{{{ 1{} }}}}", "-1".repeat(240)),
        format!("{{{{ {}1 }}}}", "-".repeat(490)),
        format!("{{{{ {}1 }}}}", "not ".repeat(490)),
        format!("{{{{ 1{} }}}}", "**1".repeat(240)),
        format!("{{{{ {}1{} }}}}", "(".repeat(32), ")".repeat(32)),
        format!("{{{{ {}1{} }}}}", "[".repeat(32), "]".repeat(32)),
        format!("{{{{ input{} }}}}", ".a".repeat(240)),
        format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(120)),
        format!("{}x{}", "{% if 1 %}".repeat(100), "{% endif %}".repeat(100)),
        format!("{{% if 1 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(190)),
        format!("{}x{}", "{% for x in [1] %}".repeat(100), "{% endfor %}".repeat(100)),
    ];
    for body in bodies {
        let text = serde_json::json!({"input": {"a": 1}, "tasks": {"a": {"tool": {"name": "search", "args": {"q": body}}}}});
        // compiled or refused, but answered; so is the rendering of what was compiled
        if let Ok(compiled) = compile(&text.to_string(), &[], &Permissive) {
            let body = trireme_spec::Body::parse(&compiled.graph.tasks()[0].body).unwrap();
            let _ =
                body.call(&trireme_spec::Bindings { input: compiled.input.clone(), ..Default::default() });
        }
    }
}

#[test]
fn templates_that_would_grow_without_end_are_refused() {
    let doubling = |step: &str| format!("{{% set s = [1] %}}{}", step.repeat(40));
    for body in [
        doubling("{% set s = s + s %}"),
        doubling("{% set s = [s, s] %}"),
        doubling("{% set s %}{{ s }}{{ s }}{% endset %}"),
        doubling("{% for s in [s + s] %}{% endfor %}"),
        doubling("{% for s in [[s, s]] %}{% endfor %}"),
        doubling("{% with s = {'a': s, 'b': s} %}{% endwith %}"),
        "{% set n = namespace(s=1) %}".to_owned(),
        format!("{{{{ input.x{} }}}}", " + input.x".repeat(9)),
    ] {
        let text = serde_json::json!({"input": {"x": [1]}, "tasks": {"a": {"tool": {"name": "search", "args": {"q": body}}}}});
        let found = refused(&text.to_string());
        assert!(
            ["can't be", "not supported", "unknown function", "more than 8"]
                .iter()
                .any(|words| found.contains(words)),
            "{body}: {found}"
        );
    }
}
