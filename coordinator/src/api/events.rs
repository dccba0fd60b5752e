//! A run's log as server-sent events, from any point on, on any coordinator.
//!
//! The log lives in the store and an event's id is its place there, so a stream has no state of its own: a
//! client that comes back with the last id it saw gets what follows, without gap or repeat.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture, stream};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, sleep_until},
};
use trireme_backend::{Events, Watch};
use trireme_model::{Event, RunId};

use super::{
    App,
    problem::Problem,
    query::{self, Id, Position},
};
use crate::{access::Who, metrics::Open};

/// Events read from the store at a time: what a stream holds in memory.
const BATCH: usize = 500;
/// Failed reads in a row, one poll interval apart, before a stream ends and leaves it to the client to come
/// back, perhaps to another coordinator.
const MAX_FAILURES: u32 = 30;

/// The last words to a follower whose key was revoked.
const REVOKED: &str = ": the API key was revoked\n\n";

/// One client that follows one run.
struct Follower {
    app: Arc<App>,
    run: RunId,
    watch: Watch,
    /// The epoch that `next` counts in.
    epoch: String,
    /// Sequence number of the next event to send.
    next: u64,
    /// Read and not sent yet.
    ready: VecDeque<Bytes>,
    /// The log as read so far ends before `next`: wait for growth before reading again.
    drained: bool,
    failures: u32,
    ended: bool,
    /// Comes true when the follower's key was revoked; not asked again then.
    revoked: BoxFuture<'static, ()>,
    _open: Open,
    _permit: OwnedSemaphorePermit,
}

/// `GET /v1/runs/{id}/events`
pub async fn follow(
    State(app): State<Arc<App>>,
    Who(who): Who,
    Id(run): Id,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let after = query::after(&uri)?;
    // a browser that reconnects sends the header and repeats the address it began with: the header is newer
    let seen = last_event_id(&headers)?.or(after);
    let permit = app.admit_follower()?;
    app.own_run(&who, &run).await?;
    let watch = app.backend.watch(&run).await?;
    // reading begins at the event seen last, to find out whether that was the end
    let from = seen.as_ref().map_or(0, |position| position.seq);
    let read = app.backend.events(&run, from, BATCH).await?.ok_or_else(|| Problem::no_run(&run))?;

    let open = Open::count(&app.metrics.streams);
    let mut follower = Follower {
        watch,
        epoch: read.epoch.clone(),
        next: from,
        ready: VecDeque::from([Bytes::from_static(b"retry: 1000\n\n")]),
        drained: false,
        failures: 0,
        ended: false,
        revoked: app.keyring.clone().revoked(who).boxed(),
        _open: open,
        _permit: permit,
        run,
        app,
    };
    match seen {
        Some(position) if position.epoch == read.epoch && position.seq < read.length => {
            let mut events = read.events;
            let last =
                events.first().is_some_and(|(seq, event)| *seq == position.seq && event.what.ends_run());
            if last {
                // tells an `EventSource` not to come back
                return Ok(StatusCode::NO_CONTENT.into_response());
            }
            follower.next = position.seq + 1;
            events.retain(|(seq, _)| *seq > position.seq);
            follower.take(Events { events, ..read });
        }
        Some(_) => follower.reset(read.epoch),
        None => follower.take(read),
    }
    let stream = stream::unfold(follower, |mut follower| async move {
        let chunk = follower.chunk().await?;
        Some((Ok::<_, Infallible>(chunk), follower))
    });
    let head = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        // nginx would hold events back otherwise
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((head, Body::from_stream(stream)).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Position>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let text = value.to_str().unwrap_or("?");
    // browsers send an empty one after a stream without ids
    if text.is_empty() { Ok(None) } else { Position::parse("Last-Event-ID", text).map(Some) }
}

impl Follower {
    /// The next piece of the stream; `None` at its end. The client's pace is the only pace: nothing is read
    /// from the store before the last piece was taken.
    async fn chunk(&mut self) -> Option<Bytes> {
        let silent_until = Instant::now() + self.app.config.keep_alive;
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(chunk);
            }
            if self.ended {
                return None;
            }
            if (&mut self.revoked).now_or_never().is_some() {
                self.end(REVOKED);
                continue;
            }
            if self.drained {
                tokio::select! {
                    // while reads fail, only time helps
                    () = self.watch.changed(), if self.failures == 0 => {}
                    () = sleep(self.app.config.poll) => {}
                    () = sleep_until(silent_until) => return Some(Bytes::from_static(b": keep-alive\n\n")),
                    () = &mut self.revoked => {
                        self.end(REVOKED);
                        continue;
                    }
                    () = self.app.shutdown.cancelled() => {
                        self.end(": this coordinator is shutting down; come back to another\n\n");
                        continue;
                    }
                }
            } else if self.app.shutdown.is_cancelled() {
                self.end(": this coordinator is shutting down; come back to another\n\n");
                continue;
            }
            match self.app.backend.events(&self.run, self.next, BATCH).await {
                Ok(Some(read)) => self.take(read),
                Ok(None) => self.end(": the run was forgotten\n\n"),
                Err(error) => self.failed(&error),
            }
        }
    }

    fn take(&mut self, read: Events) {
        // events of before the follower came are late by no fault of ours
        let waited = self.drained && self.failures == 0;
        self.failures = 0;
        if read.epoch != self.epoch || read.length < self.next {
            return self.reset(read.epoch);
        }
        let mut text = Vec::with_capacity(read.events.len() * 128);
        let mut sent = 0;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for (seq, event) in &read.events {
            if waited {
                let lag = now.saturating_sub(Duration::from_millis(event.at));
                self.app.metrics.event_lag.observe(lag.as_secs_f64());
            }
            write_event(&mut text, &self.epoch, *seq, event);
            self.next = seq + 1;
            sent += 1;
            if event.what.ends_run() {
                self.ended = true;
                break;
            }
        }
        self.drained = self.next >= read.length || read.events.is_empty();
        if sent > 0 {
            self.app.metrics.events.inc_by(sent);
            self.ready.push_back(text.into());
        }
    }

    /// The store may have gone back in time: what the client saw may not have happened.
    fn reset(&mut self, epoch: String) {
        self.epoch = epoch;
        self.next = 0;
        self.drained = false;
        let data = serde_json::json!({"type": "reset", "epoch": self.epoch});
        // without an id: a client that drops off here has to be reset again
        self.ready.push_back(format!("event: reset\ndata: {data}\n\n").into());
    }

    fn failed(&mut self, error: &trireme_backend::Error) {
        self.failures += 1;
        // wait one poll interval before the next read
        self.drained = true;
        if self.failures == 1 {
            tracing::warn!(run = %self.run, %error, "events can't be read; the stream waits");
        }
        if self.failures >= MAX_FAILURES {
            self.end(": events can't be read; come back later\n\n");
        }
    }

    fn end(&mut self, comment: &'static str) {
        self.ready.push_back(Bytes::from_static(comment.as_bytes()));
        self.ended = true;
    }
}

fn write_event(text: &mut Vec<u8>, epoch: &str, seq: u64, event: &Event) {
    let name = event.what.name();
    text.extend_from_slice(format!("id: {epoch}-{seq}\nevent: {name}\ndata: ").as_bytes());
    let start = text.len();
    if serde_json::to_writer(&mut *text, event).is_err() {
        // only a payload that is no JSON can do that; its event still has its place in the order
        text.truncate(start);
        text.extend_from_slice(format!(r#"{{"at":{},"type":"{name}"}}"#, event.at).as_bytes());
    }
    // a line break inside a JSON text can only be white space: strings escape theirs
    text[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    text.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use trireme_model::{Payload, TaskId, What};

    #[test]
    fn an_event_is_one_line_of_data_whatever_its_payload_looks_like() {
        let error = Payload::from_json("{\n  \"message\": \"a\\nb\"\r\n}");
        let what = What::TaskFailed { task: TaskId::new("a").unwrap(), error };
        let mut text = Vec::new();
        write_event(&mut text, "e", 7, &Event { at: 1, what });
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<&str> = text.split(['\n', '\r']).collect();
        assert_eq!(lines[..2], ["id: e-7", "event: task.failed"]);
        let data: Event = serde_json::from_str(lines[2].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data.what.name(), "task.failed");
        assert_eq!(lines[3..], ["", ""]);
    }
}
