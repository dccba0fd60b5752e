//! One call from request to response, under its time limits.
//!
//! Dropping the future at any await drops the response, which closes the HTTP/1.1 connection or
//! resets the HTTP/2 stream: the provider sees the cancel at once.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use reqwest::Response;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, timeout_at};

use crate::providers::{ModelRef, Named};
use crate::report::Report;
use crate::sse::{Decoder, SseError};
use crate::turn::{Fault, Progress, Sink, Turn};
use crate::{
    ChatEvent, ChatRequest, ChatResponse, Error, FinishReason, Kind, Limits, Providers, StructuredOutput,
    answer, redact, retry_after, wire,
};

/// Most bytes of an error body that are read, and for how long.
const MAX_ERROR_BODY: usize = 64 << 10;
const ERROR_BODY_TIME: Duration = Duration::from_secs(5);
/// How long usage and the end mark may lag behind a complete answer.
const TAIL_TIME: Duration = Duration::from_secs(2);
/// How long a finished response is read to its end so that its connection can be used again.
const DRAIN_TIME: Duration = Duration::from_secs(1);

impl Providers {
    /// Calls the model and returns its whole answer; `on` sees it grow. `on` runs between reads
    /// of the stream and must not block.
    ///
    /// Cancel by dropping the future.
    ///
    /// # Errors
    /// See [`Kind`]; [`Error::class`] says what to do.
    pub async fn chat(
        &self,
        request: &ChatRequest,
        limits: Limits,
        mut on: impl FnMut(ChatEvent<'_>) + Send,
    ) -> Result<ChatResponse, Error> {
        let started = Instant::now();
        let model = self.resolve(&request.model)?;
        let (named, missing) = match model.provider.find_named() {
            Ok(named) => (named, None),
            Err(missing) => (Named::default(), Some(missing)),
        };
        let call = Call { providers: self, model: &model, request, limits, started, named, missing };
        let result = call.run(&mut on).await;
        match &result {
            Ok(response) => tracing::debug!(
                model = %response.model,
                ttft_ms = response.ttft.as_millis() as u64,
                duration_ms = response.duration.as_millis() as u64,
                input_tokens = response.usage.input,
                output_tokens = response.usage.output,
                "llm call done"
            ),
            Err(error) => tracing::debug!(%error, "llm call failed"),
        }
        result
    }
}

struct Call<'a> {
    providers: &'a Providers,
    model: &'a ModelRef,
    request: &'a ChatRequest,
    limits: Limits,
    started: Instant,
    /// Secrets that were looked up for this call.
    named: Named,
    /// Where one of them should be and is not.
    missing: Option<String>,
}

/// Passes events on and puts `FirstToken` in front of them.
struct First<'a, 's> {
    on: &'a mut Sink<'s>,
    at: Option<Instant>,
}

/// What the time limits look at.
struct Clock {
    limits: Limits,
    total_at: Instant,
    /// When the limit that now applies, besides the total, runs out.
    next_at: Instant,
    next: Kind,
}

impl Call<'_> {
    async fn run(&self, on: &mut Sink<'_>) -> Result<ChatResponse, Error> {
        let provider = &self.model.provider;
        if let Some(variable) = provider.missing_key.clone() {
            return Err(self.error(Kind::MissingKey { variable }));
        }
        if let Some(missing) = self.missing.clone() {
            return Err(self.error(Kind::MissingSecret(missing)));
        }
        let (headers, body) = self.prepare().map_err(|kind| self.error(kind))?;

        let total_at = after(self.started, self.limits.total);
        let _slot = timeout_at(total_at, provider.in_flight.acquire())
            .await
            .map_err(|_| self.error(Kind::TotalTimeout(self.limits.total)))?
            .map_err(|_| self.error(Kind::InvalidConfig("no slots".into())))?;
        let lease = provider.clients.lease().map_err(|kind| self.error(kind))?;

        let sent = Instant::now();
        let mut clock = Clock {
            limits: self.limits,
            total_at,
            next_at: after(sent, self.limits.first_token),
            next: Kind::FirstTokenTimeout(self.limits.first_token),
        };
        let sending = lease.client.post(provider.endpoint.clone()).headers(headers).body(body).send();
        let response = clock
            .within(sending)
            .await
            .map_err(|kind| self.error(kind))?
            .map_err(|error| self.error(transport(&error)))?;

        let status = response.status().as_u16();
        let request_id = request_id(response.headers());
        let (turn, first) = match self.read(response, &mut clock, on).await {
            Ok(done) => done,
            Err(error) => return Err(error.with_response(status, request_id)),
        };
        self.conclude(turn, first.duration_since(sent))
            .map_err(|error| error.with_response(status, request_id))
    }

    /// Headers and body, or why the request cannot be sent.
    fn prepare(&self) -> Result<(HeaderMap, Vec<u8>), Kind> {
        let invalid = |reason: &str| Kind::InvalidRequest(reason.to_owned());
        if self.request.messages.is_empty() {
            return Err(invalid("there is no message"));
        }
        if self.request.max_tokens == Some(0) {
            return Err(invalid("max_tokens is 0"));
        }
        if let Some(schema) = &self.request.output_schema {
            answer::check_schema(schema).map_err(|reason| invalid(&format!("output_schema: {reason}")))?;
        }
        let mut headers = self.model.provider.headers.clone();
        headers.extend(self.named.headers.iter().cloned());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        for (name, value) in [
            ("x-trireme-run", &self.request.metadata.run),
            ("x-trireme-task", &self.request.metadata.task),
            ("idempotency-key", &self.request.idempotency_key),
        ] {
            let Some(value) = value else { continue };
            let value = HeaderValue::from_bytes(value.as_bytes())
                .map_err(|_| invalid(&format!("{name} cannot be a header")))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        let body = wire::body(self.model, self.request).map_err(|error| invalid(&error.to_string()))?;
        Ok((headers, body))
    }

    /// Reads a response to its end: the turn and the time of its first token.
    async fn read(
        &self,
        mut response: Response,
        clock: &mut Clock,
        on: &mut Sink<'_>,
    ) -> Result<(Turn, Instant), Error> {
        let status = response.status().as_u16();
        let content_type = content_type(response.headers());
        let not_stream = ["application/json", "text/html"].contains(&content_type.as_str());
        if status != 200 || not_stream {
            return Err(self.refusal(response, &content_type, clock).await);
        }
        let answer_tool = (self.request.output_schema.is_some()
            && self.model.structured_output() == StructuredOutput::Tool)
            .then_some(wire::ANSWER);
        let mut turn = Turn::new(self.providers.bounds, answer_tool);
        turn.keep_broken = self.request.keep_broken_calls;
        let mut stream = wire::Stream::new(self.model.provider.api);
        let mut decoder = Decoder::new(self.providers.bounds.event);
        let mut first = First { on, at: None };
        // The beginning of a body in which no event was found yet, to show what it is.
        let mut head = Vec::new();
        let mut seen_event = false;
        let mut ended = false;
        while !ended {
            let chunk = match clock.within(response.chunk()).await {
                Ok(Ok(chunk)) => chunk,
                // The answer is complete: what is lost is at most its usage.
                Ok(Err(_)) | Err(_) if stream.complete(&turn) => break,
                Ok(Err(error)) => return Err(self.error(lost(&error))),
                Err(kind) => return Err(self.error(kind)),
            };
            let mut progress = false;
            let mut event = |data: &[u8]| {
                seen_event = true;
                if ended {
                    return Ok(());
                }
                let got = stream.event(data, &mut turn, &mut |event| first.event(event))?;
                progress |= got == Progress::Made;
                ended = got == Progress::End;
                Ok(())
            };
            let last = chunk.is_none();
            let decoded = match &chunk {
                Some(chunk) => decoder.push(chunk, &mut event),
                None => decoder.finish(&mut event),
            };
            match decoded {
                Ok(()) => {}
                // What stands half-written at the end of a stream is a cut, not nonsense.
                Err(SseError::Refused(Fault::Garbage(..))) if last => {
                    return Err(self.error(Kind::CutStream));
                }
                Err(SseError::Refused(fault)) => return Err(self.fault(fault)),
                Err(SseError::TooLarge) => {
                    return Err(
                        self.fault(Fault::TooLarge("bytes in one event", self.providers.bounds.event))
                    );
                }
            }
            if let Some(chunk) = chunk.filter(|_| !seen_event && head.len() < 512) {
                head.extend_from_slice(&chunk[..chunk.len().min(512)]);
            }
            if progress {
                first.begin();
                clock.progressed(stream.complete(&turn));
            }
            if last {
                break;
            }
        }
        let complete =
            stream.finish(&mut turn, &mut |event| first.event(event)).map_err(|fault| self.fault(fault))?;
        if complete {
            drain(response).await;
            return Ok((turn, first.at.unwrap_or_else(Instant::now)));
        }
        let head = String::from_utf8_lossy(&head);
        if seen_event || head.trim().is_empty() {
            return Err(self.error(Kind::CutStream));
        }
        let reason = format!("no event in a body of type `{content_type}`");
        Err(self.fault(Fault::Garbage(reason, head.into_owned())))
    }

    /// The error of a response that is not an event stream.
    async fn refusal(&self, mut response: Response, content_type: &str, clock: &Clock) -> Error {
        let status = response.status().as_u16();
        let wait = retry_after::retry_after(response.headers(), SystemTime::now());
        let deadline = clock.total_at.min(after(Instant::now(), ERROR_BODY_TIME));
        let mut body = Vec::new();
        // A body that cannot be read only makes the excerpt shorter.
        while body.len() < MAX_ERROR_BODY {
            match timeout_at(deadline, response.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    let room = MAX_ERROR_BODY - body.len();
                    body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                }
                _ => break,
            }
        }
        let report = Report::parse(&String::from_utf8_lossy(&body));
        let kind = match status {
            200..300 if report.understood() && !self.looks_like_answer(&body) => report.kind(None, wait),
            200..300 => {
                Kind::Garbage(format!("http {status} of type `{content_type}` instead of an event stream"))
            }
            _ => report.kind(Some(status), wait),
        };
        self.error(kind).with_excerpt(self.excerpt(&report.words()))
    }

    /// A whole answer in one body: the server did not stream, which is no error report.
    fn looks_like_answer(&self, body: &[u8]) -> bool {
        let value: Option<serde_json::Value> = serde_json::from_slice(body).ok();
        value.is_some_and(|v| v.get("choices").is_some() || v.get("content").is_some())
    }

    fn conclude(&self, mut turn: Turn, ttft: Duration) -> Result<ChatResponse, Error> {
        let was_answer_call = turn.answer.is_some();
        let (json, json_repaired) = match &self.request.output_schema {
            None => (None, false),
            Some(schema) => match answer::read(&mut turn, schema) {
                Ok(Some((value, repaired))) => (Some(value), repaired),
                Ok(None) => (None, false),
                Err(unfit) => {
                    return Err(self
                        .error(Kind::InvalidOutput(unfit.reason))
                        .with_excerpt(self.excerpt(&unfit.words)));
                }
            },
        };
        let tool_calls = turn.take_calls();
        let finish_reason = match turn.finish {
            Some(FinishReason::ToolCalls) if was_answer_call && tool_calls.is_empty() => FinishReason::Stop,
            Some(reason) => reason,
            None => FinishReason::Stop,
        };
        let usage = turn.usage.unwrap_or_default();
        let prices = self.model.config.prices.filter(|_| turn.usage.is_some());
        Ok(ChatResponse {
            text: turn.text,
            tool_calls,
            finish_reason,
            usage,
            usage_reported: turn.usage.is_some(),
            cost_usd_micros: prices.map(|prices| prices.cost_usd_micros(&usage)),
            ttft,
            duration: self.started.elapsed(),
            model: format!("{:?}", self.model),
            served_model: turn.model,
            id: turn.id,
            json,
            json_repaired,
        })
    }

    fn error(&self, kind: Kind) -> Error {
        Error::new(kind).of(self.model.provider(), self.model.model())
    }

    fn fault(&self, fault: Fault) -> Error {
        match fault {
            Fault::Garbage(reason, seen) => {
                self.error(Kind::Garbage(reason)).with_excerpt(self.excerpt(&seen))
            }
            Fault::Invalid(reason) => self.error(Kind::InvalidOutput(reason)),
            Fault::TooLarge(what, bound) => self.error(Kind::TooLarge { what, bound }),
            Fault::Reported(body) => {
                let report = Report::parse(&body);
                self.error(report.kind(None, None)).with_excerpt(self.excerpt(&report.words()))
            }
        }
    }

    fn excerpt(&self, text: &str) -> String {
        let secrets = self.model.provider.secrets.iter().chain(&self.named.secrets).map(String::as_str);
        redact::excerpt(text, secrets, self.request.texts())
    }
}

impl First<'_, '_> {
    fn event(&mut self, event: ChatEvent<'_>) {
        if !matches!(event, ChatEvent::Usage(_)) {
            self.begin();
        }
        (self.on)(event);
    }

    fn begin(&mut self) {
        if self.at.is_none() {
            self.at = Some(Instant::now());
            (self.on)(ChatEvent::FirstToken);
        }
    }
}

impl Clock {
    async fn within<F: Future>(&self, future: F) -> Result<F::Output, Kind> {
        let at = self.total_at.min(self.next_at);
        timeout_at(at, future).await.map_err(|_| {
            if self.total_at <= self.next_at {
                Kind::TotalTimeout(self.limits.total)
            } else {
                self.next.clone()
            }
        })
    }

    fn progressed(&mut self, complete: bool) {
        let stall = self.limits.stall;
        let time = if complete { stall.min(TAIL_TIME) } else { stall };
        self.next_at = after(Instant::now(), time);
        self.next = Kind::StallTimeout(stall);
    }
}

/// `at + span`, or so far away that it does not matter.
fn after(at: Instant, span: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
    at + span.min(FAR)
}

/// Lets the connection go back to the pool. Usually the end is already there; otherwise it is
/// awaited apart from the call, within bounds.
async fn drain(mut response: Response) {
    let ready = {
        let mut next = pin!(response.chunk());
        poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await
    };
    if matches!(ready, Poll::Ready(Ok(None) | Err(_))) {
        return;
    }
    tokio::spawn(async move {
        let deadline = Instant::now() + DRAIN_TIME;
        let mut left = MAX_ERROR_BODY;
        while let Ok(Ok(Some(chunk))) = timeout_at(deadline, response.chunk()).await {
            match left.checked_sub(chunk.len()) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    });
}

fn transport(error: &reqwest::Error) -> Kind {
    match error {
        e if e.is_connect() => Kind::Connect(root_cause(e)),
        e if e.is_builder() => Kind::InvalidRequest(root_cause(e)),
        e => lost(e),
    }
}

fn lost(error: &reqwest::Error) -> Kind {
    Kind::ConnectionLost(root_cause(error))
}

/// The innermost cause; reqwest's own message adds only the URL.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string().chars().take(300).collect()
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("x-request-id").or_else(|| headers.get("request-id"))?;
    Some(id.to_str().ok()?.chars().take(256).collect())
}

/// The media type without parameters, in lower case.
fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let value = value.unwrap_or_default().split(';').next();
    let value = value.unwrap_or_default().trim();
    value.chars().take(64).collect::<String>().to_lowercase()
}
