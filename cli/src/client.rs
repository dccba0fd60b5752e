//! `trireme submit` and `trireme runs`: the coordinator's HTTP API from the command line.

use std::{
    fmt,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use futures::StreamExt;
use reqwest::{Response, header};
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
/// How long a submit repeats a refused connection, and how often: a coordinator that was started beside it may not
/// listen yet.
const PATIENCE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(100);
/// Largest file with an API key, in bytes.
const MAX_KEY_FILE: u64 = 64 << 10;
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
    let accepted: serde_json::Value = client.read(client.send_patiently(request).await?).await?;
    let id = RunId::new(accepted["run_id"].as_str().unwrap_or_default())
        .map_err(|_| client.strange("holds no run_id"))?;
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
            let traced = trace.as_deref().map(trace::Output::create).transpose()?;
            let run = client.run(&id).await?;
            let found = attribution(&run);
            if let Some(traced) = traced {
                traced.write(&run, &found)?;
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
        let url = reqwest::Url::parse(server).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(url) = url else {
            let cure = "give an address such as http://127.0.0.1:8080";
            return Err(Failure::usage(format!("--server {server}: {cure}")));
        };
        if !url.username().is_empty() || url.password().is_some() {
            // a password is not shown again
            let cure = "an API key comes from TRIREME_API_KEY or --api-key-file";
            return Err(Failure::usage(format!("--server: the address holds a user or password; {cure}")));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Failure::usage(format!(
                "--server {server}: an address has no query and no fragment"
            )));
        }
        let mut headers = header::HeaderMap::new();
        if let Some(key) = api_key(args.api_key_file.as_deref())? {
            let bearer = header::HeaderValue::from_str(&format!("Bearer {key}"));
            let mut bearer = bearer.map_err(|_| {
                Failure::usage("the API key has a line break inside, or another character that no key has")
            })?;
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
        self.good(request.send().await).await
    }

    /// As [`Client::send`], but repeats a refused connection for a while.
    async fn send_patiently(&self, request: reqwest::RequestBuilder) -> Result<Response, Failure> {
        let end = Instant::now() + PATIENCE;
        let mut told = false;
        while Instant::now() < end
            && let Some(attempt) = request.try_clone()
        {
            match attempt.send().await {
                Err(error) if https::refused(&error) => {
                    if !told {
                        note(format_args!("nobody listens at {} yet; trying for 5 s", self.server));
                    }
                    told = true;
                    tokio::time::sleep(AGAIN).await;
                }
                answer => return self.good(answer).await,
            }
        }
        self.send(request).await
    }

    async fn good(&self, answer: reqwest::Result<Response>) -> Result<Response, Failure> {
        let server = &self.server;
        let response = answer.map_err(|error| {
            let why = https::why(error);
            Failure::new(Code::Unavailable, format!("no coordinator answers at {server} (--server): {why}"))
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        let code = if status.is_server_error() { Code::Unavailable } else { Code::Usage };
        let problem = problem(&text).unwrap_or_else(|| {
            let shown: String = text.chars().take(500).collect();
            format!("{server} (--server) answers {status}, and not as a coordinator does: {shown}")
        });
        Err(Failure::new(code, problem))
    }

    /// The answer as JSON.
    pub async fn json<T: serde::de::DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, Failure> {
        self.read(self.send(request).await?).await
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, response: Response) -> Result<T, Failure> {
        response.json().await.map_err(|error| self.strange(https::why(error)))
    }

    /// The answer of somebody who is no coordinator.
    fn strange(&self, why: impl fmt::Display) -> Failure {
        Failure::new(Code::Unavailable, format!("unexpected answer of {} (--server): {why}", self.server))
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
        Some(file) => key_file(file)
            .map_err(|error| Failure::usage(format!("--api-key-file {}: {error}", file.display())))?,
    };
    let key = text.trim();
    if let (true, Some(file)) = (key.is_empty(), file) {
        return Err(Failure::usage(format!("--api-key-file {}: is empty", file.display())));
    }
    Ok((!key.is_empty()).then(|| key.to_owned()))
}

/// What is in a regular file: opening a pipe would wait for its writer.
fn key_file(file: &Path) -> std::io::Result<String> {
    let found = std::fs::metadata(file)?;
    if !found.is_file() || found.len() > MAX_KEY_FILE {
        return Err(std::io::Error::other("is no regular file of at most 64 KiB"));
    }
    std::fs::read_to_string(file)
}

/// A task's error, `{"class": …, "message": …}`, as people read it.
fn reason(error: &Payload) -> String {
    let parsed: Result<serde_json::Value, _> = error.parse();
    match parsed.as_ref().map(|error| (error["class"].as_str(), error["message"].as_str())) {
        Ok((Some(class), Some(message))) => format!("{message} ({class})"),
        _ => format!("{error:?}"),
    }
}

/// A problem document as one line; `None` where it is none.
fn problem(text: &str) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_str(text).ok()?;
    let mut line = format!("{}: {}", problem["title"].as_str()?, problem["detail"].as_str().unwrap_or(""));
    for error in problem["errors"].as_array().into_iter().flatten() {
        let path = error["path"].as_str().unwrap_or("");
        line.push_str(&format!("\n  {path}: {}", error["message"].as_str().unwrap_or("")));
    }
    Some(line)
}
