//! Reading a spec from a request: its media type, within a size and a time.

use axum::{
    body::{Body, BodyDataStream},
    extract::Request,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::{
    App,
    problem::{Code, Problem},
};
use crate::{Config, Format};

/// A body over the limit is answered at once, and then read and dropped up to this many times the limit, so that a
/// client that sends before it listens gets to see the answer instead of a broken pipe.
const DRAIN: usize = 8;
/// Bytes of one permit of [`App::room`](super::App).
pub const UNIT: usize = 1024;

/// A body that was read whole.
pub struct Spec {
    pub text: String,
    pub format: Format,
    /// Held for as long as the text is needed.
    pub room: Option<OwnedSemaphorePermit>,
}

/// Reads the whole body and says in which language it is.
pub async fn read(request: Request, app: &App) -> Result<Spec, Problem> {
    let config = &app.config;
    let declared = declared_format(request.headers())?;
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > config.max_body) {
        // who asks whether to send it waits for our word
        if !request.headers().contains_key(header::EXPECT) {
            drain(request.into_body().into_data_stream(), config);
        }
        return Err(too_large(config));
    }
    let late = |_| {
        let limit = config.body_timeout;
        Problem::new(Code::BodyTimeout, format!("the body did not arrive within {limit:?}"))
    };
    let (bytes, room) =
        timeout(config.body_timeout, collect(request.into_body(), app)).await.map_err(late)??;
    let text = String::from_utf8(bytes.into()).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Problem::new(Code::MalformedBody, format!("the body is not UTF-8 text: byte {at} is wrong"))
    })?;
    let format = declared.unwrap_or_else(|| sniff(&text));
    Ok(Spec { text, format, room })
}

/// Takes room for what has come, never for what was announced.
async fn collect(body: Body, app: &App) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Problem> {
    let mut chunks = body.into_data_stream();
    let mut whole = BytesMut::new();
    let mut room: Option<OwnedSemaphorePermit> = None;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            let seen = whole.len();
            Problem::new(Code::MalformedBody, format!("the body broke off after {seen} bytes: {error}"))
        })?;
        if whole.len().saturating_add(chunk.len()) > app.config.max_body {
            drain(chunks, &app.config);
            return Err(too_large(&app.config));
        }
        whole.extend_from_slice(&chunk);
        let held = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = whole.len().div_ceil(UNIT).saturating_sub(held);
        let full = |_| Problem::overloaded("submits", app.config.max_submits);
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let got = app.room.clone().try_acquire_many_owned(more).map_err(full)?;
        match &mut room {
            Some(room) => room.merge(got),
            None => room = Some(got),
        }
    }
    Ok((whole.freeze(), room))
}

/// Reads on beside the answer: as many bytes, and as long, as a body may take.
fn drain(mut chunks: BodyDataStream, config: &Config) {
    let (limit, time) = (config.max_body.saturating_mul(DRAIN), config.body_timeout);
    tokio::spawn(timeout(time, async move {
        let mut seen = 0_usize;
        while let Some(Ok(chunk)) = chunks.next().await {
            seen = seen.saturating_add(chunk.len());
            if seen > limit {
                return;
            }
        }
    }));
}

fn too_large(config: &Config) -> Problem {
    Problem::new(Code::BodyTooLarge, format!("the body is over the limit of {} bytes", config.max_body))
}

/// The language that `Content-Type` names; `None` without the header.
fn declared_format(headers: &HeaderMap) -> Result<Option<Format>, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(None) };
    let text = value.to_str().unwrap_or("?");
    let kind = text.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/json" => Ok(Some(Format::Json)),
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Ok(Some(Format::Yaml)),
        other if other.ends_with("+json") => Ok(Some(Format::Json)),
        other if other.ends_with("+yaml") => Ok(Some(Format::Yaml)),
        _ => {
            let shown: String = text.chars().take(80).collect();
            Err(Problem::new(
                Code::UnsupportedMediaType,
                format!("{shown:?} is not taken: send application/json or application/yaml"),
            ))
        }
    }
}

/// JSON objects begin with a brace, specs in YAML with a key.
fn sniff(text: &str) -> Format {
    if text.trim_start().starts_with('{') { Format::Json } else { Format::Yaml }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_media_type_decides_and_its_parameters_do_not() {
        let of = |kind: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
            declared_format(&headers).map_err(|problem| problem.code)
        };
        assert_eq!(of("application/json"), Ok(Some(Format::Json)));
        assert_eq!(of("Application/JSON; charset=utf-8"), Ok(Some(Format::Json)));
        assert_eq!(of("application/vnd.trireme+yaml"), Ok(Some(Format::Yaml)));
        assert_eq!(of("text/yaml"), Ok(Some(Format::Yaml)));
        assert_eq!(of("text/plain"), Err(Code::UnsupportedMediaType));
        assert_eq!(of("application/x-www-form-urlencoded"), Err(Code::UnsupportedMediaType));
        assert_eq!(declared_format(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn without_a_media_type_a_brace_means_json() {
        assert_eq!(sniff(" \n{\"tasks\": {}}"), Format::Json);
        assert_eq!(sniff("tasks: {}"), Format::Yaml);
    }
}
