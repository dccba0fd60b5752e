//! Events of a Chat Completions stream.
//!
//! An answer is complete when `finish_reason` was seen. `data: [DONE]` ends the reading but proves
//! nothing: servers that cut an answer send it too. Usage comes after `finish_reason`, in a frame
//! without choices (OpenAI), in the last frame (most), or in `x_groq`.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

use super::calls::{Calls, Delta as CallDelta};
use crate::turn::{Fault, Progress, Sink, Turn};
use crate::wire::garbage;
use crate::{FinishReason, Usage, json};

#[derive(Debug, Default)]
pub(crate) struct Stream {
    calls: Calls,
    refused: bool,
    /// `finish_reason` was seen and the calls are settled.
    settled: bool,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    id: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "text")]
    model: Cow<'a, str>,
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    usage: Option<WireUsage>,
    x_groq: Option<Groq>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "text")]
    object: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: i64,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    #[serde(borrow, default, deserialize_with = "text")]
    finish_reason: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    content: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "text")]
    refusal: Cow<'a, str>,
    /// Reasoning, as DeepSeek and vLLM call it; only that it comes matters here.
    #[serde(borrow, default, deserialize_with = "text")]
    reasoning_content: Cow<'a, str>,
    /// Reasoning, as Groq, OpenRouter and Ollama call it.
    #[serde(borrow, default, deserialize_with = "text")]
    reasoning: Cow<'a, str>,
    #[serde(borrow)]
    tool_calls: Option<Vec<CallDelta<'a>>>,
}

#[derive(Deserialize)]
struct Groq {
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct WireUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
    /// DeepSeek.
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

impl Stream {
    pub(crate) fn event(
        &mut self,
        data: &str,
        turn: &mut Turn,
        on: &mut Sink<'_>,
    ) -> Result<Progress, Fault> {
        match data.trim() {
            "[DONE]" => return Ok(Progress::End),
            "" => return Ok(Progress::None),
            _ => {}
        }
        let mut mended = String::new();
        let chunk: Chunk<'_> = json::parse_into(data, &mut mended)
            .map_err(|e| garbage("a chunk is not as expected", &e, data))?;
        if chunk.error.is_some_and(|e| e.get() != "null") || chunk.object == "error" {
            return Err(Fault::Reported(data.to_owned()));
        }
        turn.identify(&chunk.id, &chunk.model);
        let mut progress = Progress::None;
        for choice in chunk.choices.into_iter().flatten() {
            // We ask for one choice; a server that sends more would mix them up.
            if choice.index == 0 && self.choice(choice, turn, on)? {
                progress = Progress::Made;
            }
        }
        let groq = chunk.x_groq.and_then(|groq| groq.usage);
        if let Some(usage) = chunk.usage.or(groq) {
            turn.set_usage(usage.into(), on);
        }
        Ok(progress)
    }

    /// Whether the choice held anything that a working model causes.
    fn choice(&mut self, choice: Choice<'_>, turn: &mut Turn, on: &mut Sink<'_>) -> Result<bool, Fault> {
        let mut made = false;
        if let Some(delta) = choice.delta {
            self.refused |= !delta.refusal.is_empty();
            for text in [&delta.content, &delta.refusal] {
                made |= !text.is_empty();
                turn.push_text(text, on)?;
            }
            made |= !delta.reasoning_content.is_empty() || !delta.reasoning.is_empty();
            for call in delta.tool_calls.into_iter().flatten() {
                made = true;
                self.calls.push(call, turn, on)?;
            }
        }
        if !choice.finish_reason.is_empty() {
            made = true;
            turn.finish = Some(match &*choice.finish_reason {
                _ if self.refused => FinishReason::ContentFilter,
                "stop" => FinishReason::Stop,
                "length" => FinishReason::Length,
                "tool_calls" | "function_call" => FinishReason::ToolCalls,
                "content_filter" => FinishReason::ContentFilter,
                other => FinishReason::Other(other.chars().take(64).collect()),
            });
            self.settle(turn, on)?;
        }
        Ok(made)
    }

    pub(crate) fn finish(&mut self, turn: &mut Turn, on: &mut Sink<'_>) -> Result<bool, Fault> {
        if turn.finish.is_none() {
            return Ok(false);
        }
        self.settle(turn, on)?;
        Ok(true)
    }

    fn settle(&mut self, turn: &mut Turn, on: &mut Sink<'_>) -> Result<(), Fault> {
        if !std::mem::replace(&mut self.settled, true) {
            self.calls.finish(turn, on)?;
            // Ollama and others say `stop` after tool calls.
            if turn.has_calls() && turn.finish == Some(FinishReason::Stop) {
                turn.finish = Some(FinishReason::ToolCalls);
            }
        }
        Ok(())
    }
}

impl From<WireUsage> for Usage {
    fn from(wire: WireUsage) -> Self {
        let prompt = wire.prompt_tokens_details.as_ref();
        let input = wire.prompt_tokens.unwrap_or(0);
        let cached = prompt
            .and_then(|details| details.cached_tokens)
            .or(wire.prompt_cache_hit_tokens)
            .unwrap_or(0)
            .min(input);
        let written = prompt.and_then(|details| details.cache_write_tokens);
        Self {
            input,
            output: wire.completion_tokens.unwrap_or(0),
            cached_input: cached,
            cache_write_input: written.unwrap_or(0).min(input - cached),
            reasoning: wire
                .completion_tokens_details
                .and_then(|details| details.reasoning_tokens)
                .unwrap_or(0),
        }
    }
}

/// Text that may be a string, null, or (Mistral) a list of parts; borrowed where it can be.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    struct Text;
    impl<'de> Visitor<'de> for Text {
        type Value = Cow<'de, str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("text, null or a list of parts")
        }

        fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(text))
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Cow::Owned(text.to_owned()))
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(""))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
            #[derive(Deserialize)]
            struct Part<'a> {
                #[serde(borrow)]
                text: Option<Cow<'a, str>>,
            }
            let mut all = String::new();
            while let Some(part) = parts.next_element::<Part<'_>>()? {
                all.push_str(&part.text.unwrap_or_default());
            }
            Ok(Cow::Owned(all))
        }
    }
    deserializer.deserialize_any(Text)
}
