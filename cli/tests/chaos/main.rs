//! 200 runs are in flight while workers and coordinators are killed and started again at random and RabbitMQ is
//! killed and started again once. `TRIREME_TEST_SEED` repeats a choice of victims.
#![allow(clippy::unwrap_used)]

#[path = "../support/support.rs"]
mod support;

mod checks;
mod nemesis;
mod world;

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use serde_json::Value;
use support::{api::Sse, eventually};

use crate::{
    nemesis::Nemesis,
    world::{RUNS, World},
};

/// From the last submit to the last end: leases of what was lost twice, and the work itself, on a loaded machine.
const ENDED: Duration = Duration::from_secs(120);

/// One accepted run as it ended, with all its events.
struct Ended {
    n: usize,
    id: String,
    run: Value,
    events: Vec<Sse>,
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_end_right_whoever_dies() {
    let seed = std::env::var("TRIREME_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    println!("TRIREME_TEST_SEED={seed}");
    let world = World::start().await;
    let expected = world.expected().await;
    world.simulator.reset();

    let begun = Instant::now();
    let (members, doors) = world.fleet().await;
    let nemesis = Nemesis::new(world.home.clone(), members, seed);
    let nemesis = tokio::spawn(nemesis.run(world.rabbit.clone()));
    let accepted: Vec<(usize, String)> =
        stream::iter(0..RUNS).map(|n| world::submit(&doors, n)).buffered(4).collect().await;
    println!("{RUNS} runs accepted after {:?}", begun.elapsed());
    let (members, kills) = nemesis.await.unwrap();
    println!("{kills:?} after {:?}", begun.elapsed());

    let runs: Vec<Ended> = stream::iter(accepted)
        .map(|(n, id)| {
            let doors = &doors;
            async move {
                let run = doors[0].ended(&id, ENDED).await;
                let events = doors[1].events(&id, None, usize::MAX).await;
                Ended { n, id, run, events }
            }
        })
        .buffer_unordered(16)
        .collect()
        .await;
    println!("all ended after {:?}", begun.elapsed());

    checks::every_run_ended_right(&runs, &expected);
    checks::logs_are_whole(&runs);
    checks::attempts_are_in_order(&runs);
    checks::the_fleet_was_busy(&runs);
    checks::no_call_began_after_its_result(&runs, &world.simulator.ledger().calls());
    checks::lost_tasks_came_back_in_time(&runs, &kills);
    checks::nothing_else_was_accepted(&runs, &doors[0]).await;
    eventually("only ended runs are due, for their retention", Duration::from_secs(30), || async {
        world.home.due().await.iter().all(|entry| !entry.contains(':')).then_some(())
    })
    .await;
    eventually("the queues are empty", Duration::from_secs(30), || async {
        (world.home.queued().await == 0).then_some(())
    })
    .await;
    for member in members {
        member.stop().await;
    }
}
