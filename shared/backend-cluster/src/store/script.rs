//! The Lua scripts: embedded, put together from their includes, with the constants of the model filled in.
//!
//! `--- @include "name"` stands for `lua/include/name.lua`, once per script. `$NAME` stands for a constant of
//! [`super::constants`]: positions in packed arrays, codes and limits, so that Lua and Rust cannot disagree.

use std::{collections::HashSet, sync::LazyLock};

use super::constants;

/// A script and the name under which Redis knows it.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) name: &'static str,
    pub(crate) text: String,
    pub(crate) sha: String,
    /// Crash points around its call.
    pub(crate) before: &'static str,
    pub(crate) after: &'static str,
}

macro_rules! scripts {
    ($($name:ident = $file:literal),* $(,)?) => {
        $(pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(
            $file,
            include_str!(concat!("../lua/", $file, ".lua")),
            concat!($file, ".before_store"),
            concat!($file, ".after_store"),
        ));)*
        /// The names of all scripts.
        pub(crate) const NAMES: &[&str] = &[$($file),*];
        /// All scripts, as they are sent and as they stand in the repository.
        #[cfg(test)]
        pub(crate) fn all() -> Vec<(&'static Script, &'static str)> {
            vec![$((&*$name, include_str!(concat!("../lua/", $file, ".lua")))),*]
        }
    };
}

scripts! {
    ADMIT = "admit",
    ANNOUNCE = "announce",
    APPEND = "append",
    CANCEL = "cancel",
    CLAIM = "claim",
    COMPLETE = "complete",
    EXPIRE = "expire",
    EXTEND = "extend",
    FAIL = "fail",
    KEEP = "keep",
    OPEN = "open",
    PAUSE = "pause",
    PEEK = "peek",
    RAISE = "raise",
    READ = "read",
    RENEW = "renew",
    REPLAY = "replay",
    REPLAYED = "replayed",
    SUBMIT = "submit",
    SWEEP = "sweep",
    WAKE = "wake",
    WATCH = "watch",
}

/// The includes by name.
pub(crate) const INCLUDES: &[(&str, &str)] = &[
    ("add", include_str!("../lua/include/add.lua")),
    ("clock", include_str!("../lua/include/clock.lua")),
    ("dead", include_str!("../lua/include/dead.lua")),
    ("epoch", include_str!("../lua/include/epoch.lua")),
    ("flush", include_str!("../lua/include/flush.lua")),
    ("flying", include_str!("../lua/include/flying.lua")),
    ("head", include_str!("../lua/include/head.lua")),
    ("holder", include_str!("../lua/include/holder.lua")),
    ("items", include_str!("../lua/include/items.lua")),
    ("join", include_str!("../lua/include/join.lua")),
    ("next", include_str!("../lua/include/next.lua")),
    ("ready", include_str!("../lua/include/ready.lua")),
    ("settle", include_str!("../lua/include/settle.lua")),
    ("start", include_str!("../lua/include/start.lua")),
    ("task", include_str!("../lua/include/task.lua")),
    ("told", include_str!("../lua/include/told.lua")),
    ("unit", include_str!("../lua/include/unit.lua")),
];

impl Script {
    fn new(name: &'static str, source: &str, before: &'static str, after: &'static str) -> Self {
        let text = match assemble(source) {
            Ok(text) => text,
            // the scripts are part of the program, and a test assembles each
            Err(error) => unreachable!("script {name}: {error}"),
        };
        let sha = redis::Script::new(&text).get_hash().to_owned();
        Self { name, text, sha, before, after }
    }
}

#[cfg(test)]
impl Script {
    /// The script with its `at`-th call to Redis, from 1, failing as one on a key of a foreign type would.
    pub(crate) fn failing_at(&self, at: usize) -> String {
        let (first, rest) = self.text.split_once('\n').unwrap_or((&self.text, ""));
        format!(
            "{first}\nlocal left, server = {at}, redis\nlocal redis = {{ call = function(...)\nleft = left - 1\n\
             if left == 0 then error({{ err = 'INJECTED fault' }}) end\nreturn server.call(...)\nend }}\n{rest}"
        )
    }
}

/// Puts a script together.
pub(crate) fn assemble(source: &str) -> Result<String, String> {
    let mut text = String::new();
    add(source, &mut HashSet::new(), &mut text)?;
    fill(&reserve(&text))
}

/// Names all functions of the table of includes where it is made: a call makes them anew each time, and a table
/// that has its size from the start need not grow six times.
fn reserve(text: &str) -> String {
    const TABLE: &str = "local E = {";
    let names: String = text
        .lines()
        .filter_map(|line| line.strip_prefix("function E.")?.split_once('('))
        .map(|(name, _)| format!(" {name} = false,"))
        .collect();
    text.replacen(TABLE, &format!("{TABLE}{names}"), 1)
}

fn add(source: &str, seen: &mut HashSet<String>, text: &mut String) -> Result<(), String> {
    for line in source.lines() {
        if let Some(name) = line.strip_prefix("--- @include \"").and_then(|rest| rest.strip_suffix('"')) {
            if seen.insert(name.to_owned()) {
                let (_, include) = INCLUDES
                    .iter()
                    .find(|(known, _)| *known == name)
                    .ok_or_else(|| format!("include {name} is unknown"))?;
                add(include, seen, text)?;
            }
            continue;
        }
        // what explains the script to people need not be sent to Redis; the first line is for Redis
        if !line.trim_start().starts_with("--") && !line.trim().is_empty() {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(())
}

fn fill(text: &str) -> Result<String, String> {
    let (mut filled, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('$') {
        filled.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let end = after.find(|c: char| !(c.is_ascii_uppercase() || c == '_')).unwrap_or(after.len());
        let name = &after[..end];
        if name.is_empty() {
            filled.push('$');
        } else {
            filled.push_str(&constants::value(name).ok_or_else(|| format!("constant {name} is unknown"))?);
        }
        rest = &after[end..];
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests;
