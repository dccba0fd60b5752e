//! The tools of a process: built once, shared by all calls, and the gate that every call passes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use crate::{
    BuildError, CallContext, Config, Effect, Error, Limits, Tool, ToolOutput, ToolSpec, builtin,
    call::fits,
    egress::Egress,
    http::HttpTool,
    mcp::Server,
    schema::Schema,
    template::{Escape, Template},
};

/// Most names that an unknown-tool error lists.
const MAX_KNOWN: usize = 100;

/// The tools of a process. Cheap to clone; all clones share sessions, connections and permits.
#[derive(Clone)]
pub struct Tools {
    inner: Arc<Inner>,
}

struct Inner {
    /// Built-in, declared and registered tools.
    fixed: BTreeMap<String, Arc<Entry>>,
    servers: Vec<Server>,
    limits: Limits,
}

/// A tool with what the gate needs.
pub(crate) struct Entry {
    tool: Arc<dyn Tool>,
    schema: Arc<Schema>,
    resource: Option<Template>,
    permits: Option<Semaphore>,
}

/// Collects tools and makes [`Tools`] of them.
#[derive(Default)]
pub struct Builder {
    builtin: bool,
    config: Config,
    registered: Vec<Arc<dyn Tool>>,
}

// === impl Builder ===

impl Builder {
    /// Adds `http_get`, `calculator`, `json_query`, `value`, `noop` and `sleep`.
    #[must_use]
    pub fn builtin(mut self) -> Self {
        self.builtin = true;
        self
    }

    /// Adds the operator's HTTP tools and MCP servers, and sets the limits.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Adds a tool of the embedding program.
    #[must_use]
    pub fn register(mut self, tool: Arc<dyn Tool>) -> Self {
        self.registered.push(tool);
        self
    }

    /// Checks every declaration and starts the MCP servers that are not lazy, all at once.
    ///
    /// # Errors
    /// The first declaration that is wrong, or the first server that does not start.
    pub async fn build(self) -> Result<Tools, BuildError> {
        let tools = self.declare()?;
        tools.start().await?;
        Ok(tools)
    }

    /// Checks every declaration and starts nothing.
    ///
    /// # Errors
    /// The first declaration that is wrong.
    pub fn check(self) -> Result<(), BuildError> {
        self.declare().map(drop)
    }

    fn declare(self) -> Result<Tools, BuildError> {
        let limits = self.config.limits.clone();
        let egress = Egress::new(&self.config.egress)?;
        let mut fixed = BTreeMap::new();
        let mut add = |entry: Entry| {
            let name = entry.tool.spec().name.clone();
            match fixed.insert(name.clone(), Arc::new(entry)) {
                None => Ok(()),
                Some(_) => Err(BuildError::Duplicate { name }),
            }
        };
        let builtin = if self.builtin { builtin::all(&egress, &limits) } else { Vec::new() };
        for tool in builtin.into_iter().chain(self.registered) {
            let spec = tool.spec();
            let fail = |problem| BuildError::Tool { name: spec.name.clone(), problem };
            let schema = Arc::new(Schema::new(&spec.args).map_err(fail)?);
            add(Entry::new(tool.clone(), schema).map_err(fail)?)?;
        }
        for (name, config) in &self.config.tools {
            let fail = |problem| BuildError::Tool { name: name.clone(), problem };
            let schema = Arc::new(Schema::new(&config.args).map_err(fail)?);
            let tool = HttpTool::new(name, config, schema.clone(), &limits, egress.clone()).map_err(fail)?;
            add(Entry::new(Arc::new(tool), schema).map_err(fail)?)?;
        }
        let mut servers = Vec::new();
        for (name, config) in self.config.mcp {
            let server = Server::new(&name, config, &limits);
            servers.push(server.map_err(|problem| BuildError::Mcp { name, problem })?);
        }
        Ok(Tools { inner: Arc::new(Inner { fixed, servers, limits }) })
    }
}

// === impl Tools ===

impl Tools {
    /// An empty builder.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    async fn start(&self) -> Result<(), BuildError> {
        let eager = self.inner.servers.iter().filter(|s| s.is_eager());
        let started = futures::future::join_all(eager.map(|server| async move {
            server
                .start()
                .await
                .map_err(|source| BuildError::Start { name: server.name().to_owned(), source })
        }));
        for result in started.await {
            result?;
        }
        let mut seen: Vec<String> = self.inner.fixed.keys().cloned().collect();
        seen.extend(self.inner.servers.iter().flat_map(|s| s.entries().keys().cloned().collect::<Vec<_>>()));
        seen.sort();
        match seen.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(BuildError::Duplicate { name: pair[0].clone() }),
            None => Ok(()),
        }
    }

    /// The tool `name`, unless it belongs to a lazy MCP server that has not started.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<dyn Tool>> {
        self.entry(name).map(|entry| entry.tool.clone())
    }

    /// The description of the tool `name`; starts the MCP server that it may belong to.
    ///
    /// # Errors
    /// [`Error::UnknownTool`], or why the server did not start.
    pub async fn describe(&self, name: &str) -> Result<ToolSpec, Error> {
        self.find(name).await.map(|entry| entry.tool.spec().clone())
    }

    /// Descriptions of all known tools, by name.
    #[must_use]
    pub fn specs(&self) -> Vec<ToolSpec> {
        let mut specs: Vec<ToolSpec> = self.inner.fixed.values().map(|e| e.tool.spec().clone()).collect();
        for server in &self.inner.servers {
            specs.extend(server.entries().values().map(|e| e.tool.spec().clone()));
        }
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        specs
    }

    /// Whether `args` would be accepted by the tool `name`, without calling it.
    ///
    /// A tool that may belong to a lazy MCP server that has not started passes; its call checks.
    ///
    /// # Errors
    /// [`Error::UnknownTool`], [`Error::ArgsTooLarge`], [`Error::InvalidArgs`].
    pub fn check(&self, name: &str, args: &Value) -> Result<(), Error> {
        match self.entry(name) {
            Some(entry) => entry.check(&self.inner.limits, args),
            None if self.inner.servers.iter().any(|s| s.may_have(name)) => Ok(()),
            None => Err(self.unknown(name)),
        }
    }

    /// The name of what a call with these arguments touches, when the tool declares one.
    ///
    /// # Errors
    /// [`Error::UnknownTool`], [`Error::Template`].
    pub fn resource(&self, name: &str, args: &Value) -> Result<Option<String>, Error> {
        let entry = self.entry(name).ok_or_else(|| self.unknown(name))?;
        let Some(template) = &entry.resource else { return Ok(None) };
        template.text(&entry.schema.with_defaults(args.clone())).map(Some)
    }

    /// Calls the tool `name`: checks the arguments, waits for a free slot, runs.
    ///
    /// Ends at the tool's timeout or at the context's deadline, whichever is sooner, and at once on
    /// cancellation; dropping the future aborts the call too.
    ///
    /// # Errors
    /// Any [`Error`]; ask it for its [`Error::class`].
    pub async fn call(&self, name: &str, ctx: &CallContext, args: Value) -> Result<ToolOutput, Error> {
        let begun = Instant::now();
        let work = async {
            let entry = self.find(name).await?;
            entry.check(&self.inner.limits, &args)?;
            entry.call(ctx, args, &self.inner.limits).await
        };
        tokio::select! {
            biased;
            () = ctx.cancel.cancelled() => Err(Error::Cancelled),
            result = timeout_at(ctx.deadline, work) => result.unwrap_or_else(|_| {
                // A tool that is still unknown was never called, so repeating is safe.
                let effect = self.entry(name).map_or(Effect::Read, |e| e.tool.spec().effect);
                Err(Error::Timeout { after: begun.elapsed(), effect })
            }),
        }
    }

    /// The MCP server that a tool is of; `None` for one that is of none.
    pub fn mcp_server(&self, name: &str) -> Option<&str> {
        if self.inner.fixed.contains_key(name) {
            return None;
        }
        self.inner.servers.iter().find(|server| server.may_have(name)).map(Server::name)
    }

    /// Ends every MCP session and its processes; calls in flight fail. Takes at most 3 s.
    pub async fn shutdown(&self) {
        futures::future::join_all(self.inner.servers.iter().map(Server::shutdown)).await;
    }

    /// Process ids of the running MCP children by server name, for health pages and tests.
    pub async fn mcp_pids(&self) -> BTreeMap<String, u32> {
        let mut pids = BTreeMap::new();
        for server in &self.inner.servers {
            if let Some(pid) = server.pid().await {
                pids.insert(server.name().to_owned(), pid);
            }
        }
        pids
    }

    fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        if let Some(entry) = self.inner.fixed.get(name) {
            return Some(entry.clone());
        }
        self.inner.servers.iter().find_map(|server| server.entries().get(name).cloned())
    }

    async fn find(&self, name: &str) -> Result<Arc<Entry>, Error> {
        if let Some(entry) = self.entry(name) {
            return Ok(entry);
        }
        for server in self.inner.servers.iter().filter(|s| s.may_have(name)) {
            server.start().await?;
            if let Some(entry) = server.entries().get(name) {
                return Ok(entry.clone());
            }
        }
        Err(self.unknown(name))
    }

    fn unknown(&self, name: &str) -> Error {
        let mut known: Vec<String> = self.specs().into_iter().map(|s| s.name).collect();
        known.truncate(MAX_KNOWN);
        Error::UnknownTool { name: crate::error::shorten(name, 200), known }
    }
}

// === impl Entry ===

impl Entry {
    /// Makes the gate for `tool`, or says what is wrong with its description.
    pub fn new(tool: Arc<dyn Tool>, schema: Arc<Schema>) -> Result<Self, String> {
        let spec = tool.spec();
        if spec.name.is_empty() || spec.name.len() > 256 {
            return Err("a tool's name has 1 to 256 bytes".to_owned());
        }
        if spec.at_once == Some(0) {
            return Err("`at_once` is 0, so it could never be called".to_owned());
        }
        let resource =
            spec.resource.as_deref().map(|r| Template::new("resource", r, Escape::None)).transpose()?;
        let permits = spec.at_once.map(|n| Semaphore::new(n.min(Semaphore::MAX_PERMITS)));
        Ok(Self { schema, resource, permits, tool })
    }

    fn check(&self, limits: &Limits, args: &Value) -> Result<(), Error> {
        if let Err(bytes) = fits(args, limits.args_bytes) {
            return Err(Error::ArgsTooLarge { bytes, limit: limits.args_bytes });
        }
        self.schema
            .check(args)
            .map_err(|fields| Error::InvalidArgs { tool: self.tool.spec().name.clone(), fields })
    }

    async fn call(&self, ctx: &CallContext, args: Value, limits: &Limits) -> Result<ToolOutput, Error> {
        let spec = self.tool.spec();
        let work = async {
            let _permit = match &self.permits {
                // Never closed, so the only error cannot occur.
                Some(permits) => permits.acquire().await.ok(),
                None => None,
            };
            self.tool.call(ctx, args).await
        };
        let output = match timeout_at(after(spec.timeout), work).await {
            Ok(result) => result?,
            Err(_) => return Err(Error::Timeout { after: spec.timeout, effect: spec.effect }),
        };
        let small = match output.received {
            Some(bytes) => bytes <= limits.output_bytes,
            None => fits(&output.value, limits.output_bytes).is_ok(),
        };
        if !small {
            return Err(Error::OutputTooLarge { limit: limits.output_bytes });
        }
        Ok(output)
    }
}

/// `timeout` from now; a timeout of years, which an `Instant` may not hold, is one day.
fn after(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or(now + Duration::from_secs(24 * 60 * 60))
}
