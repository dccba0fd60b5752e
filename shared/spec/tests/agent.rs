//! Agents: what a spec makes of them, what the worker gets, and what is refused.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use serde_json::json;
use trireme_model::{Kind, OnMiss, Payload, TaskId, TaskSpec};
use trireme_spec::{
    AGENT_TIMEOUT_MS, Bindings, Body, Call, Checker, Compiled, MAX_RENDERED_BYTES, Permissive, RenderError,
    agent::{
        AgentCall, CONDENSE_OVER, Context, ELIDE_OVER, MAX_REPLANS, MAX_STEPS, MaxTokens, Models, Strategy,
        Turn,
    },
    compile,
};

/// Knows the models `m` and `sim/*`, and the tools `search` and `prices`.
struct Known;

impl Checker for Known {
    fn model(&self, name: &str) -> Result<(), String> {
        let known = name == "m" || name.starts_with("sim/");
        if known { Ok(()) } else { Err(format!("unknown model `{name}`")) }
    }

    fn tool(&self, name: &str) -> Result<(), String> {
        if ["search", "prices"].contains(&name) { Ok(()) } else { Err(format!("unknown tool `{name}`")) }
    }
}

fn compiled(text: &str) -> Compiled {
    compile(text, &[], &Known).unwrap_or_else(|invalid| panic!("{text}\n{invalid}"))
}

fn refused(text: &str) -> String {
    compile(text, &[], &Known).expect_err(text).to_string()
}

fn task<'c>(compiled: &'c Compiled, id: &str) -> &'c TaskSpec {
    compiled.graph.tasks().iter().find(|task| task.id.as_str() == id).unwrap()
}

/// The call of a task with these values recorded.
fn call(compiled: &Compiled, id: &str, values: &[(&str, &str)]) -> Result<AgentCall, RenderError> {
    let values =
        values.iter().map(|(id, value)| (TaskId::new(id).unwrap(), Payload::from_json((*value).to_owned())));
    let bindings =
        Bindings { input: compiled.input.clone(), values: values.collect(), ..Bindings::default() };
    match Body::parse(&task(compiled, id).body).unwrap().call(&bindings)? {
        Call::Agent(call) => Ok(*call),
        other => panic!("{other:?}"),
    }
}

fn models(all: &str) -> Models {
    let all = || all.to_owned();
    Models { step: all(), planner: all(), joiner: all(), answer: all(), condenser: all() }
}

#[test]
fn defaults_are_as_documented() {
    let compiled = compiled("tasks: {a: {agent: {goal: Find it, model: m}}}");
    let task = task(&compiled, "a");
    assert_eq!((task.exec.kind, task.exec.pool.as_str(), task.exec.paid), (Kind::Agent, "llm", false));
    assert_eq!((task.exec.timeout, task.label.as_str()), (Some(AGENT_TIMEOUT_MS), "m"));
    assert!(task.policy.is_none() && task.children.is_none() && task.inputs.is_empty());
    let expected = AgentCall {
        goal: "Find it".to_owned(),
        system: None,
        strategy: Strategy::React,
        tools: Vec::new(),
        agents: BTreeMap::new(),
        models: models("m"),
        max_tokens: MaxTokens::default(),
        temperature: None,
        max_steps: MAX_STEPS,
        max_replans: MAX_REPLANS,
        output_schema: None,
        turn: Turn { within: None, on_miss: OnMiss::Partial },
        context: Context { elide_over: ELIDE_OVER, condense_over: CONDENSE_OVER },
        stream: true,
    };
    assert_eq!(call(&compiled, "a", &[]).unwrap(), expected);
    assert!(Body::parse(&task.body).unwrap().streams());
}

const FULL: &str = r#"
input: {who: Ann, kind: fast}
models: {fast: sim/fast, best: sim/best}
defaults: {timeout: 1s, retry: {attempts: 2}}
tasks:
  news: {tool: {name: search}}
  tone: {tool: {name: search}}
  a:
    agent:
      goal: "Tell {{ input.who }} of {{ news.items[0] }}"
      model: best
      models: {planner: "{{ input.kind }}", condenser: sim/small}
      strategy: plan
      tools: [search, prices, search]
      agents:
        critic:
          description: Finds faults.
          system: "Be {{ tone }}."
          tools: [search]
          max_steps: 5
          max_tokens: 9
          agents:
            scout: {description: Looks., model: sim/fast, models: {answer: best}, strategy: plan}
      system: Short.
      max_steps: 500
      max_replans: 0
      output_schema: {type: object}
      max_tokens: {answer: 100, planner: 7}
      temperature: 0.5
      turn: {within: 20s, on_miss: fail}
      context: {elide_over: 256, condense_over: 500}
      stream: false
    timeout: 1h
    fallback: {text: none}
    priority: high
    pool: agents
    after: [news]
"#;

#[test]
fn all_its_fields_reach_the_call() {
    let compiled = compiled(FULL);
    let call = call(&compiled, "a", &[("news", r#"{"items":["copper"]}"#), ("tone", "\"kind\"")]).unwrap();
    assert_eq!((call.goal.as_str(), call.system.as_deref()), ("Tell Ann of copper", Some("Short.")));
    let expected =
        Models { planner: "sim/fast".to_owned(), condenser: "sim/small".to_owned(), ..models("sim/best") };
    assert_eq!((call.strategy, &call.models), (Strategy::Plan, &expected));
    assert_eq!(call.tools, ["prices", "search"]);
    assert_eq!((call.max_steps, call.max_replans, call.temperature), (500, 0, Some(0.5)));
    assert_eq!(call.output_schema, Some(json!({"type": "object"})));
    let tokens = MaxTokens { answer: Some(100), planner: Some(7), ..MaxTokens::default() };
    assert_eq!((call.max_tokens, call.stream), (tokens, false));
    assert_eq!(call.turn, Turn { within: Some(20_000), on_miss: OnMiss::Fail });
    assert_eq!(call.context, Context { elide_over: 256, condense_over: 500 });

    let critic = &call.agents["critic"];
    assert_eq!((critic.description.as_str(), critic.agent.goal.as_str()), ("Finds faults.", ""));
    assert_eq!(
        (critic.agent.system.as_deref(), &critic.agent.models),
        (Some("Be kind."), &models("sim/best"))
    );
    assert_eq!((critic.agent.tools.as_slice(), critic.agent.max_steps), (&["search".to_owned()][..], 5));
    let nine = Some(9);
    let tokens = MaxTokens { step: nine, planner: nine, joiner: nine, answer: nine, condenser: nine };
    assert_eq!((critic.agent.max_tokens, critic.agent.stream), (tokens, false));
    let scout = &critic.agent.agents["scout"].agent;
    assert_eq!(scout.models, Models { answer: "sim/best".to_owned(), ..models("sim/fast") });
    assert_eq!((scout.strategy, scout.max_steps), (Strategy::Plan, MAX_STEPS));
}

#[test]
fn it_is_a_task_like_others() {
    let compiled = compiled(FULL);
    let a = task(&compiled, "a");
    assert_eq!(a.inputs.iter().map(TaskId::as_str).collect::<Vec<_>>(), ["news", "tone"]);
    assert_eq!((a.exec.timeout, a.exec.max_attempts, a.exec.pool.as_str()), (Some(3_600_000), 2, "agents"));
    assert_eq!(a.exec.fallback, Some(Payload::from_json(r#"{"text":"none"}"#)));
    let body = Body::parse(&a.body).unwrap();
    let reads = |name: &str| body.reads(&TaskId::new(name).unwrap(), false);
    assert!(reads("news") && reads("tone") && !reads("other") && !body.streams());
    assert!(compiled.tree().contains("agent {{ input.kind }}, plan, tools prices search, agents critic"));
    assert!(compiled.mermaid().contains("agents critic"), "{}", compiled.mermaid());
}

#[test]
fn the_defaults_of_calls_do_not_end_an_agent() {
    let compiled = compiled("defaults: {timeout: 1s}\ntasks: {a: {agent: {goal: x, model: m}}}");
    assert_eq!(task(&compiled, "a").exec.timeout, Some(AGENT_TIMEOUT_MS));
}

#[test]
fn an_alias_that_only_the_run_knows_is_resolved_everywhere() {
    let text = "input: {a: fast, b: best, long: {x: 1}}\nmodels: {fast: sim/fast, best: sim/best}\n\
                tasks: {a: {agent: {goal: x, model: '{{ input.a }}', models: {answer: fast, joiner: sim/x}, \
                agents: {s: {description: d, models: {step: '{{ input.b }}'}}}}}}";
    let call = call(&compiled(text), "a", &[]).unwrap();
    assert_eq!(call.models, Models { joiner: "sim/x".to_owned(), ..models("sim/fast") });
    let sub = &call.agents["s"].agent.models;
    assert_eq!(*sub, Models { step: "sim/best".to_owned(), ..models("sim/fast") });
}

#[test]
fn what_can_not_be_rendered_is_named() {
    let agent = |agent: &str| {
        let text = format!("input: {{n: {{}}, e: \"\", l: []}}\ntasks: {{a: {{agent: {agent}}}}}");
        call(&compile(&text, &[], &Permissive).unwrap(), "a", &[]).unwrap_err().to_string()
    };
    assert_eq!(
        agent("{goal: '{{ input.n.x }}', model: m}"),
        "goal: `input.n.x` does not exist: `input.n` has no field `x`; it is empty"
    );
    assert_eq!(
        agent("{goal: g, model: m, agents: {b: {description: d, system: '{{ input.n.x }}'}}}"),
        "agents.b.system: `input.n.x` does not exist: `input.n` has no field `x`; it is empty"
    );
    assert_eq!(
        agent("{goal: g, model: m, agents: {b: {description: d, models: {joiner: '{{ input.e }}'}}}}"),
        "agents.b.models.joiner: a name has 1 to 256 bytes, this one 0"
    );
}

#[test]
fn all_texts_together_are_bounded() {
    let text = "tasks: {n: {tool: {name: search}}, a: {agent: {goal: '{{ n }}', model: m, agents: \
                {s: {description: d, system: '{{ n }}'}}}}}";
    let compiled = compiled(text);
    let with = |bytes: usize| call(&compiled, "a", &[("n", &format!("\"{}\"", "x".repeat(bytes)))]);
    assert!(with(MAX_RENDERED_BYTES / 2).is_ok());
    let error = with(MAX_RENDERED_BYTES / 2 + 1).unwrap_err();
    assert_eq!(error, RenderError::TooLarge { place: "agents.s.system".to_owned() });
}

#[test]
fn a_run_may_be_one_agent() {
    let compiled = compiled(
        "input: {q: why}\ndeadline: 2h\nbudget: {tokens: 9}\nagent: {goal: '{{ input.q }}', model: m}",
    );
    let [agent, output] = compiled.graph.tasks() else { panic!("{:?}", compiled.graph) };
    assert_eq!(
        (agent.id.as_str(), agent.exec.kind, agent.exec.timeout),
        ("agent", Kind::Agent, Some(7_200_000))
    );
    // the output is the agent's value, made inside the store
    assert_eq!((output.id.as_str(), output.exec.kind), ("output", Kind::Join));
    assert_eq!(output.inputs, std::slice::from_ref(&agent.id));
    assert_eq!((compiled.deadline, compiled.budget.tokens), (Some(7_200_000), Some(9)));
    assert_eq!(call(&compiled, "agent", &[]).unwrap().goal, "why");

    let named = self::compiled("agent: {goal: x, model: m}\noutput: {answer: '{{ agent.text }}'}");
    let output = named.graph.tasks().last().unwrap();
    assert_eq!((output.exec.kind, output.exec.pool.as_str()), (Kind::Tool, "llm"));
    assert_eq!(task(&named, "agent").exec.timeout, Some(AGENT_TIMEOUT_MS));
}

#[test]
fn the_example_of_the_reference_compiles() {
    let reference = include_str!("../../../docs/spec.md");
    let section = reference.split("### `agent`").nth(1).unwrap();
    let example = section.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let compiled = compile(example, &[], &Permissive).unwrap();
    let call = call(&compiled, "agent", &[]).unwrap();
    assert_eq!(call.goal, "Is Acme a good buyer of copper? Give reasons with figures.");
    assert_eq!((call.models.planner.as_str(), call.models.joiner.as_str()), ("sim/fast", "sim/best"));
}

#[test]
fn names_that_are_one_to_the_model_are_refused() {
    let check = |fields: &str| {
        compile(&format!("agent: {{goal: g, model: m, {fields}}}"), &[], &Permissive)
            .map(drop)
            .map_err(|invalid| invalid.to_string())
    };
    for (fields, said) in [
        ("tools: [time.now, time_now]", "to a model `time_now` is the same as `time.now`: `time_now`"),
        ("tools: [read.result]", "to a model `read.result` is the same as `read_result`: `read_result`"),
        ("tools: [read_result]", "to a model `read_result` is the same as `read_result`"),
        ("tools: [a.b], agents: {a_b: {description: d}}", "`a_b` is one of the agent's tools already"),
        ("agents: {read_result: {description: d}}", "`read_result` is one of the agent's tools already"),
        ("agents: {s: {description: d, tools: [x.y, x_y]}}", "to a model `x_y` is the same as `x.y`"),
    ] {
        let refused = check(fields).expect_err(fields);
        assert!(refused.contains(said), "{fields}: {refused}");
    }
    assert_eq!(check("tools: [time.now, time.now, time-now]"), Ok(()));
}

/// What stands in `agent: {goal: g, model: m, …}` of task `a`, and what is said of it.
const BAD: &[(&str, &str)] = &[
    ("gaol: x", "gaol (line 2, column 3): unknown field `gaol`; did you mean `goal`?"),
    ("model: [x]", "model (line 2, column 10): expected text, got a list"),
    (
        "models: {plnner: m}",
        "models.plnner (line 2, column 12): unknown field `plnner`; did you mean `planner`?",
    ),
    ("models: {step: x}", "models.step (line 2, column 18): unknown model `x`"),
    ("strategy: rect", "strategy (line 2, column 13): expected one of `react`, `plan`, got `rect`"),
    ("tools: search", "tools (line 2, column 10): expected a list, got text"),
    ("tools: [serch]", "tools[0] (line 2, column 11): unknown tool `serch`"),
    ("tools: ['{{ input.x }}']", "tools[0] (line 2, column 11): a tool's name can't be a template"),
    ("max_steps: 0", "max_steps (line 2, column 14): expected a whole number from 1 to 500, got `0`"),
    ("max_steps: 501", "max_steps (line 2, column 14): expected a whole number from 1 to 500, got `501`"),
    ("max_replans: 21", "max_replans (line 2, column 16): expected a whole number from 0 to 20, got `21`"),
    (
        "max_tokens: x",
        "max_tokens (line 2, column 15): expected a whole number, or an object of roles, got text",
    ),
    ("max_tokens: 0", "max_tokens (line 2, column 15): expected a whole number from 1 to 10000000, got `0`"),
    (
        "max_tokens: {step: 1.5}",
        "max_tokens.step (line 2, column 22): expected a whole number from 1 to 10000000, got `1.5`",
    ),
    (
        "max_tokens: {all: 1}",
        "max_tokens.all (line 2, column 16): unknown field `all`; known are `step`, `planner`, `joiner`, `answer`, `condenser`",
    ),
    ("temperature: 3", "temperature (line 2, column 16): expected a number from 0 to 2, got `3`"),
    ("turn: {within: 3}", "turn.within (line 2, column 18): a duration needs a unit: `3s` or `3ms`"),
    (
        "turn: {on_miss: default}",
        "turn.on_miss (line 2, column 19): expected one of `partial`, `fail`, got `default`",
    ),
    ("turn: {need: 3}", "turn.need (line 2, column 10): unknown field `need`; known are `within`, `on_miss`"),
    (
        "context: {elide_over: 255}",
        "context.elide_over (line 2, column 25): expected a whole number from 256 to 1048576, got `255`",
    ),
    (
        "context: {condense_over: 10000001}",
        "context.condense_over (line 2, column 28): expected a whole number from 500 to 10000000, got `10000001`",
    ),
    ("stream: yes", "stream (line 2, column 11): expected true or false, got text"),
    ("system: '{{ nope }}'", "system (line 2, column 11): unknown reference `nope`; known are `input`, `a`"),
    ("output_schema: 3", "output_schema (line 2, column 18): expected an object, got a number"),
    (
        "output_schema: {properties: {x: {type: txt}}}",
        "output_schema.properties.x.type (line 2, column 42): this is no JSON schema: \"txt\" is not valid under any of the schemas listed in the 'anyOf' keyword",
    ),
    ("agents: [x]", "agents (line 2, column 11): expected an object, got a list"),
    ("agents: {b: {}}", "agents.b (line 2, column 15): the field `description` is missing"),
    (
        "agents: {b: {description: ''}}",
        "agents.b.description (line 2, column 29): a description has 1 to 1024 bytes, this one 0",
    ),
    (
        "agents: {b: {description: '{{ input }}'}}",
        "agents.b.description (line 2, column 29): this is a plain value: templates are not filled in here",
    ),
    ("agents: {b: {description: d, goal: x}}", "agents.b.goal (line 2, column 32): unknown field `goal`"),
    (
        "agents: {b: {description: d, model: x, tools: [y]}}",
        "agents.b.model (line 2, column 39): unknown model `x`\n\
         tasks.a.agent.agents.b.tools[0] (line 2, column 50): unknown tool `y`",
    ),
    (
        "agents: {'b c': {description: d}}",
        "agents.b c (line 2, column 12): an agent's name is 1 to 64 of A-Z a-z 0-9 _ -, not `b c`",
    ),
    (
        "tools: [search], agents: {search: {description: d}}",
        "agents.search (line 2, column 29): `search` is one of the agent's tools already",
    ),
    (
        "agents: {b: {description: d, agents: {c: {description: d, agents: {d: {description: d, agents: {e: {description: d}}}}}}}}",
        "agents.b.agents.c.agents.d.agents (line 2, column 98): agents stand at most 4 deep inside each other",
    ),
];

#[test]
fn bad_agents_are_refused_in_these_words() {
    let mut wrong = Vec::new();
    for (field, expected) in BAD {
        // a field of the test's own goes over the default of that name
        let own = |name: &str| field.starts_with(&format!("{name}:"));
        let model = if own("model") { "" } else { ", model: m" };
        let found = refused(&format!("tasks: {{a: {{agent: {{goal: g{model},\n  {field}}}}}}}"));
        let expected = format!("tasks.a.agent.{expected}");
        if found != expected {
            wrong.push(format!("--- {field}\nexpected: {expected}\nfound:    {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_no_agent_at_all_is_refused() {
    for (text, expected) in [
        ("agent: {model: m}", "agent (line 1, column 8): the field `goal` is missing"),
        ("agent: {goal: g}", "agent (line 1, column 8): the field `model` is missing"),
        ("agent: g", "agent (line 1, column 8): expected an object, got text"),
        (
            "agent: {goal: '{{ input.x }}', model: m}",
            "agent.goal (line 1, column 15): `input.x` does not exist: `input` has no field `x`",
        ),
        (
            "agent: {goal: g, model: m}\ntasks: {a: {tool: {name: search}}}",
            "spec (line 1, column 1): a run has either `tasks` or `agent`, this one has both",
        ),
        (
            "tasks: {a: {agent: {goal: g, model: m}, tool: {name: search}}}",
            "tasks.a (line 1, column 12): a task is exactly one of `llm`, `tool`, `join`, `map`, `agent`, this one has `tool`, `agent`",
        ),
        (
            "tasks: {a: {map: {over: [1], do: {agent: {goal: g, model: m}}}}}",
            "tasks.a.map.do.agent (line 1, column 35): an agent can't be the `do` of a map: write a task for each, or one agent that calls others by its field `agents`",
        ),
        (
            "tasks: {a: {agent: {goal: '{{ a }}', model: m}}}",
            "tasks (line 1, column 9): task `a` waits for itself",
        ),
    ] {
        assert_eq!(refused(text), expected, "{text}");
    }
}

#[test]
fn many_are_too_many() {
    let agents = |count: usize, inside: &str| {
        let agents: Vec<String> = (0..count).map(|at| format!("a{at}: {{description: d{inside}}}")).collect();
        format!("agents: {{{}}}", agents.join(", "))
    };
    let of = |fields: &str| format!("agent: {{goal: g, model: m, {fields}}}");
    compiled(&of(&agents(100, "")));
    let all = "agent (line 1, column 8): 110 sub-agents in all are over the limit of 100";
    assert_eq!(refused(&of(&agents(10, &format!(", {}", agents(10, ""))))), all);
    let tools = |count: usize| format!("tools: [{}]", vec!["search"; count].join(", "));
    compiled(&of(&format!("{}, {}", tools(28), agents(100, ""))));
    let offered = "agent (line 1, column 8): 129 tools and agents on offer are over the limit of 128";
    assert_eq!(refused(&of(&format!("{}, {}", tools(29), agents(100, "")))), offered);
    let long = |bytes: usize| of(&format!("agents: {{b: {{description: {}}}}}", "d".repeat(bytes)));
    compiled(&long(1024));
    assert!(refused(&long(1025)).ends_with("a description has 1 to 1024 bytes, this one 1025"));
}

#[test]
fn a_drawing_names_some_and_counts_the_rest() {
    let tools: Vec<String> = (0..8).map(|at| format!("t{at}")).collect();
    let text = format!("agent: {{goal: g, model: m, tools: [{}]}}", tools.join(", "));
    let tree = compile(&text, &[], &Permissive).unwrap().tree();
    assert!(tree.contains("  agent m, react, tools t0 t1 t2 t3 t4 and 3 more"), "{tree}");
}
