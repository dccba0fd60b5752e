//! A fleet with API keys under the accounts that `k8s/access` gives its roles; and secrets that must stay where they are.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use redis::AsyncCommands;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use trireme_test_servers::{PrivateRabbit, PrivateRedis, free_port};

use crate::support::{
    SOON, eventually, examples,
    fleet::{Fleet, Member},
    process::{Ended, finish_with, trireme},
    simulator::Simulator,
};

const COORDINATOR: &str = "coordinator-password";
const WORKER: &str = "worker-password";

fn shipped(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s/access").join(file)).unwrap()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// A Redis whose `aclfile` is the shipped file, and a connection that may do everything.
async fn redis_accounts() -> (PrivateRedis, redis::aio::MultiplexedConnection, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("redis.acl");
    // whoever waits for the server's start has no password
    std::fs::write(&file, "user default on nopass ~* &* +@all\n").unwrap();
    let path = file.to_str().unwrap().to_owned();
    let redis = blocking(move || PrivateRedis::start(&[("aclfile", &path)]).unwrap()).await;
    let connect =
        async |url: &str| redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mut first = connect(&redis.url()).await;
    std::fs::write(&file, format!("{}user root on >root ~* &* +@all\n", shipped("redis.acl"))).unwrap();
    let _: () = redis::cmd("ACL").arg("LOAD").query_async(&mut first).await.unwrap();
    let root = connect(&redis.url().replace("redis://", "redis://root:root@")).await;
    (redis, root, dir)
}

/// Gives a RabbitMQ the accounts of the shipped file.
fn rabbit_accounts(rabbit: &PrivateRabbit) {
    let rules: Value = serde_json::from_str(&shipped("rabbitmq.json")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    for vhost in rules["vhosts"].as_array().unwrap() {
        rabbit.ctl(&["add_vhost", &text(&vhost["name"])]).unwrap();
    }
    for rule in rules["permissions"].as_array().unwrap() {
        let part = |name: &str| text(&rule[name]);
        let password = if part("user").ends_with("worker") { WORKER } else { COORDINATOR };
        rabbit.ctl(&["add_user", &part("user"), password]).unwrap();
        let (vhost, user) = (part("vhost"), part("user"));
        let rights = ["configure", "write", "read"].map(part);
        let mut set = vec!["set_permissions", "-p", &vhost, &user];
        set.extend(rights.iter().map(String::as_str));
        rabbit.ctl(&set).unwrap();
    }
    rabbit.ctl(&["delete_user", "guest"]).unwrap();
}

/// The two addresses of a role, as environment.
fn role(redis: &str, amqp: &str, name: &str, password: &str) -> [(&'static str, String); 2] {
    let redis = redis.replace("redis://", &format!("redis://trireme-{name}:{password}@"));
    let (_, host) = amqp.split_once('@').unwrap();
    let host = host.split('/').next().unwrap();
    [
        ("TRIREME__REDIS__URL", redis),
        ("TRIREME__AMQP__URL", format!("amqp://trireme-{name}:{password}@{host}/trireme")),
    ]
}

fn borrowed<'a>(env: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    env.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

async fn command(args: &[&str], env: &[(&str, &str)], stdin: &[u8]) -> Ended {
    let mut command = trireme(args);
    command.envs(env.iter().copied());
    finish_with(command, stdin).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_works_with_the_least_rights() {
    let rabbit = blocking(|| {
        let rabbit = PrivateRabbit::start().unwrap();
        rabbit_accounts(&rabbit);
        rabbit
    })
    .await;
    let (redis, mut root, _acl) = redis_accounts().await;
    let simulator = Simulator::examples().await;
    let fleet = Fleet {
        amqp: rabbit.url(),
        redis: redis.url(),
        // the shipped rules are for this one
        prefix: "trireme".into(),
        config: Some(simulator.config.clone()),
        key: None,
    };
    let mut coordinating = role(&redis.url(), &rabbit.url(), "coordinator", COORDINATOR).to_vec();
    coordinating.push(("TRIREME__COORDINATOR__ACCESS", "keys".into()));
    let working = role(&redis.url(), &rabbit.url(), "worker", WORKER).to_vec();
    let coordinator =
        fleet.spawn_coordinator("c", free_port().unwrap(), &borrowed(&coordinating)).ready().await;
    let worker = fleet.spawn_worker("w", free_port().unwrap(), &borrowed(&working)).ready().await;

    // the first key, with what a coordinator's pod has; the next one with the first
    let first = ["keys", "create", "--store", "--name", "ops", "--scopes", "admin"];
    let made = command(&first, &borrowed(&coordinating), b"").await;
    let ops = made.expect(0, &["shown only now"]).out.trim().to_owned();
    let server = coordinator.api.base.as_str();
    let with = |key: &str| {
        [("TRIREME_API_KEY".to_owned(), key.to_owned()), ("TRIREME_SERVER".to_owned(), server.to_owned())]
    };
    let ask = async |key: &str, args: &[&str]| {
        let env = with(key);
        let env: Vec<(&str, &str)> =
            env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        command(args, &env, b"").await
    };
    let quota = ["--submits-per-minute", "600", "--runs-in-flight", "50"];
    let made =
        ask(&ops, &[&["keys", "create", "--name", "ci", "--tenant", "acme", "--json"], &quota[..]].concat())
            .await;
    let made = made.expect(0, &[]).json();
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    for example in ["market-brief", "map", "quorum", "hello"] {
        let file = examples().join(format!("{example}.yaml"));
        ask(key, &["submit", file.to_str().unwrap(), "--follow"]).await.expect(0, &["run succeeded"]);
    }
    let listed = ask(key, &["runs", "list"]).await.expect(0, &[]).out.clone();
    assert_eq!(listed.lines().count(), 4, "{listed}");
    ask("", &["runs", "list"]).await.expect(64, &["API key"]);
    // what upgrades wait for passes with either account
    for (env, may) in
        [(&coordinating[..], "enough for a coordinator"), (&working[..], "consumes and deletes")]
    {
        let found = command(&["doctor"], &borrowed(env), b"").await;
        assert!(found.expect(0, &[]).out.contains(may), "{found:?}");
    }
    ask(&ops, &["keys", "revoke", id]).await.expect(0, &["revoked"]);
    eventually("the key is refused", SOON, || async {
        (ask(key, &["runs", "list"]).await.code == Some(64)).then_some(())
    })
    .await;

    // whatever a process tried and was not allowed. Asking for the fsync policy is one, saying the name of the client's
    // library another; neither is needed
    let denied: Vec<redis::Value> = redis::cmd("ACL").arg("LOG").query_async(&mut root).await.unwrap();
    let denied: Vec<String> = denied.iter().map(|entry| format!("{entry:?}")).collect();
    let expected = |entry: &&String| ["config", "client|setinfo"].iter().any(|word| entry.contains(word));
    let unexpected: Vec<&String> = denied.iter().filter(|entry| !expected(entry)).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    refused_to_workers(&working[0].1).await;
    for Member { process, .. } in [&coordinator, &worker] {
        let output = process.output();
        for word in ["NOPERM", "ACCESS_REFUSED"] {
            assert!(!output.contains(word), "{}: {word}: {output}", process.name);
        }
    }
    worker.stop().await;
    coordinator.stop().await;
    drop((redis, rabbit));
}

/// Where the canaries sit: a key of a provider, one of a tool, and the API keys.
const PROVIDER: &str = "canary-provider-5b1f0c9e77";
const TOOL: &str = "canary-tool-a44d8e1f02";

/// A model and a tool that answer; others fail, see [`telltale`].
const WORLD: &str = r#"
rules:
  - respond: {text: "all is well"}
tools:
  - {tool: search, respond: {json: {items: [1]}}}
"#;

const CALLS: &str = "\
tasks:
  said: {llm: {model: named/fast, prompt: hello}}
  found: {tool: {name: search, args: {q: x}}}
  unsaid: {llm: {model: telltale/fast, prompt: hello}, fallback: none}
  unfound: {tool: {name: broken, args: {q: x}}, fallback: none}
  lost: {llm: {model: lacking/fast, prompt: hello}, fallback: none}
output: [\"{{ said.text }}\", \"{{ found }}\", \"{{ unsaid }}\", \"{{ unfound }}\", \"{{ lost }}\"]
";

#[tokio::test(flavor = "multi_thread")]
async fn secrets_stay_where_they_are() {
    let (redis, rabbit) =
        blocking(|| (PrivateRedis::start(&[]).unwrap(), PrivateRabbit::start().unwrap())).await;
    let simulator = Simulator::text(WORLD).await;
    let secrets = tempfile::tempdir().unwrap();
    std::fs::write(secrets.path().join("provider"), PROVIDER).unwrap();
    let config = secrets.path().join("named.toml");
    let (base, (telltale, heard)) = (&simulator.api.base, telltale().await);
    let text = format!(
        "[providers.named]\nbase_url = \"{base}/v1\"\napi_key = \"secret://provider\"\n\
         [providers.telltale]\nbase_url = \"{telltale}/v1\"\napi_key = \"secret://provider\"\n\
         [providers.lacking]\nbase_url = \"{base}/v1\"\napi_key = \"secret://nowhere\"\n\
         [egress]\nallow = [\"127.0.0.1\"]\n\
         [tools.search]\nurl = \"{base}/tools/search\"\nheaders = {{authorization = \"Bearer secret://tool\"}}\n\
         [tools.broken]\nurl = \"{telltale}/tools/broken\"\nheaders = {{authorization = \"Bearer secret://tool\"}}\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut fleet = Fleet {
        amqp: rabbit.url(),
        redis: redis.url(),
        prefix: "canary".into(),
        config: Some(config),
        key: None,
    };
    fleet.key = Some(fleet.make_key(&["--submits-per-minute", "600", "--runs-in-flight", "9"]).await);
    let key = fleet.key.clone().unwrap();
    // the part behind the public id
    let secret = key[21..].to_owned();
    let debug = ("TRIREME_LOG", "debug");
    let coordinator = fleet.spawn_coordinator("c", free_port().unwrap(), &[debug]).ready().await;
    let env =
        [debug, ("TRIREME_SECRETS_DIR", secrets.path().to_str().unwrap()), ("TRIREME_SECRET_TOOL", TOOL)];
    let worker = fleet.spawn_worker("w", free_port().unwrap(), &env).ready().await;

    let run = coordinator.api.submit(CALLS).await;
    let ended = coordinator.api.ended(&run, SOON).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!(ended["output"][0], "all is well", "{ended}");
    assert_eq!((&ended["output"][2], &ended["output"][3]), (&Value::from("none"), &Value::from("none")));
    let lost = ended["tasks"].as_array().unwrap().iter().find(|task| task["id"] == "lost").unwrap();
    assert!(lost["error"].to_string().contains("secret nowhere"), "{lost}");
    // hints that nobody takes stay where they can be looked at
    let worker_said = worker.process.output();
    let worker_metrics = worker.api.get("/metrics").await.unwrap().1;
    worker.stop().await;
    let waiting = coordinator.api.submit(CALLS).await;
    let refused = coordinator.api.post("/v1/runs", "tasks: nothing", None).await.unwrap();
    let unknown = coordinator.api.get("/v1/runs/unknown").await.unwrap();
    let stranger = crate::support::api::Api::with_key(&coordinator.api.base, Some(&format!("{key}0")));
    let stranger = stranger.get("/v1/runs").await.unwrap();
    assert_eq!((refused.0, unknown.0, stranger.0), (422, 404, 401));
    let mut places = vec![
        ("problems", format!("{refused:?} {unknown:?} {stranger:?}")),
        ("metrics", worker_metrics + &coordinator.api.get("/metrics").await.unwrap().1),
        ("the run", ended.to_string()),
        ("its events", format!("{:?}", coordinator.api.events(&run, None, usize::MAX).await)),
        ("messages", messages(&fleet).await),
        ("redis", dump(&fleet.redis).await),
        ("the worker's log", worker_said),
    ];
    coordinator.api.post(&format!("/v1/runs/{waiting}/cancel"), "", None).await.unwrap();
    places.push(("the coordinator's log", coordinator.process.output()));
    coordinator.stop().await;
    for (place, text) in &places {
        assert!(text.len() > 40, "{place} was not looked at: {text:?}");
        for canary in [PROVIDER, TOOL, secret.as_str()] {
            assert!(!text.contains(canary), "{place} tells a secret");
        }
    }
    // the calls were made with them, and their errors told them: else there was nothing to hide
    let heard = heard.lock().unwrap().join("\n");
    for canary in [PROVIDER, TOOL] {
        assert!(heard.contains(canary), "no call was made with {canary}: {heard}");
    }
    drop((redis, rabbit));
}

/// A server that refuses every call, and says in its refusal what it was sent. Its address, and what it heard.
async fn telltale() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (base, heard) =
        (format!("http://{}", listener.local_addr().unwrap()), Arc::new(Mutex::new(Vec::new())));
    let hears = heard.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut head, mut byte) = (Vec::new(), [0; 1]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.is_ok_and(|read| read > 0) {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let body = serde_json::json!({"error": {"message": format!("not with {head}")}}).to_string();
            hears.lock().unwrap().push(head);
            let answer = format!(
                "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\nconnection: close\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (base, heard)
}

/// All that a Redis holds, in any type, and what it would write to disk.
async fn dump(url: &str) -> String {
    let mut link = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = link.keys("*").await.unwrap();
    assert!(keys.iter().any(|key| key.ends_with(":keys")), "{keys:?}");
    let mut text = keys.join(" ");
    for key in keys {
        let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut link).await.unwrap();
        let value: redis::Value = match kind.as_str() {
            "hash" => redis::cmd("HGETALL").arg(&key).query_async(&mut link).await.unwrap(),
            "list" => redis::cmd("LRANGE").arg(&key).arg(0).arg(-1).query_async(&mut link).await.unwrap(),
            "zset" => redis::cmd("ZRANGE").arg(&key).arg(0).arg(-1).query_async(&mut link).await.unwrap(),
            "string" => redis::cmd("GET").arg(&key).query_async(&mut link).await.unwrap(),
            other => panic!("{key} is a {other}: look into those as well"),
        };
        collect(&value, &mut text);
    }
    text
}

fn collect(value: &redis::Value, text: &mut String) {
    match value {
        redis::Value::BulkString(bytes) => text.push_str(&String::from_utf8_lossy(bytes)),
        redis::Value::Array(values) => values.iter().for_each(|value| collect(value, text)),
        other => text.push_str(&format!("{other:?}")),
    }
}

/// The messages that wait in the queues of a fleet, headers included.
async fn messages(fleet: &Fleet) -> String {
    let amqp = lapin::Connection::connect(&fleet.amqp, lapin::ConnectionProperties::default()).await.unwrap();
    let channel = amqp.create_channel().await.unwrap();
    let mut text = String::new();
    eventually("hints wait", SOON, || async {
        let waiting = fleet.queued().await;
        (waiting > 0).then_some(())
    })
    .await;
    for queue in ["llm.normal", "tool.normal"] {
        let name = format!("{}.q.{queue}", fleet.prefix);
        while let Some(got) = channel.basic_get(name.as_str().into(), Default::default()).await.unwrap() {
            text.push_str(&format!(
                "{:?}{}",
                got.delivery.properties,
                String::from_utf8_lossy(&got.delivery.data)
            ));
        }
    }
    amqp.close(0, "done".into()).await.unwrap();
    text
}

/// What a worker's account may not do.
async fn refused_to_workers(url: &str) {
    let mut link = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let _: Option<String> = link.hget("{trireme:0}:meta", "epoch").await.unwrap();
    for words in [
        "HGET {trireme:access}:keys field",
        "HGETALL {trireme:access}:keys",
        "HSET {trireme:access}:keys field x",
        "HGET other field",
        "HVALS {trireme:0}:meta",
        "UNLINK {trireme:0}:meta",
        "DEL {trireme:0}:meta",
        "KEYS *",
        "SCAN 0",
        "CONFIG GET *",
        "FLUSHALL",
        "ACL LIST",
        "MONITOR",
        "SUBSCRIBE field",
    ] {
        let mut parts = words.split(' ');
        let mut command = redis::cmd(parts.next().unwrap());
        for part in parts {
            command.arg(part);
        }
        let answer: Result<redis::Value, _> = command.query_async(&mut link).await;
        let error = answer.expect_err(words).to_string();
        assert!(error.contains("NOPERM") || error.contains("permission"), "{words}: {error}");
    }
}
