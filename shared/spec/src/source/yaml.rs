//! Reads YAML 1.2 (core schema) into a tree with places, noticing duplicate keys and bounding aliases.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::{Data, Entry, MAX_DEPTH, Node, Parsed, is_json_number, join};
use crate::problem::{Invalid, Place, Problem, quoted};

/// Values that anchors and aliases may copy: a few lines of them can stand for billions.
const MAX_COPIED: usize = 100_000;
/// Bytes of text in such values.
const MAX_COPIED_BYTES: usize = super::MAX_TEXT_BYTES;

enum Open {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, seen: HashSet<String>, key: Option<(String, Place)> },
}

struct Frame {
    open: Open,
    place: Place,
    anchor: usize,
    path: String,
}

#[derive(Default)]
struct Reader {
    frames: Vec<Frame>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    copied: usize,
    copied_bytes: usize,
    problems: Vec<Problem>,
}

/// Reads `text`, which must be one YAML document.
pub(crate) fn parse(text: &str) -> Result<Parsed, Invalid> {
    let mut reader = Reader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let message = format!("malformed YAML: {}", error.info());
            Invalid::one(&reader.path(), Some(place_of(error.marker())), message)
        })?;
        reader.event(event, place_of(&span.start))?;
    }
    let Some(root) = reader.root else { return Err(Invalid::one("", None, "the spec is empty")) };
    Ok(Parsed { root, problems: reader.problems })
}

fn place_of(marker: &Marker) -> Place {
    Place { line: marker.line() as u32, column: marker.col() as u32 + 1 }
}

impl Reader {
    fn path(&self) -> String {
        match self.frames.last() {
            None => String::new(),
            Some(Frame { open: Open::Map { key: Some((key, _)), .. }, path, .. }) => join(path, key),
            Some(Frame { open: Open::Map { .. }, path, .. }) => path.clone(),
            Some(Frame { open: Open::List(items), path, .. }) => format!("{path}[{}]", items.len()),
        }
    }

    fn stop<T>(&self, place: Place, message: impl Into<String>) -> Result<T, Invalid> {
        Err(Invalid::one(&self.path(), Some(place), message))
    }

    fn event(&mut self, event: Event<'_>, place: Place) -> Result<(), Invalid> {
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                self.stop(place, "a spec is one YAML document, and here a second one starts")
            }
            Event::Scalar(text, style, anchor, tag) => {
                if let Some(Frame { open: Open::Map { key: key @ None, .. }, .. }) = self.frames.last_mut() {
                    let merge = text == "<<" && style == ScalarStyle::Plain;
                    *key = Some((text.into_owned(), place));
                    return if merge { self.stop(place, "merge keys are not supported") } else { Ok(()) };
                }
                let data = match scalar(&text, style, tag.as_deref()) {
                    Ok(data) => data,
                    Err(message) => return self.stop(place, message),
                };
                self.close(Node { place, data }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(Open::List(Vec::new()), "seq", anchor, tag.as_deref(), place)
            }
            Event::MappingStart(_, anchor, tag) => {
                let open = Open::Map { entries: Vec::new(), seen: HashSet::new(), key: None };
                self.open(open, "map", anchor, tag.as_deref(), place)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(frame) = self.frames.pop() else { return Ok(()) };
                let data = match frame.open {
                    Open::List(items) => Data::List(items),
                    Open::Map { entries, .. } => Data::Map(entries),
                };
                self.close(Node { place: frame.place, data }, frame.anchor)
            }
            Event::Alias(anchor) => {
                self.no_key(place)?;
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return self.stop(place, "an alias inside its own anchor never ends");
                };
                if self.frames.len() + depth(&node) > MAX_DEPTH {
                    return self.stop(place, format!("deeper than {MAX_DEPTH} levels"));
                }
                self.count(&node, place)?;
                self.close(Node { place, ..node }, 0)
            }
            _ => Ok(()),
        }
    }

    fn open(
        &mut self,
        open: Open,
        suffix: &str,
        anchor: usize,
        tag: Option<&Tag>,
        place: Place,
    ) -> Result<(), Invalid> {
        self.no_key(place)?;
        if self.frames.len() >= MAX_DEPTH {
            return self.stop(place, format!("deeper than {MAX_DEPTH} levels"));
        }
        if tag.is_some_and(|tag| core(tag) != Some(suffix)) {
            return self.stop(place, "YAML tags of one's own are not supported");
        }
        let path = self.path();
        self.frames.push(Frame { open, place, anchor, path });
        Ok(())
    }

    fn no_key(&self, place: Place) -> Result<(), Invalid> {
        if let Some(Frame { open: Open::Map { key: None, .. }, .. }) = self.frames.last() {
            return self.stop(place, "a key must be plain text");
        }
        Ok(())
    }

    fn close(&mut self, node: Node, anchor: usize) -> Result<(), Invalid> {
        if anchor != 0 {
            self.count(&node, node.place)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut frame.open {
            Open::List(items) => items.push(node),
            Open::Map { entries, seen, key } => {
                let Some((key, place)) = key.take() else { return Ok(()) };
                if seen.insert(key.clone()) {
                    entries.push(Entry { key, place, value: node });
                } else {
                    self.problems.push(super::twice(&frame.path, &key, place));
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, node: &Node, place: Place) -> Result<(), Invalid> {
        let (nodes, bytes) = size(node);
        self.copied += nodes;
        self.copied_bytes += bytes;
        if self.copied > MAX_COPIED || self.copied_bytes > MAX_COPIED_BYTES {
            return self.stop(
                place,
                format!(
                    "anchors and aliases stand for more than {MAX_COPIED} values or {MAX_COPIED_BYTES} bytes"
                ),
            );
        }
        Ok(())
    }
}

fn size(node: &Node) -> (usize, usize) {
    let add = |(nodes, bytes): (usize, usize), (more, text): (usize, usize)| (nodes + more, bytes + text);
    match &node.data {
        Data::Text(text) | Data::Number(text) => (1, text.len()),
        Data::List(items) => items.iter().map(size).fold((1, 0), add),
        Data::Map(entries) => {
            entries.iter().map(|entry| add(size(&entry.value), (0, entry.key.len()))).fold((1, 0), add)
        }
        _ => (1, 0),
    }
}

fn depth(node: &Node) -> usize {
    match &node.data {
        Data::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Data::Map(entries) => 1 + entries.iter().map(|entry| depth(&entry.value)).max().unwrap_or(0),
        _ => 0,
    }
}

/// The suffix of a tag of YAML's core schema.
fn core(tag: &Tag) -> Option<&str> {
    tag.is_yaml_core_schema().then(|| tag.suffix())
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Data, String> {
    match tag.map(core) {
        Some(Some("str")) => return Ok(Data::Text(text.to_owned())),
        Some(Some("null" | "bool" | "int" | "float")) => {}
        Some(_) => return Err("YAML tags of one's own are not supported".to_owned()),
        None if style != ScalarStyle::Plain => return Ok(Data::Text(text.to_owned())),
        None => {}
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Data::Null,
        "true" | "True" | "TRUE" => Data::Bool(true),
        "false" | "False" | "FALSE" => Data::Bool(false),
        _ => match number(text) {
            Some(Ok(number)) => Data::Number(number),
            Some(Err(())) => return Err(format!("{} is not a number that JSON can hold", quoted(text))),
            None => Data::Text(text.to_owned()),
        },
    })
}

/// `text` as JSON writes the number; `None` when it is no number to YAML.
fn number(text: &str) -> Option<Result<String, ()>> {
    if is_json_number(text) {
        return Some(Ok(text.to_owned()));
    }
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    if matches!(digits, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return Some(Err(()));
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(rest) = digits.strip_prefix(prefix)
            && !rest.is_empty()
            && rest.chars().all(|digit| digit.is_digit(radix))
        {
            return Some(
                u64::from_str_radix(rest, radix).map(|number| format!("{sign}{number}")).map_err(drop),
            );
        }
    }
    let (mantissa, exponent) = digits.split_once(['e', 'E']).map_or((digits, ""), |(m, e)| (m, e));
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let power = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    let has_exponent = digits.contains(['e', 'E']);
    if !all_digits(whole) || !all_digits(part) || (whole.is_empty() && part.is_empty()) {
        return None;
    }
    if !all_digits(power) || (has_exponent && power.is_empty()) {
        return None;
    }
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        trimmed => trimmed,
    };
    let mut json = format!("{sign}{whole}");
    if !part.is_empty() {
        json = format!("{json}.{part}");
    }
    if has_exponent {
        json = format!("{json}e{exponent}");
    }
    Some(if is_json_number(&json) { Ok(json) } else { Err(()) })
}
