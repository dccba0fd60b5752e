//! How a worker calls tools: HTTP tools declared in config, MCP servers, and built-in Rust ones.
//!
//! ```text
//!  Config --Tools::builder()--> Tools (cheap clone, shared by all calls of a process)
//!                                 | check(name, args)      schema only, no I/O
//!                                 | call(name, ctx, args)  size, schema, permit, deadline, cancel
//!                                 v
//!            built-in (`builtin`) | HTTP (`http`) | MCP (`mcp`)  --> ToolOutput or a typed Error
//! ```
//!
//! What holds everywhere:
//! - Arguments are validated before the tool sees them; an error lists every failing field.
//! - Nothing is buffered beyond [`Limits::output_bytes`]; over it the call is [`Error::OutputTooLarge`].
//! - A call ends at the tool's timeout or at [`CallContext::deadline`], whichever is sooner, and at
//!   once when [`CallContext::cancel`] fires or its future is dropped.
//! - A host that came out of arguments is reached only when every address it resolves to is public,
//!   or the operator allowed it ([`EgressConfig`]). A host that the operator wrote is trusted.
//! - A command is run only from [`McpConfig::stdio`]; arguments and specs cannot name one.
//!
//! The process installs a rustls crypto provider before it builds [`Tools`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod builtin;
mod call;
mod config;
mod egress;
mod error;
mod http;
mod mcp;
mod registry;
mod schema;
mod template;

pub use call::{CallContext, Effect, Tool, ToolOutput, ToolSpec};
pub use config::{
    Config, EgressConfig, Limits, McpConfig, McpHttp, McpStdio, McpToolConfig, Method, Naming, Secret, Start,
    ToolConfig,
};
pub use egress::AllowRule;
pub use error::{BuildError, Class, Error, FieldError};
pub use registry::{Builder, Tools};
