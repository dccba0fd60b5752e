//! Help, version, and usage that is wrong.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{
    SOON,
    process::{Process, finish_with, run, trireme},
};

const COMMANDS: &[&[&str]] = &[
    &["demo"],
    &["run"],
    &["dev"],
    &["coordinator"],
    &["worker"],
    &["submit"],
    &["runs"],
    &["runs", "list"],
    &["runs", "show"],
    &["runs", "follow"],
    &["runs", "waterfall"],
    &["runs", "cancel"],
    &["runs", "delete"],
    &["runs", "replay"],
    &["dead-letters", "list"],
    &["dead-letters", "show"],
    &["dead-letters", "replay"],
    &["pools", "list"],
    &["pools", "pause"],
    &["pools", "resume"],
    &["doctor"],
    &["upgrade"],
    &["check"],
    &["simulate"],
    &["settings"],
];

#[tokio::test]
async fn every_command_says_what_it_does() {
    for command in COMMANDS {
        let help = run(&[command, &["--help"][..]].concat()).await;
        help.expect(0, &[]);
        let first = help.out.lines().next().unwrap_or("");
        assert!(first.len() > 10 && !first.starts_with("Usage"), "{command:?}: {}", help.out);
        assert!(help.out.contains("Usage: trireme "), "{}", help.out);
    }
    let all = run(&["--help"]).await;
    for command in COMMANDS {
        assert!(all.out.contains(command[0]), "{command:?} is not in {}", all.out);
    }
    assert!(all.out.contains("Examples:") && all.out.contains("Exit codes:"), "{}", all.out);
    assert!(run(&["--version"]).await.expect(0, &[]).out.starts_with("trireme "));
}

#[tokio::test]
async fn help_has_examples() {
    for command in [
        "demo",
        "run",
        "dev",
        "coordinator",
        "worker",
        "submit",
        "runs",
        "keys",
        "dead-letters",
        "pools",
        "check",
        "simulate",
        "settings",
        "upgrade",
        "doctor",
        "health",
    ] {
        let help = run(&[command, "--help"]).await;
        let examples = help.out.split("Example").nth(1).unwrap_or_default();
        assert!(examples.contains(&format!("trireme {command}")), "{command}: {}", help.out);
    }
}

#[tokio::test]
async fn wrong_usage_exits_64() {
    for command in COMMANDS {
        run(&[command, &["--bogus"][..]].concat()).await.expect(64, &["--bogus"]);
    }
    run(&[]).await.expect(64, &["Usage: trireme"]);
    run(&["nonsense"]).await.expect(64, &["nonsense"]);
    run(&["run"]).await.expect(64, &["<FILE>"]);
    run(&["dev", "--listen", "here"]).await.expect(64, &["--listen", "here"]);
    run(&["dead-letters", "replay"]).await.expect(64, &["--all"]);
    run(&["dead-letters", "replay", "r/a", "--all"]).await.expect(64, &["--all"]);
    run(&["submit", "-", "--server", "nonsense"]).await.expect(64, &["--server nonsense", "http://"]);
}

#[tokio::test]
async fn an_address_is_an_address_and_nothing_more() {
    let user = run(&["runs", "list", "--server", "http://ann:canary@127.0.0.1:1"]).await;
    assert!(!user.expect(64, &["--server", "user or password"]).err.contains("canary"), "{}", user.err);
    for server in ["http://127.0.0.1:1/?a=b", "http://127.0.0.1:1/#a"] {
        run(&["runs", "list", "--server", server]).await.expect(64, &["--server", server, "no query"]);
    }
}

#[tokio::test]
async fn a_key_that_can_not_be_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let list = async |key: &str| {
        run(&["runs", "list", "--server", "http://127.0.0.1:1", "--api-key-file", key]).await
    };
    let broken = list(&file("broken", "canary\nkey\n")).await;
    assert!(!broken.expect(64, &["the API key", "line break"]).err.contains("canary"), "{}", broken.err);
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for bad in [pipe.to_str().unwrap(), "/dev/zero", &file("large", &"x".repeat((64 << 10) + 1))] {
        list(bad).await.expect(64, &["--api-key-file", bad, "regular file"]);
    }
}

#[tokio::test]
async fn an_absent_coordinator_is_named() {
    let server = "http://127.0.0.1:1";
    let list = ["runs", "list", "--server", server];
    run(&list).await.expect(69, &[server, "no coordinator answers", "refused"]);
    run(&["runs", "--server", server, "follow", "x"]).await.expect(69, &[server]);
    let hello = crate::support::examples().join("hello.yaml");
    let submit = run(&["submit", hello.to_str().unwrap(), "--server", server]).await;
    submit.expect(69, &[server, "trying for 5 s", "no coordinator answers"]);
    assert_eq!(submit.err.matches("trying").count(), 1, "{}", submit.err);
    run(&["health", server]).await.expect(69, &[server, "refused"]);
    // commands that only ask need no settings, and half of a fleet's are none
    let mut command = trireme(&list);
    command.env("TRIREME__AMQP__URL", "amqp://127.0.0.1:1");
    finish_with(command, b"").await.expect(69, &["no coordinator answers"]);
}

/// Answers one request with `answer`: a status, a space and a body.
async fn stranger(listener: TcpListener, answer: &'static str) {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut request = [0; 64 << 10];
    let _ = socket.read(&mut request).await.unwrap();
    let (status, body) = answer.split_once(' ').unwrap();
    let head = format!("content-type: application/json\r\ncontent-length: {}", body.len());
    let answer = format!("HTTP/1.1 {status} X\r\n{head}\r\nconnection: close\r\n\r\n{body}");
    socket.write_all(answer.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_submit_waits_for_a_coordinator_that_is_starting() {
    let hello = crate::support::examples().join("hello.yaml");
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let server = format!("http://{address}");
    let mut submit =
        Process::start("submit", trireme(&["submit", hello.to_str().unwrap(), "--server", &server]));
    submit.line("trying for 5 s").await;
    tokio::spawn(stranger(TcpListener::bind(address).await.unwrap(), "202 {\"run_id\":\"r-1\"}"));
    assert!(submit.ended(SOON).await.success(), "{}", submit.output());
}

#[tokio::test]
async fn a_server_that_is_no_coordinator_is_named() {
    for (answer, code, why) in
        [("404 {}", 64, "404"), ("500 null", 69, "500"), ("200 nonsense", 69, "expected")]
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(stranger(listener, answer));
        run(&["runs", "list", "--server", &server]).await.expect(code, &[&server, why]);
    }
}
