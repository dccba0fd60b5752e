//! From a run spec to a graph, and from a task's body to a call.
//!
//! ```text
//! client's side:  text -> source (tree with places) -> Spec -> compile -> Compiled -> Submit
//!                                                              |  references become edges,
//!                                                              |  names are checked
//! worker's side:  body + recorded values -> Body::call -> Call (ask a model, call a tool, expand a map)
//! ```
//!
//! Pure: no I/O, no clock, no tokio. Nothing here panics, whatever text comes in. The reference of every field is
//! `docs/spec.md`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod agent;
mod body;
mod check;
mod compile;
mod draw;
mod fields;
mod problem;
mod source;
mod spec;
mod template;

pub use body::{Bindings, Body, Call, LlmCall, Message, RenderError, Role};
pub use check::{Checker, Permissive};
pub use compile::{Compiled, OUTPUT, compile};
pub use fields::{MAX_DURATION_MS, MAX_NAME_BYTES};
pub use problem::{Invalid, MAX_PROBLEMS, Place, Problem};
pub use source::{MAX_DEPTH, MAX_TEXT_BYTES};
pub use spec::{
    AGENT_TIMEOUT_MS, AT_ONCE, ATTEMPTS, BACKOFF_MS, FIELDS, LLM_TIMEOUT_MS, MAX_ATTEMPTS, MAX_BACKOFF_MS,
    Spec, TOOL_TIMEOUT_MS, with_input,
};
pub use template::MAX_RENDERED_BYTES;
