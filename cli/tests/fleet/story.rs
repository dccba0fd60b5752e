//! What happens to runs while their fleet is at work: events resumed elsewhere, cancels, members that leave.

use std::time::Duration;

use serde_json::{Value, json};
use trireme_test_servers::free_port;

use crate::support::{
    SOON,
    api::{Sse, whole_log},
    eventually, example,
    fleet::Fleet,
    process::run,
    simulator::Simulator,
};

#[tokio::test(flavor = "multi_thread")]
async fn events_go_on_at_another_coordinator_without_gap_or_repeat() {
    let simulator = Simulator::examples().await;
    let fleet = Fleet::shared(Some(simulator.config.clone())).await;
    let coordinators = [fleet.coordinator("c1").await, fleet.coordinator("c2").await];
    let worker = fleet.worker("w", &[]).await;
    let id = coordinators[0].api.submit(&example("market-brief")).await;
    let mut events: Vec<Sse> = Vec::new();
    let mut turns = 0;
    while events.last().is_none_or(|event| event.kind != "run.succeeded") {
        let last = events.last().map(|event| event.id.clone());
        let limit = [7, 1, 19][turns % 3];
        let more = coordinators[turns % 2].api.events(&id, last.as_deref(), limit).await;
        assert!(!more.is_empty(), "the stream ended early");
        events.extend(more);
        turns += 1;
    }
    assert!(turns > 4, "only {turns} turns");
    whole_log(&events);
    assert!(events.iter().any(|event| event.kind == "task.delta"), "the brief is streamed");
    for coordinator in &coordinators {
        assert_eq!(coordinator.api.events(&id, None, usize::MAX).await, events);
    }
    for member in coordinators.into_iter().chain([worker]) {
        member.stop().await;
    }
    fleet.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_at_any_coordinator_breaks_off_the_call_in_flight() {
    let simulator = Simulator::text("rules: [{fault: {hang: {}}}]").await;
    let fleet = Fleet::shared(Some(simulator.config.clone())).await;
    let (first, second) = (fleet.coordinator("c1").await, fleet.coordinator("c2").await);
    let worker = fleet.worker("w", &[]).await;
    let id = first.api.submit("tasks: {a: {llm: {model: sim/fast, prompt: hi}}}").await;
    eventually("the call is made", SOON, || async { (simulator.calls().await.len() == 1).then_some(()) })
        .await;
    run(&["runs", "cancel", &id, "--server", &second.api.base]).await.expect(0, &[]);
    eventually("the call is broken off", SOON, || async {
        (simulator.calls().await[0]["outcome"] == "client_disconnected").then_some(())
    })
    .await;
    assert_eq!(first.api.run(&id).await["status"], "cancelled");
    let events = first.api.events(&id, None, usize::MAX).await;
    whole_log(&events);
    assert_eq!(simulator.calls().await.len(), 1, "nothing is called for a cancelled run");
    for member in [first, second, worker] {
        member.stop().await;
    }
    fleet.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_worker_hands_its_task_back_without_burning_an_attempt() {
    // the first call never ends, the next is answered
    let scenario = "rules: [{times: 1, fault: {hang: {}}}, {respond: {text: fine}}]";
    let simulator = Simulator::text(scenario).await;
    let fleet = Fleet::shared(Some(simulator.config.clone())).await;
    let coordinator = fleet.coordinator("c").await;
    let leaving = fleet.worker("leaving", &[("TRIREME__WORKER__DRAIN_MS", "300")]).await;
    // a burnt attempt would be the last
    let spec =
        "tasks: {a: {llm: {model: sim/fast, prompt: hi}, retry: {attempts: 1}}}\noutput: \"{{ a.text }}\"";
    let id = coordinator.api.submit(spec).await;
    eventually("the call is made", SOON, || async { (simulator.calls().await.len() == 1).then_some(()) })
        .await;
    let staying = fleet.worker("staying", &[]).await;
    leaving.stop().await;
    let run = coordinator.api.ended(&id, SOON).await;
    assert_eq!((&run["status"], &run["output"]), (&json!("succeeded"), &json!("fine")), "{run}");
    let events = coordinator.api.events(&id, None, usize::MAX).await;
    whole_log(&events);
    assert!(events.iter().all(|event| event.kind != "task.lost"), "handed back, not lost: {events:?}");
    for member in [coordinator, staying] {
        member.stop().await;
    }
    fleet.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_worker_finishes_what_it_can() {
    let scenario = "rules: [{respond: {text: fine, time_to_first_token: 1s}}]";
    let simulator = Simulator::text(scenario).await;
    let fleet = Fleet::shared(Some(simulator.config.clone())).await;
    let coordinator = fleet.coordinator("c").await;
    let worker = fleet.worker("w", &[]).await;
    let id = coordinator.api.submit("tasks: {a: {llm: {model: sim/fast, prompt: hi}}}").await;
    eventually("the call is made", SOON, || async { (simulator.calls().await.len() == 1).then_some(()) })
        .await;
    worker.stop().await;
    let calls = simulator.calls().await;
    assert_eq!((calls.len(), &calls[0]["outcome"]), (1, &json!("completed")));
    let run = coordinator.api.run(&id).await;
    let task = run["tasks"].as_array().unwrap().iter().find(|task| task["id"] == "a").unwrap().clone();
    assert_eq!(task["status"], "succeeded", "{run}");
    // what follows waits for the next worker
    let next = fleet.worker("next", &[]).await;
    assert_eq!(coordinator.api.ended(&id, SOON).await["status"], "succeeded");
    for member in [coordinator, next] {
        member.stop().await;
    }
    fleet.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_workers_task_is_done_by_another_within_12_seconds() {
    let scenario = "rules: [{times: 1, fault: {hang: {}}}, {respond: {text: fine}}]";
    let simulator = Simulator::text(scenario).await;
    let fleet = Fleet::shared(Some(simulator.config.clone())).await;
    let coordinator = fleet.coordinator("c").await;
    let mut doomed = fleet.worker("doomed", &[]).await;
    let id = coordinator.api.submit("tasks: {a: {llm: {model: sim/fast, prompt: hi}}}").await;
    eventually("the call is made", SOON, || async { (simulator.calls().await.len() == 1).then_some(()) })
        .await;
    let healthy = fleet.worker("healthy", &[]).await;
    doomed.process.kill().await;
    let run = coordinator.api.ended(&id, Duration::from_secs(12)).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    let events = coordinator.api.events(&id, None, usize::MAX).await;
    whole_log(&events);
    assert_eq!(events.iter().filter(|event| event.kind == "task.lost").count(), 1, "{events:?}");
    for member in [coordinator, healthy] {
        member.stop().await;
    }
    fleet.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_lives_through_a_restart_of_its_coordinator() {
    let fleet = Fleet::shared(None).await;
    let port = free_port().unwrap();
    let mut coordinator = fleet.spawn_coordinator("c", port, &[]).ready().await;
    let worker = fleet.worker("w", &[]).await;
    let spec = "tasks: {a: {tool: {name: sleep, args: {ms: 3000}}}}\noutput: done";
    let id = coordinator.api.submit(spec).await;
    let server = coordinator.api.base.clone();
    let follow = tokio::spawn(async move { run(&["runs", "follow", &id, "--server", &server]).await });
    eventually("somebody follows", SOON, || async {
        let (_, metrics) = coordinator.api.get("/metrics").await.ok()?;
        metrics
            .lines()
            .any(|line| line.starts_with("trireme_event_streams") && line.ends_with(" 1"))
            .then_some(())
    })
    .await;
    coordinator.process.kill().await;
    let again = fleet.spawn_coordinator("c", port, &[]).ready().await;
    let followed = follow.await.unwrap();
    assert_eq!(followed.expect(0, &["a started", "run succeeded"]).out, "done\n");
    assert_eq!(followed.err.matches("a started").count(), 1, "no repeat: {}", followed.err);
    for member in [again, worker] {
        member.stop().await;
    }
    fleet.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_one_key_are_one_run_wherever_they_arrive() {
    let fleet = Fleet::shared(None).await;
    let coordinators = [fleet.coordinator("c1").await, fleet.coordinator("c2").await];
    let spec = example("hello");
    let asked = (0..64).map(|n| {
        let (api, spec) = (coordinators[n % 2].api.clone(), &spec);
        async move { api.post("/v1/runs", spec, Some("order-17")).await.unwrap() }
    });
    let answers = futures::future::join_all(asked).await;
    let mut ids: Vec<String> = Vec::new();
    for (status, body) in &answers {
        assert!([200, 202].contains(status), "{status}: {body}");
        let accepted: Value = serde_json::from_str(body).unwrap();
        ids.push(accepted["run_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(answers.iter().filter(|(status, _)| *status == 202).count(), 1, "accepted more than once");
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let other =
        coordinators[1].api.post("/v1/runs", "tasks: {a: {tool: {name: noop}}}", Some("order-17")).await;
    assert_eq!(other.unwrap().0, 409);
    // it was accepted without a worker, and waits for one
    let worker = fleet.worker("w", &[]).await;
    let run = coordinators[0].api.ended(&ids[0], SOON).await;
    assert_eq!(run["output"]["total"], 52);
    for member in coordinators.into_iter().chain([worker]) {
        member.stop().await;
    }
    fleet.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_frozen_past_its_lease_harms_nothing_and_goes_on() {
    // the first call takes longer than the lease, the next is answered at once
    let scenario = "rules: [{times: 1, fault: {hang: {for: 14s}}}, {respond: {text: fine}}]";
    let simulator = Simulator::text(scenario).await;
    let fleet = Fleet::shared(Some(simulator.config.clone())).await;
    let coordinator = fleet.coordinator("c").await;
    let frozen = fleet.worker("frozen", &[]).await;
    let spec = "tasks: {a: {llm: {model: sim/fast, prompt: hi}}}\noutput: \"{{ a.text }}\"";
    let id = coordinator.api.submit(spec).await;
    eventually("the call is made", SOON, || async { (simulator.calls().await.len() == 1).then_some(()) })
        .await;
    let healthy = fleet.worker("healthy", &[]).await;
    frozen.process.signal("STOP");
    let run = coordinator.api.ended(&id, SOON).await;
    assert_eq!((&run["status"], &run["output"]), (&json!("succeeded"), &json!("fine")), "{run}");
    frozen.process.signal("CONT");
    healthy.stop().await;
    // it is the only worker now
    let next = coordinator.api.submit(&spec.replace("hi", "again")).await;
    assert_eq!(coordinator.api.ended(&next, SOON).await["output"], "fine");
    eventually("the late call ends", SOON, || async {
        simulator.calls().await.iter().all(|call| call["outcome"] != "in_flight").then_some(())
    })
    .await;
    let after = coordinator.api.run(&id).await;
    assert_eq!((&after["output"], &after["ended_ms"]), (&run["output"], &run["ended_ms"]), "the run changed");
    whole_log(&coordinator.api.events(&id, None, usize::MAX).await);
    assert_eq!(simulator.calls().await.len(), 3, "one lost, one recorded, one of the next run");
    for member in [coordinator, frozen] {
        member.stop().await;
    }
    fleet.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_longer_than_its_lease_is_done_in_one_attempt() {
    let fleet = Fleet::shared(None).await;
    let coordinator = fleet.coordinator("c").await;
    let workers = [fleet.worker("w1", &[]).await, fleet.worker("w2", &[]).await];
    let id = coordinator.api.submit("tasks: {a: {tool: {name: sleep, args: {ms: 13000}}}}").await;
    let run = coordinator.api.ended(&id, SOON).await;
    assert_eq!((&run["status"], &run["tasks"][0]["attempt"]), (&json!("succeeded"), &json!(1)), "{run}");
    let events = coordinator.api.events(&id, None, usize::MAX).await;
    whole_log(&events);
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert!(!kinds.contains(&"task.lost"), "{kinds:?}");
    for member in workers.into_iter().chain([coordinator]) {
        member.stop().await;
    }
    fleet.clean().await;
}
