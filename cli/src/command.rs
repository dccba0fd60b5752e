//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use trireme_model::RunId;

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
    Dev(Listen),
    /// Serve the HTTP API of a fleet on RabbitMQ and Redis
    Coordinator(Listen),
    /// Execute tasks of a fleet
    Worker(Worker),
    /// Send a spec to a coordinator
    Submit(Submit),
    /// Look at runs of a coordinator
    Runs(Runs),
    /// Check a spec and print its derived graph
    Check(Check),
    /// Serve simulated models and tools over real wire formats
    Simulate(Simulate),
    /// Print the configuration in effect, without secrets
    Settings,
}

/// `trireme demo`
#[derive(Args)]
pub struct Demo {
    /// Print one JSON object instead of the waterfall
    #[arg(long)]
    pub json: bool,
}

/// `trireme run`
#[derive(Args)]
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
}

/// `trireme submit`
#[derive(Args)]
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
    /// Draw where the time of a run went
    Waterfall {
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
pub struct Check {
    /// The spec (YAML or JSON); `-` is standard input
    pub file: PathBuf,
    /// Print the graph as a Mermaid chart
    #[arg(long)]
    pub mermaid: bool,
}

/// `trireme simulate`
#[derive(Args)]
pub struct Simulate {
    /// Scenario file; without one, every prompt gets a deterministic echo
    pub scenario: Option<PathBuf>,
    /// Address to serve on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9900")]
    pub listen: SocketAddr,
}
