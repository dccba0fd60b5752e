//! `trireme submit` and `trireme runs`: the coordinator's HTTP API from the command line.

use std::{io::Write, path::Path, time::Duration};

use futures::StreamExt;
use reqwest::{Response, StatusCode, header};
use trireme_model::{
    Event, Payload, RunId, RunStatus, TaskStatus, What,
    attribution::{Attributed, attribution},
    view::RunView,
};

use crate::{
    command::{Runs, RunsAction, Server, Submit},
    exit::{Code, Failure, note, say, show},
    https,
    progress::Progress,
    source, trace, waterfall,
};

/// How often following a run may be taken up again without news.
const MAX_RECONNECTS: u32 = 60;
/// Failed tasks named when a run failed.
const MAX_CAUSES: usize = 5;

/// A coordinator as commands see it.
pub struct Client {
    http: reqwest::Client,
    server: String,
}

/// `trireme submit`
pub async fn submit(args: Submit) -> Result<(), Failure> {
    let client = Client::new(&args.server)?;
    let text = source::read(&args.file)?;
    let text = source::with_inputs(&text, &args.inputs)?;
    let mut request = client.post("/v1/runs").body(text);
    // JSON is YAML, so one type serves both
    request = request.header(header::CONTENT_TYPE, "application/yaml");
    if let Some(key) = &args.idempotency_key {
        request = request.header("Idempotency-Key", key);
    }
    let accepted: serde_json::Value = client.json(request).await?;
    let id = RunId::new(accepted["run_id"].as_str().unwrap_or_default())
        .map_err(|error| Failure::new(Code::Unavailable, format!("unexpected answer: {error}")))?;
    if !args.follow {
        if args.json {
            say(&accepted);
        } else {
            say(&id);
        }
        return Ok(());
    }
    note(format_args!("run {id}"));
    client.follow(&id).await?;
    finish(&client.run(&id).await?, args.json)
}

/// `trireme runs …`
pub async fn runs(args: Runs) -> Result<(), Failure> {
    let client = Client::new(&args.server)?;
    match args.action {
        RunsAction::List { status, limit } => {
            let mut request = client.get("/v1/runs").query(&[("limit", limit.to_string())]);
            if let Some(status) = status {
                request = request.query(&[("status", status)]);
            }
            let page: serde_json::Value = client.json(request).await?;
            for run in page["runs"].as_array().into_iter().flatten() {
                let field = |name: &str| run[name].as_str().unwrap_or("").to_owned();
                say(format_args!("{}  {:9}  {}", field("run_id"), field("status"), field("name")));
            }
            Ok(())
        }
        RunsAction::Show { id } => {
            let run = Attributed::from(client.run(&id).await?);
            say(serde_json::to_string_pretty(&run).map_err(anyhow::Error::from)?);
            Ok(())
        }
        RunsAction::Follow { id } => {
            client.follow(&id).await?;
            finish(&client.run(&id).await?, false)
        }
        RunsAction::Waterfall { id, json, trace } => {
            let run = client.run(&id).await?;
            let found = attribution(&run);
            if let Some(file) = trace {
                trace::write(&file, &run, &found)?;
            }
            if json {
                say(serde_json::to_string(&found).map_err(anyhow::Error::from)?);
            } else {
                let drawn = waterfall::draw(&run, &found, source::colour());
                say(format_args!("{drawn}\n{}", waterfall::account(&found).trim_end()));
            }
            Ok(())
        }
        RunsAction::Replay { id } => {
            let request = client.post(&format!("/v1/runs/{id}/replay"));
            let replay: serde_json::Value = client.json(request).await?;
            say(replay["run_id"].as_str().unwrap_or_default());
            Ok(())
        }
        RunsAction::Delete { id } => client.send(client.delete(&format!("/v1/runs/{id}"))).await.map(drop),
        RunsAction::Cancel { id } => {
            let request = client.post(&format!("/v1/runs/{id}/cancel"));
            let answer: serde_json::Value = client.json(request).await?;
            say(answer["status"].as_str().unwrap_or("cancelled"));
            Ok(())
        }
    }
}

/// Prints how a run ended: its output, or as a whole; its error goes to the exit code's line.
pub fn finish(run: &RunView, json: bool) -> Result<(), Failure> {
    if json {
        say(serde_json::to_string(&Attributed::from(run.clone())).map_err(anyhow::Error::from)?);
    } else if let Some(output) = &run.output {
        match output.parse::<serde_json::Value>() {
            Ok(serde_json::Value::String(text)) => show(&text),
            _ => show(&format!("{output:?}")),
        }
    }
    if run.degraded {
        note("the output is degraded: some tasks gave their fallback or were left out");
    }
    match (run.status, &run.error) {
        (RunStatus::Succeeded, _) => Ok(()),
        (_, Some(failure)) => {
            let place = failure.task.as_ref().map_or(String::new(), |task| format!(" at {task}"));
            let mut message = format!("the run failed{place}: {}", reason(&failure.error));
            // a join fails because its inputs did: those are what the reader has to mend
            let causes = run
                .tasks
                .iter()
                .filter(|task| task.status == TaskStatus::Failed && Some(&task.id) != failure.task.as_ref());
            for cause in causes.take(MAX_CAUSES) {
                let error = cause.error.as_ref().map_or(String::new(), reason);
                message.push_str(&format!("\n  {}: {error}", cause.id));
            }
            Err(Failure::new(Code::RunFailed, message))
        }
        _ => Err(Failure::new(Code::RunFailed, "the run was cancelled")),
    }
}

impl Client {
    /// A client with the API key of the environment, or of the file.
    pub fn new(args: &Server) -> Result<Self, Failure> {
        let server = &args.server;
        let valid = reqwest::Url::parse(server).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        if !valid {
            let cure = "give an address such as http://127.0.0.1:8080";
            return Err(Failure::usage(format!("--server {server}: {cure}")));
        }
        let mut headers = header::HeaderMap::new();
        if let Some(key) = api_key(args.api_key_file.as_deref())? {
            let bearer = header::HeaderValue::from_str(&format!("Bearer {key}"));
            // the text of the error does not hold the key
            let mut bearer = bearer.map_err(|error| Failure::usage(format!("the API key: {error}")))?;
            bearer.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, bearer);
        }
        let http = https::client(args.ca_file.as_deref())?
            .default_headers(headers)
            .build()
            .map_err(|error| Failure::usage(format!("HTTP client: {error}")))?;
        Ok(Self { http, server: server.trim_end_matches('/').to_owned() })
    }

    /// A request that reads.
    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(self.url(path))
    }

    /// A request that does something.
    pub fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.post(self.url(path))
    }

    /// A request that takes something away.
    pub fn delete(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.delete(self.url(path))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    /// The answer, if it is a good one.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| {
            let server = &self.server;
            Failure::new(Code::Unavailable, format!("no coordinator answers at {server} (--server): {error}"))
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        let code = if status.is_server_error() { Code::Unavailable } else { Code::Usage };
        Err(Failure::new(code, problem(status, &text)))
    }

    /// The answer as JSON.
    pub async fn json<T: serde::de::DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, Failure> {
        let response = self.send(request).await?;
        response
            .json()
            .await
            .map_err(|error| Failure::new(Code::Unavailable, format!("unexpected answer: {error}")))
    }

    async fn run(&self, id: &RunId) -> Result<RunView, Failure> {
        self.json(self.get(&format!("/v1/runs/{id}"))).await
    }

    /// Tells events until the run's end, across lost connections and restarts of coordinators.
    async fn follow(&self, id: &RunId) -> Result<(), Failure> {
        let mut progress = Progress::new(format!("run {id}"), false);
        let mut last: Option<String> = None;
        let mut idle = 0;
        while idle < MAX_RECONNECTS {
            let mut request = self.get(&format!("/v1/runs/{id}/events"));
            if let Some(last) = &last {
                request = request.header("Last-Event-ID", last);
            }
            let response = match self.send(request).await {
                Ok(response) => response,
                // only a server that never answered is an error; one that went away may come back
                Err(failure) if last.is_none() && idle == 0 => return Err(failure),
                Err(_) => {
                    idle += 1;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let mut events = eventsource_stream::Eventsource::eventsource(response.bytes_stream());
            while let Some(Ok(message)) = events.next().await {
                idle = 0;
                if !message.id.is_empty() {
                    last = Some(message.id);
                }
                let Ok(event) = serde_json::from_str::<Event>(&message.data) else { continue };
                if let What::TaskDelta { text, .. } = &event.what {
                    // a reader that went away must not end the run
                    let _ = write!(std::io::stderr(), "{text}");
                }
                progress.event(&event);
                if event.what.ends_run() {
                    progress.finish();
                    return Ok(());
                }
            }
            idle += 1;
        }
        progress.finish();
        Err(Failure::new(Code::Unavailable, format!("the events of run {id} stopped coming")))
    }
}

/// The key of the file, or else of the environment. Never an argument: other users see those.
fn api_key(file: Option<&Path>) -> Result<Option<String>, Failure> {
    let text = match file {
        None => std::env::var("TRIREME_API_KEY").unwrap_or_default(),
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| Failure::usage(format!("--api-key-file {}: {error}", file.display())))?,
    };
    let key = text.trim();
    if let (true, Some(file)) = (key.is_empty(), file) {
        return Err(Failure::usage(format!("--api-key-file {}: is empty", file.display())));
    }
    Ok((!key.is_empty()).then(|| key.to_owned()))
}

/// A task's error, `{"class": …, "message": …}`, as people read it.
fn reason(error: &Payload) -> String {
    let parsed: Result<serde_json::Value, _> = error.parse();
    match parsed.as_ref().map(|error| (error["class"].as_str(), error["message"].as_str())) {
        Ok((Some(class), Some(message))) => format!("{message} ({class})"),
        _ => format!("{error:?}"),
    }
}

/// A problem document as one line.
fn problem(status: StatusCode, text: &str) -> String {
    let Ok(problem) = serde_json::from_str::<serde_json::Value>(text) else {
        return format!("{status}: {}", text.chars().take(500).collect::<String>());
    };
    let title = problem["title"].as_str().unwrap_or("refused");
    let mut line = format!("{title}: {}", problem["detail"].as_str().unwrap_or(""));
    for error in problem["errors"].as_array().into_iter().flatten() {
        let path = error["path"].as_str().unwrap_or("");
        line.push_str(&format!("\n  {path}: {}", error["message"].as_str().unwrap_or("")));
    }
    line
}
