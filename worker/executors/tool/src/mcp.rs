//! MCP servers: one warm session per server and process, shared by all calls.
//!
//! ```text
//!  Server --names--> entries: McpTool ... rebuilt when the session lists its tools anew
//!     |                        |
//!     +--------- Link ---------+  finds the live session, or starts one (back-off after failures)
//!                 |
//!              Session            rmcp client over a child's pipes or streamable HTTP
//! ```
//!
//! A call that finds its session dead starts a new one and goes there. A call whose connection is
//! lost on the way is made again once if that is safe: nothing had been sent, or the tool's effect
//! allows it. Otherwise it is [`Error::Interrupted`].

mod link;
mod process;
mod result;
mod session;
mod stdout;
mod web;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use rmcp::model::{CallToolRequestParams, RequestMetaObject};
use serde_json::Value;

use self::link::Link;
use crate::{
    CallContext, Error, Limits, McpConfig, Naming, Start, Tool, ToolOutput, ToolSpec, registry::Entry,
    schema::Schema,
};

/// Key of the idempotency key in a call's `_meta`.
const META_KEY: &str = "dev.trireme/idempotency-key";

/// One configured server.
pub(crate) struct Server {
    link: Arc<Link>,
    timeout: Duration,
    entries: Mutex<(u64, Arc<Entries>)>,
}

type Entries = BTreeMap<String, Arc<Entry>>;

/// One tool of a server.
struct McpTool {
    spec: ToolSpec,
    /// The server's own name for it.
    remote: String,
    link: Arc<Link>,
}

// === impl Server ===

impl Server {
    /// Checks the declaration; starts nothing.
    pub fn new(name: &str, config: McpConfig, limits: &Limits) -> Result<Self, String> {
        let timeout = config.timeout.unwrap_or(limits.timeout);
        let link = Arc::new(Link::new(name, config, limits)?);
        Ok(Self { link, timeout, entries: Mutex::default() })
    }

    pub fn name(&self) -> &str {
        &self.link.name
    }

    pub fn is_eager(&self) -> bool {
        self.link.config.start == Start::Eager
    }

    /// Starts a session unless one is alive, so that the tools are known.
    pub async fn start(&self) -> Result<(), Error> {
        self.link.session().await.map(|_| ())
    }

    pub async fn shutdown(&self) {
        self.link.shutdown().await;
    }

    pub async fn pid(&self) -> Option<u32> {
        self.link.pid().await
    }

    /// Whether `name` may turn out to be one of its tools once it has started.
    pub fn may_have(&self, name: &str) -> bool {
        self.link.listing().0 == 0
            && match self.link.config.names {
                Naming::Plain => true,
                Naming::Prefixed => name.strip_prefix(self.name()).is_some_and(|rest| rest.starts_with('.')),
            }
    }

    /// Its tools by full name; empty before the first session.
    pub fn entries(&self) -> Arc<Entries> {
        let (generation, listed) = self.link.listing();
        let mut cached = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.0 != generation {
            let made = listed.iter().filter_map(|tool| match self.entry(tool) {
                Ok(entry) => Some(entry),
                Err(problem) => {
                    // Leaving it out is the safe side: it could not be called with checked arguments.
                    tracing::warn!(server = self.name(), tool = %tool.name, problem, "mcp tool is left out");
                    None
                }
            });
            *cached = (generation, Arc::new(made.collect()));
        }
        cached.1.clone()
    }

    fn entry(&self, tool: &rmcp::model::Tool) -> Result<(String, Arc<Entry>), String> {
        let config = &self.link.config;
        let said = config.tools.get(tool.name.as_ref());
        let name = match config.names {
            Naming::Prefixed => format!("{}.{}", self.name(), tool.name),
            Naming::Plain => tool.name.to_string(),
        };
        let spec = ToolSpec {
            name: name.clone(),
            description: tool.description.as_deref().unwrap_or_default().to_owned(),
            args: Value::Object(tool.input_schema.as_ref().clone()),
            effect: said.and_then(|s| s.effect).unwrap_or(config.effect),
            resource: None,
            timeout: said.and_then(|s| s.timeout).unwrap_or(self.timeout),
            at_once: None,
        };
        let schema = Arc::new(Schema::new(&spec.args)?);
        let tool = McpTool { spec, remote: tool.name.to_string(), link: self.link.clone() };
        Ok((name, Arc::new(Entry::new(Arc::new(tool), schema)?)))
    }
}

// === impl McpTool ===

#[async_trait]
impl Tool for McpTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    async fn call(&self, ctx: &CallContext, args: Value) -> Result<ToolOutput, Error> {
        let mut params = CallToolRequestParams::new(self.remote.clone());
        if let Value::Object(args) = args {
            params = params.with_arguments(args);
        }
        let mut meta = RequestMetaObject::new();
        meta.insert(META_KEY.to_owned(), Value::String(ctx.idempotency_key.to_string()));
        params.meta = Some(meta);
        self.link.call(params, self.spec.effect).await
    }
}
