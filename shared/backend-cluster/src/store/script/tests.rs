//! The contract of the scripts: what their headers say is what their code and their Rust side do.

use std::collections::BTreeSet;

use serde::de::IgnoredAny;
use trireme_model::{
    Budget, Caller, Claim, Complete, Exec, Extend, Fail, FailureClass, Graph, Kind, More, Outcome, Payload,
    Priority, Renew, RunId, Submit, TaskId, TaskSpec, Token, Usage,
};

use super::{INCLUDES, all, assemble};
use crate::store::{
    packer::Packer,
    transition::{First, Transition},
    transitions::{
        Accept, Look, OnCancel, OnClaim, OnComplete, OnExtend, OnFail, OnRenew, OnSubmit, OnSweep, OnWake,
        Wake,
    },
};

/// What a header says.
#[derive(Debug, Default, PartialEq)]
struct Header {
    /// Name by number; the second list is what repeats per run, from its number.
    keys: Vec<(usize, String)>,
    per_run: Option<(usize, Vec<String>)>,
    args: Vec<(usize, String)>,
    item: Option<String>,
    parts: BTreeSet<&'static str>,
    flags: String,
}

fn header(source: &str) -> Header {
    let mut header = Header::default();
    let mut lines = source.lines();
    let first = lines.next().unwrap();
    assert!(first.starts_with("#!lua"), "without it Redis does not refuse the script before its first write");
    header.flags = first.trim_start_matches("#!lua").trim().trim_start_matches("flags=").to_owned();
    let purpose = lines.next().unwrap();
    assert!(
        purpose.starts_with("-- ") && !purpose.contains("KEYS"),
        "the second line says what the script is for"
    );
    for line in lines.map_while(|line| line.strip_prefix("--")) {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("KEYS[") {
            let (number, names) = rest.split_once(']').unwrap();
            let names: Vec<String> = words(names);
            match number.strip_suffix("..") {
                Some(number) => header.per_run = Some((number.parse().unwrap(), names)),
                None => header.keys.push((number.parse().unwrap(), names[0].clone())),
            }
        } else if let Some(rest) = line.strip_prefix("ARGV[") {
            let (number, name) = rest.split_once(']').unwrap();
            header.args.push((number.parse().unwrap(), words(name)[0].clone()));
        } else if let Some(item) = line.strip_prefix("ITEM ") {
            header.item = Some(item.to_owned());
        }
        for part in ["RETURNS ", "EMITS ", "REPEAT "] {
            if line.starts_with(part) {
                header.parts.insert(part);
            }
        }
    }
    header
}

/// The names before two spaces: `run, log  per run of the batch`.
fn words(text: &str) -> Vec<String> {
    let names = text.trim().split("  ").next().unwrap();
    names.split(", ").map(|name| name.split(' ').next().unwrap().to_owned()).collect()
}

fn body(source: &str) -> String {
    source.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<Vec<_>>().join("\n")
}

/// What stands between `open` and `]` in the code.
fn indexes(code: &str, open: &str) -> BTreeSet<String> {
    code.match_indices(open)
        .map(|(at, _)| {
            let rest = &code[at + open.len()..];
            rest[..rest.find(']').unwrap()].to_owned()
        })
        .collect()
}

#[test]
fn headers_say_what_the_code_uses() {
    for (script, source) in all() {
        let (name, header, code) = (script.name, header(source), body(source));
        assert_eq!(header.parts.len(), 3, "{name} says what it returns, emits, and what a repeat does");
        assert!(source.lines().count() < 120, "{name} is too long");
        let args: BTreeSet<String> = header.args.iter().map(|(number, _)| number.to_string()).collect();
        assert_eq!(indexes(&code, "ARGV["), args, "arguments of {name}");
        let numbers: Vec<usize> = header.args.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (1..=args.len()).collect::<Vec<_>>(), "arguments of {name} without gaps");
        let (fixed, computed): (BTreeSet<String>, BTreeSet<String>) =
            indexes(&code, "KEYS[").into_iter().partition(|index| index.parse::<usize>().is_ok());
        let keys: BTreeSet<String> = header.keys.iter().map(|(number, _)| number.to_string()).collect();
        assert_eq!(fixed, keys, "keys of {name}");
        let per_run = header.per_run.as_ref().map_or(0, |(_, names)| names.len());
        assert_eq!(computed.len(), per_run, "keys per run of {name}: {computed:?}");
        if let Some((from, _)) = &header.per_run {
            assert_eq!(*from, keys.len() + 1, "{name}: the keys of runs follow the others");
        }
        let each = code.split_once("E.each(ARGV[").map(|(_, rest)| rest);
        let item =
            each.and_then(|rest| rest.split_once("function(")?.1.split_once(')')).map(|(names, _)| names);
        assert_eq!(header.item.as_deref(), item, "items of {name}");
        let width = each.and_then(|rest| rest.split(", ").nth(1)?.parse::<usize>().ok());
        assert_eq!(width, item.map(|names| names.split(", ").count()), "width of the items of {name}");
    }
}

#[test]
fn includes_are_plain_functions() {
    for (name, source) in INCLUDES {
        assert!(
            !source.contains("KEYS") && !source.contains("ARGV"),
            "include {name} reads keys or arguments"
        );
        assert!(source.starts_with("-- "), "include {name} says what it is for");
        assert!(source.lines().count() <= 150, "include {name} is too long");
    }
}

#[test]
fn every_function_and_constant_is_there() {
    for (script, _) in all() {
        let text = &script.text;
        let defined: BTreeSet<&str> =
            text.split("function E.").skip(1).map(|rest| rest.split('(').next().unwrap()).collect();
        for part in text.split("E.").skip(1) {
            let name = part.split(|c: char| !(c.is_ascii_lowercase() || c == '_')).next().unwrap();
            let called = part[name.len()..].starts_with('(');
            let made_at_run_time = ["epoch", "paused"].contains(&name);
            assert!(
                !called || defined.contains(name) || made_at_run_time,
                "{}: E.{name} is missing",
                script.name
            );
        }
    }
    assert!(assemble("--- @include \"nothing\"").is_err());
    assert!(assemble("return $NOTHING").is_err());
}

#[test]
fn flags_fit_what_the_scripts_do() {
    let writes = ["HSET", "HSETNX", "ZADD", "ZREM", "RPUSH", "UNLINK", "PUBLISH"];
    for (script, source) in all() {
        let flags = header(source).flags;
        let written = writes.iter().any(|command| script.text.contains(&format!("'{command}'")));
        match script.name {
            // what ends or frees something must go on in a full store
            "announce" | "complete" | "expire" | "fail" | "cancel" | "renew" | "replayed" | "sweep"
            | "open" | "pause" | "raise" | "wake" | "watch" => {
                assert_eq!(flags, "allow-oom")
            }
            "peek" | "read" => assert!(flags == "no-writes" && !written, "{} reads only", script.name),
            _ => assert!(flags.is_empty() && written, "{} may be refused when memory is full", script.name),
        }
        // cjson would spoil payloads, and a global would outlive its call
        assert!(!script.text.contains("cjson"), "{} must not decode payloads", script.name);
    }
}

/// The Rust side packs as many fields as the header lists, passes as many keys, and agrees on their names.
fn agrees<T: Transition>(item: &T::Item) {
    let script = T::script();
    let (_, source) = all().into_iter().find(|(other, _)| other.name == script.name).unwrap();
    let header = header(source);
    assert_eq!(header.item.as_deref(), Some(T::ITEM), "items of {}", script.name);
    let mut packer = Packer::default();
    T::pack(item, 1, &mut packer).unwrap();
    let (mut left, mut fields) = (packer.as_slice(), 0);
    while !left.is_empty() {
        let _: IgnoredAny = rmp_serde::from_read(&mut left).unwrap();
        fields += 1;
    }
    assert_eq!(fields, T::ITEM.split(", ").count(), "fields packed for {}", script.name);
    let fixed = match T::FIRST {
        First::Meta => vec!["meta", "due", "flying"],
        First::Runs => vec!["runs", "due", "flying"],
        First::Due => vec!["due", "flying"],
        First::Claim => vec!["meta", "due", "flying", "held"],
        First::Sweep => vec!["runs", "due", "flying", "dead", "held", "meta"],
    };
    let keys: Vec<&str> = header.keys.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(keys, fixed, "keys of {}", script.name);
    let per_run = if T::BLOBS { vec!["run", "log", "blobs"] } else { vec!["run", "log"] };
    assert_eq!(header.per_run.unwrap().1, per_run, "keys per run of {}", script.name);
    let args: Vec<&str> = header.args.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(args, ["clock", "watch", "abort", "runs", "items"], "arguments of {}", script.name);
    let hints = T::AFTER_HINTS.is_none_or(|point| point == format!("{}.after_hints", script.name));
    assert!(hints, "crash point of {}", script.name);
}

#[test]
fn rust_and_lua_agree_on_items() {
    let (run, task, token) = (RunId::new("r").unwrap(), TaskId::new("t").unwrap(), Token::from_raw("e.1.c"));
    let payload = Payload::from_json("1");
    let exec = Exec {
        kind: Kind::Tool,
        pool: "tool".into(),
        priority: Priority::Normal,
        timeout: None,
        max_attempts: 1,
        backoff: 0,
        paid: false,
        fallback: None,
    };
    let spec = TaskSpec {
        id: task.clone(),
        label: String::new(),
        exec,
        inputs: vec![],
        policy: None,
        children: None,
        body: payload.clone(),
    };
    let submit = Submit {
        run: run.clone(),
        caller: Caller::default(),
        name: String::new(),
        fingerprint: String::new(),
        graph: Graph::new(vec![spec]).unwrap(),
        input: payload.clone(),
        deadline: None,
        budget: Budget::default(),
        keep: Default::default(),
        trace: None,
    };
    agrees::<OnSubmit>(&Accept::new(&submit, false, 0).unwrap());
    agrees::<OnClaim>(&Claim { run: run.clone(), task: task.clone(), claim: "c".into(), has_input: true });
    agrees::<OnRenew>(&Renew { run: run.clone(), task: task.clone(), token: token.clone() });
    agrees::<OnExtend>(&Extend {
        run: run.clone(),
        task: task.clone(),
        token: token.clone(),
        more: More::Children { start: 0, args: vec![payload.clone()] },
    });
    agrees::<OnComplete>(&Complete {
        run: run.clone(),
        task: task.clone(),
        token: token.clone(),
        outcome: Outcome::Expanded,
        tasks: Vec::new(),
        first_token: None,
        usage: Usage { calls: 1, ..Usage::default() },
        next: None,
    });
    agrees::<OnFail>(&Fail {
        run: run.clone(),
        task: task.clone(),
        token,
        class: FailureClass::Permanent,
        error: payload,
        retry_after: None,
        jitter: 0,
        usage: Usage::default(),
    });
    agrees::<OnCancel>(&run);
    agrees::<OnWake>(&Wake { run: run.clone(), task: task.clone(), member: "tool:r:t".into() });
    agrees::<OnSweep>(&Look { run, task: Some(task) });
}

#[test]
fn every_script_has_its_crash_points() {
    for (script, _) in all().into_iter().filter(|(script, _)| script.name != "open") {
        for point in [script.before, script.after] {
            assert!(trireme_backend::CRASH_POINTS.contains(&point), "{point} is not in the list");
        }
    }
}
