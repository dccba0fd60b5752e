//! Tool calls out of Chat Completions deltas.
//!
//! A call counts as complete when the brackets of its arguments close, or at `finish_reason`.
//! The start of the next index says the same, never earlier, and some servers announce all calls
//! before the arguments of the first; so it closes only calls that the brackets cannot decide.
//!
//! Quirks of compatible servers, each with a test:
//! - Ollama gives every call index 0, with new ids: a new id and a name after closed arguments
//!   begin a new call.
//! - LM Studio and Kimi send a new id with each delta of one call: a new id before the arguments
//!   have closed continues the call.
//! - MiniMax and NIM send the whole name with each delta: a repeated name is ignored.
//! - Poolside sends integer ids. Others send no index, or arguments as an object.
//! - Gateways turn Anthropic's empty `input` into a leading `{}` in front of the real arguments:
//!   an empty object waits for the next call or the end before it counts as complete.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use crate::json::Brackets;
use crate::turn::{Fault, Sink, Turn};
use crate::wire::bad_arguments;

/// One entry of `delta.tool_calls`.
#[derive(Deserialize)]
pub(super) struct Delta<'a> {
    index: Option<i64>,
    #[serde(default)]
    id: Option<Value>,
    #[serde(borrow)]
    function: Option<FunctionDelta<'a>>,
}

#[derive(Deserialize)]
struct FunctionDelta<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    arguments: Option<Value>,
}

/// The calls of one turn.
#[derive(Debug, Default)]
pub(super) struct Calls {
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    index: Option<i64>,
    /// Place in the turn.
    place: usize,
    /// The first id seen; later ones of the same call are noise.
    id: Option<String>,
    name: String,
    arguments: String,
    brackets: Brackets,
    /// The caller has been told.
    done: bool,
}

impl Calls {
    pub(super) fn push(&mut self, delta: Delta<'_>, turn: &mut Turn, on: &mut Sink<'_>) -> Result<(), Fault> {
        let id = match delta.id {
            Some(Value::String(id)) if !id.is_empty() => Some(id),
            Some(Value::Number(id)) => Some(id.to_string()),
            _ => None,
        };
        let (name, arguments) = match delta.function {
            Some(f) => (f.name.unwrap_or_default(), f.arguments),
            None => (Cow::Borrowed(""), None),
        };
        let arguments = match arguments {
            Some(Value::String(text)) => text,
            None | Some(Value::Null) => String::new(),
            Some(whole) => whole.to_string(),
        };
        let at = match self.find(delta.index, id.as_deref(), &name, &arguments) {
            Some(at) => at,
            None => self.begin(delta.index, turn, on)?,
        };
        let slot = &mut self.slots[at];
        if slot.repeats(id.as_deref(), &arguments) {
            return Ok(());
        }
        if slot.id.is_none() {
            slot.id = id;
        }
        slot.take_name(&name);
        slot.take_arguments(&arguments, turn)?;
        if slot.brackets.closed() && !slot.empty_object() {
            slot.close(turn, on);
        }
        Ok(())
    }

    /// The turn is over: whatever is still open closes now or is broken.
    pub(super) fn finish(&mut self, turn: &mut Turn, on: &mut Sink<'_>) -> Result<(), Fault> {
        for slot in &mut self.slots {
            if slot.name.is_empty() {
                return Err(Fault::Invalid("a tool call without a name".into()));
            }
            let kept = |slot: &Slot, turn: &mut Turn, on: &mut Sink<'_>| {
                turn.keep_broken(slot.place, slot.id.as_deref(), &slot.name, &slot.arguments, on)
            };
            if !slot.done && !slot.close(turn, on) && !kept(slot, turn, on) {
                return Err(bad_arguments(&slot.name, turn));
            }
        }
        Ok(())
    }

    /// The call that a delta continues; `None` begins a new one.
    fn find(&self, index: Option<i64>, id: Option<&str>, name: &str, arguments: &str) -> Option<usize> {
        let at = match index {
            Some(_) => self.slots.iter().rposition(|slot| slot.index == index)?,
            None => {
                let same = id.and_then(|id| {
                    let is_it = |slot: &Slot| slot.id.as_deref() == Some(id);
                    self.slots.iter().rposition(is_it)
                });
                same.or(self.slots.len().checked_sub(1))?
            }
        };
        let slot = &self.slots[at];
        let other_id = id.is_some_and(|id| slot.id.as_deref() != Some(id));
        let new_call = if slot.brackets.closed() {
            // A resent name without arguments is noise of the old call, whatever its id.
            let says_more = name != slot.name || !arguments.trim().is_empty();
            !name.is_empty() && says_more && (other_id || id.is_none())
        } else {
            // Open without arguments: only another name tells a call without arguments.
            other_id && slot.arguments.is_empty() && !name.is_empty() && name != slot.name
        };
        (!new_call).then_some(at)
    }

    fn begin(&mut self, index: Option<i64>, turn: &mut Turn, on: &mut Sink<'_>) -> Result<usize, Fault> {
        // Empty objects that waited: with another call begun, they were no false start.
        for slot in &mut self.slots {
            if slot.brackets.closed() && !slot.done {
                slot.close(turn, on);
            }
        }
        self.slots.push(Slot {
            index,
            place: turn.begin_call()?,
            id: None,
            name: String::new(),
            arguments: String::new(),
            brackets: Brackets::default(),
            done: false,
        });
        Ok(self.slots.len() - 1)
    }
}

impl Slot {
    fn take_name(&mut self, name: &str) {
        if name.is_empty() || !self.arguments.is_empty() || name == self.name {
            return;
        }
        if name.starts_with(&self.name) {
            // First sight, or a name that is resent as it grows.
            name.clone_into(&mut self.name);
        } else if self.name.len() + name.len() <= 1_024 {
            self.name.push_str(name);
        }
    }

    fn take_arguments(&mut self, more: &str, turn: &mut Turn) -> Result<(), Fault> {
        if self.brackets.closed() && !more.trim().is_empty() {
            if self.done || !self.empty_object() {
                return Err(Fault::Invalid(format!(
                    "the arguments of the call to `{}` go on after their end",
                    self.name
                )));
            }
            self.arguments.clear();
            self.brackets = Brackets::default();
        }
        let after_end = self.brackets.push(more).map(|end| &more[end..]);
        turn.grow_arguments(&mut self.arguments, more)?;
        match after_end {
            Some(rest) if !rest.trim().is_empty() => self.restart(rest),
            _ => Ok(()),
        }
    }

    /// `{}` and the real arguments came in one delta.
    fn restart(&mut self, rest: &str) -> Result<(), Fault> {
        let first = &self.arguments[..self.arguments.len() - rest.len()];
        if !is_empty_object(first) {
            // Left as it is: closing fails, since it is not one JSON value.
            return Ok(());
        }
        self.arguments = rest.to_owned();
        self.brackets = Brackets::default();
        self.brackets.push(rest);
        Ok(())
    }

    /// The same complete call once more.
    fn repeats(&self, id: Option<&str>, arguments: &str) -> bool {
        self.brackets.closed()
            && id.is_some()
            && id == self.id.as_deref()
            && arguments.trim() == self.arguments.trim()
    }

    fn empty_object(&self) -> bool {
        is_empty_object(&self.arguments)
    }

    fn close(&mut self, turn: &mut Turn, on: &mut Sink<'_>) -> bool {
        if self.done || self.name.is_empty() {
            return self.done;
        }
        self.done = turn.close_call(self.place, self.id.as_deref(), &self.name, &self.arguments, on);
        self.done
    }
}

fn is_empty_object(text: &str) -> bool {
    let text = text.trim();
    text.len() <= 64
        && text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'))
            .is_some_and(|inner| inner.trim().is_empty())
}
