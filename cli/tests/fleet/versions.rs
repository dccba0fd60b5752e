//! Two versions on one store: a rolling upgrade, a roll-back that is still possible, and one that is not any more.

use std::time::Duration;

use serde_json::{Value, json};
use trireme_test_servers::free_port;

use crate::support::{
    SOON, eventually,
    fleet::{Fleet, Member},
    process::{Ended, Process, finish_with, trireme},
};

/// A process of the version before, and one of the version to come.
const BEFORE: [(&str, &str); 1] = [("TRIREME_SPEAKS", "4-4")];
const AFTER: [(&str, &str); 1] = [("TRIREME_SPEAKS", "5-6")];
const SPEC: &str = "\
tasks:
  a: {tool: {name: value, args: {value: [1, 2, 3]}}}
  each: {map: {over: \"{{ a }}\", do: {tool: {name: calculator, args: {expression: \"{{ item }} * 2\"}}}, at_once: 2}}
  slow: {tool: {name: sleep, args: {ms: 200}}, after: [a]}
  sum: {tool: {name: calculator, args: {expression: \"{{ each[0] }} + {{ each[1] }} + {{ each[2] }}\"}}, after: [slow]}
output: \"{{ sum }}\"
";
/// Runs submitted to each coordinator in turn.
const RUNS: usize = 20;
const ENDED: Duration = Duration::from_secs(60);

async fn command(fleet: &Fleet, args: &[&str], env: &[(&str, &str)]) -> Ended {
    let mut command = trireme(args);
    command.env("TRIREME__AMQP__URL", &fleet.amqp).env("TRIREME__REDIS__URL", &fleet.redis);
    command.env("TRIREME__REDIS__PREFIX", &fleet.prefix).envs(env.iter().copied());
    finish_with(command, b"").await
}

async fn coordinator(fleet: &Fleet, name: &str, env: &[(&str, &str)]) -> Member {
    fleet.spawn_coordinator(name, free_port().unwrap(), env).ready().await
}

/// Submits runs to both coordinators and sees each end right.
async fn work(coordinators: [&Member; 2]) {
    let mut runs = Vec::new();
    for at in 0..RUNS {
        runs.push(coordinators[at % 2].api.submit(SPEC).await);
    }
    for (at, id) in runs.iter().enumerate() {
        // told by the other one
        let run = coordinators[(at + 1) % 2].api.ended(id, ENDED).await;
        assert_eq!((&run["status"], &run["output"]), (&json!("succeeded"), &json!(12)), "{run}");
    }
}

/// Attempts that a worker has made.
async fn attempts(worker: &Member) -> f64 {
    let (_, text) = worker.api.get("/metrics").await.unwrap();
    let lines = text.lines().filter(|line| line.starts_with("trireme_attempts_total{"));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

async fn versions(fleet: &Fleet) -> (String, String) {
    let found: Value = command(fleet, &["doctor", "--json"], &[]).await.json();
    let checks = found["checks"].as_array().unwrap();
    let finding = checks.iter().find(|finding| finding["check"] == "versions").unwrap();
    (finding["verdict"].as_str().unwrap().to_owned(), finding["text"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_share_a_store_and_it_moves_on_when_the_older_ones_have_gone() {
    let fleet = Fleet::shared(None).await;
    // the version before sets the store up, and the upgrade begins
    let old = (coordinator(&fleet, "old c", &BEFORE).await, fleet.worker("old w", &BEFORE).await);
    let new = (coordinator(&fleet, "new c", &[]).await, fleet.worker("new w", &[]).await);
    work([&old.0, &new.0]).await;
    for worker in [&old.1, &new.1] {
        assert!(attempts(worker).await > 0.0, "{} did nothing", worker.process.name);
    }
    let (verdict, text) = versions(&fleet).await;
    assert!(verdict == "warn" && text.contains("(layouts 4-4)") && text.contains("(layouts 4-5)"), "{text}");
    let refused = command(&fleet, &["upgrade"], &[]).await;
    refused.expect(1, &["2 processes do not know layout 5", "reads layouts 4-4"]);
    // rolled back to the version before, and forward again
    new.1.stop().await;
    let again = fleet.worker("old w again", &BEFORE).await;
    work([&old.0, &new.0]).await;
    again.stop().await;
    let worker = fleet.worker("new w again", &[]).await;
    old.1.stop().await;
    old.0.stop().await;
    work([&new.0, &new.0]).await;
    let (verdict, text) = versions(&fleet).await;
    assert!(verdict == "warn" && text.contains("trireme upgrade"), "{text}");

    // a command that dies is repeated
    let point = [("TRIREME_CRASH_POINT", "raise.after_store")];
    let mut dying = trireme(&["upgrade"]);
    dying.env("TRIREME__AMQP__URL", &fleet.amqp).env("TRIREME__REDIS__URL", &fleet.redis);
    dying.env("TRIREME__REDIS__PREFIX", &fleet.prefix).envs(point);
    let mut dying = Process::start("upgrade", dying);
    assert!(Process::aborted(dying.ended(SOON).await), "{}", dying.output());
    assert_eq!(command(&fleet, &["upgrade"], &[]).await.expect(0, &[]).out.trim(), "layout 5");
    assert_eq!(versions(&fleet).await.0, "ok");
    work([&new.0, &new.0]).await;

    // from here on the version before is refused, and the next one may come
    let mut late = fleet.spawn_worker("late", free_port().unwrap(), &BEFORE);
    assert_eq!(late.process.ended(SOON).await.code(), Some(64), "{}", late.process.output());
    assert!(late.process.output().contains("the store has layout 5, this version reads 4-4"));
    let next = (coordinator(&fleet, "next c", &AFTER).await, fleet.worker("next w", &AFTER).await);
    work([&new.0, &next.0]).await;
    assert!(attempts(&next.1).await > 0.0);
    worker.stop().await;
    new.0.stop().await;
    assert_eq!(command(&fleet, &["upgrade"], &AFTER).await.expect(0, &[]).out.trim(), "layout 6");
    work([&next.0, &next.0]).await;
    eventually("nothing is due and no hint waits", SOON, || async {
        let due = fleet.due().await;
        (due.iter().all(|entry| !entry.contains(':')) && fleet.queued().await == 0).then_some(())
    })
    .await;
    next.1.stop().await;
    next.0.stop().await;
    fleet.clean().await;
}
