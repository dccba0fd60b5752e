//! `bench idle`: what a coordinator and a worker of a fleet cost while there is nothing to do.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use load_tests::cpu::seconds_of;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};
use trireme_test_servers::{PrivateRabbit, PrivateRedis, free_port};

use crate::meter::memory;

/// How long a process may take until it is ready.
const READY: Duration = Duration::from_secs(60);
/// What a start leaves behind (connections, first scrapes) is over by then.
const SETTLE: Duration = Duration::from_secs(5);

#[derive(Args)]
pub struct Idle {
    /// How long to look, in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// The `trireme` program; default: the one beside this one
    #[arg(long)]
    program: Option<PathBuf>,
}

/// A process that ends with this one.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts private servers, a coordinator and a worker, and prints CPU and memory of the two.
pub async fn run(args: Idle) -> anyhow::Result<()> {
    let beside = std::env::current_exe()?.with_file_name("trireme");
    let program = args.program.unwrap_or(beside);
    if !program.exists() {
        bail!("{}: not there; build it with `cargo build --release`", program.display());
    }
    let (rabbit, redis) = (PrivateRabbit::start()?, PrivateRedis::start(&[])?);
    let start = async |name: &'static str, more: &[&str]| {
        let listen = format!("127.0.0.1:{}", free_port()?);
        let mut command = Command::new(&program);
        command.arg(name).args(["--listen", &listen]).args(more);
        command.env("TRIREME__AMQP__URL", rabbit.url()).env("TRIREME__REDIS__URL", redis.url());
        command.env("TRIREME_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::null());
        let process = Process(command.spawn().with_context(|| program.display().to_string())?);
        ready(name, &listen).await?;
        anyhow::Ok((name, process))
    };
    let processes = [start("coordinator", &[]).await?, start("worker", &["--pools", "llm,tool"]).await?];
    sleep(SETTLE).await;
    let before = processes.each_ref().map(|(_, process)| seconds_of(process.0.id()));
    let begun = Instant::now();
    sleep(Duration::from_secs(args.seconds.max(1))).await;
    let passed = begun.elapsed().as_secs_f64();
    println!("{:12} {:>10} {:>10} {:>10}", "idle", "RSS MB", "peak MB", "core %");
    for ((name, process), before) in processes.iter().zip(before) {
        let (now, peak) = memory(process.0.id());
        // /proc counts in MiB, the goals in millions of bytes
        let (now, peak) = (now * 1.048_576, peak * 1.048_576);
        let core = (seconds_of(process.0.id()) - before) / passed * 100.0;
        println!("{name:12} {now:>10.1} {peak:>10.1} {core:>10.2}");
        println!(
            "{}",
            json!({"idle": name, "rss_mb": now, "peak_mb": peak, "core_percent": core, "seconds": passed})
        );
    }
    Ok(())
}

/// Waits until `/readyz` says yes.
async fn ready(name: &str, listen: &str) -> anyhow::Result<()> {
    let end = Instant::now() + READY;
    loop {
        let answer = async {
            let mut stream = TcpStream::connect(listen).await?;
            stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        if answer.await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 ")) {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("the {name} is not ready after {READY:?}");
        }
        sleep(Duration::from_millis(50)).await;
    }
}
