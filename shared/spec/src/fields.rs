//! Reads typed values out of the tree, noting every problem instead of stopping at the first.

use std::ops::RangeInclusive;

use trireme_model::Ms;

use crate::{
    problem::{Place, Report, list, quoted},
    source::{Data, Entry, Node, join},
};

/// Longest duration a spec may name: seven days.
pub const MAX_DURATION_MS: Ms = 7 * 24 * 3_600_000;
/// Longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// The members of an object whose names are known.
pub(crate) struct Fields<'n> {
    pub path: String,
    pub place: Place,
    entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    /// The members of `node`; anything but an object, and members that are not in `known`, are problems.
    pub fn of(node: &'n Node, path: &str, known: &[&str], report: &mut Report) -> Option<Self> {
        let entries = object(node, path, report)?;
        for entry in entries {
            if !known.contains(&entry.key.as_str()) {
                let hint = report.hint(&entry.key, known.iter().copied());
                let message = format!("unknown field {}{hint}", quoted(&entry.key));
                report.add(join(path, &entry.key), Some(entry.place), message);
            }
        }
        Some(Self { path: path.to_owned(), place: node.place, entries })
    }

    /// A member's value and path.
    pub fn get(&self, name: &str) -> Option<(&'n Node, String)> {
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        Some((&entry.value, join(&self.path, name)))
    }

    /// A member that must be there.
    pub fn need(&self, name: &str, report: &mut Report) -> Option<(&'n Node, String)> {
        let found = self.get(name);
        if found.is_none() {
            report.add(&self.path, Some(self.place), format!("the field `{name}` is missing"));
        }
        found
    }

    /// A member read by `read`.
    pub fn read<T>(
        &self,
        name: &str,
        report: &mut Report,
        read: impl FnOnce(&'n Node, &str, &mut Report) -> Option<T>,
    ) -> Option<T> {
        let (node, path) = self.get(name)?;
        read(node, &path, report)
    }
}

fn wrong<T>(node: &Node, path: &str, expected: &str, report: &mut Report) -> Option<T> {
    report.add(path, Some(node.place), format!("expected {expected}, got {}", node.kind()));
    None
}

/// An object's members.
pub(crate) fn object<'n>(node: &'n Node, path: &str, report: &mut Report) -> Option<&'n [Entry]> {
    match &node.data {
        Data::Map(entries) => Some(entries),
        _ => wrong(node, path, "an object", report),
    }
}

/// A list's items.
pub(crate) fn items<'n>(node: &'n Node, path: &str, report: &mut Report) -> Option<&'n [Node]> {
    match &node.data {
        Data::List(items) => Some(items),
        _ => wrong(node, path, "a list", report),
    }
}

/// A text.
pub(crate) fn text(node: &Node, path: &str, report: &mut Report) -> Option<String> {
    match &node.data {
        Data::Text(text) => Some(text.clone()),
        _ => wrong(node, path, "text", report),
    }
}

/// A text of 1 to [`MAX_NAME_BYTES`] bytes.
pub(crate) fn name(node: &Node, path: &str, report: &mut Report) -> Option<String> {
    let text = text(node, path, report)?;
    if (1..=MAX_NAME_BYTES).contains(&text.len()) {
        return Some(text);
    }
    report.add(
        path,
        Some(node.place),
        format!("a name has 1 to {MAX_NAME_BYTES} bytes, this one {}", text.len()),
    );
    None
}

/// The name of a pool.
pub(crate) fn pool(node: &Node, path: &str, report: &mut Report) -> Option<String> {
    let text = text(node, path, report)?;
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(word) {
        return Some(text);
    }
    report.add(path, Some(node.place), format!("a pool is 1 to 64 of a-z 0-9 _ -, not {}", quoted(&text)));
    None
}

/// `true` or `false`.
pub(crate) fn flag(node: &Node, path: &str, report: &mut Report) -> Option<bool> {
    match node.data {
        Data::Bool(flag) => Some(flag),
        _ => wrong(node, path, "true or false", report),
    }
}

/// A whole number within `bounds`.
pub(crate) fn integer(
    node: &Node,
    path: &str,
    bounds: RangeInclusive<u64>,
    report: &mut Report,
) -> Option<u64> {
    let Data::Number(number) = &node.data else { return wrong(node, path, "a whole number", report) };
    match number.parse::<u64>() {
        Ok(number) if bounds.contains(&number) => Some(number),
        _ => {
            let message = format!(
                "expected a whole number from {} to {}, got {}",
                bounds.start(),
                bounds.end(),
                quoted(number)
            );
            report.add(path, Some(node.place), message);
            None
        }
    }
}

/// A number within `bounds`.
pub(crate) fn number(
    node: &Node,
    path: &str,
    bounds: RangeInclusive<f64>,
    report: &mut Report,
) -> Option<f64> {
    let Data::Number(number) = &node.data else { return wrong(node, path, "a number", report) };
    match number.parse::<f64>() {
        Ok(number) if bounds.contains(&number) => Some(number),
        _ => {
            let message = format!(
                "expected a number from {} to {}, got {}",
                bounds.start(),
                bounds.end(),
                quoted(number)
            );
            report.add(path, Some(node.place), message);
            None
        }
    }
}

/// A duration such as `1m 30s`, in ms: at least 1, at most [`MAX_DURATION_MS`].
pub(crate) fn duration(node: &Node, path: &str, report: &mut Report) -> Option<Ms> {
    let text = match &node.data {
        Data::Text(text) => text,
        Data::Number(number) => {
            let message = format!("a duration needs a unit: `{number}s` or `{number}ms`");
            report.add(path, Some(node.place), message);
            return None;
        }
        _ => return wrong(node, path, "a duration such as `30s`", report),
    };
    let message = match humantime::parse_duration(text) {
        Ok(duration) => match u64::try_from(duration.as_millis()) {
            Ok(ms @ 1..=MAX_DURATION_MS) => return Some(ms),
            _ => format!("a duration is from 1ms to 7days, not {}", quoted(text)),
        },
        Err(_) => format!("{} is not a duration: write `30s`, `250ms` or `1m 30s`", quoted(text)),
    };
    report.add(path, Some(node.place), message);
    None
}

/// One of a few words.
pub(crate) fn choice<T: Copy>(
    node: &Node,
    path: &str,
    words: &[(&str, T)],
    report: &mut Report,
) -> Option<T> {
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let Data::Text(given) = &node.data else {
        return wrong(node, path, &format!("one of {}", list(&known)), report);
    };
    let found = words.iter().find(|(word, _)| word == given).map(|(_, value)| *value);
    if found.is_none() {
        report.add(
            path,
            Some(node.place),
            format!("expected one of {}, got {}", list(&known), quoted(given)),
        );
    }
    found
}
