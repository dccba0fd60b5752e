//! A process dies at every named crash point while runs are in flight; the others bring every run to its right end.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use trireme_backend::CRASH_POINTS;
use trireme_test_servers::free_port;

use crate::support::{
    SOON,
    api::{Api, whole_log},
    eventually,
    fleet::{Fleet, Member},
    process::{Process, finish_with, trireme},
    simulator::Simulator,
};

/// Crash points visited at once: each needs three processes.
const AT_ONCE: usize = 8;
/// A lease, what the lost attempts did, and patience for a loaded machine.
const RECOVERED: Duration = Duration::from_secs(60);
/// All of a visit, whose parts are bounded by [`RECOVERED`] or [`SOON`] where they have an answer to wait for.
const VISITED: Duration = Duration::from_secs(300);
/// The transitions that a coordinator makes; workers make the others.
const OF_COORDINATOR: [&str; 12] = [
    "admit", "cancel", "expire", "pause", "peek", "read", "replay", "replayed", "submit", "sweep", "wake",
    "watch",
];
/// A run that fails at once, to be replayed.
const FAILING: &str = "tasks: {a: {tool: {name: json_query, args: {data: {}, query: /x}}}}";
const SCENARIO: &str = r#"
rules:
  - {when: {last_user: flaky}, times_each: 1, fault: {error: {status: 500}}}
  - respond: {text: "{{ last_user }}: {{ prose(hash, 20) }}", tokens_per_second: 20}
"#;
const LONG: &str = "tasks: {a: {tool: {name: sleep, args: {ms: 120000}}, timeout: 300s}}";

/// A run that makes a worker come by every point: it renews, streams, expands, fails, retries and keeps a large
/// result.
fn spec() -> String {
    let large = "x".repeat(100_000);
    format!(
        r#"
tasks:
  slow: {{tool: {{name: sleep, args: {{ms: 4000}}}}}}
  text: {{llm: {{model: sim/fast, prompt: streamed, stream: true}}}}
  flaky: {{llm: {{model: sim/fast, prompt: flaky}}, retry: {{attempts: 5, backoff: 500ms}}}}
  wide: {{map: {{over: [1, 2, 3, 4, 5], do: {{tool: {{name: calculator, args: {{expression: "{{{{ item }}}} * 2"}}}}}}, at_once: 2}}}}
  lacking: {{tool: {{name: json_query, args: {{data: {{}}, query: /x}}}}, fallback: lacking}}
  large: {{tool: {{name: value, args: {{value: "{large}"}}}}}}
  size: {{tool: {{name: calculator, args: {{expression: "{{{{ large | length }}}} + 1"}}}}}}
output: {{text: "{{{{ text.text }}}}", flaky: "{{{{ flaky.text }}}}", wide: "{{{{ wide }}}}", lacking: "{{{{ lacking }}}}", size: "{{{{ size }}}}"}}
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_crash_point_is_survived() {
    let world = Simulator::text(SCENARIO).await;
    let here = trireme(&["run", "-", "--config", world.config(), "--json"]);
    let here = finish_with(here, spec().as_bytes()).await;
    let expected = Arc::new(here.expect(0, &[]).json()["output"].clone());
    assert_eq!(expected["size"], 100_001);
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut visits = Vec::new();
    // what an operator's command does is told in `versions`
    for &point in CRASH_POINTS.iter().filter(|point| !point.starts_with("raise.")) {
        let (turns, expected) = (turns.clone(), expected.clone());
        let visit = tokio::spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            tokio::time::timeout(VISITED, visit(point, &expected)).await.expect("a visit ends");
        });
        visits.push((point, visit));
    }
    let mut failed = Vec::new();
    for (point, visit) in visits {
        if visit.await.is_err() {
            failed.push(point);
        }
    }
    assert!(failed.is_empty(), "not survived: {failed:?}");
}

async fn visit(point: &'static str, expected: &Value) {
    // a simulator of its own: which call fails first must not depend on other visits
    let simulator = Simulator::text(SCENARIO).await;
    let mut fleet = Fleet::shared(Some(simulator.config.clone())).await;
    let transition = point.split('.').next().unwrap();
    if transition == "admit" {
        // only a key with a rate comes by
        fleet.key = Some(fleet.make_key(&["--submits-per-minute", "6000", "--runs-in-flight", "2"]).await);
    }
    let coordinates = OF_COORDINATOR.contains(&transition);
    let chosen = [("TRIREME_CRASH_POINT", point)];
    let (victim, other) = if coordinates {
        let worker = fleet.worker(&format!("{point}: worker"), &[]).await;
        (fleet.spawn_coordinator(&format!("{point}: victim"), free_port().unwrap(), &chosen), worker)
    } else {
        let coordinator = fleet.coordinator(&format!("{point}: coordinator")).await;
        (fleet.spawn_worker(&format!("{point}: victim"), free_port().unwrap(), &chosen), coordinator)
    };
    let mut scene = Scene { point, fleet: fleet.clone(), coordinates, victim, other, successor: None };

    let (_, body) = scene.ask("/v1/runs", Some(&spec()), "whole").await;
    let whole = id(&body);
    let (_, body) = scene.ask("/v1/runs", Some(LONG), "long").await;
    let long = id(&body);
    let (status, body) = scene.ask(&format!("/v1/runs/{long}/cancel"), Some(""), "").await;
    assert_eq!(status, 200, "{point}: {body}");
    let operates = transition != "admit";
    if operates {
        // a key that starts runs may not do these
        scene.forget().await;
        assert_eq!(scene.ask("/v1/pools/tool/pause", Some(""), "").await.0, 200, "{point}");
    }
    let (_, body) = scene.ask("/v1/runs", Some(FAILING), "failing").await;
    let failing = id(&body);
    if operates {
        loop {
            let (_, body) = scene.ask("/v1/pools", None, "").await;
            let pools: Value = serde_json::from_str(&body).unwrap();
            let held =
                pools["pools"].as_array().into_iter().flatten().filter_map(|pool| pool["held"].as_u64());
            if held.sum::<u64>() > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(scene.ask("/v1/pools/tool/resume", Some(""), "").await.0, 200, "{point}");
    }
    let (status, body) = loop {
        // refused until it has failed
        let answer = scene.ask(&format!("/v1/runs/{failing}/replay"), Some(""), "").await;
        if answer.0 != 409 {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(status == 202 || status == 200, "{point}: {body}");
    let replay = id(&body);
    let run = loop {
        let (status, body) = scene.ask(&format!("/v1/runs/{whole}?wait=5s"), None, "").await;
        assert_eq!(status, 200, "{point}: {body}");
        let run: Value = serde_json::from_str(&body).unwrap();
        if run["status"] != "running" {
            break run;
        }
    };
    assert!(scene.died(), "{point}: never came by; {}", scene.victim.process.output());
    assert_eq!((&run["status"], &run["output"]), (&json!("succeeded"), expected), "{point}: {run}");
    let api = scene.api();
    assert_eq!(api.run(&long).await["status"], "cancelled", "{point}");
    assert_eq!(api.ended(&replay, RECOVERED).await["status"], "failed", "{point}");
    for run in [&whole, &long, &failing, &replay] {
        whole_log(&api.events(run, None, usize::MAX).await);
    }
    let listed: Value = serde_json::from_str(&api.get("/v1/runs").await.unwrap().1).unwrap();
    assert_eq!(listed["runs"].as_array().unwrap().len(), 4, "{point}: {listed}");
    eventually(&format!("{point}: nothing is due"), SOON, || async {
        fleet.due().await.iter().all(|entry| !entry.contains(':')).then_some(())
    })
    .await;
    scene.other.stop().await;
    if let Some(successor) = scene.successor {
        successor.stop().await;
    }
    fleet.clean().await;
}

/// A victim, a healthy other half of the fleet, and who takes the victim's place once it has died.
struct Scene {
    point: &'static str,
    fleet: Fleet,
    coordinates: bool,
    victim: Member,
    other: Member,
    successor: Option<Member>,
}

impl Scene {
    /// The coordinator to ask now.
    fn api(&self) -> Api {
        match (&self.successor, self.coordinates) {
            (_, false) => self.other.api.clone(),
            (Some(successor), true) => successor.api.clone(),
            (None, true) => self.victim.api.clone(),
        }
    }

    /// Whether the victim has died, and at the point.
    fn died(&mut self) -> bool {
        let Some(status) = self.victim.process.gone() else { return false };
        let output = self.victim.process.output();
        assert!(Process::aborted(status), "{}: the victim ended with {status}: {output}", self.point);
        true
    }

    /// Puts a healthy member in the place of a victim that has died.
    async fn replace(&mut self) {
        if self.successor.is_none() && self.died() {
            let name = format!("{}: successor", self.point);
            self.successor = Some(if self.coordinates {
                self.fleet.coordinator(&name).await
            } else {
                self.fleet.worker(&name, &[]).await
            });
        }
    }

    /// Asks until there is an answer, as a client does that repeats a request after a lost answer.
    async fn ask(&mut self, path: &str, body: Option<&str>, key: &str) -> (u16, String) {
        let end = std::time::Instant::now() + RECOVERED;
        loop {
            self.replace().await;
            let api = self.api();
            let answer = match body {
                Some(body) => api.post(path, body, (!key.is_empty()).then_some(key)).await,
                None => api.get(path).await,
            };
            match answer {
                Ok((503, _)) | Err(_) => {}
                Ok(answer) => {
                    self.replace().await;
                    return answer;
                }
            }
            assert!(std::time::Instant::now() < end, "{}: no answer to {path}", self.point);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Scene {
    /// Starts a run, ends it and forgets it.
    async fn forget(&mut self) {
        let (_, body) = self.ask("/v1/runs", Some(LONG), "gone").await;
        let path = format!("/v1/runs/{}", id(&body));
        assert_eq!(self.ask(&format!("{path}/cancel"), Some(""), "").await.0, 200, "{}", self.point);
        let end = std::time::Instant::now() + RECOVERED;
        loop {
            self.replace().await;
            // of a repeat whose first answer was lost there is nothing left to forget
            if let Ok((204 | 404, _)) = self.api().delete(&path).await {
                self.replace().await;
                return;
            }
            assert!(std::time::Instant::now() < end, "{}: {path} is not forgotten", self.point);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn id(body: &str) -> String {
    let accepted: Value = serde_json::from_str(body).unwrap();
    accepted["run_id"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
}
