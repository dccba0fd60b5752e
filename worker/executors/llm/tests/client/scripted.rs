//! A server that does what a test says, byte by byte, and remembers what it was sent.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// What the server does with one connection after it has read the request.
#[derive(Clone)]
pub enum Step {
    Send(String),
    /// Sends this every few milliseconds until the client goes away.
    Repeat(String),
    /// Waits until the client goes away.
    Hang,
    /// Ends the connection with a TCP reset.
    Reset,
}

pub enum Seen {
    Request {
        head: String,
        body: Value,
    },
    /// The client closed the connection while the server waited.
    Gone,
}

pub struct Server {
    pub addr: SocketAddr,
    seen: mpsc::UnboundedReceiver<Seen>,
}

impl Server {
    /// Serves one script after another, a connection each; the last one for all that follow.
    pub async fn start(scripts: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (tx, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut nth = 0;
            while let Ok((socket, _)) = listener.accept().await {
                let script = scripts[nth.min(scripts.len() - 1)].clone();
                nth += 1;
                tokio::spawn(serve(socket, script, tx.clone()));
            }
        });
        Self { addr, seen }
    }

    pub async fn request(&mut self) -> (String, Value) {
        match self.seen.recv().await {
            Some(Seen::Request { head, body }) => (head, body),
            _ => panic!("expected a request"),
        }
    }

    pub async fn gone(&mut self) {
        assert!(matches!(self.seen.recv().await, Some(Seen::Gone)));
    }

    pub fn nothing_more(&mut self) -> bool {
        self.seen.try_recv().is_err()
    }
}

async fn serve(mut socket: TcpStream, script: Vec<Step>, tx: mpsc::UnboundedSender<Seen>) {
    let Some((head, body)) = read_request(&mut socket).await else {
        return;
    };
    let _ = tx.send(Seen::Request { head, body });
    for step in script {
        match step {
            Step::Send(text) => socket.write_all(text.as_bytes()).await.unwrap(),
            Step::Repeat(text) => {
                let mut every = tokio::time::interval(std::time::Duration::from_millis(5));
                loop {
                    every.tick().await;
                    if socket.write_all(text.as_bytes()).await.is_err() {
                        break;
                    }
                }
            }
            Step::Hang => {
                let _ = socket.read(&mut [0; 64]).await;
                let _ = tx.send(Seen::Gone);
                return;
            }
            Step::Reset => {
                socket.set_zero_linger().unwrap();
                return;
            }
        }
    }
    // A clean end: what was written arrives before the close.
    let _ = socket.shutdown().await;
}

async fn read_request(socket: &mut TcpStream) -> Option<(String, Value)> {
    let mut data = Vec::new();
    let end = loop {
        let mut buffer = [0; 4096];
        let n = socket.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
        data.extend_from_slice(&buffer[..n]);
        if let Some(end) = data.windows(4).position(|w| w == b"\r\n\r\n") {
            break end;
        }
    };
    let head = String::from_utf8(data[..end].to_vec()).unwrap().to_lowercase();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
    let length: usize = length.unwrap().trim().parse().unwrap();
    let mut body = data[end + 4..].to_vec();
    let have = body.len();
    body.resize(length, 0);
    socket.read_exact(&mut body[have..]).await.unwrap();
    Some((head, serde_json::from_slice(&body).unwrap()))
}

/// A response head; the body ends with the connection.
pub fn head(status: &str, headers: &str) -> Step {
    Step::Send(format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n"))
}

pub fn stream_head() -> Step {
    head("200 OK", "content-type: text/event-stream; charset=utf-8\r\nx-request-id: req-7\r\n")
}

pub fn events(events: &[&str]) -> Step {
    Step::Send(events.iter().map(|e| format!("data: {e}\n\n")).collect())
}

pub const HELLO: &str = r#"{"id":"c-1","model":"m-1","choices":[{"index":0,"delta":{"content":"hello"}}]}"#;
pub const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
pub const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":100}}"#;
pub const DONE: &str = "[DONE]";

/// A whole good answer.
pub fn hello() -> Vec<Step> {
    vec![stream_head(), events(&[HELLO, STOP, USAGE, DONE])]
}

/// Status, headers and body of a refusal.
pub fn refusal(status: &str, headers: &str, body: &str) -> Vec<Step> {
    vec![head(status, headers), Step::Send(body.to_owned())]
}
