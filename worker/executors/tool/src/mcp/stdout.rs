//! The bound on what a stdio server can make us buffer.
//!
//! rmcp drops a line over its own limit without a word, and the call would hang until its timeout.
//! So lines pass through here first: one over the limit is thrown away as it comes in, and the call
//! that it answers gets an error of our own in its place. Other calls on the session go on.

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

/// JSON-RPC code of the error that stands in for an answer that was too large.
pub(super) const TOO_LARGE: i32 = -32_097;

/// Start and end of a discarded line that are kept, to find its id there.
const KEPT: usize = 256;

/// Copies lines of at most `limit` bytes from `from` to `to` until either ends.
pub(super) async fn copy(
    from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    limit: usize,
) -> std::io::Result<()> {
    let mut from = BufReader::with_capacity(64 * 1024, from);
    let mut line = Line::default();
    loop {
        let chunk = from.fill_buf().await?;
        if chunk.is_empty() {
            return Ok(());
        }
        let (part, ends) = match chunk.iter().position(|b| *b == b'\n') {
            Some(at) => (&chunk[..=at], true),
            None => (chunk, false),
        };
        line.push(part, limit);
        let taken = part.len();
        from.consume(taken);
        if ends {
            let line = std::mem::take(&mut line);
            to.write_all(&line.finish()).await?;
        }
    }
}

#[derive(Default)]
struct Line {
    /// The line, or only its start once it is too long.
    text: Vec<u8>,
    /// The end of a line that is too long.
    tail: Option<Vec<u8>>,
}

// === impl Line ===

impl Line {
    fn push(&mut self, part: &[u8], limit: usize) {
        match &mut self.tail {
            None if self.text.len() + part.len() <= limit => self.text.extend_from_slice(part),
            None => {
                self.text.extend_from_slice(&part[..part.len().min(KEPT)]);
                self.text.truncate(KEPT);
                self.text.shrink_to_fit();
                self.tail = Some(part[part.len().saturating_sub(KEPT)..].to_vec());
            }
            Some(tail) => {
                tail.extend_from_slice(&part[part.len().saturating_sub(KEPT)..]);
                let excess = tail.len().saturating_sub(KEPT);
                tail.drain(..excess);
            }
        }
    }

    /// What goes on to rmcp: the line, or an error with its id, or nothing when it has none.
    fn finish(self) -> Vec<u8> {
        let Some(tail) = self.tail else { return self.text };
        // Servers write the id last (`{"result":…,"jsonrpc":"2.0","id":1}`) or among the first.
        match id_in(&tail, true).or_else(|| id_in(&self.text, false)) {
            Some(id) => format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{TOO_LARGE},\"message\":\"output too large\"}}}}\n"
            )
            .into_bytes(),
            None => Vec::new(),
        }
    }
}

/// A numeric `"id"` in a piece of a JSON-RPC message: at its very end, or before its `result`.
fn id_in(piece: &[u8], at_end: bool) -> Option<u64> {
    let text = String::from_utf8_lossy(piece);
    let text = text.trim_end();
    let region = if at_end { text.strip_suffix('}')? } else { &text[..text.find("\"result\"")?] };
    let (_, rest) = region.rsplit_once("\"id\"")?;
    let value = rest.trim_start().strip_prefix(':')?.trim_start();
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    let rest = value[digits.len()..].trim_start();
    let ends = if at_end { rest.is_empty() || rest == ",\"jsonrpc\":\"2.0\"" } else { rest.starts_with(',') };
    if ends { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn through(input: &str, limit: usize) -> String {
        let mut out = Vec::new();
        copy(input.as_bytes(), &mut out, limit).await.unwrap();
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn short_lines_pass_unchanged() {
        let text = "{\"id\":1}\n\n{\"id\":2}\r\n";
        assert_eq!(through(text, 100).await, text);
    }

    #[tokio::test]
    async fn a_long_answer_becomes_an_error_with_its_id() {
        let big = "x".repeat(300_000);
        for long in [
            format!("{{\"result\":{{\"t\":\"{big}\"}},\"jsonrpc\":\"2.0\",\"id\":42}}"),
            format!("{{\"jsonrpc\": \"2.0\", \"id\": 42, \"result\": {{\"t\": \"{big}\"}}}}"),
            format!("{{\"result\":\"{big}\",\"id\":42,\"jsonrpc\":\"2.0\"}}"),
        ] {
            let got = through(&format!("{{\"a\":1}}\n{long}\n{{\"b\":1}}\n"), 1000).await;
            let lines: Vec<&str> = got.lines().collect();
            assert_eq!((lines[0], lines[2]), ("{\"a\":1}", "{\"b\":1}"));
            let error: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
            assert_eq!((&error["id"], &error["error"]["code"]), (&42.into(), &TOO_LARGE.into()));
        }
    }

    #[tokio::test]
    async fn an_id_inside_the_data_is_not_taken_for_the_answers() {
        let big = "x".repeat(5000);
        let inside = format!("{{\"method\":\"log\",\"params\":{{\"t\":\"{big}\",\"id\":7}}}}\n");
        assert_eq!(through(&inside, 1000).await, "");
    }

    #[test]
    fn a_long_line_is_not_kept() {
        let mut line = Line::default();
        for _ in 0..1000 {
            line.push(&[b'x'; 65536], 100_000);
        }
        assert!(line.text.capacity() <= 2 * KEPT && line.tail.unwrap().capacity() <= 4 * KEPT);
    }
}
