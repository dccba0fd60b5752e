//! Redis: whether it can be relied upon.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use redis::{AsyncConnectionConfig, Cmd, ErrorKind, RedisError, Value, aio::MultiplexedConnection, cmd};

use super::{Finding, LIMIT};
use crate::{
    Config,
    keys::Keys,
    store::{Member, PROBE, Spoken, field},
};

/// Answers in a row of which the middle one is told.
const PINGS: usize = 5;
/// A call to the store that takes longer is felt in every task.
const SLOW: Duration = Duration::from_millis(20);
/// Leases are 10 s and events carry the store's times: a clock that is further off confuses whoever reads both.
const CLOCK: i128 = 1_000;
/// Percent of the memory from which on new runs are refused by default, and above which little is left for results.
const FULL: u64 = 75;

struct Server {
    connection: MultiplexedConnection,
    info: String,
}

pub(super) async fn check(config: &Config) -> Vec<Finding> {
    let mut server = match connect(config).await {
        Ok(server) => server,
        Err(finding) => return vec![finding],
    };
    let mut found = vec![latency(&mut server).await, version(&server)];
    found.push(policy(&server));
    found.push(memory(&server));
    found.extend(durability(&mut server).await);
    found.push(clock(&mut server).await);
    found.push(scripts(&mut server, config).await);
    found.extend(layout(&mut server, config).await);
    found
}

async fn connect(config: &Config) -> Result<Server, Finding> {
    let name = "redis.connection";
    // a wrong password met while connecting has a kind, one met later a code
    let refused = |error: &RedisError| {
        error.kind() == ErrorKind::AuthenticationFailed
            || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
    };
    let bad = |error: RedisError| match error.code() {
        _ if refused(&error) => {
            Finding::fail(name, format!("it refuses the user or password: check redis.url ({error})"))
        }
        Some("NOPERM") => Finding::fail(
            name,
            format!("its user may not INFO: grant it as docs/operations.md lists ({error})"),
        ),
        _ => Finding::fail(
            name,
            format!("it can't be reached: check redis.url, the network and that Redis runs ({error})"),
        ),
    };
    let client = config.redis_tls.redis(&config.redis_url).map_err(bad)?;
    let timeouts =
        AsyncConnectionConfig::new().set_response_timeout(Some(LIMIT)).set_connection_timeout(Some(LIMIT));
    let mut connection = client.get_multiplexed_async_connection_with_config(&timeouts).await.map_err(bad)?;
    let info: String = cmd("INFO").query_async(&mut connection).await.map_err(bad)?;
    Ok(Server { connection, info })
}

async fn latency(server: &mut Server) -> Finding {
    let mut took = Vec::new();
    for _ in 0..PINGS {
        let begun = Instant::now();
        let pong: Result<Value, RedisError> = cmd("PING").query_async(&mut server.connection).await;
        if let Err(error) = pong {
            return Finding::fail("redis.connection", format!("it stopped answering ({error})"));
        }
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    let middle = took[PINGS / 2];
    let text = format!("answers within {:.1} ms", middle.as_secs_f64() * 1000.0);
    if middle > SLOW {
        let cure = "each task costs a few calls: put it nearer, or give it a processor of its own";
        return Finding::warn("redis.connection", format!("{text}: {cure}"));
    }
    Finding::ok("redis.connection", text)
}

fn version(server: &Server) -> Finding {
    let version = field(&server.info, "redis_version").unwrap_or("unknown").to_owned();
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(7..) => Finding::ok("redis.version", version),
        _ => Finding::fail(
            "redis.version",
            format!("{version}: scripts that check memory before they write need Redis 7 or later"),
        ),
    }
}

fn policy(server: &Server) -> Finding {
    let policy = field(&server.info, "maxmemory_policy").unwrap_or("unknown");
    if policy == "noeviction" {
        return Finding::ok("redis.policy", "maxmemory-policy is noeviction");
    }
    Finding::fail(
        "redis.policy",
        format!(
            "maxmemory-policy is {policy}: Redis would drop parts of runs: CONFIG SET maxmemory-policy noeviction"
        ),
    )
}

fn memory(server: &Server) -> Finding {
    let bytes = |name| field(&server.info, name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let (used, most) = (bytes("used_memory"), bytes("maxmemory"));
    let mib = |bytes: u64| bytes / (1 << 20);
    if most == 0 {
        let text = format!(
            "uses {} MiB without a limit: the system may kill it: set maxmemory to what the machine can spare",
            mib(used)
        );
        return Finding::warn("redis.memory", text);
    }
    let percent = used.saturating_mul(100) / most;
    let text = format!("uses {} of {} MiB ({percent} %)", mib(used), mib(most));
    if percent >= FULL {
        let cure = "raise maxmemory, or keep ended runs for a shorter time (coordinator.retention)";
        return Finding::warn("redis.memory", format!("{text}: {cure}"));
    }
    Finding::ok("redis.memory", text)
}

async fn durability(server: &mut Server) -> Vec<Finding> {
    let info = server.info.clone();
    if field(&info, "aof_enabled") != Some("1") {
        let text =
            "Redis keeps no append-only file: accepted runs are lost when it stops: set appendonly yes";
        return vec![Finding::fail("redis.durability", text)];
    }
    let mut found = Vec::new();
    if field(&info, "aof_last_write_status").is_some_and(|status| status != "ok") {
        let text = "the append-only file could not be written: check the disk";
        found.push(Finding::fail("redis.aof", text));
    }
    let setting: Result<Vec<String>, RedisError> =
        cmd("CONFIG").arg("GET").arg("appendfsync").query_async(&mut server.connection).await;
    found.push(match setting.ok().and_then(|mut pair| pair.pop()).as_deref() {
        Some("always") => {
            Finding::ok("redis.durability", "appendfsync is always: an accepted run survives a power cut")
        }
        Some("everysec") => Finding::ok(
            "redis.durability",
            "appendfsync is everysec: a crash of Redis loses nothing, a power cut up to a second; `always` for none",
        ),
        Some(other) => Finding::warn(
            "redis.durability",
            format!("appendfsync is {other}: a power cut loses what the system had not written: set everysec or always"),
        ),
        None => Finding::warn(
            "redis.durability",
            "an append-only file is kept; appendfsync can't be read (CONFIG is forbidden): see that it is everysec or \
             always",
        ),
    });
    found
}

async fn clock(server: &mut Server) -> Finding {
    let before = SystemTime::now();
    let time: Result<(u64, u64), RedisError> = cmd("TIME").query_async(&mut server.connection).await;
    let after = SystemTime::now();
    let (seconds, micros) = match time {
        Ok(time) => time,
        Err(error) => return Finding::fail("clock", format!("Redis does not tell its time ({error})")),
    };
    let ms = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis()) as i128;
    let theirs = i128::from(seconds) * 1000 + i128::from(micros) / 1000;
    let off = theirs - (ms(before) + ms(after)) / 2;
    if off.abs() > CLOCK {
        let text = format!(
            "the clocks of Redis and of this machine differ by {off} ms: leases follow Redis alone, but queue \
             latencies and logs are wrong by that: run NTP on both"
        );
        return Finding::warn("clock", text);
    }
    Finding::ok("clock", format!("Redis and this machine differ by {off} ms"))
}

async fn scripts(server: &mut Server, config: &Config) -> Finding {
    let load: Result<String, RedisError> =
        cmd("SCRIPT").arg("LOAD").arg(&PROBE.text).query_async(&mut server.connection).await;
    let sha = match load {
        Ok(sha) => sha,
        Err(error) => {
            let text = format!("scripts can't be loaded: grant +script|load and +evalsha ({error})");
            return Finding::fail("redis.scripts", text);
        }
    };
    // it reads only
    let run: Result<Value, RedisError> = cmd("EVALSHA")
        .arg(sha)
        .arg(1)
        .arg(Keys::new(&config.prefix, 0).due)
        .arg("")
        .arg(1)
        .query_async(&mut server.connection)
        .await;
    match run {
        Ok(_) => Finding::ok("redis.scripts", "scripts load and run"),
        Err(error) => Finding::fail(
            "redis.scripts",
            format!("scripts can't be run: grant +evalsha and what docs/operations.md lists ({error})"),
        ),
    }
}

async fn layout(server: &mut Server, config: &Config) -> Vec<Finding> {
    let mut get = Cmd::new();
    get.arg("HMGET").arg(Keys::new(&config.prefix, 0).meta);
    get.arg("epoch").arg("server").arg("shards").arg("version");
    let known: Result<Vec<Option<String>>, RedisError> = get.query_async(&mut server.connection).await;
    let name = "store.layout";
    let known = match known {
        Ok(known) => known,
        Err(error) => {
            let text = format!("the keys of prefix {} can't be read: grant them ({error})", config.prefix);
            return vec![Finding::fail(name, text)];
        }
    };
    let [Some(epoch), seen, Some(shards), Some(version)] = known.as_slice() else {
        let text =
            format!("nothing is stored under prefix {} yet: the first process sets it up", config.prefix);
        return vec![Finding::ok(name, text)];
    };
    let mut found = Vec::new();
    let mine = config.shards.to_string();
    let spoken = match Spoken::here() {
        Ok(spoken) => spoken,
        Err(error) => return vec![Finding::fail(name, error.to_string())],
    };
    found.push(if *shards != mine {
        Finding::fail(name, format!("the store has {shards} shards, the configuration says {mine}: set redis.shards to {shards}"))
    } else if !spoken.reads(version) {
        Finding::fail(
            name,
            format!(
                "the store has layout {version}, this version reads {spoken}: use a version that reads it, or another \
                 redis.prefix"
            ),
        )
    } else {
        Finding::ok(name, format!("layout {version}, {shards} shards"))
    });
    found.push(versions(server, config, version).await);
    found.extend(paused(server, config).await);
    let running = field(&server.info, "run_id").unwrap_or("");
    found.push(if seen.as_deref() == Some(running) {
        Finding::ok("store.epoch", epoch.clone())
    } else {
        let text = format!(
            "{epoch}, of a Redis that was restarted since, and no process has come back: start coordinators and workers"
        );
        Finding::warn("store.epoch", text)
    });
    found
}

/// Pools that somebody has paused, and may have forgotten.
async fn paused(server: &mut Server, config: &Config) -> Vec<Finding> {
    let get = Cmd::hget(Keys::new(&config.prefix, 0).meta, "paused");
    let names: Result<Option<String>, RedisError> = get.query_async(&mut server.connection).await;
    // whether the keys can be read at all was told before
    let names = names.ok().flatten().unwrap_or_default();
    let told = |pool: &str| {
        let text = format!("nobody starts its tasks: trireme pools resume {pool}, when they may go on");
        Finding::warn(format!("paused {pool}"), text)
    };
    names.split_whitespace().map(told).collect()
}

/// Which versions are alive, and whether the store may move on.
async fn versions(server: &mut Server, config: &Config, stored: &str) -> Finding {
    let name = "versions";
    let time: Result<(u64, u64), RedisError> = cmd("TIME").query_async(&mut server.connection).await;
    let now = time.map_or(0, |(seconds, _)| seconds * 1000);
    let mut read = cmd("ZRANGE");
    read.arg(Keys::new(&config.prefix, 0).fleet).arg(now).arg("+inf").arg("BYSCORE");
    let alive: Result<Vec<String>, RedisError> = read.query_async(&mut server.connection).await;
    let alive = match alive {
        Ok(alive) => alive,
        Err(error) => return Finding::fail(name, format!("living processes can't be read ({error})")),
    };
    let members: Vec<Member> = alive.iter().filter_map(|entry| Member::read(entry)).collect();
    let mut kinds = BTreeMap::<String, usize>::new();
    for Member { role, version, spoken, .. } in &members {
        *kinds.entry(format!("{role} {version} (layouts {spoken})")).or_default() += 1;
    }
    if kinds.is_empty() {
        return Finding::warn(name, "no coordinator or worker is alive");
    }
    let text: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} x {kind}")).collect();
    let text = text.join(", ");
    let newest = members.iter().map(|member| member.spoken.newest);
    let (least, most) = (newest.clone().min().unwrap_or(0), newest.max().unwrap_or(0));
    let stored = stored.parse::<u32>().unwrap_or(0);
    if least != most || members.iter().any(|member| member.version != members[0].version) {
        return Finding::warn(
            name,
            format!("{text}: two versions are mixed: finish the upgrade, or roll it back"),
        );
    }
    if least > stored {
        let cure = "once you will not roll back, let it move on: trireme upgrade";
        return Finding::warn(name, format!("{text}; the store is at layout {stored}: {cure}"));
    }
    Finding::ok(name, text)
}
