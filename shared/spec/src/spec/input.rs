//! `--input K=V`: values of the input given from outside the spec.

use trireme_model::Payload;

use super::Spec;
use crate::{
    fields::MAX_NAME_BYTES,
    problem::{Invalid, quoted},
    source::{MAX_TEXT_BYTES, json},
};

impl Spec {
    /// Sets one value of the input from `key=value`. The value is JSON where it reads as JSON, else text:
    /// `n=3` is a number, `company=Acme` is text, `n="3"` is text.
    pub fn set_input(&mut self, assignment: &str) -> Result<(), Invalid> {
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
        let payload = match json::parse(value) {
            Ok(parsed) if parsed.problems.is_empty() => parsed.root.payload(),
            _ => Payload::of(value),
        };
        match self.input.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = payload,
            None => self.input.push((key.to_owned(), payload)),
        }
        Ok(())
    }
}
