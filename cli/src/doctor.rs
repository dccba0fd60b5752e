//! `trireme doctor`: checks a deployment and says what to change.

use std::time::Duration;

use clap::Args;
use tokio::net::TcpStream;
use trireme_backend_cluster::checkup::{self, Finding, Verdict};
use trireme_llm::Providers;

use crate::{
    exit::{Code, Failure, say},
    settings::Settings,
    stack::Capabilities,
};

/// How long a tool's server may take to accept a connection.
const REACH: Duration = Duration::from_secs(3);

/// `trireme doctor`
#[derive(Args)]
#[command(
    after_help = "One line for each check: ok, warn or fail, what was checked, and what to change. Exit code 1 where \
                        something fails.

Examples:
  trireme doctor --config fleet.toml
  trireme doctor --tools --json"
)]
pub struct Doctor {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Also connect to tools and MCP servers (stdio servers are started)
    #[arg(long)]
    pub tools: bool,
}

/// Checks what `settings` name.
pub async fn doctor(args: Doctor, settings: Settings) -> Result<(), Failure> {
    let mut found = Vec::new();
    if settings.amqp.url.is_some() {
        let config = settings.cluster().map_err(|error| Failure::usage(format!("{error:#}")))?;
        let pools: Vec<String> = settings.worker.pools.iter().map(|pool| pool.name.clone()).collect();
        found.extend(checkup::check(&config, &pools).await);
    } else {
        let text = "amqp.url and redis.url are not set: only what one process needs is checked";
        found.push(Finding::ok("fleet", text));
    }
    found.extend(providers(&settings));
    if args.tools {
        found.extend(tools(&settings).await);
    }
    let worst = found.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok);
    if args.json {
        say(serde_json::json!({"verdict": worst, "checks": found}));
    } else {
        let width = found.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
        for Finding { check, verdict, text } in &found {
            let verdict = match verdict {
                Verdict::Ok => "ok  ",
                Verdict::Warn => "warn",
                Verdict::Fail => "fail",
            };
            say(format_args!("{verdict}  {check:width$}  {text}"));
        }
    }
    let failed = found.iter().filter(|finding| finding.verdict == Verdict::Fail).count();
    match failed {
        0 => Ok(()),
        count => Err(Failure::new(Code::RunFailed, format!("{count} of {} checks fail", found.len()))),
    }
}

/// Whether every configured provider and model has what a call needs. Keys are looked for, never shown.
fn providers(settings: &Settings) -> Vec<Finding> {
    let providers = match Providers::new(settings.llm()) {
        Ok(providers) => providers,
        Err(error) => return vec![Finding::fail("providers", error.to_string())],
    };
    let of_provider =
        settings.providers.keys().map(|name| (format!("provider {name}"), format!("{name}/any")));
    let of_model = settings.models.keys().map(|name| (format!("model {name}"), name.clone()));
    let look = |(check, model): (String, String)| match providers.resolve(&model) {
        Err(error) => Finding::fail(check, error.to_string()),
        Ok(model) => match model.missing_key() {
            // coordinators and this command need no key
            Some(variable) => {
                Finding::warn(check, format!("its key is not in this environment: workers need {variable}"))
            }
            None => Finding::ok(check, "configured"),
        },
    };
    of_provider.chain(of_model).map(look).collect()
}

/// Whether tools can be reached from here.
async fn tools(settings: &Settings) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, tool) in &settings.tools {
        let check = format!("tool {name}");
        // a host that a call's arguments name is not known here
        let url = reqwest::Url::parse(tool.url.split("{{").next().unwrap_or(""));
        let Some((host, port)) =
            url.ok().and_then(|url| Some((url.host_str()?.to_owned(), url.port_or_known_default()?)))
        else {
            found.push(Finding::ok(check, "its address depends on the call"));
            continue;
        };
        let connect = tokio::time::timeout(REACH, TcpStream::connect((host.as_str(), port))).await;
        found.push(match connect {
            Ok(Ok(_)) => Finding::ok(check, format!("{host}:{port} accepts connections")),
            Ok(Err(error)) => {
                Finding::fail(check, format!("{host}:{port} can't be reached from here: {error}"))
            }
            Err(_) => Finding::fail(check, format!("{host}:{port} does not answer within {REACH:?}")),
        });
    }
    if !settings.mcp.is_empty() {
        let names = settings.mcp.keys().cloned().collect::<Vec<_>>().join(", ");
        found.push(match Capabilities::new(settings).await {
            Ok(capabilities) => {
                let count = capabilities.tools.specs().len();
                capabilities.tools.shutdown().await;
                Finding::ok("mcp", format!("{names}: {count} tools in all"))
            }
            Err(error) => Finding::fail("mcp", error.to_string()),
        });
    }
    found
}
