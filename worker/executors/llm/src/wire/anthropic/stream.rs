//! Events of a Messages stream.
//!
//! A tool call is complete at the `content_block_stop` of its block, an answer at `message_stop`.
//! `ping` may come at any time and is not progress; `error` may come at any time inside HTTP 200.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::turn::{Fault, Progress, Sink, Turn};
use crate::wire::{bad_arguments, garbage};
use crate::{FinishReason, Usage, json};

#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Open tool blocks by their index; other blocks need no state.
    open: BTreeMap<u64, Block>,
    counts: Counts,
    /// Name of a tool whose arguments were not JSON; said at the end, when it is known why.
    broken: Option<String>,
    stopped: bool,
}

#[derive(Debug)]
struct Block {
    place: usize,
    id: String,
    name: String,
    /// `input` of the start event, `{}` except on some compatible servers.
    input: Value,
    arguments: String,
}

/// Usage comes in parts: the prompt's at the start, the answer's (cumulative) at the end, where
/// newer versions repeat the prompt's.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
struct Counts {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Event {
    r#type: String,
    index: Option<u64>,
    message: Option<MessageStart>,
    content_block: Option<BlockStart>,
    delta: Option<Delta>,
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct MessageStart {
    #[serde(default)]
    id: String,
    #[serde(default)]
    model: String,
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct BlockStart {
    r#type: String,
    id: Option<String>,
    name: Option<String>,
    input: Option<Value>,
    text: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    text: Option<String>,
    partial_json: Option<String>,
    stop_reason: Option<String>,
}

impl Stream {
    pub(crate) fn event(
        &mut self,
        data: &str,
        turn: &mut Turn,
        on: &mut Sink<'_>,
    ) -> Result<Progress, Fault> {
        if data.trim().is_empty() {
            return Ok(Progress::None);
        }
        let mut mended = String::new();
        let event: Event = json::parse_into(data, &mut mended)
            .map_err(|e| garbage("an event is not as expected", &e, data))?;
        let index = event.index.unwrap_or(0);
        match event.r#type.as_str() {
            "message_start" => {
                if let Some(message) = event.message {
                    turn.identify(&message.id, &message.model);
                    self.count(message.usage, turn, on);
                }
                return Ok(Progress::None);
            }
            "content_block_start" => {
                let Some(block) = event.content_block else {
                    return Ok(Progress::None);
                };
                return self.start(index, block, turn, on);
            }
            "content_block_delta" => self.delta(index, event.delta, turn, on)?,
            "content_block_stop" => self.close(index, turn, on),
            "message_delta" => {
                if let Some(reason) = event.delta.and_then(|delta| delta.stop_reason) {
                    turn.finish = Some(finish_reason(&reason));
                }
                self.count(event.usage, turn, on);
            }
            "message_stop" => {
                self.stopped = true;
                return Ok(Progress::End);
            }
            "error" => return Err(Fault::Reported(data.to_owned())),
            // `ping`, and whatever comes later: the versioning policy allows new events.
            _ => return Ok(Progress::None),
        }
        Ok(Progress::Made)
    }

    pub(crate) fn finish(&mut self, turn: &mut Turn) -> Result<bool, Fault> {
        if !self.stopped || turn.finish.is_none() {
            return Ok(false);
        }
        let open = self.open.pop_first().map(|(_, block)| block.name);
        match self.broken.take().or(open) {
            Some(name) => Err(bad_arguments(&name, turn)),
            None => Ok(true),
        }
    }

    fn start(
        &mut self,
        index: u64,
        block: BlockStart,
        turn: &mut Turn,
        on: &mut Sink<'_>,
    ) -> Result<Progress, Fault> {
        match block.r#type.as_str() {
            "tool_use" => {
                let name = block.name.unwrap_or_default();
                if name.is_empty() {
                    return Err(Fault::Invalid("a tool call without a name".into()));
                }
                let block = Block {
                    place: turn.begin_call()?,
                    id: block.id.unwrap_or_default(),
                    name,
                    input: block.input.unwrap_or_default(),
                    arguments: String::new(),
                };
                self.open.insert(index, block);
                Ok(Progress::Made)
            }
            "text" => {
                let text = block.text.unwrap_or_default();
                turn.push_text(&text, on)?;
                Ok(if text.is_empty() { Progress::None } else { Progress::Made })
            }
            // Thinking and whatever comes later.
            _ => Ok(Progress::Made),
        }
    }

    fn delta(
        &mut self,
        index: u64,
        delta: Option<Delta>,
        turn: &mut Turn,
        on: &mut Sink<'_>,
    ) -> Result<(), Fault> {
        let Some(delta) = delta else { return Ok(()) };
        if let Some(text) = delta.text {
            turn.push_text(&text, on)?;
        }
        if let (Some(more), Some(block)) = (delta.partial_json, self.open.get_mut(&index)) {
            turn.grow_arguments(&mut block.arguments, &more)?;
        }
        Ok(())
    }

    fn close(&mut self, index: u64, turn: &mut Turn, on: &mut Sink<'_>) {
        let Some(block) = self.open.remove(&index) else {
            return;
        };
        let given;
        let arguments = if block.arguments.trim().is_empty() {
            given = block.input.to_string();
            &given
        } else {
            &block.arguments
        };
        if !turn.close_call(block.place, Some(&block.id), &block.name, arguments, on)
            && !turn.keep_broken(block.place, Some(&block.id), &block.name, arguments, on)
        {
            self.broken.get_or_insert(block.name);
        }
    }

    fn count(&mut self, counts: Option<Counts>, turn: &mut Turn, on: &mut Sink<'_>) {
        let Some(new) = counts else { return };
        let old = &mut self.counts;
        old.input_tokens = new.input_tokens.or(old.input_tokens);
        old.output_tokens = new.output_tokens.or(old.output_tokens);
        old.cache_creation_input_tokens = new.cache_creation_input_tokens.or(old.cache_creation_input_tokens);
        old.cache_read_input_tokens = new.cache_read_input_tokens.or(old.cache_read_input_tokens);
        turn.set_usage((*old).into(), on);
    }
}

impl From<Counts> for Usage {
    fn from(counts: Counts) -> Self {
        let read = counts.cache_read_input_tokens.unwrap_or(0);
        let written = counts.cache_creation_input_tokens.unwrap_or(0);
        Self {
            // Anthropic's input_tokens leaves out what the cache read or wrote.
            input: (counts.input_tokens.unwrap_or(0)).saturating_add(read).saturating_add(written),
            output: counts.output_tokens.unwrap_or(0),
            cached_input: read,
            cache_write_input: written,
            reasoning: 0,
        }
    }
}

fn finish_reason(reason: &str) -> FinishReason {
    match reason {
        "end_turn" | "stop_sequence" => FinishReason::Stop,
        "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        "tool_use" => FinishReason::ToolCalls,
        "refusal" => FinishReason::ContentFilter,
        other => FinishReason::Other(other.chars().take(64).collect()),
    }
}
