//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use trireme_backend::Scope;
use trireme_model::{KeyId, RunId, Tenant};

/// Runs AI agent loops fast: everything that can run at once does, with the same answers.
#[derive(Parser)]
#[command(
    name = "trireme",
    version,
    about,
    after_help = "Examples:
  trireme demo                                  a simulated market brief, one task at a time and in parallel
  trireme run examples/hello.yaml               a graph in this process, no services
  trireme run FILE --input company=Acme --json  one JSON object on standard output
  trireme dev                                   the HTTP API in one process, no services
  TRIREME__AMQP__URL=amqp://… TRIREME__REDIS__URL=redis://… trireme coordinator
  TRIREME__AMQP__URL=amqp://… TRIREME__REDIS__URL=redis://… trireme worker --pools llm,tool
  trireme submit FILE --follow                  send a graph to a coordinator and watch it

Exit codes: 0 success, 1 the run failed, 64 bad configuration, spec or usage, 69 a service is unavailable."
)]
pub struct Cli {
    /// Configuration file (TOML, YAML or JSON): providers, models, tools, limits.
    #[arg(long, global = true, value_name = "FILE", env = "TRIREME_CONFIG")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Show what parallel execution gains, on simulated models and tools
    Demo(Demo),
    /// Run a spec in this process
    Run(Run),
    /// Coordinator and worker in one process on the embedded backend
    #[command(after_help = "Examples:
  trireme dev
  trireme dev --listen 127.0.0.1:8081 --config examples/simulated.toml")]
    Dev(Listen),
    /// Serve the HTTP API of a fleet on RabbitMQ and Redis
    #[command(after_help = "Examples:
  trireme coordinator --config fleet.toml
  TRIREME__AMQP__URL=amqp://… TRIREME__REDIS__URL=redis://… trireme coordinator --listen 127.0.0.1:8080")]
    Coordinator(Listen),
    /// Execute tasks of a fleet
    Worker(Worker),
    /// Send a spec to a coordinator
    Submit(Submit),
    /// Look at runs of a coordinator
    Runs(Runs),
    /// Make, list and revoke API keys
    Keys(Keys),
    /// Tasks in quarantine: look at them, and run their runs' missing parts again
    DeadLetters(crate::dead_letters::DeadLetters),
    /// Pools: list, pause and resume them
    Pools(crate::pools::Pools),
    /// Check a spec and print its derived graph
    Check(Check),
    /// Serve simulated models and tools over real wire formats
    Simulate(Simulate),
    /// Print the configuration in effect, without secrets
    #[command(after_help = "Examples:
  trireme settings --config fleet.toml
  TRIREME__WORKER__SLOTS=64 trireme settings")]
    Settings,
    /// Let the store move on to this version, once no older process is left; older ones are refused from then on
    #[command(after_help = "Example:
  trireme doctor --config fleet.toml && trireme upgrade --config fleet.toml")]
    Upgrade,
    /// Check a deployment's services and configuration, and say what to change
    Doctor(crate::doctor::Doctor),
    /// Ask a coordinator or worker whether it is healthy: exit code 0, or 69 when it is not
    Health(Health),
}

/// `trireme demo`
#[derive(Args)]
#[command(after_help = "Example:
  trireme demo --json")]
pub struct Demo {
    /// Print one JSON object instead of the waterfall
    #[arg(long)]
    pub json: bool,
}

/// `trireme run`
#[derive(Args)]
#[command(after_help = "Examples:
  trireme run examples/hello.yaml --input price=20 --input amount=3
  trireme run FILE --config examples/simulated.toml --json      after: trireme simulate SCENARIO
  trireme run FILE --waterfall --trace run.json
  echo 'tasks: {a: {tool: {name: noop}}}' | trireme run -")]
pub struct Run {
    /// The spec (YAML or JSON); `-` is standard input
    pub file: PathBuf,
    /// Set a field of the spec's `input`; VALUE is JSON, or else text
    #[arg(long = "input", value_name = "KEY=VALUE")]
    pub inputs: Vec<String>,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
    /// Execute strictly one task at a time
    #[arg(long)]
    pub sequential: bool,
    /// Print the waterfall when it has ended
    #[arg(long)]
    pub waterfall: bool,
    /// Write a trace for chrome://tracing or ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
}

/// `trireme dev`, `trireme coordinator`
#[derive(Args)]
pub struct Listen {
    /// Address of the HTTP API
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
}

/// `trireme worker`
#[derive(Args)]
#[command(after_help = "Examples:
  trireme worker --pools llm,tool
  trireme worker --pools llm=64 --listen 127.0.0.1:9090      /healthz, /readyz and /metrics there")]
pub struct Worker {
    /// Pools to serve, each with the slots from the configuration or as NAME=SLOTS
    #[arg(long, value_delimiter = ',', value_name = "POOL[=SLOTS],...")]
    pub pools: Vec<String>,
    /// Address of health and metrics
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
}

/// Where the coordinator is.
#[derive(Args)]
pub struct Server {
    /// The coordinator's address
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "TRIREME_SERVER",
        default_value = "http://127.0.0.1:8080"
    )]
    pub server: String,
    /// File with the API key; else it is taken from TRIREME_API_KEY
    #[arg(long, global = true, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Certificates (PEM) of the authority that signed the coordinator's; default: the system's
    #[arg(long, global = true, value_name = "FILE", env = "TRIREME_CA_FILE")]
    pub ca_file: Option<PathBuf>,
}

/// `trireme keys`
#[derive(Args)]
#[command(after_help = "Examples:
  kubectl exec deploy/fleet-trireme-coordinator -- trireme keys create --store --name ops --scopes read,write,admin
  TRIREME_API_KEY=… trireme keys create --name ci --tenant acme --submits-per-minute 60 --runs-in-flight 20
  trireme keys revoke 0123456789abcdef

Keys are never taken from the command line: other users of the machine see it.")]
pub struct Keys {
    /// What to do
    #[command(subcommand)]
    pub action: KeysAction,
    /// Work on the store of the configuration (redis.url) instead of a coordinator: for the first key
    #[arg(long, global = true)]
    pub store: bool,
    /// Where
    #[command(flatten)]
    pub server: Server,
}

/// `trireme keys …`
#[derive(Subcommand)]
pub enum KeysAction {
    /// Make a key and print it on standard output; it is shown only this once
    Create(CreateKey),
    /// List the keys of the store: id, tenant, scopes, submits a minute, runs in flight, name
    List {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key: every coordinator refuses it within 5 s
    Revoke {
        /// Its id: the 16 digits behind `trk_`
        id: KeyId,
    },
    /// Print the hash of the key on standard input, for coordinator.keys of the configuration
    Hash,
}

/// `trireme keys create`
#[derive(Args)]
pub struct CreateKey {
    /// A label for people
    #[arg(long)]
    pub name: String,
    /// Whose runs it may use
    #[arg(long, default_value_t)]
    pub tenant: Tenant,
    /// What it may do: read looks at runs, write starts and cancels them, admin administers the deployment
    #[arg(long, value_delimiter = ',', default_value = "read,write")]
    pub scopes: Vec<KeyScope>,
    /// Most requests to start a run a minute, on all coordinators together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub submits_per_minute: Option<u32>,
    /// How many of them at once; default: ten seconds' worth
    #[arg(long, value_name = "N", requires = "submits_per_minute", value_parser = clap::value_parser!(u32).range(1..))]
    pub burst: Option<u32>,
    /// Most runs under way at once
    #[arg(long, value_name = "N")]
    pub runs_in_flight: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// See [`Scope`].
#[derive(Clone, Copy, ValueEnum)]
pub enum KeyScope {
    /// Look at runs
    Read,
    /// Start and cancel runs
    Write,
    /// Administer the deployment
    Admin,
}

impl From<KeyScope> for Scope {
    fn from(scope: KeyScope) -> Self {
        match scope {
            KeyScope::Read => Self::Read,
            KeyScope::Write => Self::Write,
            KeyScope::Admin => Self::Admin,
        }
    }
}

/// `trireme submit`
#[derive(Args)]
#[command(after_help = "Examples:
  trireme submit FILE --follow
  trireme submit FILE --input company=Acme --idempotency-key order-17 --json
  trireme submit FILE --server https://trireme.example.com --api-key-file key.txt")]
pub struct Submit {
    /// The spec (YAML or JSON); `-` is standard input
    pub file: PathBuf,
    /// Set a field of the spec's `input`; VALUE is JSON, or else text
    #[arg(long = "input", value_name = "KEY=VALUE")]
    pub inputs: Vec<String>,
    /// Follow the run to its end: events on standard error, the output on standard output
    #[arg(long)]
    pub follow: bool,
    /// Print the run as JSON on standard output
    #[arg(long)]
    pub json: bool,
    /// Repeating the command with the same key gives the same run
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Where to
    #[command(flatten)]
    pub server: Server,
}

/// `trireme runs`
#[derive(Args)]
#[command(after_help = "Examples:
  trireme runs list --status failed
  trireme runs follow RUN
  trireme runs waterfall RUN --trace run.json
  trireme runs replay RUN")]
pub struct Runs {
    /// What to do with them
    #[command(subcommand)]
    pub action: RunsAction,
    /// Where
    #[command(flatten)]
    pub server: Server,
}

/// `trireme runs …`
#[derive(Subcommand)]
pub enum RunsAction {
    /// List runs, newest first
    List {
        /// Only runs in this state: running, succeeded, failed, cancelled
        #[arg(long)]
        status: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Print a run as JSON
    Show {
        /// The run's id
        id: RunId,
    },
    /// Follow a run to its end
    Follow {
        /// The run's id
        id: RunId,
    },
    /// Show where the time of a run went
    Waterfall {
        /// The run's id
        id: RunId,
        /// Print it as one JSON object
        #[arg(long)]
        json: bool,
        /// Write a trace for chrome://tracing or ui.perfetto.dev
        #[arg(long, value_name = "FILE")]
        trace: Option<PathBuf>,
    },
    /// Start a run that goes on from what a failed one recorded
    Replay {
        /// The failed run's id
        id: RunId,
    },
    /// Forget an ended run before its time
    Delete {
        /// The run's id
        id: RunId,
    },
    /// Cancel a run
    Cancel {
        /// The run's id
        id: RunId,
    },
}

/// `trireme check`
#[derive(Args)]
#[command(after_help = "Examples:
  trireme check FILE
  trireme check --mermaid FILE")]
pub struct Check {
    /// The spec (YAML or JSON); `-` is standard input
    pub file: PathBuf,
    /// Print the graph as a Mermaid chart
    #[arg(long)]
    pub mermaid: bool,
}

/// `trireme simulate`
#[derive(Args)]
#[command(after_help = "Examples:
  trireme simulate examples/scenarios/market-brief.yaml
  trireme simulate --listen 127.0.0.1:9901")]
pub struct Simulate {
    /// Scenario file; without one, every prompt gets a deterministic echo
    pub scenario: Option<PathBuf>,
    /// Address to serve on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9900")]
    pub listen: SocketAddr,
}

/// `trireme health`
#[derive(Args)]
#[command(after_help = "Example:
  trireme health http://127.0.0.1:9090/readyz    of a worker with --listen 127.0.0.1:9090; waits 3 s at most")]
pub struct Health {
    /// The address to ask: /healthz (it lives) or /readyz (it can work) of a coordinator or worker
    #[arg(value_name = "URL", env = "TRIREME_HEALTH_URL")]
    pub url: String,
    /// Certificates (PEM) of the authority that signed the address's; default: the system's
    #[arg(long, value_name = "FILE", env = "TRIREME_CA_FILE")]
    pub ca_file: Option<PathBuf>,
}
