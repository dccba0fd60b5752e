//! The private servers start, keep their data over kill -9, and do not outlive their handle.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use trireme_test_servers::process::runs;
use trireme_test_servers::{PrivateRabbit, PrivateRedis};

fn ask(url: &str, command: &str, answer: usize) -> String {
    let mut stream = TcpStream::connect(url.trim_start_matches("redis://")).unwrap();
    stream.write_all(command.as_bytes()).unwrap();
    let mut got = vec![0; answer];
    stream.read_exact(&mut got).unwrap();
    String::from_utf8(got).unwrap()
}

#[test]
fn redis_keeps_its_data_over_kill_and_dies_with_its_handle() {
    let mut redis = PrivateRedis::start(&[("appendfsync", "always")]).unwrap();
    let url = redis.url();
    assert_eq!(ask(&url, "SET k v\r\n", 5), "+OK\r\n");
    redis.kill9();
    assert!(TcpStream::connect(url.trim_start_matches("redis://")).is_err());
    redis.restart().unwrap();
    assert_eq!(ask(&url, "GET k\r\n", 7), "$1\r\nv\r\n");
    let pid = redis.pid();
    drop(redis);
    assert!(!runs(pid));
    assert!(TcpStream::connect(url.trim_start_matches("redis://")).is_err());
}

#[test]
fn rabbit_restarts_after_kill_and_stop_and_dies_with_its_handle() {
    let mut rabbit = PrivateRabbit::start().unwrap();
    let first = rabbit.pid().unwrap();
    rabbit.kill9();
    assert!(!runs(first));
    rabbit.restart().unwrap();
    let second = rabbit.pid().unwrap();
    assert_ne!(first, second);
    rabbit.stop().unwrap();
    assert!(rabbit.pid().is_none());
    rabbit.restart().unwrap();
    let vhosts = rabbit.ctl(&["list_vhosts"]).unwrap();
    assert!(vhosts.contains('/'), "{vhosts}");
    let third = rabbit.pid().unwrap();
    drop(rabbit);
    assert!(!runs(third));
}
