//! `--input K=V`: values of the input given from outside the spec.

use super::Spec;
use crate::{
    fields::MAX_NAME_BYTES,
    problem::{Invalid, Place, quoted},
    source::{Data, Entry, MAX_TEXT_BYTES, Node, Parsed, json, parse},
};

/// `text` with values of its `input` set as by [`Spec::set_input`]: for who sends a spec on. It comes back as JSON, with
/// every number as it was written.
pub fn with_input(text: &str, assignments: &[String]) -> Result<String, Invalid> {
    let Parsed { mut root, problems } = parse(text)?;
    if !problems.is_empty() {
        return Err(Invalid { problems, more: 0 });
    }
    let place = root.place;
    let no_object = |path: &str| Invalid::one(path, Some(place), "expected an object");
    let Data::Map(fields) = &mut root.data else { return Err(no_object("")) };
    if !fields.iter().any(|field| field.key == "input") {
        let value = Node { place, data: Data::Map(Vec::new()) };
        fields.push(Entry { key: "input".to_owned(), place, value });
    }
    for field in fields.iter_mut().filter(|field| field.key == "input") {
        let Data::Map(input) = &mut field.value.data else { return Err(no_object("input")) };
        for assignment in assignments {
            let (key, value) = assigned(assignment)?;
            input.retain(|entry| entry.key != key);
            input.push(Entry { key: key.to_owned(), place, value });
        }
    }
    Ok(String::from_utf8_lossy(root.payload().as_bytes()).into_owned())
}

/// The key of `key=value`, and the value as JSON or else as text. What begins like a list, an object or a quoted text and
/// can't be read is an error: it is not meant as text.
fn assigned(assignment: &str) -> Result<(&str, Node), Invalid> {
    let Some((key, value)) = assignment.split_once('=') else {
        let message = format!("{} is not of the form key=value", quoted(assignment));
        return Err(Invalid::one("input", None, message));
    };
    if key.is_empty() || key.len() > MAX_NAME_BYTES {
        let message = format!("a key has 1 to {MAX_NAME_BYTES} bytes, this one {}", key.len());
        return Err(Invalid::one("input", None, message));
    }
    if value.len() > MAX_TEXT_BYTES {
        let message = format!("{} bytes are over the limit of {MAX_TEXT_BYTES}", value.len());
        return Err(Invalid::one(&format!("input.{key}"), None, message));
    }
    let invalid = match json::parse(value) {
        Ok(parsed) if parsed.problems.is_empty() => return Ok((key, parsed.root)),
        Ok(Parsed { problems, .. }) => Invalid { problems, more: 0 },
        Err(invalid) => invalid,
    };
    if value.trim_start().starts_with(['{', '[', '"']) {
        let message = format!("the value given begins like JSON and can't be read: {invalid}");
        return Err(Invalid::one(&format!("input.{key}"), None, message));
    }
    Ok((key, Node { place: Place { line: 1, column: 1 }, data: Data::Text(value.to_owned()) }))
}

impl Spec {
    /// Sets one value of the input from `key=value`. The value is JSON where it reads as JSON, else text:
    /// `n=3` is a number, `company=Acme` is text, `n="3"` is text; `n=[3` is an error.
    pub fn set_input(&mut self, assignment: &str) -> Result<(), Invalid> {
        let (key, value) = assigned(assignment)?;
        let payload = value.payload();
        match self.input.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = payload,
            None => self.input.push((key.to_owned(), payload)),
        }
        Ok(())
    }
}
