use proptest::prelude::*;
use serde_json::json;

use super::*;

fn known() -> Known {
    Known {
        tools: ["search", "calculator", "list_files", "a-b.c/d"].map(str::to_owned).into(),
        nodes: [100, 101].into(),
        max_nodes: 20,
    }
}

fn read(text: &str) -> Vec<Item> {
    read_with(known(), &[text])
}

fn read_with(known: Known, pieces: &[&str]) -> Vec<Item> {
    let mut parser = PlanParser::new(known);
    let mut items: Vec<Item> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
    items.extend(parser.finish());
    items
}

/// Short forms: `1 search {"q":1}`, `join 1 2`, `join 1 of 1 2`, `(join) 1`, `! words of the problem`.
fn shown(items: &[Item]) -> Vec<String> {
    items
        .iter()
        .map(|item| match item {
            Item::Node(node) => {
                assert_eq!(node.references, references(&node.args));
                format!("{} {} {}", node.number, node.tool, node.args)
            }
            Item::Join(Join { nodes, need, implicit }) => {
                let nodes: Vec<_> = nodes.iter().map(u32::to_string).collect();
                let need = match need {
                    Need::All => String::new(),
                    Need::Count(k) => format!("{k} of "),
                };
                format!("{} {need}{}", if *implicit { "(join)" } else { "join" }, nodes.join(" "))
            }
            Item::Problem(problem) => format!("! {problem}"),
        })
        .collect()
}

const PLAN: &str = r#"1 search {"q":"population of France"}
2 calculator {"expression":"${1.value} * 2"}
3 think {"prompt":"Which is larger?","a":"$1.items[0].title","b":"$2"}
join 2 3
"#;

#[test]
fn a_plan() {
    let items = read(PLAN);
    assert_eq!(
        shown(&items),
        [
            r#"1 search {"q":"population of France"}"#,
            r#"2 calculator {"expression":"${1.value} * 2"}"#,
            r#"3 think {"prompt":"Which is larger?","a":"$1.items[0].title","b":"$2"}"#,
            "join 2 3",
        ]
    );
    let Item::Node(node) = &items[2] else { panic!("{items:?}") };
    assert_eq!(node.needs(), [1, 2].into());
}

#[test]
fn a_node_is_emitted_at_the_byte_that_closes_it() {
    let mut parser = PlanParser::new(known());
    for (closes, text) in [
        (0, "Thought: let's go\n1 search {\"q\":{\"a\":\"}\""),
        (0, "}"),
        (1, "}"),
        (0, " and so on\n\n2. search(\r\n{\"q\":\n12 "),
        (1, "}"),
        (0, ")\n3 list_files"),
        (1, "()"),
        (0, "\njoin"),
        (1, "\n"),
        (0, "4 search {}\njoin\n"),
    ] {
        assert_eq!(parser.push(text).len(), closes, "{text:?}");
    }
    assert!(parser.done());
    assert_eq!(parser.finish(), []);
}

#[test]
fn what_models_slip_into_is_understood() {
    let plain = ["1 search {\"q\":\"x\"}", "2 list_files {}", "join 1 2"];
    for text in [
        "1 search {\"q\":\"x\"}\n2 list_files {}\njoin",
        "1. search {\"q\":\"x\"}\r\n2. list_files\r\njoin\r\n",
        "1) search({\"q\":\"x\"})\n2: list_files()\n3. join()",
        "1.search({\"q\":\"x\"},)\n2 list_files( )\njoin(1, 2).\n",
        "Here is the plan:\n```plan\n1 search {\"q\":\"x\"}\n\n\n2 list_files {}\n```\njoin\n```",
        "Thought: 1 is first\n1 search\n{\n  \"q\": \"x\"\n}\nThought: two\n2 list_files\n   join all",
        "1 search {\"q\":\"x\",}  # finds it\n2 list_files { } done\njoin $1 $2",
        "1 search {\"q\":\"x\"} 2 list_files {} join\n",
        "1 search ( {\"q\":\n\"x\"}\n)\n2 list_files {}\njoin 1 and 2",
        // Never closed: the next line shows where they ended.
        "1 search {\"q\":\"x\"\n2 list_files {}\njoin",
        "1 search {\"q\":\"x\"}\n2 list_files {\njoin\n",
        "`1 search {\"q\":\"x\"}`\n`2 list_files {}`\n\n\njoin 2 of 1 2\n1 search {}",
    ] {
        assert_eq!(shown(&read(text)), plain, "{text}");
    }
    assert_eq!(shown(&read("7 a-b.c/d {\"t\":\"1\n2\"}")), [r#"7 a-b.c/d {"t":"1\n2"}"#, "(join) 7"]);
}

#[test]
fn joins() {
    let nodes = "1 search {}\n2 search {\"q\":2}\n3 foo {}\n";
    for (line, expected) in [
        ("join", vec!["join 1 2"]),
        ("join any", vec!["join 1 of 1 2"]),
        ("join any 2 100", vec!["join 1 of 2 100"]),
        ("join 2 of 1 2 101", vec!["join 2 of 1 2 101"]),
        ("join 1 of 2 2", vec!["join 2"]),
        ("join 4 of 1 2", vec!["! the join needs 4 of 2 nodes", "join 1 2"]),
        ("join 1 3", vec!["! the join names node 3, which does not exist or is not usable", "join 1"]),
        ("join 9", vec!["! the join names node 9, which does not exist or is not usable", "join 1 2"]),
        ("join them", vec!["(join) 1 2"]),
        ("joined", vec!["(join) 1 2"]),
        ("", vec!["(join) 1 2"]),
    ] {
        let items = read(&format!("{nodes}{line}\n"));
        assert_eq!(shown(&items[3..]), expected, "{line}");
    }
    assert_eq!(shown(&read("join 100 101\n")), ["join 100 101"]);
    assert_eq!(shown(&read("join\n1 search {}")), ["! the plan is empty"]);
}

#[test]
fn each_problem_has_its_kind_and_the_rest_is_read() {
    for (text, expected) in [
        ("1 foo {\"a\":\"2 b\"}", vec!["! node 1: there is no tool `foo`"]),
        ("1 foo()", vec!["! node 1: there is no tool `foo`"]),
        ("1 search {\"q\":\"$1\"}", vec!["! node 1: it refers to itself"]),
        (
            "1 search {\"q\":\"$2\"}\n2 search {\"q\":\"${1}!\"}",
            vec![
                "! node 1: it refers to node 2, which has not come yet",
                "! node 2: it refers to node 1, which is not usable",
            ],
        ),
        ("5 search {\"q\":\"$4\"}", vec!["! node 5: it refers to node 4, which does not exist"]),
        ("100 search {}", vec!["! node 100: this number is taken"]),
        ("0 search {}", vec!["! a call of `search` has a number that is not positive"]),
        ("1 search population of France", vec!["! node 1: the arguments of `search` must be a JSON object"]),
        ("1 search [{\"q\":\n1}]", vec!["! node 1: the arguments of `search` must be a JSON object"]),
        ("1 search(\"q\")", vec!["! node 1: the arguments of `search` must be a JSON object"]),
        (
            "1 search {\"q\":\"the \"best\" one\"}",
            vec!["! node 1: the arguments are not JSON: expected `,` or `}` at line 1 column 12"],
        ),
        (
            "1 search {\"q\":[1}",
            vec!["! node 1: the arguments are not JSON: expected `,` or `]` at line 1 column 8"],
        ),
    ] {
        let items = read(&format!("{text}\n9 search {{\"q\":\"$100.x\"}}\njoin"));
        let expected = [&expected[..], &["9 search {\"q\":\"$100.x\"}", "join 9"]].concat();
        assert_eq!(shown(&items), expected, "{text}");
    }
    let twice = "1 search {}\n1 search {\"q\":1}\n2 search {\"q\":\"$1\"}";
    assert_eq!(
        shown(&read(twice)),
        ["1 search {}", "! node 1: this number is taken", r#"2 search {"q":"$1"}"#, "(join) 1 2"]
    );
    // A cut plan: no guess what the arguments would have been.
    assert_eq!(
        shown(&read("1 search {}\n2 search {\"q\":\"x")),
        ["1 search {}", "! node 2: the plan ends within its arguments", "(join) 1"]
    );
}

#[test]
fn dollars_in_text_depend_on_nothing() {
    let items = read("1 search {\"q\":\"a $5 bill in US$, $$2 and $7.50\"}");
    let Item::Node(node) = &items[0] else { panic!("{items:?}") };
    assert_eq!(node.references, []);
    let resolved = resolve(&node.args, |_| None).unwrap();
    assert_eq!(resolved, json!({"q": "a $5 bill in US$, $2 and $7.50"}));
}

#[test]
fn text_instead_of_a_plan_is_kept() {
    let plain = |text: &str, cut| vec![Item::Problem(Problem::PlainText { text: text.to_owned(), cut })];
    for text in [
        "The population of France is 68 million.",
        "1. Paris (the capital)\n2. Lyon\n\n3. join us {there}",
        "{\"answer\": 42}",
        "1",
        "It costs $1.\n```\n1 = 2\n```",
    ] {
        assert_eq!(read(&format!("\n {text}\n\n")), plain(text, false));
    }
    let prose = read("2. search engines {are} many\n3. print() too");
    assert_eq!(prose.len(), 3, "{prose:?}");
    assert!(
        matches!(&prose[2], Item::Problem(Problem::PlainText { text, .. }) if text.ends_with("print() too"))
    );
    for text in ["", " \n\n"] {
        assert_eq!(shown(&read(text)), ["! the plan is empty"]);
    }
    assert_eq!(
        shown(&read("1 foo {}\nThat's it")),
        ["! node 1: there is no tool `foo`", "! the plan is empty"]
    );
    let long = format!("{}é{}\n1 search {{}}\njoin", "x".repeat(MAX_PREAMBLE - 1), "y".repeat(10));
    assert_eq!(read(&long), plain(&long[..MAX_PREAMBLE - 1], true));
}

#[test]
fn bounds_hold() {
    let many: String = (1..=10_000).map(|n| format!("{n} search {{\"q\":{n}}}\n")).collect();
    let items = read(&format!("{many}join 3 20 21 5000\n"));
    assert_eq!(items.len(), 20 + 1 + 2 + 1);
    assert_eq!(items[20], Item::Problem(Problem::TooManyNodes { limit: 20 }));
    assert_eq!(shown(&items[23..]), ["join 3 20"]);

    let large = "x".repeat(MAX_ARGUMENTS);
    let mut parser = PlanParser::new(known());
    let mut items = parser.push("1 search {\"q\":\"");
    for _ in 0..5 {
        items.extend(parser.push(&large));
        // Nothing of them is held.
        assert!(format!("{parser:?}").len() < 5_000);
    }
    items.extend(parser.push("\"}\n2 search {\"q\":\"$1\"}\n3 list_files {}\njoin\n"));
    assert_eq!(
        shown(&items),
        [
            &format!(
                "! node 1: the arguments have {} bytes, more than {MAX_ARGUMENTS}",
                5 * MAX_ARGUMENTS + 8
            ),
            "! node 2: it refers to node 1, which is not usable",
            "3 list_files {}",
            "join 3",
        ]
    );
    let deep = format!("1 search {{\"q\":{}1{}}}\n2 list_files\njoin", "[".repeat(500), "]".repeat(500));
    let items = shown(&read(&deep));
    assert!(items[0].starts_with("! node 1: the arguments are not JSON"), "{items:?}");
    assert_eq!(items[1..], ["2 list_files {}", "join 2"]);
}

/// Lines as models write them, well and badly, glued at random.
fn any_plan() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => (0u32..6, 0usize..4, 0usize..12).prop_map(|(number, tool, args)| {
            let tool = ["search", "think", "list_files", "foo"][tool];
            let args = [
                "{}", "{\"q\":\"$1\"}", "({\"q\":\"é ${2.a} \\\" }\"})", "{\"q\":[1,\n 2 ]\n }", "()", "", "{\"q\":\"x",
                "{\"q\":\"x\ny\"}", "[1]", " x", "{\"q\":{}", "\n\n{\"q\":1,}",
            ][args];
            format!("{number} {tool} {args}")
        }),
        1 => (0usize..8).prop_map(|at| {
            ["join", "join 1 2", "join any", "join 2 of 1 2 3", "3. join()", "join us", "joiner", "join."][at].to_owned()
        }),
        1 => (0usize..8).prop_map(|at| {
            ["```", "Thought: 1 search", "12", "1.", "\"", "}", ")", "größe"][at].to_owned()
        }),
        1 => "[ -~é\n]{0,6}",
    ];
    let end = prop_oneof![4 => Just("\n"), 1 => Just("\r\n"), 1 => Just(" "), 1 => Just("")];
    proptest::collection::vec((piece, end), 0..8)
        .prop_map(|lines| lines.into_iter().flat_map(|(line, end)| [line, end.to_owned()]).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn how_the_stream_is_cut_does_not_matter(text in any_plan(), cuts in proptest::collection::vec(0usize..200, 0..12)) {
        let whole = read(&text);
        let single: Vec<String> = text.chars().map(String::from).collect();
        let single: Vec<&str> = single.iter().map(String::as_str).collect();
        prop_assert_eq!(&read_with(known(), &single), &whole);

        let mut cuts: Vec<usize> = cuts.into_iter().map(|at| text.floor_char_boundary(at)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&str> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
        prop_assert_eq!(&read_with(known(), &pieces), &whole);
    }

    #[test]
    fn what_comes_out_is_sound(text in any_plan()) {
        let mut usable = known().nodes;
        let mut joins = 0;
        for item in read(&text) {
            match item {
                Item::Node(node) => {
                    prop_assert!(node.args.is_object());
                    prop_assert!(node.needs().is_subset(&usable), "{:?}", node);
                    prop_assert!(usable.insert(node.number));
                }
                Item::Join(join) => {
                    joins += 1;
                    prop_assert!(!join.nodes.is_empty() && join.nodes.iter().all(|n| usable.contains(n)));
                }
                Item::Problem(Problem::Empty | Problem::PlainText { .. }) => joins += 1,
                Item::Problem(_) => {}
            }
        }
        prop_assert_eq!(joins, 1);
    }
}
