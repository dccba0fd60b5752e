//! MCP over stdio and streamable HTTP, with real servers of others and one that misbehaves on order.
#![allow(clippy::unwrap_used)]

#[path = "support/servers.rs"]
mod servers;

use std::{path::Path, process::Stdio, time::Duration};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::Instant,
};
use trireme_tool::{BuildError, CallContext, Class, Config, Error, Tools};

fn ctx() -> CallContext {
    CallContext::new("r1", "t1", 0, 1, Instant::now() + Duration::from_secs(60))
}

async fn build(config: Value) -> Result<Tools, BuildError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config: Config = serde_json::from_value(config).unwrap();
    Tools::builder().config(config).build().await
}

async fn tools(config: Value) -> Tools {
    build(config).await.unwrap()
}

fn everything() -> Value {
    json!({"stdio": {"command": servers::node(), "args": [servers::everything(), "stdio"]}})
}

fn flood() -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/flood.mjs");
    json!({"command": servers::node(), "args": [script], "env": {"GREETING": "hello"}})
}

/// Whether the process is gone. A zombie is only gone once its last thread is, which is when its
/// pipes close; of our own children the kernel tells us that.
fn ended(pid: u32) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::Pid(Pid::from_raw(pid as i32)), flags) {
        Ok(status) => status != WaitStatus::StillAlive,
        // Not, or no longer, a child of ours.
        Err(_) => match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')),
            Err(_) => true,
        },
    }
}

/// Waits until `condition` holds, at most 20 s.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < until, "{what}: not within 20 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_real_stdio_server_lists_validates_and_answers() {
    let tools = tools(json!({"mcp": {"all": everything()}})).await;
    let names: Vec<String> = tools.specs().into_iter().map(|s| s.name).collect();
    assert!(names.contains(&"all.echo".to_owned()) && names.contains(&"all.get-sum".to_owned()), "{names:?}");
    let echo = tools.call("all.echo", &ctx(), json!({"message": "hi"})).await.unwrap();
    assert_eq!(echo.value, json!("Echo: hi"));
    let sum = tools.call("all.get-sum", &ctx(), json!({"a": 2, "b": 40})).await.unwrap();
    assert!(sum.value.as_str().unwrap().contains("42"), "{}", sum.value);
    let error = tools.call("all.get-sum", &ctx(), json!({"a": "2"})).await.unwrap_err();
    match &error {
        Error::InvalidArgs { fields, .. } => assert_eq!(fields.len(), 2, "{error}"),
        other => panic!("{other}"),
    }
    let calls = (0..200).map(|i| {
        let tools = &tools;
        async move { tools.call("all.echo", &ctx(), json!({"message": i.to_string()})).await.unwrap().value }
    });
    for (i, value) in futures::future::join_all(calls).await.into_iter().enumerate() {
        assert_eq!(value, json!(format!("Echo: {i}")));
    }
    tools.shutdown().await;
    let error = tools.call("all.echo", &ctx(), json!({"message": "hi"})).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn structured_content_is_the_value() {
    let tools = tools(json!({"mcp": {"all": everything()}})).await;
    let got =
        tools.call("all.get-structured-content", &ctx(), json!({"location": "New York"})).await.unwrap();
    assert!(got.value["temperature"].is_number(), "{}", got.value);
    tools.shutdown().await;
}

#[tokio::test]
async fn a_killed_child_is_replaced_by_the_next_call() {
    let tools = tools(json!({"mcp": {"all": everything()}})).await;
    let call = async || tools.call("all.echo", &ctx(), json!({"message": "hi"})).await;
    call().await.unwrap();
    for _ in 0..2 {
        let pid = tools.mcp_pids().await["all"];
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
        eventually("the child ends", || ended(pid)).await;
        assert_eq!(call().await.unwrap().value, json!("Echo: hi"));
        assert_ne!(tools.mcp_pids().await["all"], pid);
    }
    let pid = tools.mcp_pids().await["all"];
    tools.shutdown().await;
    eventually("the child ends with the registry", || ended(pid)).await;
}

#[tokio::test]
async fn a_real_python_server_answers() {
    let tools = tools(json!({"mcp": {"time": {
        "stdio": {"command": servers::time(), "args": ["--local-timezone", "UTC"]}, "effect": "read", "names": "plain",
    }}}))
    .await;
    let got = tools.call("get_current_time", &ctx(), json!({"timezone": "Europe/Berlin"})).await.unwrap();
    assert!(got.value.to_string().contains("Europe/Berlin"), "{}", got.value);
    // The schema allows any string, so it is the server that refuses.
    let error = tools.call("get_current_time", &ctx(), json!({"timezone": "Mars/Base"})).await.unwrap_err();
    assert!(matches!(&error, Error::Failed { message } if message.contains("Mars/Base")), "{error}");
    assert_eq!(error.class(), Class::Permanent);
    tools.shutdown().await;
}

/// Starts the everything server over HTTP; it says on standard error when it listens.
async fn everything_http(port: u16) -> Child {
    let mut child = Command::new(servers::node())
        .arg(servers::everything())
        .arg("streamableHttp")
        .env("PORT", port.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    loop {
        let line = lines.next_line().await.unwrap().expect("the server listens");
        if line.contains("listening") {
            break;
        }
    }
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    child
}

#[tokio::test]
async fn a_real_http_server_answers_and_may_be_restarted() {
    // The server cannot choose a free port itself, so one is found for it.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut child = everything_http(port).await;
    let url = format!("http://127.0.0.1:{port}/mcp");
    let tools = tools(json!({"mcp": {"all": {"http": {"url": url}}}})).await;
    let call = async || tools.call("all.echo", &ctx(), json!({"message": "hi"})).await;
    assert_eq!(call().await.unwrap().value, json!("Echo: hi"));
    // The new process knows nothing of the session.
    child.kill().await.unwrap();
    let mut child = everything_http(port).await;
    assert_eq!(call().await.unwrap().value, json!("Echo: hi"));
    child.kill().await.unwrap();
    let error = call().await.unwrap_err();
    assert_eq!(error.class(), Class::Retryable, "{error}");
    let _child = everything_http(port).await;
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match call().await {
            Ok(output) => break assert_eq!(output.value, json!("Echo: hi")),
            Err(error) => assert!(error.class() == Class::Retryable && Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tools.shutdown().await;
}

#[tokio::test]
async fn fifty_megabytes_fail_alone_and_the_session_goes_on() {
    let tools = tools(json!({"mcp": {"f": {"stdio": flood()}}})).await;
    let ctx = ctx();
    let (big, small) = tokio::join!(
        tools.call("f.flood", &ctx, json!({"bytes": 50_000_000})),
        tools.call("f.flood", &ctx, json!({"bytes": 5})),
    );
    let error = big.unwrap_err();
    assert!(matches!(error, Error::OutputTooLarge { limit: 8_388_608 }), "{error}");
    assert_eq!(small.unwrap().value, json!("xxxxx"));
    let counted = tools.call("f.child", &ctx, json!({})).await.unwrap().value;
    assert_eq!(counted["calls"], 3, "all on one session");
    // Under the bound of a line, over that of a value.
    let error = tools.call("f.flood", &ctx, json!({"bytes": 9_000_000})).await.unwrap_err();
    assert!(matches!(error, Error::OutputTooLarge { .. }), "{error}");
    tools.shutdown().await;
}

#[tokio::test]
async fn the_child_gets_its_configured_environment_and_our_key_only() {
    let tools = tools(json!({"mcp": {"f": {"stdio": flood(), "start": "lazy"}}})).await;
    assert!(tools.specs().is_empty() && tools.mcp_pids().await.is_empty());
    assert!(tools.check("f.env", &json!({})).is_ok() && tools.check("g.env", &json!({})).is_err());
    let env = tools.call("f.env", &ctx(), json!({})).await.unwrap().value;
    assert_eq!(env, json!({"GREETING": "hello"}));
    let meta = tools.call("f.meta", &ctx(), json!({})).await.unwrap().value;
    assert_eq!(meta["dev.trireme/idempotency-key"], "r1/t1/0");
    assert!(matches!(tools.call("f.nope", &ctx(), json!({})).await, Err(Error::UnknownTool { .. })));
    tools.shutdown().await;
}

#[tokio::test]
async fn a_lost_call_is_repeated_only_where_that_is_safe_and_starts_back_off() {
    let server =
        |effect: &str| json!({"mcp": {"f": {"stdio": flood(), "tools": {"die": {"effect": effect}}}}});
    let write = tools(server("write")).await;
    let first = write.mcp_pids().await["f"];
    let error = write.call("f.die", &ctx(), json!({})).await.unwrap_err();
    assert!(matches!(error, Error::Interrupted { .. }), "{error}");
    assert_eq!(error.class(), Class::Permanent);
    assert_eq!(write.call("f.flood", &ctx(), json!({"bytes": 1})).await.unwrap().value, json!("x"));
    assert_ne!(write.mcp_pids().await["f"], first);
    write.shutdown().await;

    let read = tools(server("read")).await;
    let error = read.call("f.die", &ctx(), json!({})).await.unwrap_err();
    assert_eq!(error.class(), Class::Retryable, "{error}");
    // It died twice without a call that worked, so the third start waits.
    let error = read.call("f.flood", &ctx(), json!({"bytes": 1})).await.unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { message, .. } if message.contains("next start")),
        "{error}"
    );
    read.shutdown().await;
}

#[tokio::test]
async fn shutting_down_or_dropping_kills_the_whole_process_group() {
    let config = json!({"mcp": {"f": {"stdio": flood()}}});
    for by_drop in [false, true] {
        let tools = tools(config.clone()).await;
        let grandchild =
            tools.call("f.child", &ctx(), json!({})).await.unwrap().value["pid"].as_u64().unwrap();
        let child = tools.mcp_pids().await["f"];
        if by_drop {
            drop(tools);
        } else {
            tools.shutdown().await;
        }
        eventually("child and grandchild end", || ended(child) && ended(grandchild as u32)).await;
    }
}

#[tokio::test]
async fn servers_that_do_not_start_say_why() {
    for (server, why) in [
        (json!({"stdio": {"command": "/nonexistent/server"}}), "cannot run `/nonexistent/server`"),
        (json!({"stdio": {"command": "/bin/sh", "args": ["-c", "echo no key >&2; exit 3"]}}), "no key"),
        (
            json!({"stdio": {"command": "/bin/sh", "args": ["-c", "sleep 100"]}, "start_timeout": "100ms"}),
            "within 100 ms",
        ),
        (json!({"http": {"url": "http://127.0.0.1:1/mcp"}}), "does not start"),
        (json!({}), "exactly one of `stdio` and `http`"),
        (json!({"http": {"url": "file:///x"}}), "not an http or https URL"),
    ] {
        let Err(error) = build(json!({"mcp": {"m": server}})).await else { panic!("{why}") };
        let text = error.to_string();
        assert!(text.starts_with("mcp server `m`") && text.contains(why), "{text}");
    }
}
