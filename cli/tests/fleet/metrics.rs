//! What a fleet tells its operator: every metric of the manual, and that the numbers are right.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use trireme_test_servers::free_port;

use crate::support::{
    SOON,
    api::Api,
    eventually,
    fleet::Fleet,
    process::{finish_with, run},
    simulator::Simulator,
};

/// One scrape: the type of each metric, and its samples by name and labels.
struct Scrape {
    text: String,
    types: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    async fn of(api: &Api) -> Self {
        let (status, text) = api.get("/metrics").await.unwrap();
        assert_eq!(status, 200);
        let mut types = BTreeMap::new();
        let mut samples = BTreeMap::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                samples.insert(series.to_owned(), value.parse().unwrap());
            }
        }
        for name in types.keys() {
            assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
        }
        Self { text, types, samples }
    }

    /// The sample of `name{labels}`, labels in the order of the alphabet.
    fn value(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }
}

/// Scrapes until `wanted` holds. Gauges are as of some seconds ago.
async fn until(api: &Api, what: &str, wanted: impl Fn(&Scrape) -> bool) -> Scrape {
    eventually(what, SOON, || async {
        let scrape = Scrape::of(api).await;
        wanted(&scrape).then_some(scrape)
    })
    .await
}

/// The manual's table: metrics by process.
fn documented() -> BTreeMap<String, String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let text = std::fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `trireme_")?.split('|').map(str::trim);
        let name = cells.next()?.strip_suffix('`')?;
        Some((format!("trireme_{name}"), cells.next()?.to_owned()))
    };
    text.lines().filter_map(row).collect()
}

fn ours(scrape: &Scrape) -> BTreeSet<String> {
    scrape.types.keys().filter(|name| name.starts_with("trireme_")).cloned().collect()
}

/// `promtool check metrics` where the chart's tests have put one.
async fn lint(scrape: &Scrape) {
    let promtool = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.tools/charts/promtool");
    if !promtool.exists() {
        return;
    }
    let mut command = tokio::process::Command::new(promtool);
    command.args(["check", "metrics"]).stdout(Stdio::piped());
    finish_with(command, scrape.text.as_bytes()).await.expect(0, &[]);
}

/// `hang` never answers, `limited` is turned away once, everything else is fine.
const WORLD: &str = "rules:
  - {when: {last_user: {contains: hang}}, fault: {hang: {}}}
  - {when: {last_user: {contains: limited}}, times: 1, fault: {error: {status: 429, retry_after: 250ms}}}
  - {respond: {text: one two three}}";

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_the_manual_is_exported_and_every_exported_one_is_in_the_manual() {
    let simulator = Simulator::text(WORLD).await;
    let fleet = Fleet::shared(Some(simulator.config.clone())).await;
    let coordinator = fleet.coordinator("c").await;
    let worker = fleet.worker("w", &[]).await;
    // one run of a task that calls a model, so that every series of a model is there
    let id = coordinator.api.submit("tasks: {a: {llm: {model: sim/fast, prompt: limited}}}").await;
    coordinator.api.ended(&id, SOON).await;
    let mut told = BTreeMap::<&str, BTreeSet<String>>::new();
    for (process, api) in [("coordinator", &coordinator.api), ("worker", &worker.api)] {
        let scrape = Scrape::of(api).await;
        lint(&scrape).await;
        told.insert(process, ours(&scrape));
    }
    for process in ["coordinator", "worker"] {
        let wanted = documented().into_iter().filter(|(_, of)| of == process || of == "both");
        let mut wanted: BTreeSet<String> = wanted.map(|(name, _)| name).collect();
        // of agents: appears with the first class of refusal
        wanted.remove("trireme_agent_calls_refused_total");
        let missing: Vec<_> = wanted.difference(&told[process]).collect();
        assert!(missing.is_empty(), "{process} does not export {missing:?}");
        let unknown: Vec<_> = told[process].difference(&wanted).collect();
        assert!(unknown.is_empty(), "{unknown:?} of {process} are not in docs/operations.md");
    }
    for member in [coordinator, worker] {
        member.stop().await;
    }
    fleet.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_and_calls_are_counted_as_they_ended() {
    let simulator = Simulator::text(WORLD).await;
    let fleet = Fleet::shared(Some(simulator.config.clone())).await;
    // two, to see that each run counts at one of them
    let coordinators = [fleet.coordinator("c1").await, fleet.coordinator("c2").await];
    let worker = fleet.worker("w", &[]).await;
    let api = &coordinators[0].api;
    // counting begins with the first look of a coordinator
    for coordinator in &coordinators {
        until(&coordinator.api, "the first look", |scrape| {
            scrape.value("trireme_store_memory_used_bytes") > Some(0.0)
        })
        .await;
    }
    let llm = |prompt: &str| format!("llm: {{model: sim/fast, prompt: {prompt}}}");
    let specs = [
        format!(
            "tasks: {{a: {{{}}}, b: {{{}}}, j: {{join: {{from: [a, b], need: all}}}}}}",
            llm("x"),
            llm("y")
        ),
        format!(
            "tasks: {{a: {{{}}}, b: {{{}}}, j: {{join: {{from: [a, b], need: any}}}}}}",
            llm("x"),
            llm("hang")
        ),
        format!(
            "tasks: {{a: {{{}}}, b: {{{}}}, j: {{join: {{from: [a, b], need: all, within: 2s, on_miss: partial}}}}}}",
            llm("x"),
            llm("hang")
        ),
        format!("deadline: 300ms\ntasks: {{a: {{{}}}}}", llm("hang")),
        format!("tasks: {{a: {{{}, timeout: 300ms, retry: {{attempts: 1}}}}}}", llm("hang")),
        format!(
            "budget: {{tokens: 1}}\ntasks: {{a: {{{}}}, b: {{llm: {{model: sim/fast, prompt: '{{{{ a.text }}}}'}}}}}}",
            llm("x")
        ),
        format!("tasks: {{a: {{{}}}}}", llm("limited")),
    ];
    for spec in &specs {
        let id = api.submit(spec).await;
        api.ended(&id, SOON).await;
    }
    let wanted = [
        (r#"trireme_run_duration_seconds_count{outcome="succeeded"}"#, 4.0),
        (r#"trireme_run_duration_seconds_count{outcome="failed"}"#, 3.0),
        (r#"trireme_run_duration_seconds_count{outcome="cancelled"}"#, 0.0),
        (r#"trireme_joins_fired_total{how="all"}"#, 1.0),
        (r#"trireme_joins_fired_total{how="quorum"}"#, 1.0),
        (r#"trireme_joins_fired_total{how="partial"}"#, 1.0),
        (r#"trireme_joins_fired_total{how="missed"}"#, 0.0),
        (r#"trireme_deadline_misses_total{scope="run"}"#, 1.0),
        (r#"trireme_deadline_misses_total{scope="task"}"#, 1.0),
        (r#"trireme_deadline_misses_total{scope="join"}"#, 1.0),
        ("trireme_budget_exhausted_runs_total", 1.0),
    ];
    let found = eventually("all runs are counted", SOON, || async {
        let both = [Scrape::of(&coordinators[0].api).await, Scrape::of(&coordinators[1].api).await];
        let sums: Vec<_> = wanted
            .iter()
            .map(|(series, _)| (*series, both.iter().filter_map(|scrape| scrape.value(series)).sum::<f64>()))
            .collect();
        let runs: f64 = sums[..3].iter().map(|(_, count)| count).sum();
        (runs >= specs.len() as f64).then_some(sums)
    })
    .await;
    assert_eq!(found, wanted);

    let scrape = Scrape::of(&worker.api).await;
    let provider = |outcome: &str| {
        let labels = format!(r#"{{model="fast",outcome="{outcome}",provider="sim"}}"#);
        scrape.value(&format!("trireme_provider_requests_total{labels}"))
    };
    assert_eq!(provider("rate_limited"), Some(1.0));
    // 6 that answered at once, and the one after the rate limit
    assert_eq!(provider("ok"), Some(6.0));
    assert_eq!(scrape.value(r#"trireme_rate_limit_wait_seconds_count{provider="sim"}"#), Some(1.0));
    let waited = scrape.value(r#"trireme_rate_limit_wait_seconds_sum{provider="sim"}"#).unwrap();
    assert!((0.2..5.0).contains(&waited), "{waited}");
    let limited = r#"trireme_retries_total{class="rate_limited",kind="llm",pool="llm"}"#;
    assert_eq!(scrape.value(limited), Some(1.0));
    let tokens = r#"trireme_provider_tokens_total{model="fast",provider="sim",type="output"}"#;
    assert!(scrape.value(tokens) >= Some(6.0));
    let started = r#"trireme_start_latency_seconds_count{pool="llm",priority="normal"}"#;
    let attempts: f64 = scrape
        .samples
        .iter()
        .filter(|(name, _)| name.starts_with("trireme_attempts_total"))
        .map(|(_, n)| n)
        .sum();
    assert_eq!(scrape.value(started), Some(attempts));
    let [first, second] = coordinators;
    for member in [first, second, worker] {
        member.stop().await;
    }
    fleet.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_without_workers_shows_what_waits_and_for_how_long() {
    let simulator = Simulator::text(WORLD).await;
    let fleet = Fleet::shared(Some(simulator.config.clone())).await;
    let coordinator = fleet.coordinator("c").await;
    let api = coordinator.api.clone();
    let spec = "tasks: {a: {llm: {model: sim/fast, prompt: x}}, b: {llm: {model: sim/fast, prompt: y}, priority: high}}";
    let id = api.submit(spec).await;
    let of = |name: &str, priority: &str| format!(r#"trireme_{name}{{pool="llm",priority="{priority}"}}"#);
    let scrape = until(&api, "two tasks wait", |scrape| {
        ["normal", "high"].iter().all(|priority| {
            scrape.value(&of("ready_tasks", priority)) == Some(1.0)
                && scrape.value(&of("queue_messages", priority)) >= Some(1.0)
                && scrape.value(&of("oldest_ready_task_age_seconds", priority)) > Some(5.0)
        })
    })
    .await;
    assert_eq!(scrape.value(&of("queue_consumers", "high")), Some(0.0));
    // of a pool that nobody knew and whose queue holds nothing
    assert_eq!(scrape.value(r#"trireme_ready_tasks{pool="tool",priority="normal"}"#), Some(0.0));
    let port = free_port().unwrap();
    let worker = fleet.spawn_worker("w", port, &[]).ready().await;
    api.ended(&id, SOON).await;
    until(&api, "nothing waits and a worker consumes", |scrape| {
        scrape.value(&of("ready_tasks", "normal")) == Some(0.0)
            && scrape.value(&of("oldest_ready_task_age_seconds", "high")) == Some(0.0)
            && scrape.value(&of("queue_messages", "normal")) == Some(0.0)
            && scrape.value(&of("queue_consumers", "normal")) == Some(1.0)
    })
    .await;
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    for path in ["/healthz", "/readyz"] {
        run(&["health", &url(path)]).await.expect(0, &[]);
    }
    worker.stop().await;
    run(&["health", &url("/healthz")]).await.expect(69, &["no answer"]);
    coordinator.stop().await;
    fleet.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_outage_makes_a_worker_unready_and_leaves_it_alive() {
    let servers = tokio::task::spawn_blocking(|| {
        (trireme_test_servers::PrivateRabbit::start().unwrap(), trireme_test_servers::redis())
    });
    let (mut rabbit, redis) = servers.await.unwrap();
    let prefix = trireme_test_servers::unique("fleet");
    let fleet = Fleet { amqp: rabbit.url(), redis, prefix, config: None, key: None };
    let worker = fleet.worker("w", &[]).await;
    let mut rabbit = tokio::task::spawn_blocking(move || {
        rabbit.kill9();
        rabbit
    })
    .await
    .unwrap();
    eventually("the worker is not ready", SOON, || async {
        let (status, text) = worker.api.get("/readyz").await.unwrap();
        (status == 503).then_some(text)
    })
    .await;
    let unready = run(&["health", &format!("{}/readyz", worker.api.base)]).await;
    unready.expect(69, &["503", "not_ready"]);
    assert_eq!(worker.api.get("/healthz").await.unwrap().0, 200);
    let _rabbit = tokio::task::spawn_blocking(move || {
        rabbit.restart().unwrap();
        rabbit
    })
    .await
    .unwrap();
    worker.api.readiness(200, Duration::from_secs(60)).await;
    worker.stop().await;
}
