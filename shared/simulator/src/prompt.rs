//! A model request in one shape for both providers, after validation as strict as theirs where a
//! client could get it wrong.

mod anthropic;
mod openai;
mod prefix;

use serde_json::Value;

use crate::{Kind, draw, tokens::tokens_of_bytes};

/// A validated request.
#[derive(Debug, Clone)]
pub(crate) struct Prompt {
    pub(crate) kind: Kind,
    pub(crate) model: String,
    pub(crate) system: String,
    pub(crate) messages: Vec<Message>,
    /// Names of the tools on offer.
    pub(crate) tools: Vec<String>,
    /// The tools' definitions as compact JSON; they are billed as part of the prompt.
    tool_text: String,
    /// Whether several calls may come in one turn.
    pub(crate) parallel: bool,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) stream: bool,
    /// OpenAI: end the stream with a usage frame.
    pub(crate) include_usage: bool,
    /// OpenAI: which prompts to keep in one place.
    pub(crate) cache_key: Option<String>,
    /// JSON schema that the answer should fit.
    pub(crate) schema: Option<Value>,
    hash: u64,
}

/// One message of the conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Message {
    pub(crate) role: Role,
    pub(crate) text: String,
    pub(crate) calls: Vec<Called>,
    pub(crate) results: Vec<Answered>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Role {
    #[default]
    User,
    Assistant,
    /// OpenAI sends each tool result as a message of its own.
    Tool,
}

/// A tool call that an earlier answer asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Called {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: String,
}

/// The result of one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answered {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Why a request is not answered, in the provider's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) message: String,
    /// The offending field, where the provider names one.
    pub(crate) param: Option<String>,
}

// === impl Refusal ===

impl Refusal {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { status: 400, message: message.into(), param: None }
    }

    fn of(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::new(message) }
    }
}

// === impl Prompt ===

impl Prompt {
    /// Parses and validates the body of a request to `kind`'s endpoint.
    pub(crate) fn parse(kind: Kind, body: &[u8]) -> Result<Self, Refusal> {
        let body: Value = serde_json::from_slice(body).map_err(|error| {
            Refusal::new(format!("could not parse the JSON body of the request: {error}"))
        })?;
        if !body.is_object() {
            return Err(Refusal::new("the body of the request must be a JSON object"));
        }
        let mut prompt = match kind {
            Kind::Anthropic => anthropic::parse(&body)?,
            _ => openai::parse(&body)?,
        };
        prompt.hash = prompt.content_hash();
        Ok(prompt)
    }

    /// Identity of the content: everything but ids, limits and how the answer is delivered.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// [`Prompt::hash`] as 16 hexadecimal digits.
    pub(crate) fn hash_text(&self) -> String {
        format!("{:016x}", self.hash)
    }

    /// Text of the last user message that has any.
    pub(crate) fn last_user(&self) -> &str {
        self.messages
            .iter()
            .rev()
            .find(|message| message.role == Role::User && !message.text.is_empty())
            .map_or("", |message| &message.text)
    }

    /// Text of the first user message that has any.
    pub(crate) fn goal(&self) -> &str {
        let asked =
            self.messages.iter().find(|message| message.role == Role::User && !message.text.is_empty());
        asked.map_or("", |message| &message.text)
    }

    /// All tool results in order, each with its call.
    pub(crate) fn all_results(&self) -> impl Iterator<Item = (&Called, &Answered)> {
        self.messages.iter().enumerate().filter(|(_, message)| !message.calls.is_empty()).flat_map(
            |(at, asking)| {
                let answers = self.messages[at + 1..].iter().take_while(|m| m.role != Role::Assistant);
                let answers = answers.flat_map(|message| &message.results);
                answers.filter_map(|result| {
                    Some((asking.calls.iter().find(|call| call.id == result.id)?, result))
                })
            },
        )
    }

    pub(crate) fn all_results_text(&self) -> String {
        let texts: Vec<&str> = self.all_results().map(|(_, result)| result.text.as_str()).collect();
        texts.join("\n")
    }

    /// Tool results that end the conversation.
    pub(crate) fn last_results(&self) -> Vec<&Answered> {
        let count = self.messages.iter().rev();
        let count = count.take_while(|message| !message.results.is_empty()).count();
        let tail = &self.messages[self.messages.len() - count..];
        tail.iter().flat_map(|message| &message.results).collect()
    }

    pub(crate) fn last_results_text(&self) -> String {
        let texts: Vec<&str> = self.last_results().iter().map(|r| r.text.as_str()).collect();
        texts.join("\n")
    }

    /// All text in order, one line break between parts.
    pub(crate) fn all_text(&self) -> String {
        let mut parts = vec![self.system.as_str()];
        for message in &self.messages {
            parts.push(&message.text);
            parts.extend(message.results.iter().map(|result| result.text.as_str()));
        }
        parts.retain(|part| !part.is_empty());
        parts.join("\n")
    }

    /// 1 plus the number of assistant messages.
    pub(crate) fn turn(&self) -> u64 {
        let said = self.messages.iter().filter(|m| m.role == Role::Assistant);
        1 + said.count() as u64
    }

    /// Tokens of all text: system, messages, calls, results and tool definitions.
    pub(crate) fn tokens(&self) -> u64 {
        let messages = self.messages.iter().map(|message| {
            let calls = message.calls.iter().map(|c| c.name.len() + c.arguments.len());
            let results = message.results.iter().map(|result| result.text.len());
            message.text.len() + calls.sum::<usize>() + results.sum::<usize>()
        });
        tokens_of_bytes(self.system.len() + self.tool_text.len() + messages.sum::<usize>())
    }

    fn content_hash(&self) -> u64 {
        let mut bytes = Vec::new();
        let mut part = |tag: u8, text: &str| {
            bytes.push(tag);
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        };
        part(b'm', &self.model);
        part(b's', &self.system);
        for tool in &self.tools {
            part(b'o', tool);
        }
        for message in &self.messages {
            part(message.role as u8, &message.text);
            for call in &message.calls {
                part(b'c', &call.name);
                part(b'a', &call.arguments);
            }
            for result in &message.results {
                part(b'r', &result.text);
            }
        }
        draw::hash(&bytes)
    }
}

/// The non-empty string in `field`.
fn text_field<'a>(body: &'a Value, field: &str) -> Option<&'a str> {
    body[field].as_str().filter(|text| !text.is_empty())
}

fn number_in(body: &Value, field: &str, range: std::ops::RangeInclusive<f64>) -> Result<(), Refusal> {
    match &body[field] {
        Value::Null => Ok(()),
        value if value.as_f64().is_some_and(|number| range.contains(&number)) => Ok(()),
        _ => Err(Refusal::of(
            field,
            format!("{field}: must be a number from {} to {}", range.start(), range.end()),
        )),
    }
}

fn positive(body: &Value, field: &str) -> Result<Option<u64>, Refusal> {
    match &body[field] {
        Value::Null => Ok(None),
        value => match value.as_u64() {
            Some(number) if number > 0 => Ok(Some(number)),
            _ => Err(Refusal::of(field, format!("{field}: must be a whole number over 0"))),
        },
    }
}

fn flag(body: &Value, field: &str) -> Result<bool, Refusal> {
    flag_or(body, field, false)
}

fn flag_or(body: &Value, field: &str, default: bool) -> Result<bool, Refusal> {
    match &body[field] {
        Value::Null => Ok(default),
        Value::Bool(value) => Ok(*value),
        _ => Err(Refusal::of(field, format!("{field}: must be a boolean"))),
    }
}

fn tool_name(name: Option<&str>, place: &str) -> Result<String, Refusal> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match name {
        Some(name) if name.len() <= 128 && !name.is_empty() && name.chars().all(fits) => Ok(name.to_owned()),
        _ => Err(Refusal::of(place, format!("{place}: must match '^[a-zA-Z0-9_-]{{1,128}}$'"))),
    }
}

#[cfg(test)]
mod tests;
