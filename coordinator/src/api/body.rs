//! Reading a spec from a request: its media type, within a size and a time.

use axum::{
    body::{Body, BodyDataStream},
    extract::Request,
    http::{HeaderMap, HeaderValue, header},
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
/// What some editors write before the text.
const BOM: char = '\u{feff}';
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
    let declared = declared_format(request.headers())?;
    let (text, room) = text(request, app).await?;
    let format = declared.unwrap_or_else(|| sniff(&text));
    Ok(Spec { text, format, room })
}

/// Reads the whole body where nothing but JSON is taken.
pub async fn read_json(request: Request, app: &App) -> Result<Spec, Problem> {
    if !matches!(declared_format(request.headers()), Ok(None | Some(Format::Json))) {
        return Err(not_taken(request.headers(), "application/json"));
    }
    let (text, room) = text(request, app).await?;
    Ok(Spec { text, format: Format::Json, room })
}

async fn text(request: Request, app: &App) -> Result<(String, Option<OwnedSemaphorePermit>), Problem> {
    let config = &app.config;
    plain(request.headers())?;
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
    let mut text = String::from_utf8(bytes.into()).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Problem::new(Code::MalformedBody, format!("the body is not UTF-8 text: byte {at} is wrong"))
    })?;
    if text.starts_with(BOM) {
        text.drain(..BOM.len_utf8());
    }
    Ok((text, room))
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
        _ => Err(not_taken(headers, "application/json or application/yaml")),
    }
}

fn not_taken(headers: &HeaderMap, send: &str) -> Problem {
    let shown = shown(headers.get(header::CONTENT_TYPE));
    Problem::new(Code::UnsupportedMediaType, format!("{shown:?} is not taken: send {send}"))
}

fn shown(value: Option<&HeaderValue>) -> String {
    value.and_then(|value| value.to_str().ok()).unwrap_or("?").chars().take(80).collect()
}

/// Refuses a body whose bytes are not its text in UTF-8, by its headers.
fn plain(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |detail| Err(Problem::new(Code::UnsupportedMediaType, detail));
    for coding in headers.get_all(header::CONTENT_ENCODING) {
        let coding = shown(Some(coding));
        if !coding.trim().eq_ignore_ascii_case("identity") {
            return refuse(format!("the content coding {coding:?} is not taken: send the body as it is"));
        }
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let parameters = kind.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    for (name, charset) in parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset")) {
        let charset: String = charset.trim().trim_matches('"').chars().take(80).collect();
        if !["utf-8", "utf8"].iter().any(|name| charset.eq_ignore_ascii_case(name)) {
            return refuse(format!("the {} {charset:?} is not taken: send utf-8", name.trim()));
        }
    }
    Ok(())
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
    fn only_utf_8_as_it_is_can_be_read() {
        let of = |kind: &str, coding: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
            headers.insert(header::CONTENT_ENCODING, coding.parse().unwrap());
            plain(&headers).map_err(|problem| (problem.code, problem.detail.into_owned()))
        };
        assert_eq!(of("application/json; charset=\"UTF-8\"; q=1", "Identity"), Ok(()));
        let refused = |detail: &str| Err((Code::UnsupportedMediaType, detail.to_owned()));
        assert_eq!(
            of("application/json", "gzip"),
            refused("the content coding \"gzip\" is not taken: send the body as it is")
        );
        assert_eq!(
            of("application/json; charset=utf-16", "identity"),
            refused("the charset \"utf-16\" is not taken: send utf-8")
        );
    }

    #[test]
    fn without_a_media_type_a_brace_means_json() {
        assert_eq!(sniff(" \n{\"tasks\": {}}"), Format::Json);
        assert_eq!(sniff("tasks: {}"), Format::Yaml);
    }
}
