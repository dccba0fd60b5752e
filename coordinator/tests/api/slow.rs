//! Clients that take their time: they cost what they have sent, and keep nobody out.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use trireme_coordinator::Config;

use super::server::{Server, embedded, soon, unhurried};

const SPEC: &str = r#"{"tasks": {"a": []}}"#;

async fn connect(server: &Server, text: &str) -> TcpStream {
    let addr: SocketAddr = server.base.strip_prefix("http://").unwrap().parse().unwrap();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// The head of a submit of `length` bytes, and what more it says.
fn head(length: usize, more: &str) -> String {
    format!("POST /v1/runs HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n{more}\r\n")
}

/// Reads until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut got = Vec::new();
    // a reset is an end too
    let _ = soon("the end of a connection", stream.read_to_end(&mut got)).await;
    String::from_utf8_lossy(&got).into_owned()
}

/// Reads up to the end of a head.
async fn answered(stream: &mut TcpStream) -> String {
    let mut got = String::new();
    while !got.contains("\r\n\r\n") {
        let byte = soon("an answer", stream.read_u8()).await.unwrap();
        got.push(char::from(byte));
    }
    got
}

/// A client that waits for `100 Continue` knows that its body is being read.
async fn trickling(server: &Server) -> TcpStream {
    let mut stream = connect(server, &head(100, "expect: 100-continue\r\n")).await;
    assert!(answered(&mut stream).await.starts_with("HTTP/1.1 100 "));
    stream.write_all(b"{").await.unwrap();
    stream
}

#[tokio::test]
async fn bodies_that_trickle_keep_nobody_out() {
    let hour = Duration::from_secs(3600);
    let config = Config { max_submits: 2, body_timeout: hour, header_timeout: hour, ..unhurried() };
    let server = Server::with(config, embedded()).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        slow.push(trickling(&server).await);
    }
    assert_eq!(server.post("/v1/runs", SPEC).await.status(), 202);
    assert_eq!(server.post("/v1/check", SPEC).await.status(), 200);
    // and they are served as well, once they have sent all
    let mut one = slow.pop().unwrap();
    one.write_all(format!("{:<99}", &SPEC[1..]).as_bytes()).await.unwrap();
    assert!(answered(&mut one).await.starts_with("HTTP/1.1 202 "));
}

#[tokio::test]
async fn what_bodies_hold_is_bounded_and_given_back() {
    let hour = Duration::from_secs(3600);
    let config = Config { max_submits: 1, max_body: 4096, body_timeout: hour, ..unhurried() };
    let server = Server::with(config, embedded()).await;
    let mut stalled = connect(&server, &head(4096, "")).await;
    stalled.write_all(&[b' '; 4095]).await.unwrap();
    let refused = async {
        loop {
            let response = server.post("/v1/check", SPEC).await;
            if response.status() != 200 {
                return response;
            }
        }
    };
    let refused = soon("a refusal", refused).await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "overloaded");
    drop(stalled);
    let taken = async { while server.post("/v1/check", SPEC).await.status() != 200 {} };
    soon("room", taken).await;
}

#[tokio::test]
async fn a_body_that_stalls_is_told_so() {
    let config = Config { body_timeout: Duration::from_millis(50), ..unhurried() };
    let server = Server::with(config, embedded()).await;
    let mut stream = connect(&server, &head(100, "")).await;
    stream.write_all(b"{").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("body_timeout"), "{answer}");
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let config = Config { header_timeout: Duration::from_millis(50), ..unhurried() };
    let server = Server::with(config, embedded()).await;
    let slow =
        ["", "P", "PRI * HTTP/2.0\r\n", "POST /v1/runs HTTP/1.1\r\n", "GET /healthz HTTP/1.1\r\nhost: x\r\n"];
    for text in slow {
        let mut stream = connect(&server, text).await;
        let answer = rest(&mut stream).await;
        assert!(!answer.contains(" 200 ") && !answer.contains(" 202 "), "{text:?}: {answer}");
    }
    // after an answer as well; here the head must be in time
    let config = Config { header_timeout: Duration::from_secs(3), ..unhurried() };
    let server = Server::with(config, embedded()).await;
    let mut idle = connect(&server, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(rest(&mut idle).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn connections_over_the_bound_wait_for_one_to_end() {
    let hour = Duration::from_secs(3600);
    let config = Config { max_connections: 2, header_timeout: hour, ..unhurried() };
    let server = Server::with(config, embedded()).await;
    let request = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut first = connect(&server, request).await;
    let mut second = connect(&server, request).await;
    assert!(answered(&mut first).await.starts_with("HTTP/1.1 200 "));
    assert!(answered(&mut second).await.starts_with("HTTP/1.1 200 "));
    let mut third = connect(&server, request).await;
    let early = tokio::time::timeout(Duration::from_millis(50), third.read_u8()).await;
    assert!(early.is_err(), "a third one was served");
    drop(first);
    assert!(answered(&mut third).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_refused_before_it_comes() {
    let hour = Duration::from_secs(3600);
    let config = Config { max_body: 1000, body_timeout: hour, ..unhurried() };
    let server = Server::with(config, embedded()).await;
    for more in ["", "expect: 100-continue\r\n"] {
        let mut stream = connect(&server, &head(1_000_000, more)).await;
        let answer = answered(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{more:?}: {answer}");
    }
}
