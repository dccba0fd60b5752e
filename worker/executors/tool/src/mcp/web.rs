//! The HTTP client under a streamable HTTP session: reqwest's, with two differences.
//!
//! A refusal without an id fails the call at once instead of leaving it waiting. And an event over the limit makes rmcp end the whole session, and every call on it would fail. Here
//! it ends only the stream of the call that it answers, which gets an error of our own instead.

use std::{collections::HashMap, future::Future, sync::Arc};

use futures::{StreamExt, stream::BoxStream};
use reqwest::header::{HeaderName, HeaderValue};
use rmcp::{
    model::{ClientJsonRpcMessage, JsonRpcMessage, RequestId},
    transport::streamable_http_client::{
        SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
        StreamableHttpResponseLimits,
    },
};
use serde_json::json;
use sse_stream::Sse;

use super::stdout::TOO_LARGE;

/// reqwest's client, with large events answered for.
#[derive(Clone)]
pub(super) struct Web(reqwest::Client);

type Failure = StreamableHttpError<reqwest::Error>;
type Headers = HashMap<HeaderName, HeaderValue>;
type Events = BoxStream<'static, Result<Sse, SseError>>;

// === impl Web ===

impl Web {
    /// Redirects and proxies are off: the address is the operator's, no other is.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client =
            reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self(client))
    }
}

impl StreamableHttpClient for Web {
    type Error = reqwest::Error;

    fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        headers: Headers,
    ) -> impl Future<Output = Result<StreamableHttpPostResponse, Failure>> + Send + '_ {
        self.0.post_message(uri, message, session, auth, headers)
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        headers: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let id = match &message {
            JsonRpcMessage::Request(request) => Some(request.id.clone()),
            _ => None,
        };
        let sent = self.0.post_message_with_response_limits(uri, message, session, auth, headers, limits);
        Ok(match (sent.await?, id) {
            (StreamableHttpPostResponse::Sse(events, session), Some(id)) => {
                StreamableHttpPostResponse::Sse(answer_large(events, id), session)
            }
            // A refusal that does not know what it refuses, above all `no such session` after the
            // server was restarted: rmcp would go on waiting for an answer with the right id.
            (StreamableHttpPostResponse::Json(JsonRpcMessage::Error(refusal), _), Some(id))
                if refusal.id.as_ref() != Some(&id) =>
            {
                let text = format!("HTTP 400 refused: {}", refusal.error.message);
                return Err(StreamableHttpError::UnexpectedServerResponse(text.into()));
            }
            (other, _) => other,
        })
    }

    fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        auth: Option<String>,
        headers: Headers,
    ) -> impl Future<Output = Result<(), Failure>> + Send + '_ {
        self.0.delete_session(uri, session, auth, headers)
    }

    fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last: Option<String>,
        auth: Option<String>,
        headers: Headers,
    ) -> impl Future<Output = Result<Events, Failure>> + Send + '_ {
        self.0.get_stream(uri, session, last, auth, headers)
    }

    fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last: Option<String>,
        auth: Option<String>,
        headers: Headers,
        limit: usize,
    ) -> impl Future<Output = Result<Events, Failure>> + Send + '_ {
        self.0.get_stream_with_max_sse_event_size(uri, session, last, auth, headers, limit)
    }
}

/// Puts an error answer to `id` in the place of an event over the limit.
fn answer_large(events: Events, id: RequestId) -> Events {
    let events = events.map(move |event| match event {
        // rmcp keeps the type of this error to itself, so its words have to do.
        Err(SseError::Body(error)) if error.to_string().contains("exceeded the maximum size") => {
            let answer = json!({"jsonrpc": "2.0", "id": id, "error": {"code": TOO_LARGE, "message": "output too large"}});
            Ok(Sse::default().data(answer.to_string()))
        }
        other => other,
    });
    Box::pin(events)
}
