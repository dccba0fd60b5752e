//! Configuration: file, environment, and what is wrong with them.

use serde_json::json;

use crate::support::{
    examples,
    process::{finish_with, run, trireme},
};

#[tokio::test]
async fn secrets_are_never_printed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret.toml");
    std::fs::write(
        &file,
        "[providers.own]\napi = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\napi_key = \"canary-key\"\n\
         headers = { x-token = \"canary-header\" }\n\
         [tools.t]\nmethod = \"GET\"\nurl = \"http://127.0.0.1:1/\"\nheaders = { authorization = \"canary-tool\" }\n\
         [mcp.m.stdio]\ncommand = \"true\"\nenv = { TOKEN = \"canary-mcp\" }\n",
    )
    .unwrap();
    let mut command = trireme(&["settings", "--config", file.to_str().unwrap()]);
    command.env("TRIREME__AMQP__URL", "amqp://user:canary-amqp@127.0.0.1:1");
    command.env("TRIREME__REDIS__URL", "redis://:canary-redis@127.0.0.1:1");
    let ended = finish_with(command, b"").await;
    let printed = ended.expect(0, &[]).json();
    assert_eq!(printed["providers"]["own"]["base_url"], "http://127.0.0.1:1/v1");
    assert!(!ended.out.contains("canary") && !ended.err.contains("canary"), "{}", ended.out);
}

#[tokio::test]
async fn the_environment_goes_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.yaml");
    std::fs::write(&file, "coordinator: {listen: \"127.0.0.1:1\", poll: 2s}\nworker: {drain_ms: 5}\n")
        .unwrap();
    let mut command = trireme(&["settings"]);
    command.env("TRIREME_CONFIG", &file).env("TRIREME__COORDINATOR__POLL", "3s");
    let printed = finish_with(command, b"").await.expect(0, &[]).json();
    assert_eq!(printed["coordinator"]["poll"], "3s");
    assert_eq!(printed["coordinator"]["listen"], "127.0.0.1:1");
    assert_eq!(printed["worker"]["drain_ms"], json!(5));
}

#[tokio::test]
async fn a_bad_configuration_exits_64_with_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let cases: &[(&str, &str, &[&str])] = &[
        ("u.toml", "bogus = 1\n", &["unknown field `bogus`", "u.toml"]),
        ("w.toml", "[worker]\nslots = \"many\"\n", &["worker.slots", "many", "w.toml"]),
        ("b.toml", "[worker\n", &["b.toml", "line 1, column 8", "unclosed"]),
        ("z.yaml", "worker: {slots: 0}\n", &["worker.slots", "use 1 or more"]),
        ("p.json", "{\"worker\": {\"pools\": []}}", &["worker.pools"]),
        ("c.toml", "[coordinator]\npoll = \"0s\"\n", &["coordinator", "poll", "longer than zero"]),
        ("m.toml", "[models]\nfast = 3\n", &["models.fast"]),
        ("r.toml", "[redis]\nurl = \"redis://127.0.0.1:1\"\n", &["amqp.url", "TRIREME__AMQP__URL"]),
        ("x.txt", "nothing", &["x.txt", "format"]),
        ("base.toml", "[providers.x]\napi = \"openai\"\nbase_url = \"nope\"\n", &["providers.x", "base_url"]),
        ("url.toml", "[tools.s]\nmethod = \"GET\"\nurl = \"nope\"\n", &["tool `s`", "url", "http://"]),
        (
            "open.toml",
            "[tools.s]\nmethod = \"GET\"\nurl = \"http://127.0.0.1/{{ args.q\"\n",
            &["tool `s`", "url"],
        ),
    ];
    let spec = examples().join("hello.yaml");
    for (name, text, texts) in cases {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        let ended = run(&["run", spec.to_str().unwrap(), "--config", file.to_str().unwrap()]).await;
        ended.expect(64, texts);
        assert_eq!(ended.err.lines().count(), 1, "more than one line: {}", ended.err);
        assert_eq!(ended.out, "");
    }
    run(&["settings", "--config", "/no/such.toml"]).await.expect(64, &["/no/such.toml", "no such file"]);
}

/// What would fail at `run` fails here as well, and nothing is started for it.
#[tokio::test]
async fn settings_finds_what_run_would_refuse() {
    let dir = tempfile::tempdir().unwrap();
    let bomb = {
        let levels = (1..9).map(|level| {
            let below = vec![format!("*a{}", level - 1); 9].join(", ");
            format!("a{level}: &a{level} [{below}]\n")
        });
        format!("a0: &a0 [x]\n{}", levels.collect::<String>())
    };
    let cases: &[(&str, &str, &[&str])] = &[
        ("base.toml", "[providers.x]\napi = \"openai\"\nbase_url = \"nope\"\n", &["providers.x", "base_url"]),
        ("url.toml", "[tools.s]\nmethod = \"GET\"\nurl = \"nope\"\n", &["tool `s`", "url"]),
        ("half.yaml", "worker: {slots: 1.5}\n", &["worker.slots", "1.5", "half.yaml"]),
        ("huge.json", "{\"redis\": {\"connections\": 100000}}", &["redis.connections", "1 to 1024"]),
        ("long.toml", "[coordinator]\nbody_timeout = \"2days\"\n", &["coordinator", "body_timeout", "24h"]),
        ("bomb.yaml", &bomb, &["bomb.yaml"]),
        ("list.yaml", "[1, 2]\n", &["list.yaml", "expected a map"]),
        ("nan.toml", "[telemetry.otlp]\nratio = nan\n", &["nan.toml", "telemetry.otlp.ratio", "NaN"]),
        ("inf.toml", "[telemetry.otlp]\nratio = -inf\n", &["inf.toml", "telemetry.otlp.ratio", "-inf"]),
        ("inf.yaml", "telemetry: {otlp: {ratio: .inf}}\n", &["inf.yaml", "line 1", "non-finite"]),
        (
            "twice.json",
            "{\"worker\": {\"slots\": 1, \"slots\": 2}}",
            &["twice.json", "`slots` is given twice", "line 1"],
        ),
    ];
    for (name, text, texts) in cases {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        let ended = run(&["settings", "--config", file.to_str().unwrap()]).await;
        ended.expect(64, texts);
        assert_eq!(ended.err.lines().count(), 1, "more than one line: {}", ended.err);
        assert!(ended.err.len() < 1_000, "{}", ended.err);
    }
}

#[tokio::test]
async fn a_bad_environment_exits_64_and_names_the_setting() {
    for (name, value, text) in [
        ("TRIREME__WORKER__SLOTZ", "1", "slotz"),
        ("TRIREME__WORKER__SLOTS", "many", "worker.slots"),
        ("TRIREME__WORKER__SLOTS", "1.5", "worker.slots"),
        ("TRIREME__REDIS__URL", "redis://127.0.0.1:1", "TRIREME__AMQP__URL"),
        ("TRIREME_LOG", "a=b=c", "TRIREME_LOG"),
    ] {
        let mut command = trireme(&["settings"]);
        command.env(name, value);
        let ended = finish_with(command, b"").await;
        ended.expect(64, &[text]);
        assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
    }
}

#[tokio::test]
async fn a_fleet_without_its_urls_says_what_to_set() {
    for part in ["coordinator", "worker"] {
        let ended = run(&[part]).await;
        ended.expect(64, &["TRIREME__AMQP__URL", "TRIREME__REDIS__URL", "trireme dev"]);
    }
}
