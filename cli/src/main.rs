//! The `trireme` command: thin; everything it does lives in the crates below it.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod check;
mod client;
mod command;
mod dead_letters;
mod demo;
mod doctor;
mod exit;
mod fleet;
mod health;
mod https;
mod keys;
mod pools;
mod progress;
mod run;
mod settings;
mod signal;
mod simulate;
mod source;
mod stack;
mod trace;
mod upgrade;
mod waterfall;

use std::process::ExitCode;

use clap::{Parser, error::ErrorKind};

use crate::{
    command::{Cli, Command, Keys},
    exit::Failure,
    settings::Settings,
    stack::Capabilities,
};

/// Many small allocations on many threads: measurably faster than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // a closed terminal is no reason to fail
            let _ = error.print();
            return if help { ExitCode::SUCCESS } else { ExitCode::from(exit::Code::Usage as u8) };
        }
    };
    let settings = match &cli.command {
        // clients of a running process: its configuration may have changed since its start, or be elsewhere
        Command::Health(_)
        | Command::Submit(_)
        | Command::Runs(_)
        | Command::DeadLetters(_)
        | Command::Pools(_)
        | Command::Keys(Keys { store: false, .. }) => Ok(Settings::default()),
        _ => Settings::load(cli.config.as_deref()),
    };
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => return Failure::usage(exit::one_line(&format!("{error:#}"))).report(),
    };
    // ring is the one provider of the process; a second install would be refused and changes nothing
    let _ = rustls::crypto::ring::default_provider().install_default();
    // thousands of calls are open at once; the usual soft limit of open files is 1,024
    if let Err(error) = trireme_simulator::raise_open_files() {
        eprintln!("trireme: the limit of open files stays as it is: {error}");
    }
    // two at least: one may be held by a terminal that takes no progress
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return Failure::new(exit::Code::Internal, error).report(),
        };
    // on a thread of the runtime: to wake this one, which drives nothing else, costs a switch of threads each time
    let result = runtime.block_on(async { tokio::spawn(dispatch(cli.command, settings)).await });
    match result {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => failure.report(),
        // nobody aborts it: it has panicked
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}

async fn dispatch(command: Command, settings: Settings) -> Result<(), Failure> {
    // services log what they do; commands only what went wrong, and of a certificate they say it themselves
    let level = match &command {
        Command::Dev(_) | Command::Coordinator(_) | Command::Worker(_) | Command::Simulate(_) => "info",
        _ => "error,trireme_telemetry=warn,rustls_platform_verifier=off",
    };
    let filter = std::env::var("TRIREME_LOG").unwrap_or_else(|_| level.to_owned());
    trireme_telemetry::init(trireme_telemetry::Format::Auto, &filter)
        .map_err(|error| Failure::usage(format!("TRIREME_LOG: {error}")))?;
    match command {
        Command::Demo(args) => demo::demo(args).await,
        Command::Run(args) => run::run(args, settings).await,
        Command::Dev(args) => fleet::dev(args, settings).await,
        Command::Coordinator(args) => fleet::coordinator(args, settings).await,
        Command::Worker(args) => fleet::worker(args, settings).await,
        Command::Submit(args) => client::submit(args).await,
        Command::Runs(args) => client::runs(args).await,
        Command::Keys(args) => keys::keys(args, settings).await,
        Command::DeadLetters(args) => dead_letters::dead_letters(args).await,
        Command::Pools(args) => pools::pools(args).await,
        Command::Check(args) => check::check(args, settings).await,
        Command::Simulate(args) => simulate::simulate(args).await,
        Command::Health(args) => health::health(args).await,
        Command::Upgrade => upgrade::upgrade(settings).await,
        Command::Doctor(args) => doctor::doctor(args, settings).await,
        Command::Settings => {
            Capabilities::check(&settings)?;
            exit::say(settings.shown()?);
            Ok(())
        }
    }
}
