//! One live MCP session: transport, handshake and the list of tools.

use std::{collections::HashMap, sync::Arc};

use rmcp::{
    RoleClient, ServiceExt,
    model::{CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, Implementation},
    service::{RunningService, ServiceError},
    transport::{
        StreamableHttpClientTransport, async_rw::AsyncRwTransport,
        streamable_http_client::StreamableHttpClientTransportConfig,
    },
};

use super::{
    process::{Pipes, Process},
    stdout,
    web::Web,
};
use crate::{McpConfig, McpHttp, egress::chain, error::shorten};

/// Most tools that a server may list.
const MAX_TOOLS: usize = 1000;
/// Most requests in progress over streamable HTTP; the calls themselves are bounded by `at_once`.
const HTTP_REQUESTS: usize = 256;

type Client = RunningService<RoleClient, ClientConfig>;

/// A live session. Dropping it closes the transport and kills the child.
pub(super) struct Session {
    client: Client,
    process: Option<Process>,
    /// As listed when the session began.
    pub tools: Arc<Vec<rmcp::model::Tool>>,
}

// === impl Session ===

impl Session {
    /// Whether `config` says where the server is.
    pub fn check(config: &McpConfig) -> Result<(), String> {
        match (&config.stdio, &config.http) {
            (Some(stdio), None) if stdio.command.is_empty() => Err("`stdio.command` is empty".to_owned()),
            (Some(_), None) => Ok(()),
            (None, Some(http)) => transport_config(http, 0).map(|_| ()),
            _ => Err("exactly one of `stdio` and `http` has to be given".to_owned()),
        }
    }

    /// Connects, shakes hands and lists the tools. The caller bounds the time.
    pub async fn start(name: &str, config: &McpConfig, output_bytes: usize) -> Result<Self, String> {
        let me = ClientConfig::new(
            ClientCapabilities::default(),
            Implementation::new("trireme", env!("CARGO_PKG_VERSION")),
        );
        // JSON escaping can double ordinary text; the exact bound is applied to the value later.
        let line_bytes = output_bytes.saturating_mul(2).saturating_add(64 * 1024);
        let (client, process) = match (&config.stdio, &config.http) {
            (Some(stdio), _) => {
                let (process, Pipes { stdin, stdout }) = Process::spawn(name, stdio)?;
                let (ours, theirs) = tokio::io::duplex(64 * 1024);
                // Ends when the child closes its output or the session drops its end.
                tokio::spawn(stdout::copy(stdout, theirs, line_bytes));
                let transport =
                    AsyncRwTransport::new_client(ours, stdin).with_max_line_length(line_bytes + 1024);
                match me.serve(transport).await {
                    Ok(client) => (client, Some(process)),
                    Err(error) => return Err(with_last_words(chain(&error), process).await),
                }
            }
            (None, Some(http)) => {
                let config = transport_config(http, line_bytes)?;
                let web = Web::new().map_err(|e| chain(&e))?;
                let transport = StreamableHttpClientTransport::with_client(web, config);
                (me.serve(transport).await.map_err(|e| chain(&e))?, None)
            }
            (None, None) => return Err("neither `stdio` nor `http` is given".to_owned()),
        };
        let tools =
            client.list_all_tools().await.map_err(|e| format!("cannot list its tools: {}", chain(&e)))?;
        if tools.len() > MAX_TOOLS {
            return Err(format!("it lists {} tools, the limit is {MAX_TOOLS}", tools.len()));
        }
        Ok(Self { client, process, tools: Arc::new(tools) })
    }

    pub async fn call(&self, params: CallToolRequestParams) -> Result<CallToolResult, ServiceError> {
        // One round only: a server that asks back (`input_required`) has nobody here to ask.
        self.client.call_tool_with_mrtr_max_rounds(params, 1).await
    }

    pub fn is_alive(&self) -> bool {
        !self.client.is_closed()
            && !self.client.is_transport_closed()
            && self.process.as_ref().is_none_or(Process::is_alive)
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Closes the transport and gives the child time to end by itself.
    pub async fn shutdown(&self) {
        self.client.cancellation_token().cancel();
        if let Some(process) = &self.process {
            process.ended().await;
        }
    }
}

async fn with_last_words(error: String, process: Process) -> String {
    let words = process.last_words().await;
    if words.is_empty() { error } else { format!("{error}; it said: {}", shorten(&words, 1000)) }
}

fn transport_config(
    http: &McpHttp,
    body_bytes: usize,
) -> Result<StreamableHttpClientTransportConfig, String> {
    let url: reqwest::Url = http.url.parse().map_err(|e| format!("`{}` is not a URL: {e}", http.url))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("`{}` is not an http or https URL", http.url));
    }
    let mut headers = HashMap::new();
    for (name, value) in &http.headers {
        let key = name.parse().map_err(|_| format!("`{name}` is not a header name"))?;
        let value = value.find().map_err(|missing| format!("header `{name}`: {missing}"))?;
        let value = value.parse().map_err(|_| format!("the value of header `{name}` is not allowed"))?;
        headers.insert(key, value);
    }
    let mut config = StreamableHttpClientTransportConfig::with_uri(http.url.as_str())
        .custom_headers(headers)
        .max_concurrent_requests(HTTP_REQUESTS);
    config.max_json_response_size = body_bytes;
    config.max_sse_event_size = body_bytes;
    config.max_error_response_size = crate::error::EXCERPT_BYTES;
    Ok(config)
}
