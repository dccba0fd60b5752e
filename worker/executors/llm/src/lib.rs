//! The LLM client of Trireme's workers: one call to a model, streamed, bounded and typed.
//!
//! ```text
//!  ChatRequest --resolve--> ModelRef --wire--> HTTP body --+
//!                                                          v
//!                              provider (OpenAI-compatible or Anthropic)
//!                                                          |
//!  ChatResponse <-- answer <-- Turn <-- wire::Stream <-- sse::Decoder
//!                                |
//!                                +--> ChatEvent: first token, text, tool call, usage
//! ```
//!
//! ```no_run
//! # async fn example() -> Result<(), trireme_llm::Error> {
//! use trireme_llm::{ChatRequest, Config, Limits, Providers};
//!
//! let providers = Providers::new(Config::default())?;
//! let request = ChatRequest::new("openai/gpt-4.1-mini", "Say hello.");
//! let response = providers.chat(&request, Limits::default(), |_event| {}).await?;
//! println!("{}", response.text);
//! # Ok(()) }
//! ```
//!
//! Entry points: [`Providers::new`], [`Providers::resolve`], [`Providers::chat`]. The crate's
//! README lists what is sent for each field and the bounds.
//!
//! **It does not retry.** The engine does, in the store, where a retry survives a crash; every
//! [`Error`] has a [`Class`] that says how. The one exception is below HTTP: requests that an
//! HTTP/2 server says it never processed are sent again by the HTTP client.
//!
//! **It uses no proxy from the environment.** `HTTP_PROXY` on one worker of a fleet would move its
//! prompts elsewhere; [`ProviderConfig::proxy`] is explicit. Redirects are not followed.
//!
//! **TLS** is rustls without a default crypto provider: the process installs one (ring) before
//! [`Providers::new`], which fails with a clear error otherwise.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
mod call;
mod clients;
mod config;
mod error;
mod json;
mod limits;
mod providers;
mod redact;
mod report;
mod request;
mod response;
mod retry_after;
mod secret;
mod sse;
mod turn;
mod wire;

pub use config::{Api, Config, ModelConfig, Prices, ProviderConfig, StructuredOutput};
pub use error::{Class, Error, Kind};
pub use json::{Brackets, read_answer};
pub use limits::Limits;
pub use providers::{ModelRef, Providers};
pub use request::{ChatRequest, Message, Metadata, Tool, ToolChoice};
pub use response::{ChatEvent, ChatResponse, FinishReason, ToolCall, Usage};
pub use secret::Secret;
