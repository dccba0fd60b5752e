//! Server-sent events out of arbitrary chunks, with a bound.
//!
//! Why not `eventsource-stream`: its buffer has no bound, so one endless line from a broken
//! provider would take the worker's memory. Fields other than `data` are dropped because both
//! APIs repeat the event's name inside its JSON. Rules: WHATWG HTML, "Server-sent events".

/// Why a stream was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SseError<E> {
    /// One event is larger than the bound.
    TooLarge,
    /// The receiver of the events refused one.
    Refused(E),
}

/// An incremental decoder; its memory is at most about twice the bound, usually under 1 KiB.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// The unfinished line.
    line: Vec<u8>,
    /// `data` lines of the unfinished event, joined by newlines.
    data: Vec<u8>,
    has_data: bool,
    /// The last byte was CR, so a LF that follows belongs to the same line end.
    after_cr: bool,
    at_start: bool,
    max: usize,
}

impl Decoder {
    pub(crate) fn new(max: usize) -> Self {
        Self { line: Vec::new(), data: Vec::new(), has_data: false, after_cr: false, at_start: true, max }
    }

    /// Feeds a chunk; `event` gets the data of each event that it completes.
    pub(crate) fn push<E>(
        &mut self,
        mut chunk: &[u8],
        event: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), SseError<E>> {
        while !chunk.is_empty() {
            if std::mem::take(&mut self.after_cr) && chunk[0] == b'\n' {
                chunk = &chunk[1..];
                continue;
            }
            let end = chunk.iter().position(|&b| b == b'\n' || b == b'\r');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            if self.line.len() + self.data.len() + part.len() > self.max {
                return Err(SseError::TooLarge);
            }
            let Some(end) = end else {
                self.line.extend_from_slice(part);
                return Ok(());
            };
            self.after_cr = chunk[end] == b'\r';
            if self.line.is_empty() {
                self.end_line(part, event)?;
            } else {
                self.line.extend_from_slice(part);
                let line = std::mem::take(&mut self.line);
                self.end_line(&line, event)?;
                self.line = line;
                self.line.clear();
            }
            chunk = &chunk[end + 1..];
        }
        Ok(())
    }

    /// The stream ended: an event that lacks only its last blank line still counts, since some
    /// servers close right after `data: [DONE]`.
    pub(crate) fn finish<E>(
        &mut self,
        event: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), SseError<E>> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.end_line(&line, event)?;
        }
        self.end_line(b"", event)
    }

    fn end_line<E>(
        &mut self,
        mut line: &[u8],
        event: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), SseError<E>> {
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            if !std::mem::take(&mut self.has_data) {
                return Ok(());
            }
            let data = std::mem::take(&mut self.data);
            let result = event(&data).map_err(SseError::Refused);
            self.data = data;
            self.data.clear();
            return result;
        }
        let Some(value) = line.strip_prefix(b"data") else {
            return Ok(());
        };
        let value = match value {
            [] => value,
            [b':', b' ', value @ ..] | [b':', value @ ..] => value,
            _ => return Ok(()),
        };
        if std::mem::replace(&mut self.has_data, true) {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn decode(chunks: &[&[u8]]) -> Vec<String> {
        let mut out = Vec::new();
        let mut decoder = Decoder::new(1 << 20);
        let mut event = |data: &[u8]| -> Result<(), Infallible> {
            out.push(String::from_utf8_lossy(data).into_owned());
            Ok(())
        };
        for chunk in chunks {
            decoder.push(chunk, &mut event).unwrap();
        }
        decoder.finish(&mut event).unwrap();
        out
    }

    #[test]
    fn line_ends_comments_and_joined_data() {
        let text = "\u{feff}: hi\r\n\r\nevent: x\ndata: a\r\rdata:b\ndata: c\nid: 1\n\ndata\n\ndatax: no\n\ndata: [DONE]";
        assert_eq!(decode(&[text.as_bytes()]), ["a", "b\nc", "", "[DONE]"]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut decoder = Decoder::new(64);
        let mut event = |_: &[u8]| -> Result<(), Infallible> { Ok(()) };
        decoder.push(&[b'x'; 64], &mut event).unwrap();
        assert_eq!(decoder.push(b"y", &mut event), Err(SseError::TooLarge));
        // Many short data lines of one event count together.
        let mut decoder = Decoder::new(64);
        let mut push = || decoder.push(b"data: 0123456789\n", &mut event);
        assert!((0..10).any(|_| push().is_err()));
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_events(
            text in "(data: ?[a-zé😀]{0,5}|:c|event: e|x|)(\r\n|\n|\r)(data:[a-z]{0,3}\n|\n|\r\n|\r){0,9}",
            cuts in prop::collection::vec(0usize..80, 0..8),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<_> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(decode(&chunks), decode(&[bytes]));
        }
    }
}
