//! The answer as it grows, the same for both APIs: text, tool calls, usage, bounds and events.

use serde_json::Value;

use crate::limits::Bounds;
use crate::{ChatEvent, FinishReason, ToolCall, Usage, json};

/// Receives the events of one call.
pub(crate) type Sink<'a> = dyn FnMut(ChatEvent<'_>) + Send + 'a;

/// Why the stream cannot be used; [`crate::call`] adds provider and status to make an error of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not the protocol. The second part is what was seen.
    Garbage(String, String),
    /// The model's answer is unusable.
    Invalid(String),
    /// Over a bound.
    TooLarge(&'static str, usize),
    /// The provider reports an error inside the stream, as a JSON body.
    Reported(String),
}

/// Whether an event was generation or only kept the connection alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Tokens, or something else that only a working model causes.
    Made,
    /// A ping or an empty frame.
    None,
    /// The stream said that it is over; nothing more is read.
    End,
}

/// The answer so far.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) text: String,
    calls: Vec<Option<ToolCall>>,
    pub(crate) usage: Option<Usage>,
    pub(crate) finish: Option<FinishReason>,
    pub(crate) id: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) bounds: Bounds,
    /// Bytes of text and arguments.
    bytes: usize,
    /// Name of the tool that stands for structured output; its call is the answer, not a call.
    answer_tool: Option<&'static str>,
    pub(crate) answer: Option<Value>,
    /// See [`crate::ChatRequest::keep_broken_calls`].
    pub(crate) keep_broken: bool,
}

impl Turn {
    pub(crate) fn new(bounds: Bounds, answer_tool: Option<&'static str>) -> Self {
        Self {
            text: String::new(),
            calls: Vec::new(),
            usage: None,
            finish: None,
            id: None,
            model: None,
            bounds,
            bytes: 0,
            answer_tool,
            answer: None,
            keep_broken: false,
        }
    }

    pub(crate) fn push_text(&mut self, delta: &str, on: &mut Sink<'_>) -> Result<(), Fault> {
        if !delta.is_empty() {
            self.grow(delta.len())?;
            self.text.push_str(delta);
            on(ChatEvent::TextDelta(delta));
        }
        Ok(())
    }

    /// Appends to the arguments of a call that is still open.
    pub(crate) fn grow_arguments(&mut self, arguments: &mut String, more: &str) -> Result<(), Fault> {
        if arguments.len() + more.len() > self.bounds.arguments {
            return Err(Fault::TooLarge("bytes of tool-call arguments", self.bounds.arguments));
        }
        self.grow(more.len())?;
        arguments.push_str(more);
        Ok(())
    }

    /// A place for a call that begins now; calls keep the order in which they began, though they
    /// may close in another.
    pub(crate) fn begin_call(&mut self) -> Result<usize, Fault> {
        if self.calls.len() >= self.bounds.calls {
            return Err(Fault::TooLarge("tool calls in one turn", self.bounds.calls));
        }
        self.calls.push(None);
        Ok(self.calls.len() - 1)
    }

    /// A call is complete: parse it, keep it, tell the caller. `false` when its arguments are not
    /// JSON; nothing has happened then.
    pub(crate) fn close_call(
        &mut self,
        place: usize,
        id: Option<&str>,
        name: &str,
        arguments: &str,
        on: &mut Sink<'_>,
    ) -> bool {
        let arguments = match arguments.trim() {
            "" | "null" => Value::Object(serde_json::Map::new()),
            // as a value the number would be another one
            text if trireme_model::wide_integer(text).is_some() => return false,
            text => match json::parse(text) {
                Ok(value) => value,
                Err(_) => return false,
            },
        };
        if self.answer_tool == Some(name) {
            self.answer = Some(arguments);
            return true;
        }
        self.keep(place, id, name, arguments, on);
        true
    }

    fn keep(&mut self, place: usize, id: Option<&str>, name: &str, arguments: Value, on: &mut Sink<'_>) {
        let (index, id) = (self.index_of(place), self.unique_id(id, place));
        let call = ToolCall { index, id, name: name.to_owned(), arguments };
        on(ChatEvent::ToolCall(&call));
        self.calls[place] = Some(call);
    }

    /// A call whose arguments never became JSON: keeps it as text, if the caller wants that.
    pub(crate) fn keep_broken(
        &mut self,
        place: usize,
        id: Option<&str>,
        name: &str,
        arguments: &str,
        on: &mut Sink<'_>,
    ) -> bool {
        if !self.keep_broken || name.is_empty() || self.answer_tool == Some(name) {
            return false;
        }
        self.keep(place, id, name, Value::String(arguments.to_owned()), on);
        true
    }

    /// Notes the answer's id and model when they are first told.
    pub(crate) fn identify(&mut self, id: &str, model: &str) {
        for (slot, text) in [(&mut self.id, id), (&mut self.model, model)] {
            if slot.is_none() && !text.is_empty() {
                *slot = Some(text.chars().take(256).collect());
            }
        }
    }

    pub(crate) fn set_usage(&mut self, usage: Usage, on: &mut Sink<'_>) {
        if self.usage != Some(usage) {
            self.usage = Some(usage);
            on(ChatEvent::Usage(&usage));
        }
    }

    pub(crate) fn take_calls(&mut self) -> Vec<ToolCall> {
        self.calls.drain(..).flatten().collect()
    }

    pub(crate) fn has_calls(&self) -> bool {
        self.calls.iter().any(Option::is_some)
    }

    fn index_of(&self, place: usize) -> u32 {
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    /// Some servers give every call of a turn the same id, which would tie the results to the
    /// wrong calls.
    fn unique_id(&self, id: Option<&str>, place: usize) -> String {
        let base = match id {
            Some(id) if !id.is_empty() => id.to_owned(),
            _ => format!("call_{place}"),
        };
        let taken = |id: &str| self.calls.iter().flatten().any(|call| call.id == id);
        if !taken(&base) {
            return base;
        }
        // one of these is free: there are fewer calls than numbers
        (place..).map(|number| format!("{base}_{number}")).find(|id| !taken(id)).unwrap_or(base)
    }

    fn grow(&mut self, more: usize) -> Result<(), Fault> {
        self.bytes += more;
        if self.bytes > self.bounds.response {
            return Err(Fault::TooLarge("bytes of text and arguments", self.bounds.response));
        }
        Ok(())
    }
}
