//! Time limits, cancellation, the bound of calls in flight, and reuse of connections.

use std::num::NonZeroUsize;

use super::*;

const PING: &str = r#"{"type":"ping"}"#;

async fn with_limits(script: Vec<Step>, api: Api, limits: Limits) -> Error {
    let server = Server::start(vec![script]).await;
    let providers = Providers::new(config(&server, api)).unwrap();
    let request = ChatRequest::new("p/m", PROMPT);
    providers.chat(&request, limits, |_| {}).await.unwrap_err()
}

#[tokio::test]
async fn a_late_first_token() {
    let limits = Limits { first_token: SOON, ..limits() };
    let role = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#;
    let keep_alive = Step::Repeat(": keep-alive\n\n".into());
    for script in [
        vec![Step::Hang],
        // Neither headers, nor an empty first frame, nor keep-alives are tokens.
        vec![stream_head(), Step::Hang],
        vec![stream_head(), events(&[role]), Step::Hang],
        vec![stream_head(), keep_alive],
    ] {
        let error = with_limits(script, Api::OpenAi, limits).await;
        assert_eq!(error.class(), Class::FirstTokenTimeout);
        assert_eq!(error.kind(), &Kind::FirstTokenTimeout(SOON));
    }
    let start = r#"{"type":"message_start","message":{"id":"m"}}"#;
    let pings = Step::Repeat(format!("data: {PING}\n\n"));
    let script = vec![stream_head(), events(&[start]), pings];
    let error = with_limits(script, Api::Anthropic, limits).await;
    assert_eq!(error.class(), Class::FirstTokenTimeout);
}

#[tokio::test]
async fn a_stall_after_the_first_token() {
    let limits = Limits { stall: SOON, ..limits() };
    let keep_alive = Step::Repeat(": keep-alive\n\n".into());
    for last in [Step::Hang, keep_alive] {
        let script = vec![stream_head(), events(&[HELLO]), last];
        let error = with_limits(script, Api::OpenAi, limits).await;
        assert_eq!(error.class(), Class::StallTimeout);
        assert_eq!(error.status(), Some(200));
    }
    let text = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}"#;
    let pings = Step::Repeat(format!("data: {PING}\n\n"));
    let script = vec![stream_head(), events(&[text]), pings];
    let error = with_limits(script, Api::Anthropic, limits).await;
    assert_eq!(error.class(), Class::StallTimeout);
}

#[tokio::test]
async fn the_total_ends_an_answer_that_goes_on() {
    let limits = Limits { total: SOON, ..limits() };
    let tokens = Step::Repeat(format!("data: {HELLO}\n\n"));
    for script in [vec![stream_head(), tokens], vec![Step::Hang]] {
        let error = with_limits(script, Api::OpenAi, limits).await;
        assert_eq!(error.class(), Class::TotalTimeout);
    }
}

#[tokio::test]
async fn a_complete_answer_does_not_wait_for_its_tail() {
    let server = Server::start(vec![vec![stream_head(), events(&[HELLO, STOP]), Step::Hang]]).await;
    let request = ChatRequest::new("fast", PROMPT);
    let limits = Limits { stall: SOON, ..limits() };
    let response = providers(&server).chat(&request, limits, |_| {}).await.unwrap();
    assert_eq!(response.text, "hello");
}

#[tokio::test]
async fn dropping_the_future_is_seen_by_the_server() {
    for script in
        [vec![Step::Hang], vec![stream_head(), Step::Hang], vec![stream_head(), events(&[HELLO]), Step::Hang]]
    {
        let streams = script.len() == 3;
        let mut server = Server::start(vec![script]).await;
        let providers = providers(&server);
        let (tx, mut first) = tokio::sync::mpsc::unbounded_channel();
        let call = tokio::spawn(async move {
            let request = ChatRequest::new("fast", PROMPT);
            let on = move |_: ChatEvent<'_>| tx.send(()).unwrap_or_default();
            providers.chat(&request, limits(), on).await
        });
        server.request().await;
        if streams {
            first.recv().await.unwrap();
        }
        call.abort();
        server.gone().await;
    }
}

#[tokio::test]
async fn waiting_for_a_slot_counts_to_the_total() {
    let mut server = Server::start(vec![vec![Step::Hang]]).await;
    let mut config = config(&server, Api::OpenAi);
    config.providers.get_mut("p").unwrap().max_in_flight = NonZeroUsize::new(1);
    let providers = Providers::new(config).unwrap();
    let holder = providers.clone();
    let first = tokio::spawn(async move {
        let request = ChatRequest::new("fast", PROMPT);
        holder.chat(&request, limits(), |_| {}).await
    });
    server.request().await;
    let request = ChatRequest::new("fast", PROMPT);
    let soon = Limits { total: SOON, ..limits() };
    let error = providers.chat(&request, soon, |_| {}).await.unwrap_err();
    assert_eq!(error.class(), Class::TotalTimeout);
    assert!(server.nothing_more(), "the second call was sent");
    // The slot comes back when its holder is dropped.
    first.abort();
    server.gone().await;
    let third = tokio::spawn(async move { providers.chat(&request, limits(), |_| {}).await });
    server.request().await;
    third.abort();
}

/// Two thousand calls at once over one client, all held until the last has arrived.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_calls_in_flight() {
    use axum::body::Body;
    use axum::http::header::CONTENT_TYPE;
    use std::sync::Arc;
    use tokio::sync::Barrier;

    const CALLS: usize = 2_000;
    // Both ends of each connection are open in this process.
    trireme_simulator::raise_open_files().unwrap();
    let all_here = Arc::new(Barrier::new(CALLS));
    let answer = move || {
        let all_here = all_here.clone();
        async move {
            all_here.wait().await;
            let body: String = [HELLO, STOP, USAGE, DONE].map(|e| format!("data: {e}\n\n")).concat();
            ([(CONTENT_TYPE, "text/event-stream")], Body::from(body))
        }
    };
    let app = axum::Router::new().fallback(answer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });

    let mut config = Config::default();
    let provider =
        ProviderConfig { base_url: Some(format!("http://{addr}/v1")), ..ProviderConfig::default() };
    config.providers.insert("p".into(), provider);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let providers = Providers::new(config).unwrap();
    let calls = (0..CALLS).map(|_| {
        let providers = providers.clone();
        tokio::spawn(async move {
            let request = ChatRequest::new("p/m", "hi");
            providers.chat(&request, limits(), |_| {}).await
        })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().unwrap().text, "hello");
    }
}

/// Calls one after another share a connection, though reading ends at `[DONE]`.
#[tokio::test]
async fn connections_are_used_again() {
    use axum::body::Body;
    use axum::extract::ConnectInfo;
    use axum::http::header::CONTENT_TYPE;
    use std::net::SocketAddr;

    let (tx, mut peers) = tokio::sync::mpsc::unbounded_channel();
    let answer = move |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move {
        tx.send(peer).unwrap();
        let body: String = [HELLO, STOP, USAGE, DONE].map(|e| format!("data: {e}\n\n")).concat();
        ([(CONTENT_TYPE, "text/event-stream")], Body::from(body))
    };
    let app = axum::Router::new().fallback(answer);
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });

    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::default();
    let provider =
        ProviderConfig { base_url: Some(format!("http://{addr}/v1")), ..ProviderConfig::default() };
    config.providers.insert("p".into(), provider);
    let providers = Providers::new(config).unwrap();
    let request = ChatRequest::new("p/m", "hi");
    let mut used = std::collections::BTreeSet::new();
    for _ in 0..10 {
        providers.chat(&request, limits(), |_| {}).await.unwrap();
        used.insert(peers.recv().await.unwrap());
    }
    assert_eq!(used.len(), 1, "{used:?}");
}

/// The rest of a body behind `[DONE]` is read, not cut, so that its connection survives.
#[tokio::test]
async fn a_body_that_ends_late_is_drained() {
    use axum::body::Body;
    use axum::http::header::CONTENT_TYPE;
    use futures::StreamExt;
    use std::convert::Infallible;
    use tokio::sync::mpsc;

    let (tx, mut ended) = mpsc::unbounded_channel();
    let answer = move || async move {
        let first: String = [HELLO, STOP, DONE].map(|e| format!("data: {e}\n\n")).concat();
        let first = futures::stream::iter([first]);
        // Several writes, since the first one after a close still succeeds.
        let more = futures::stream::iter(0..40).then(|_| async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            ": bye\n\n".to_owned()
        });
        let last = futures::stream::once(async move {
            tx.send(()).unwrap();
            ": end\n\n".to_owned()
        });
        let body = first.chain(more).chain(last).map(Ok::<_, Infallible>);
        ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(body))
    };
    let app = axum::Router::new().fallback(answer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });

    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::default();
    let provider =
        ProviderConfig { base_url: Some(format!("http://{addr}/v1")), ..ProviderConfig::default() };
    config.providers.insert("p".into(), provider);
    let providers = Providers::new(config).unwrap();
    let request = ChatRequest::new("p/m", "hi");
    let response = providers.chat(&request, limits(), |_| {}).await.unwrap();
    assert_eq!(response.text, "hello");
    let ended = tokio::time::timeout(Duration::from_secs(10), ended.recv());
    ended.await.expect("the body was cut").unwrap();
}
