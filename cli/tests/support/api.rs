//! The HTTP API of one coordinator.

use std::time::Duration;

use futures::{Stream, StreamExt};
use serde_json::Value;

use super::eventually;

/// A client of one coordinator.
#[derive(Clone)]
pub struct Api {
    /// Its address, `http://127.0.0.1:1234`.
    pub base: String,
    http: reqwest::Client,
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq)]
pub struct Sse {
    /// Its id.
    pub id: String,
    /// Its type.
    pub kind: String,
    /// Its data.
    pub data: Value,
}

impl Api {
    /// A client of the coordinator at `base`.
    pub fn new(base: impl Into<String>) -> Self {
        Self::with_key(base, None)
    }

    /// A client that has an API key.
    pub fn with_key(base: impl Into<String>, key: Option<&str>) -> Self {
        // a second install is refused and changes nothing
        let _ = rustls::crypto::ring::default_provider().install_default();
        let bearer =
            key.map(|key| ("authorization".parse().unwrap(), format!("Bearer {key}").parse().unwrap()));
        let http = reqwest::Client::builder().connect_timeout(Duration::from_secs(5));
        let http = http.default_headers(bearer.into_iter().collect()).build().unwrap();
        Self { base: base.into(), http }
    }

    /// `GET path`: status and body.
    pub async fn get(&self, path: &str) -> Result<(u16, String), reqwest::Error> {
        let request = self.http.get(format!("{}{path}", self.base)).timeout(Duration::from_secs(90));
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// `POST path`: status and body.
    pub async fn post(
        &self,
        path: &str,
        body: &str,
        key: Option<&str>,
    ) -> Result<(u16, String), reqwest::Error> {
        let mut request = self
            .http
            .post(format!("{}{path}", self.base))
            .header("content-type", "application/yaml")
            .timeout(Duration::from_secs(30))
            .body(body.to_owned());
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// `DELETE path`: status and body.
    pub async fn delete(&self, path: &str) -> Result<(u16, String), reqwest::Error> {
        let request = self.http.delete(format!("{}{path}", self.base)).timeout(Duration::from_secs(30));
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Starts a run.
    pub async fn submit(&self, spec: &str) -> String {
        let (status, body) = self.post("/v1/runs", spec, None).await.unwrap();
        assert_eq!(status, 202, "{body}");
        let accepted: Value = serde_json::from_str(&body).unwrap();
        accepted["run_id"].as_str().unwrap().to_owned()
    }

    /// Starts a run as part of a trace.
    pub async fn submit_in(&self, spec: &str, traceparent: &str) -> String {
        let request = self.http.post(format!("{}/v1/runs", self.base)).timeout(Duration::from_secs(30));
        let request = request.header("content-type", "application/yaml").header("traceparent", traceparent);
        let answer = request.body(spec.to_owned()).send().await.unwrap();
        assert_eq!(answer.status(), 202);
        let accepted: Value = answer.json().await.unwrap();
        accepted["run_id"].as_str().unwrap().to_owned()
    }

    /// A run.
    pub async fn run(&self, id: &str) -> Value {
        let (status, body) = self.get(&format!("/v1/runs/{id}")).await.unwrap();
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// A run once it has ended.
    pub async fn ended(&self, id: &str, within: Duration) -> Value {
        eventually(&format!("run {id} ends"), within, || async {
            let (status, body) = self.get(&format!("/v1/runs/{id}?wait=5s")).await.ok()?;
            assert_eq!(status, 200, "{body}");
            let run: Value = serde_json::from_str(&body).unwrap();
            (run["status"] != "running").then_some(run)
        })
        .await
    }

    /// Waits until `/readyz` answers `status`.
    pub async fn readiness(&self, status: u16, within: Duration) -> String {
        eventually(&format!("{} /readyz is {status}", self.base), within, || async {
            let (now, body) = self.get("/readyz").await.ok()?;
            (now == status).then_some(body)
        })
        .await
    }

    /// Events of a run behind `last`, at most `limit`, until the stream ends.
    pub async fn events(&self, id: &str, last: Option<&str>, limit: usize) -> Vec<Sse> {
        self.stream(id, last).await.take(limit).collect().await
    }

    /// The first event of a run that is `wanted`.
    pub async fn until(&self, id: &str, wanted: impl Fn(&Sse) -> bool) -> Sse {
        let stream = self.stream(id, None).await;
        let mut found = std::pin::pin!(stream.filter(|event| std::future::ready(wanted(event))));
        found.next().await.unwrap_or_else(|| panic!("run {id} ended without the event"))
    }

    async fn stream(&self, id: &str, last: Option<&str>) -> impl Stream<Item = Sse> + use<> {
        let mut request = self.http.get(format!("{}/v1/runs/{id}/events", self.base));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        let stream = eventsource_stream::Eventsource::eventsource(answer.bytes_stream());
        futures::stream::unfold(Box::pin(stream), |mut stream| async {
            let next = tokio::time::timeout(Duration::from_secs(60), stream.next()).await;
            let event = next.expect("an event stream is silent")?.ok()?;
            let data = serde_json::from_str(&event.data).unwrap();
            Some((Sse { id: event.id, kind: event.event, data }, stream))
        })
    }
}

/// Fails the test unless `events` are a run's whole log: numbered without gap or repeat, one end, and that last.
#[track_caller]
pub fn whole_log(events: &[Sse]) {
    let number = |event: &Sse| event.id.rsplit('-').next().unwrap().parse::<u64>().unwrap();
    let numbers: Vec<u64> = events.iter().map(number).collect();
    let first = numbers.first().copied().expect("no events");
    let expected: Vec<u64> = (first..first + numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "gap or repeat");
    assert_eq!(events[0].kind, "run.started");
    let ends = |event: &&Sse| ["run.succeeded", "run.failed", "run.cancelled"].contains(&event.kind.as_str());
    assert_eq!(events.iter().filter(ends).count(), 1, "{events:?}");
    assert!(ends(&events.last().unwrap()), "{events:?}");
}
