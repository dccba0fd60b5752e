//! The servers, the simulated models and tools, the runs, and the fleet that is to suffer.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, stream};
use serde_json::Value;
use tempfile::TempDir;
use trireme_simulator::{Scenario, Simulator};
use trireme_test_servers::{PrivateRabbit, PrivateRedis, free_port};

use crate::support::{
    SOON,
    api::Api,
    fleet::{Fleet, Member},
    process::{Process, trireme},
    simulator::write_config,
};

/// Runs in flight.
pub const RUNS: usize = 200;
/// Coordinators and workers of the fleet.
pub const COORDINATORS: usize = 2;
const WORKERS: usize = 3;
/// Few slots, so that the work lasts as long as the kills.
const SLOTS: &str = "12";
const SCENARIO: &str = r#"
seed: 7
chunk_interval: 20ms
rules:
  - respond:
      text: "{{ hash[:8] }} {{ prose(hash, 8) }}"
      time_to_first_token: {uniform: {min: 50ms, max: 450ms}}
      tokens_per_second: 200
tools:
  - tool: "*"
    latency: {uniform: {min: 50ms, max: 500ms}}
    respond: {json: {items: ["{{ hash[:6] }}", "{{ hash[6:12] }}", "{{ hash[10:] }}"]}}
"#;

/// Everything but the fleet's members.
pub struct World {
    pub simulator: Simulator,
    pub rabbit: Arc<Mutex<PrivateRabbit>>,
    /// Where the fleet lives.
    pub home: Fleet,
    _redis: PrivateRedis,
    _dir: TempDir,
}

/// The `n`th run: eleven tasks, of tools and models, with a join and a map.
fn spec(n: usize) -> String {
    format!(
        r#"
name: chaos
input: {{n: {n}}}
tasks:
  news: {{tool: {{name: search, args: {{q: "news {{{{ input.n }}}}"}}}}}}
  rivals: {{tool: {{name: search, args: {{q: "rivals {{{{ input.n }}}}"}}}}}}
  seven: {{tool: {{name: calculator, args: {{expression: "{{{{ input.n }}}} * 7"}}}}}}
  early: {{llm: {{model: sim/fast, prompt: "early {{{{ news.items }}}}"}}}}
  other: {{llm: {{model: sim/fast, prompt: "other {{{{ rivals.items }}}} {{{{ seven }}}}"}}}}
  both: {{join: {{from: [early, other]}}}}
  each: {{map: {{over: "{{{{ news.items }}}}", do: {{llm: {{model: sim/fast, prompt: "each {{{{ item }}}}"}}}}, at_once: 2}}}}
  last: {{llm: {{model: sim/fast, prompt: "{{{{ both.early }}}} {{{{ both.other }}}} {{{{ each }}}}", stream: true}}}}
output: {{n: "{{{{ seven }}}}", last: "{{{{ last.text }}}}", each: "{{{{ each | join(',') }}}}"}}
"#
    )
}

impl World {
    pub async fn start() -> Self {
        let servers = tokio::task::spawn_blocking(|| {
            (PrivateRabbit::start().unwrap(), PrivateRedis::start(&[]).unwrap())
        });
        let (rabbit, redis) = servers.await.unwrap();
        let scenario = Scenario::parse(SCENARIO).unwrap();
        let simulator = Simulator::start(scenario, ([127, 0, 0, 1], 0).into()).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("simulated.toml");
        write_config(&config, &simulator.base_url());
        let home = Fleet {
            amqp: rabbit.url(),
            redis: redis.url(),
            prefix: "chaos".into(),
            config: Some(config),
            key: None,
        };
        Self { simulator, rabbit: Arc::new(Mutex::new(rabbit)), home, _redis: redis, _dir: dir }
    }

    /// What each run has to give: what one undisturbed process gives.
    pub async fn expected(&self) -> Vec<Value> {
        let mut command = trireme(&["dev", "--listen", "127.0.0.1:0"]);
        command.env("TRIREME_CONFIG", self.home.config.as_ref().unwrap());
        let mut dev = Process::start("dev", command);
        let api = Api::new(dev.address("listening on").await);
        let run = |n| {
            let api = &api;
            async move {
                let id = api.submit(&spec(n)).await;
                let run = api.ended(&id, SOON).await;
                assert_eq!(run["status"], "succeeded", "{run}");
                run["output"].clone()
            }
        };
        let outputs = stream::iter(0..RUNS).map(run).buffered(RUNS).collect().await;
        dev.stop(SOON).await;
        outputs
    }

    /// The members, coordinators first, and the doors of the coordinators, which stay over restarts.
    pub async fn fleet(&self) -> (Vec<Member>, Vec<Api>) {
        let mut members = Vec::new();
        for n in 0..COORDINATORS {
            members
                .push(self.home.spawn_coordinator(&format!("c{n}"), free_port().unwrap(), &[]).ready().await);
        }
        for n in 0..WORKERS {
            let worker = self.home.spawn_worker(&format!("w{n}"), free_port().unwrap(), &slots());
            members.push(worker.ready().await);
        }
        let doors = members[..COORDINATORS].iter().map(|member| member.api.clone()).collect();
        (members, doors)
    }
}

/// Settings of a worker.
pub fn slots() -> [(&'static str, &'static str); 1] {
    [("TRIREME__WORKER__SLOTS", SLOTS)]
}

/// Has the `n`th run accepted: repeats the request, with its key, at one coordinator after the other.
pub async fn submit(doors: &[Api], n: usize) -> (usize, String) {
    let (spec, key) = (spec(n), format!("run-{n}"));
    for door in doors.iter().cycle().skip(n).take(3_000) {
        if let Ok((200 | 202, body)) = door.post("/v1/runs", &spec, Some(&key)).await {
            let accepted: Value = serde_json::from_str(&body).unwrap();
            return (n, accepted["run_id"].as_str().unwrap().to_owned());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("run {n} was never accepted");
}
