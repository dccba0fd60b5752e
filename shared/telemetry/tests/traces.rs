//! The exporter against collectors that misbehave, over real sockets.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use prometheus::Registry;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use trireme_telemetry::traces::{Config, Otlp, SpanKind, Traces};

/// Reads a request to its end.
async fn request(stream: &mut TcpStream) {
    let mut read = Vec::new();
    loop {
        stream.read_buf(&mut read).await.unwrap();
        let Some(head) = read.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&read[..head]).to_lowercase();
        let length = text.split("content-length: ").nth(1).unwrap();
        let length: usize = length.lines().next().unwrap().trim().parse().unwrap();
        if read.len() >= head + 4 + length {
            return;
        }
    }
}

#[tokio::test]
async fn spans_are_sent_anew_when_the_connection_is_closed_under_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
    let collector = tokio::spawn(async move {
        // as a collector does that closes an idle connection at the moment when it is used again
        let (mut closed, _) = listener.accept().await.unwrap();
        request(&mut closed).await;
        drop(closed);
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream
    });
    let _ = rustls::crypto::ring::default_provider().install_default();
    let registry = Registry::new();
    let config = Config { otlp: Otlp { endpoint, ..Otlp::default() }, ..Config::default() };
    let traces = Traces::start(&config, "test", &registry).unwrap();
    let trace = traces.begin(None).unwrap();
    let group = traces.group(Some(&trace)).unwrap();
    let span = group.open(SpanKind::Internal, "one", 0);
    group.finish(span);
    assert!(traces.flush(Duration::from_secs(30)).await);
    let told = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    for line in [r#"outcome="sent"} 1"#, r#"outcome="failed"} 0"#] {
        assert!(told.contains(line), "{told}");
    }
    collector.await.unwrap();
}

#[tokio::test]
async fn runs_over_the_limit_are_counted_not_traced() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let registry = Registry::new();
    let otlp = Otlp { endpoint: Some("http://127.0.0.1:1".into()), per_second: Some(1), ..Otlp::default() };
    let traces = Traces::start(&Config { otlp, ..Config::default() }, "test", &registry).unwrap();
    let asked = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let begun = (0..10_000).filter(|_| traces.begin(None).is_some()).count();
    assert!(traces.begin(Some(asked)).is_some());
    let told = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let limited = format!("trireme_trace_limited_runs_total {}", 10_000 - begun);
    assert!(begun < 10_000 && told.contains(&limited), "{told}");
}
