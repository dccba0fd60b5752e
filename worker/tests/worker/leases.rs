//! Owning a task for a bounded time: renewals, self-fencing, loss, quarantine.

use tokio::time::Instant;
use trireme_backend::Backend;
use trireme_model::{TaskStatus, limits};

use crate::support::{Stage, Tap, config, task};

const WAITS: &str =
    "tasks: {a: {tool: {name: probe, args: {wait: gate, value: 1}}, timeout: 1h}}\noutput: '{{ a }}'";

#[tokio::test(start_paused = true)]
async fn all_leases_are_renewed_in_one_call() {
    let stage = Stage::manual();
    let worker = stage.hire(config(&[("tool", 8)])).await;
    for _ in 0..5 {
        stage.submit(WAITS).await;
    }
    stage.probe.until("all attempts", |seen| seen.running == 5).await;
    stage
        .tap
        .until("two renewals", |calls| calls.iter().filter(|call| call.what == "renew").count() >= 2)
        .await;
    for _ in 0..4 {
        // without the renewals each of them would have run out by now
        stage.hand.advance(limits::RENEW_EVERY_MS);
        let renewed = stage.tap.of("renew").len();
        stage
            .tap
            .until("a renewal", |calls| calls.iter().filter(|c| c.what == "renew").count() > renewed)
            .await;
        stage.sweep().await;
    }
    assert!(stage.tap.of("renew").iter().all(|call| call.id == "5"), "{:?}", stage.tap.of("renew"));
    stage.probe.open("gate");
    let metrics = worker.stop().await;
    assert_eq!((metrics.leases_lost.get(), stage.probe.started().len()), (0, 5));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_stops_itself_when_its_lease_may_have_run_out() {
    for fault in [Tap::refuse, Tap::stall] {
        let stage = Stage::manual();
        fault(&stage.tap, "renew", usize::MAX);
        let worker = stage.hire(config(&[("tool", 1)])).await;
        let run = stage.submit(WAITS).await;
        stage.probe.until("the attempt", |seen| seen.running == 1).await;
        let begun = Instant::now();
        stage.probe.until("its end", |seen| seen.running == 0).await;
        // time is simulated, so this is exact: the lease, and not a whole round of renewals more
        let lasted = begun.elapsed().as_millis() as u64;
        assert!((limits::LEASE_MS - 50..=limits::LEASE_MS + 50).contains(&lasted), "{lasted} ms");
        let metrics = worker.stop().await;
        assert_eq!(metrics.leases_lost.get(), 1);
        assert!(
            stage.tap.of("fail").is_empty() && stage.tap.of("complete").is_empty(),
            "nothing is recorded"
        );
        assert_eq!(stage.run(&run).await.tasks[&task("a")].status, TaskStatus::Running);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_attempt_stops_and_records_nothing() {
    let stage = Stage::manual();
    let first = stage.hire(config(&[("tool", 1)])).await;
    let run = stage.submit(WAITS).await;
    stage.probe.until("the attempt", |seen| seen.running == 1).await;
    let begun = Instant::now();
    let second = stage.hire(config(&[("tool", 1)])).await;
    stage.hand.advance(limits::LEASE_MS + 1);
    stage.sweep().await;
    stage.probe.until("the second attempt", |seen| seen.started.len() == 2).await;
    stage.probe.until("the end of the first", |seen| seen.running == 1).await;
    // by simulated time: at the next renewal, long before its lease has run out
    assert!(begun.elapsed().as_millis() as u64 <= limits::RENEW_EVERY_MS + 50);
    stage.probe.open("gate");
    assert_eq!(stage.output(&run).await, 1);
    let lost = first.metrics.leases_lost.get() + second.metrics.leases_lost.get();
    let stale = first.metrics.stale.get() + second.metrics.stale.get();
    assert_eq!((lost, stale), (1, 0));
    assert_eq!(stage.tap.of_task("complete", "a").len(), 1);
    assert!(stage.tap.of("fail").is_empty());
    first.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_gets_its_own_lost_task_again_stops_the_first_attempt() {
    let stage = Stage::manual();
    let worker = stage.hire(config(&[("tool", 2)])).await;
    let run = stage.submit(WAITS).await;
    stage.probe.until("the attempt", |seen| seen.running == 1).await;
    // as after a pause of the process: the hint comes again while the first attempt still runs
    stage.hand.advance(limits::LEASE_MS + 1);
    stage.sweep().await;
    stage.tap.forge(&run, "a", "tool").await;
    stage.probe.until("the second attempt", |seen| seen.started.len() == 2).await;
    stage.probe.until("the end of the first", |seen| seen.running == 1).await;
    stage.probe.open("gate");
    assert_eq!(stage.output(&run).await, 1);
    let metrics = worker.stop().await;
    assert_eq!(metrics.stale.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_third_lost_start_is_quarantined() {
    let stage = Stage::manual();
    let worker = stage.hire(config(&[("tool", 4)])).await;
    let run = stage.submit("tasks: {a: {tool: {name: probe, args: {wait: never}}, timeout: 1h}}").await;
    for start in 1..=limits::MAX_LOST as usize {
        stage.probe.until("a start", |seen| seen.started.len() == start).await;
        stage.hand.advance(limits::LEASE_MS + 1);
        stage.sweep().await;
    }
    let error = stage.failed(&run, "a").await;
    assert_eq!(error["class"], "poison");
    assert!(error["message"].as_str().unwrap().contains("3 starts"), "{error}");
    stage.probe.until("the end of all attempts", |seen| seen.running == 0).await;
    worker.stop().await;
    assert_eq!(stage.probe.started().len(), 3);
    assert!(stage.store.run(&run).await.unwrap().unwrap().status.terminal());
}
