//! RabbitMQ for tests.

use crate::process::{self, Error, Supervised};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(300);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Address of the RabbitMQ that tests share: `TRIREME_TEST_AMQP_URL`, else the one on 127.0.0.1:5672, else a
/// private one that lives as long as this process.
///
/// # Panics
/// When there is none and none can be started; the message says what to install.
pub fn rabbitmq() -> String {
    static OWN: OnceLock<PrivateRabbit> = OnceLock::new();
    if let Ok(url) = std::env::var("TRIREME_TEST_AMQP_URL") {
        return url;
    }
    if OWN.get().is_none() && answers(SocketAddr::from(([127, 0, 0, 1], 5672))) {
        return "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned();
    }
    OWN.get_or_init(|| match PrivateRabbit::start() {
        Ok(server) => server,
        Err(error) => panic!("{error}"),
    })
    .url()
}

/// A RabbitMQ node of one test's own: own node name, ports, cookie, database and port mapper.
#[derive(Debug)]
pub struct PrivateRabbit {
    address: SocketAddr,
    epmd_port: u16,
    dist_port: u16,
    // Fields drop in order: the servers first, then their directories.
    server: Option<Supervised>,
    _epmd: Supervised,
    dir: TempDir,
    _epmd_dir: TempDir,
}

impl PrivateRabbit {
    /// Starts one and waits until it speaks AMQP: about ten seconds on an idle machine.
    ///
    /// # Errors
    /// When RabbitMQ is not installed or does not answer within 300 s.
    pub fn start() -> Result<Self, Error> {
        let dir = tempfile::Builder::new().prefix("trireme-rabbit-").tempdir()?;
        let epmd_dir = tempfile::Builder::new().prefix("trireme-epmd-").tempdir()?;
        let address = SocketAddr::from(([127, 0, 0, 1], crate::free_port()?));
        let (epmd_port, dist_port) = (crate::free_port()?, crate::free_port()?);
        write_files(dir.path(), address)?;

        // Left to itself the node starts a port mapper that outlives it: run our own in the foreground.
        let epmd = [
            process::installed("epmd", "erlang-base")?,
            "-port".to_owned(),
            epmd_port.to_string(),
            "-address".to_owned(),
            "127.0.0.1".to_owned(),
        ];
        let epmd = Supervised::spawn(epmd_dir.path(), &epmd, &[])?;
        let mapper = SocketAddr::from(([127, 0, 0, 1], epmd_port));
        process::wait_until("epmd", "ready", mapper, epmd_dir.path(), STOP_LIMIT, || {
            std::net::TcpStream::connect(mapper).is_ok()
        })?;
        let mut rabbit =
            Self { address, epmd_port, dist_port, server: None, _epmd: epmd, dir, _epmd_dir: epmd_dir };
        rabbit.launch()?;
        Ok(rabbit)
    }

    /// Where it listens, as an AMQP URL of the vhost `/`. Stays the same over restarts.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address)
    }

    /// Process id of the Erlang machine, for signals and for reading its CPU time; `None` while it is down.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref()?;
        std::fs::read_to_string(self.dir.path().join("pid")).ok()?.trim().parse().ok()
    }

    /// Kills it with SIGKILL and waits until it is gone. Its database stays.
    pub fn kill9(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill9();
        }
    }

    /// Stops it in order (SIGTERM) and waits until it is gone. Its database stays.
    ///
    /// # Errors
    /// When it does not stop within 60 s.
    pub fn stop(&mut self) -> Result<(), Error> {
        if let Some(pid) = self.pid() {
            process::signal(pid, "TERM")?;
            process::wait_until("rabbitmq", "stopped", self.address, self.dir.path(), STOP_LIMIT, || {
                !process::runs(pid)
            })?;
        }
        self.kill9();
        Ok(())
    }

    /// Starts it again on the same port and database, killing it first where it still runs.
    ///
    /// # Errors
    /// When it does not answer within 300 s.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.kill9();
        self.launch()
    }

    /// Runs `rabbitmqctl` against this node, such as `["close_all_connections", "reason"]`, and gives its
    /// standard output. Takes a few seconds: it starts an Erlang machine of its own.
    ///
    /// # Errors
    /// [`Error::Io`] with the command's output when it fails.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, Error> {
        let program = bin("rabbitmqctl")?;
        let done = Command::new(program)
            .args(["-q", "-n", &self.node()])
            .args(arguments)
            .envs(self.env())
            .stdin(Stdio::null())
            .output()?;
        if done.status.success() {
            return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
        }
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        Err(std::io::Error::other(text).into())
    }

    fn node(&self) -> String {
        format!("trireme{}@localhost", self.address.port())
    }

    fn launch(&mut self) -> Result<(), Error> {
        let output = self.dir.path().join("output.log");
        for old in [&output, &self.dir.path().join("pid")] {
            let _ = std::fs::remove_file(old);
        }
        let command = [bin("rabbitmq-server")?];
        self.server = Some(Supervised::spawn(self.dir.path(), &command, &self.env())?);
        let address = self.address;
        // It listens a moment before it has started, and forgets a SIGTERM that comes in between.
        let started = || std::fs::read_to_string(&output).is_ok_and(|text| text.contains("completed with"));
        process::wait_until("rabbitmq", "ready", address, self.dir.path(), START_LIMIT, || {
            started() && answers(address)
        })
    }

    fn env(&self) -> Vec<(String, String)> {
        let at = |name: &str| self.dir.path().join(name).to_string_lossy().into_owned();
        [
            ("RABBITMQ_NODENAME", self.node()),
            ("RABBITMQ_NODE_PORT", self.address.port().to_string()),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
            ("RABBITMQ_DIST_PORT", self.dist_port.to_string()),
            ("RABBITMQ_MNESIA_BASE", at("mnesia")),
            ("RABBITMQ_LOG_BASE", at("log")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins")),
            ("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf")),
            ("RABBITMQ_CONF_ENV_FILE", at("no-such-file")),
            ("RABBITMQ_GENERATED_CONFIG_DIR", at("generated")),
            ("RABBITMQ_PID_FILE", at("pid")),
            // No spinning schedulers, and nothing listens outside loopback.
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+sbwt none -kernel inet_dist_use_interface {127,0,0,1}".to_owned(),
            ),
            // The start script then becomes the Erlang machine instead of waiting beside it.
            ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
            ("ERL_EPMD_PORT", self.epmd_port.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("HOME", self.dir.path().to_string_lossy().into_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec()
    }
}

fn write_files(dir: &Path, address: SocketAddr) -> Result<(), Error> {
    let conf =
        format!("listeners.tcp.local = {address}\nlog.file.level = info\ndisk_free_limit.absolute = 50MB\n");
    std::fs::write(dir.join("rabbitmq.conf"), conf)?;
    std::fs::write(dir.join("enabled_plugins"), "[].\n")?;
    let cookie = dir.join(".erlang.cookie");
    std::fs::write(&cookie, crate::unique("cookie"))?;
    std::fs::set_permissions(&cookie, std::fs::Permissions::from_mode(0o400))?;
    Ok(())
}

// Debian's programs of that name in PATH are wrappers that insist on the system's node and user.
fn bin(name: &str) -> Result<String, Error> {
    ["/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|file| file.is_file())
        .map_or_else(
            || process::installed(name, "rabbitmq-server"),
            |file| Ok(file.to_string_lossy().into_owned()),
        )
}

// The broker answers the protocol header with Connection.Start: a method frame (type 1) on channel 0.
fn answers(address: SocketAddr) -> bool {
    process::answers(address, b"AMQP\x00\x00\x09\x01", &[1, 0, 0])
}
