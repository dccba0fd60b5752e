//! Help, version, and usage that is wrong.

use crate::support::process::run;

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
async fn wrong_usage_exits_64() {
    for command in COMMANDS {
        run(&[command, &["--bogus"][..]].concat()).await.expect(64, &["--bogus"]);
    }
    run(&[]).await.expect(64, &["Usage: trireme"]);
    run(&["nonsense"]).await.expect(64, &["nonsense"]);
    run(&["run"]).await.expect(64, &["<FILE>"]);
    run(&["dev", "--listen", "here"]).await.expect(64, &["--listen", "here"]);
    run(&["submit", "-", "--server", "nonsense"]).await.expect(64, &["--server nonsense", "http://"]);
}

#[tokio::test]
async fn an_absent_coordinator_is_named() {
    let server = "http://127.0.0.1:1";
    run(&["runs", "list", "--server", server]).await.expect(69, &[server, "no coordinator answers"]);
    run(&["runs", "--server", server, "follow", "x"]).await.expect(69, &[server]);
    let hello = crate::support::examples().join("hello.yaml");
    run(&["submit", hello.to_str().unwrap(), "--server", server]).await.expect(69, &[server]);
}
