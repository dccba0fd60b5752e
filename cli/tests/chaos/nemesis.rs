//! Who dies when.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use trireme_test_servers::{PrivateRabbit, free_port};

use crate::{
    support::fleet::{Fleet, Member},
    world::{self, COORDINATORS},
};

/// Members are killed for so long. A lease ends 7 to 10 s after the kill, so that no task can be lost three times
/// in it, which would be quarantine, and rightly.
const KILLING: Duration = Duration::from_secs(13);
/// Between two kills.
const PAUSE: std::ops::Range<u64> = 500..1_500;
/// When RabbitMQ is killed.
const BROKER: Duration = Duration::from_secs(5);

/// Kills members and starts them again.
pub struct Nemesis {
    home: Fleet,
    members: Vec<Member>,
    random: StdRng,
}

/// When members were killed, in ms since the Unix epoch.
#[derive(Debug, Default)]
pub struct Kills {
    pub workers: Vec<u64>,
    pub coordinators: Vec<u64>,
    /// When RabbitMQ was back.
    pub broker_back: u64,
}

pub fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

impl Nemesis {
    pub fn new(home: Fleet, members: Vec<Member>, seed: u64) -> Self {
        Self { home, members, random: StdRng::seed_from_u64(seed) }
    }

    /// Goes on until the time is over and everybody is back and ready.
    pub async fn run(mut self, rabbit: Arc<Mutex<PrivateRabbit>>) -> (Vec<Member>, Kills) {
        let begun = Instant::now();
        let mut kills = Kills::default();
        let mut broker = None;
        while begun.elapsed() < KILLING {
            let pause = self.random.random_range(PAUSE);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if broker.is_none() && begun.elapsed() >= BROKER {
                let rabbit = rabbit.clone();
                broker = Some(tokio::task::spawn_blocking(move || {
                    rabbit.lock().unwrap().restart().unwrap();
                    now_ms()
                }));
            }
            // two of three kills hit a worker
            let victim = if self.random.random_ratio(2, 3) {
                self.random.random_range(COORDINATORS..self.members.len())
            } else {
                self.random.random_range(0..COORDINATORS)
            };
            self.members[victim].process.kill().await;
            let member = &self.members[victim];
            let name = member.process.name.clone();
            let again = if victim < COORDINATORS {
                kills.coordinators.push(now_ms());
                let port = member.api.base.rsplit(':').next().unwrap().parse().unwrap();
                self.home.spawn_coordinator(&name, port, &[])
            } else {
                kills.workers.push(now_ms());
                self.home.spawn_worker(&name, free_port().unwrap(), &world::slots())
            };
            self.members[victim] = again;
        }
        kills.broker_back = broker.unwrap().await.unwrap();
        let mut members = Vec::new();
        for member in self.members {
            members.push(member.ready().await);
        }
        (members, kills)
    }
}
