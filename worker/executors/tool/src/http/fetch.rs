//! One HTTP exchange with bounded body, vetted redirects and typed failures.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER},
};

use super::answer::Answer;
use crate::{
    Effect, Error,
    egress::{self, Egress, Host},
    error::{EXCERPT_BYTES, excerpt},
};

/// Most redirects of one call.
const MAX_REDIRECTS: usize = 3;
/// Longest pause that a callee can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// A request ready to be sent.
#[derive(Debug)]
pub(crate) struct Request {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Option<Bytes>,
    /// Who chose the host of `url`.
    pub host: Host,
    /// Of the tool, for the class of a lost connection.
    pub effect: Effect,
}

/// Sends `request` and reads at most `limit` bytes of the answer.
///
/// A GET follows redirects; to another origin they go without headers and only where
/// a host that the operator did not write may go.
pub(crate) async fn fetch(egress: &Egress, mut request: Request, limit: usize) -> Result<Answer, Error> {
    for _ in 0..=MAX_REDIRECTS {
        if request.host == Host::Stranger {
            egress.vet_url(&request.url)?;
        }
        let response = send(egress, &request).await?;
        let Some(next) = redirect(&request, &response)? else {
            return finish(&request, response, limit).await;
        };
        if next.origin() != request.url.origin() {
            request.host = Host::Stranger;
            request.headers.clear();
        }
        request.url = next;
    }
    Err(Error::Failed { message: format!("more than {MAX_REDIRECTS} redirects") })
}

async fn send(egress: &Egress, request: &Request) -> Result<Response, Error> {
    let client = egress.client(request.host);
    let mut builder =
        client.request(request.method.clone(), request.url.clone()).headers(request.headers.clone());
    if let Some(body) = &request.body {
        builder = builder.body(body.clone());
    }
    builder.send().await.map_err(|error| failure(request, &error))
}

fn failure(request: &Request, error: &reqwest::Error) -> Error {
    if let Some(refused) = egress::refusal(&request.url, error) {
        return refused;
    }
    let (target, message) = (egress::shown(&request.url), causes(error));
    if error.is_builder() || error.is_request() && message.contains("valid Uri") {
        // nothing was sent and nothing will ever be, for example because the URL is too long
        return Error::Failed { message: format!("the request to {target} can't be made: {message}") };
    }
    if error.is_connect() {
        return Error::Unreachable { target, message };
    }
    Error::Interrupted { target, message, effect: request.effect }
}

/// Causes only: the error's own text repeats the URL with its query.
fn causes(error: &reqwest::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => egress::chain(source),
        None => "the connection failed".to_owned(),
    }
}

fn redirect(request: &Request, response: &Response) -> Result<Option<Url>, Error> {
    let status = response.status();
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok()).unwrap_or_default();
    let refuse = |why: &str| Error::Status { status: status.as_u16(), excerpt: why.to_owned() };
    if request.method != Method::GET {
        return Err(refuse("a redirect is followed for GET only"));
    }
    match request.url.join(location) {
        Ok(next) if !location.is_empty() && matches!(next.scheme(), "http" | "https") => Ok(Some(next)),
        _ => Err(refuse("a redirect without a usable location")),
    }
}

async fn finish(request: &Request, response: Response, limit: usize) -> Result<Answer, Error> {
    let status = response.status();
    if !status.is_success() {
        return Err(refused(status, response).await);
    }
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(Error::OutputTooLarge { limit });
    }
    let content_type = response.headers().get(CONTENT_TYPE).cloned();
    let mut body = BytesMut::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        // The status said success, so the call took effect; what is lost is the answer.
        let chunk = chunk.map_err(|e| failure(request, &e))?;
        if body.len() + chunk.len() > limit {
            return Err(Error::OutputTooLarge { limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { content_type: content_type.as_ref().map(text).unwrap_or_default(), body: body.freeze() })
}

async fn refused(status: StatusCode, response: Response) -> Error {
    let retry_after = response.headers().get(RETRY_AFTER).map(text).as_deref().and_then(parse_retry_after);
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    // A broken error page is still an error page.
    while let Some(Ok(chunk)) = chunks.next().await {
        body.extend_from_slice(&chunk[..chunk.len().min(EXCERPT_BYTES + 1 - body.len())]);
        if body.len() > EXCERPT_BYTES {
            break;
        }
    }
    let excerpt = excerpt(&String::from_utf8_lossy(&body));
    match status {
        StatusCode::TOO_MANY_REQUESTS => Error::RateLimited { retry_after, excerpt },
        status => Error::Status { status: status.as_u16(), excerpt },
    }
}

/// `Retry-After` in either of its forms: seconds or an HTTP date. At most one day.
pub(crate) fn parse_retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(pause.min(MAX_RETRY_AFTER))
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_table() {
        assert_eq!(parse_retry_after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after("99999999"), Some(MAX_RETRY_AFTER));
        assert_eq!(parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("Tue, 31 Dec 2999 23:59:59 GMT"), Some(MAX_RETRY_AFTER));
        assert_eq!(parse_retry_after("soon"), None);
        assert_eq!(parse_retry_after("-1"), None);
    }
}
