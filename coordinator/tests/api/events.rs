//! Event streams: whole, cut anywhere and resumed, reset, ended.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use eventsource_stream::{Event, Eventsource};
use futures::{Stream, StreamExt};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::{
    faulty::Faulty,
    server::{Server, embedded, soon, unhurried},
    worker::Worker,
};

type Seen = (String, String, Value);

async fn open(server: &Server, run: &str, last: Option<&str>) -> Response {
    let mut request = server.request(Method::GET, &format!("/v1/runs/{run}/events"));
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    soon("an answer", request.send()).await.unwrap()
}

fn stream(response: Response) -> impl Stream<Item = Seen> + Unpin {
    assert_eq!(response.status(), 200);
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    Box::pin(response.bytes_stream().eventsource().map(|event| {
        let Event { event, data, id, .. } = event.unwrap();
        (id, event, serde_json::from_str(&data).unwrap())
    }))
}

async fn all(response: Response) -> Vec<Seen> {
    soon("the end of the stream", stream(response).collect()).await
}

fn diamond() -> Value {
    json!({"tasks": {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}})
}

#[tokio::test]
async fn a_stream_cut_anywhere_resumes_on_any_coordinator_without_gap_or_repeat() {
    let backend = embedded();
    let _worker = Worker::free(backend.clone());
    let servers = [Server::start(backend.clone()).await, Server::start(backend).await];
    let run = servers[0].submit(diamond()).await;
    let whole = all(open(&servers[0], &run, None).await).await;

    // run.started, 4 x (started, 2 deltas, succeeded), run.succeeded
    assert_eq!(whole.len(), 18);
    assert_eq!((whole[0].1.as_str(), whole[17].1.as_str()), ("run.started", "run.succeeded"));
    let epoch = whole[0].0.rsplit_once('-').unwrap().0.to_owned();
    for (at, (id, name, data)) in whole.iter().enumerate() {
        assert_eq!(*id, format!("{epoch}-{at}"));
        assert_eq!(data["type"], *name);
        assert!(data["at"].is_u64());
    }
    for cut in 0..whole.len() {
        let mut head = stream(open(&servers[cut % 2], &run, None).await);
        let mut seen = Vec::new();
        for _ in 0..=cut {
            seen.push(soon("an event", head.next()).await.unwrap());
        }
        drop(head);
        let last = seen[cut].0.clone();
        let rest = open(&servers[(cut + 1) % 2], &run, Some(&last)).await;
        if cut == whole.len() - 1 {
            // the end was seen: an `EventSource` must not come back for ever
            assert_eq!(rest.status(), 204);
        } else {
            seen.extend(all(rest).await);
        }
        assert_eq!(seen, whole, "cut after event {cut}");
        let path = format!("/v1/runs/{run}/events?after={last}");
        let asked = servers[0].get(&path).await;
        if cut < whole.len() - 1 {
            assert_eq!(all(asked).await, whole[cut + 1..], "asked for what follows event {cut}");
        }
    }
}

#[tokio::test]
async fn a_live_stream_shows_each_step_as_it_happens() {
    let backend = embedded();
    let worker = Worker::stepped(backend.clone());
    let server = Server::start(backend).await;
    let run = server.submit(json!({"tasks": {"a": [], "b": ["a"]}})).await;
    let mut live = stream(open(&server, &run, None).await);
    let mut next =
        async || soon("an event", live.next()).await.map(|(_, name, data)| (name, data["task"].clone()));
    assert_eq!(next().await.unwrap().0, "run.started");
    for task in ["a", "b"] {
        assert_eq!(next().await.unwrap(), ("task.started".into(), json!(task)));
        // nothing but the growth of the log can bring what follows: no clock looks
        worker.steps.add_permits(1);
        for name in ["task.delta", "task.delta", "task.succeeded"] {
            assert_eq!(next().await.unwrap(), (name.into(), json!(task)));
        }
    }
    assert_eq!(next().await.unwrap().0, "run.succeeded");
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn a_log_longer_than_one_read_arrives_whole() {
    let backend = embedded();
    let _worker = Worker::free(backend.clone());
    let server = Server::start(backend).await;
    let names: Vec<String> = (0..400).map(|at| format!("t{at}")).collect();
    let mut tasks: serde_json::Map<String, Value> =
        names.iter().map(|name| (name.clone(), json!([]))).collect();
    tasks.insert("end".into(), json!(names));
    let run = server.submit(json!({"tasks": tasks})).await;
    let live = all(open(&server, &run, None).await).await;
    assert_eq!(live.len(), 2 + 4 * 401);
    assert_eq!(all(open(&server, &run, None).await).await, live);
}

#[tokio::test]
async fn another_epoch_resets_the_client_before_and_during_a_stream() {
    let store = embedded();
    let worker = Worker::stepped(store.clone());
    let backend = Faulty::new(store);
    let server = Server::start(backend.clone()).await;
    let run = server.submit(json!({"tasks": {"a": []}})).await;

    let mut live = stream(open(&server, &run, Some("before-7")).await);
    let mut next = async || soon("an event", live.next()).await.unwrap();
    let (id, name, data) = next().await;
    assert_eq!((id.as_str(), name.as_str()), ("", "reset"));
    let epoch = data["epoch"].as_str().unwrap().to_owned();
    assert_eq!(next().await.0, format!("{epoch}-0"));
    assert_eq!(next().await.0, format!("{epoch}-1"));

    *backend.epoch.lock().unwrap() = Some("after".into());
    worker.steps.add_permits(1);
    assert_eq!(
        next().await,
        (format!("{epoch}-1"), "reset".into(), json!({"type": "reset", "epoch": "after"}))
    );
    let rest: Vec<Seen> = soon("the end", live.collect()).await;
    let ids: Vec<&str> = rest.iter().map(|(id, ..)| id.as_str()).collect();
    assert_eq!(ids, ["after-0", "after-1", "after-2", "after-3", "after-4", "after-5"]);

    // a place that the log has not reached yet was seen in a future that is lost
    let response = open(&server, &run, Some("after-99")).await;
    assert_eq!(stream(response).next().await.unwrap().1, "reset");
}

#[tokio::test]
async fn a_store_that_fails_for_a_while_costs_a_stream_nothing() {
    let store = embedded();
    let worker = Worker::stepped(store.clone());
    let backend = Faulty::new(store);
    let config = trireme_coordinator::Config { poll: Duration::from_millis(5), ..unhurried() };
    let server = Server::with(config, backend.clone()).await;
    let run = server.submit(json!({"tasks": {"a": []}})).await;
    let mut live = stream(open(&server, &run, None).await);
    let mut seen = vec![soon("an event", live.next()).await.unwrap()];

    backend.fail(Faulty::down());
    let before = backend.reads.load(SeqCst);
    soon("three failed reads", async {
        while backend.reads.load(SeqCst) < before + 3 {
            backend.read.notified().await;
        }
    })
    .await;
    backend.fail(None);
    worker.steps.add_permits(1);
    seen.extend(soon("the end", live.collect::<Vec<Seen>>()).await);
    let names: Vec<&str> = seen.iter().map(|(_, name, _)| name.as_str()).collect();
    let expected =
        ["run.started", "task.started", "task.delta", "task.delta", "task.succeeded", "run.succeeded"];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_store_that_stays_away_ends_the_stream() {
    let backend = Faulty::new(embedded());
    let config = trireme_coordinator::Config { poll: Duration::from_millis(1), ..unhurried() };
    let server = Server::with(config, backend.clone()).await;
    let run = server.submit(json!({"tasks": {"a": []}})).await;
    let response = open(&server, &run, None).await;
    backend.fail(Faulty::down());
    let text = soon("the end", response.text()).await.unwrap();
    assert!(text.ends_with("\n\n: events can't be read; come back later\n\n"), "{text}");
}

#[tokio::test]
async fn a_silent_stream_is_kept_alive_and_a_shutdown_ends_it_in_order() {
    let config = trireme_coordinator::Config { keep_alive: Duration::from_millis(5), ..unhurried() };
    let server = Server::with(config, embedded()).await;
    let run = server.submit(json!({"tasks": {"a": []}})).await;
    let poll = server.request(Method::GET, &format!("/v1/runs/{run}?wait=1h"));
    let poll = tokio::spawn(poll.send());
    soon("an open poll", async {
        while !server.get("/metrics").await.text().await.unwrap().contains("trireme_long_polls 1") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut bytes = open(&server, &run, None).await.bytes_stream();
    let mut text = String::new();
    while !text.contains(": keep-alive\n\n") {
        let chunk = soon("a comment", bytes.next()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    server.begin_shutdown();
    while let Some(chunk) = soon("the end", bytes.next()).await {
        text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
    }
    assert!(text.ends_with(": this coordinator is shutting down; come back to another\n\n"), "{text}");
    let answer = soon("the poll's answer", poll).await.unwrap().unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["status"], "running");
    server.stopped().await;
}

#[tokio::test]
async fn streams_over_the_bound_are_told_to_come_back() {
    let config = trireme_coordinator::Config { max_followers: 1, ..unhurried() };
    let server = Server::with(config, embedded()).await;
    let run = server.submit(json!({"tasks": {"a": []}})).await;
    let held = open(&server, &run, None).await;
    for path in [format!("/v1/runs/{run}/events"), format!("/v1/runs/{run}?wait=1s")] {
        let refused = server.get(&path).await;
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["retry-after"]),
            (503, &"1".parse().unwrap())
        );
        assert_eq!(refused.json::<Value>().await.unwrap()["code"], "overloaded");
    }
    drop(held);
}
