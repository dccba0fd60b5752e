//! The store on a real Redis, where it differs from the pure model: restarts, other servers, large values, listing,
//! announcements, spoilt data.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use redis::{AsyncCommands, aio::MultiplexedConnection};
use trireme_backend::{Delta, Error, ListQuery, Recorded};
use trireme_backend_cluster::store::{Config, Emitted, Store};
use trireme_model::{
    Added, Budget, Caller, Claim, Claimed, Complete, Completed, Exec, Extend, Extended, Fail, FailureClass,
    Graph, Hint, JoinPolicy, Kind, More, Need, OnMiss, Outcome, Payload, Priority, Renew, Renewed, RunId,
    RunStatus, Submit, Submitted, TaskId, TaskSpec, Token, Usage, What,
    limits::{INLINE_BYTES, MAX_RESULT_BYTES},
};
use trireme_test_servers::{PrivateRedis, redis as shared_redis, unique};

/// Longer than anything here should take, so that a failure is told instead of hanging.
const SOON: Duration = Duration::from_secs(20);

fn id(name: &str) -> TaskId {
    TaskId::new(name).unwrap()
}

fn run(name: &str) -> RunId {
    RunId::new(name).unwrap()
}

fn task(name: &str, inputs: &[&str]) -> TaskSpec {
    let exec = Exec {
        kind: Kind::Tool,
        pool: "tool".into(),
        priority: Priority::Normal,
        timeout: None,
        max_attempts: 3,
        backoff: 100,
        paid: false,
        fallback: None,
    };
    let inputs = inputs.iter().map(|name| id(name)).collect();
    let (label, body) = (String::new(), Payload::from_json("{}"));
    TaskSpec { id: id(name), label, exec, inputs, policy: None, children: None, body }
}

fn submit(name: &str) -> Submit {
    Submit {
        run: run(name),
        caller: Caller::default(),
        name: "test".into(),
        fingerprint: "f".into(),
        graph: Graph::new(vec![task("a", &[]), task("b", &["a"])]).unwrap(),
        input: Payload::from_json("{}"),
        deadline: None,
        budget: Budget::default(),
        keep: Default::default(),
        trace: None,
    }
}

struct Stage {
    store: Store,
    hints: Arc<Mutex<Vec<Hint>>>,
    prefix: String,
    url: String,
}

impl Stage {
    async fn new(url: &str) -> Self {
        Self::with(Config::new(url, unique("store"))).await.unwrap()
    }

    async fn with(config: Config) -> Result<Self, Error> {
        let hints: Arc<Mutex<Vec<Hint>>> = Arc::default();
        let sink = hints.clone();
        let sink = Arc::new(move |emitted: Emitted| sink.lock().unwrap().extend(emitted.hints));
        let (prefix, url) = (config.prefix.clone(), config.url.clone());
        Ok(Self { store: Store::connect(config, sink).await?, hints, prefix, url })
    }

    async fn claim(&self, name: &str, task: &str) -> Result<Claimed, Error> {
        self.store.claim(Claim { run: run(name), task: id(task), claim: unique("c"), has_input: true }).await
    }

    async fn take(&self, name: &str, task: &str) -> Token {
        let Claimed::Run(assignment) = self.claim(name, task).await.unwrap() else {
            panic!("{task} is not ready")
        };
        assignment.token
    }

    async fn complete(
        &self,
        name: &str,
        task: &str,
        token: Token,
        result: Payload,
    ) -> Result<Completed, Error> {
        let (outcome, usage) = (Outcome::Result(result), Usage::default());
        self.store
            .complete(Complete {
                run: run(name),
                task: id(task),
                token,
                outcome,
                tasks: Vec::new(),
                first_token: None,
                usage,
                next: None,
            })
            .await
    }

    async fn link(&self) -> MultiplexedConnection {
        redis::Client::open(self.url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap()
    }

    fn key(&self, rest: &str) -> String {
        format!("{{{}:0}}:{rest}", self.prefix)
    }

    /// Takes away all that this test wrote.
    async fn clean(self) {
        self.store.close().await;
        let mut link = self.link().await;
        let keys: Vec<String> = link.keys(format!("{{{}:*", self.prefix)).await.unwrap();
        let _: () = link.unlink(keys).await.unwrap();
    }
}

async fn private(options: &'static [(&'static str, &'static str)]) -> PrivateRedis {
    tokio::task::spawn_blocking(|| PrivateRedis::start(options).unwrap()).await.unwrap()
}

async fn epoch(stage: &Stage, name: &str) -> String {
    stage.store.events(&run(name), 0, 10).await.unwrap().unwrap().epoch
}

#[tokio::test]
async fn a_restarted_server_begins_a_new_epoch_and_keeps_the_runs() {
    let mut server = private(&[]).await;
    let stage = Stage::new(&server.url()).await;
    stage.store.submit(submit("r")).await.unwrap();
    let first = stage.take("r", "a").await;
    let before = epoch(&stage, "r").await;
    assert!(first.as_str().starts_with(&before));
    server = tokio::task::spawn_blocking(move || server.restart().map(|()| server)).await.unwrap().unwrap();
    // every connection broke: each call repeats itself once on a new one, and no caller notices
    let done = stage.complete("r", "a", first.clone(), Payload::from_json("1")).await.unwrap();
    assert_eq!(done, Completed::Recorded { next: None });
    let second = stage.take("r", "b").await;
    let after = epoch(&stage, "r").await;
    assert_ne!(before, after);
    assert!(second.as_str().starts_with(&after));
    // another process that comes now finds the same epoch
    let other = Stage::with(Config::new(server.url(), &stage.prefix)).await.unwrap();
    assert_eq!(epoch(&other, "r").await, after);
}

#[tokio::test]
async fn a_server_that_is_down_is_unavailable_until_it_is_back() {
    let mut server = private(&[]).await;
    let stage = Stage::new(&server.url()).await;
    stage.store.submit(submit("r")).await.unwrap();
    let announced = stage.store.announcements();
    let connections = *announced.borrow();
    server.kill9();
    let error = stage.claim("r", "a").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { service: "redis", .. }), "{error:?}");
    assert!(stage.store.health().await.is_err());
    let (mut watch, server) = {
        let server =
            tokio::task::spawn_blocking(move || server.restart().map(|()| server)).await.unwrap().unwrap();
        (stage.store.watch(&run("r")).await.unwrap(), server)
    };
    assert!(matches!(stage.claim("r", "a").await.unwrap(), Claimed::Run(_)));
    assert!(stage.store.health().await.is_ok());
    // announcements come again, and whoever watched was woken in case it missed some
    let mut announced = announced;
    tokio::time::timeout(SOON, announced.wait_for(|count| *count > connections)).await.unwrap().unwrap();
    tokio::time::timeout(SOON, watch.changed()).await.unwrap();
    drop(server);
}

#[tokio::test]
async fn a_store_that_was_emptied_takes_new_runs() {
    let server = private(&[]).await;
    let stage = Stage::new(&server.url()).await;
    stage.store.submit(submit("r")).await.unwrap();
    let _: () = redis::cmd("FLUSHALL").query_async(&mut stage.link().await).await.unwrap();
    assert_eq!(stage.claim("r", "a").await.unwrap(), Claimed::Gone);
    assert_eq!(stage.store.submit(submit("r")).await.unwrap(), Submitted::Created);
    let error = stage.claim("r", "a").await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    assert!(matches!(stage.claim("r", "a").await.unwrap(), Claimed::Run(_)));
}

#[tokio::test]
async fn refuses_servers_and_stores_that_it_can_not_rely_on() {
    let server = private(&[("maxmemory", "100mb"), ("maxmemory-policy", "allkeys-lru")]).await;
    let Err(Error::Unusable(text)) = Stage::with(Config::new(server.url(), "p")).await.map(|_| ()) else {
        panic!("took a server that evicts")
    };
    assert!(text.contains("allkeys-lru") && text.contains("noeviction"), "{text}");

    let stage = Stage::new(&shared_redis()).await;
    let config = Config { shards: 4, ..Config::new(&stage.url, &stage.prefix) };
    let Err(Error::Unusable(text)) = Stage::with(config).await.map(|_| ()) else {
        panic!("took 4 shards for 1")
    };
    assert!(text.contains("set shards to 1"), "{text}");
    let _: () = stage.link().await.hset(stage.key("meta"), "version", 99).await.unwrap();
    let Err(Error::Unusable(text)) = Stage::with(Config::new(&stage.url, &stage.prefix)).await.map(|_| ())
    else {
        panic!("took a newer layout")
    };
    assert!(text.contains("layout 99"), "{text}");
    stage.clean().await;
    let nobody = Stage::with(Config::new("redis://127.0.0.1:1", "p")).await.map(|_| ());
    assert!(matches!(nobody, Err(Error::Unavailable { .. })), "{nobody:?}");
    let nonsense = Stage::with(Config::new("http://example", "p")).await.map(|_| ());
    assert!(matches!(nonsense, Err(Error::Unusable(_))), "{nonsense:?}");
}

#[tokio::test]
async fn a_full_store_refuses_new_runs_and_lets_old_ones_end() {
    let server = private(&[]).await;
    let stage = Stage::new(&server.url()).await;
    stage.store.submit(submit("r")).await.unwrap();
    let token = stage.take("r", "a").await;
    let _: () = redis::cmd("CONFIG")
        .arg(&["SET", "maxmemory", "1"])
        .query_async(&mut stage.link().await)
        .await
        .unwrap();
    let error = stage.store.submit(submit("s")).await.unwrap_err();
    assert!(matches!(error, Error::Full(_)), "{error:?}");
    assert_eq!(stage.store.renew(vec![renewal("r", "a", &token)]).await.unwrap(), [Renewed::Held]);
    let done = stage.complete("r", "a", token, Payload::from_json("1")).await.unwrap();
    assert_eq!(done, Completed::Recorded { next: None });
    stage.store.cancel(&run("r")).await.unwrap();
    assert_eq!(stage.store.summary(&run("r")).await.unwrap().unwrap().status, RunStatus::Cancelled);
    assert_eq!(stage.store.summary(&run("s")).await.unwrap(), None);
}

fn renewal(name: &str, task: &str, token: &Token) -> Renew {
    Renew { run: run(name), task: id(task), token: token.clone() }
}

#[tokio::test]
async fn large_results_are_kept_apart_and_go_with_their_run() {
    let stage = Stage::new(&shared_redis()).await;
    stage.store.submit(submit("r")).await.unwrap();
    let token = stage.take("r", "a").await;
    let large = Payload::from_json(format!("\"{}\"", "x".repeat(INLINE_BYTES)));
    let over = Payload::from_json(format!("\"{}\"", "x".repeat(MAX_RESULT_BYTES)));
    let error = stage.complete("r", "a", token.clone(), over).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: MAX_RESULT_BYTES, .. }), "{error:?}");
    stage.complete("r", "a", token, large.clone()).await.unwrap();
    let recorded = stage.store.recorded(&run("r"), &[id("b"), id("a"), id("x")]).await.unwrap();
    assert_eq!(recorded, [None, Some(Recorded::Result(large.clone())), None]);
    let mut link = stage.link().await;
    let field: String = link.hget(stage.key("run:r"), "r:a").await.unwrap();
    assert!(field.starts_with('@') && field.len() == 65, "{field:.80}");
    assert_eq!(stage.store.run(&run("r")).await.unwrap().unwrap().tasks["a"].result, Some(large));
    stage.clean().await;
}

#[tokio::test]
async fn damaged_values_are_errors_and_change_nothing() {
    let stage = Stage::new(&shared_redis()).await;
    let mut link = stage.link().await;
    let whole = rmp_serde::to_vec(&[2_u8; 20]).unwrap();
    let short = rmp_serde::to_vec(&[2_u8; 15]).unwrap();
    let damaged: [&[u8]; 5] = [b"garbage", b"", &whole[..18], &short, b"\xdc\x00\x14"];
    for (number, raw) in damaged.into_iter().enumerate() {
        let run = format!("damaged-{number}");
        stage.store.submit(submit(&run)).await.unwrap();
        let key = stage.key(&format!("run:{run}"));
        let _: () = link.hset(&key, "s:a", raw).await.unwrap();
        let before: HashMap<String, Vec<u8>> = link.hgetall(&key).await.unwrap();
        let claimed = stage.claim(&run, "a").await;
        assert!(matches!(&claimed, Err(Error::Unusable(_))), "{raw:?}: {claimed:?}");
        let after: HashMap<String, Vec<u8>> = link.hgetall(&key).await.unwrap();
        assert_eq!(before, after, "{raw:?}");
    }
    stage.clean().await;
}

#[tokio::test]
async fn a_spoilt_run_does_not_hold_up_its_batch() {
    let stage = Stage::new(&shared_redis()).await;
    for name in ["good", "spoilt", "fine"] {
        stage.store.submit(submit(name)).await.unwrap();
    }
    let mut link = stage.link().await;
    let _: () = link.unlink(stage.key("run:spoilt")).await.unwrap();
    let _: () = link.set(stage.key("run:spoilt"), "not a hash").await.unwrap();
    let claims = ["good", "spoilt", "fine"].map(|name| stage.claim(name, "a"));
    let answers = futures::future::join_all(claims).await;
    assert!(
        matches!(&answers[0], Ok(Claimed::Run(_))) && matches!(&answers[2], Ok(Claimed::Run(_))),
        "{answers:?}"
    );
    assert!(matches!(&answers[1], Err(Error::Unusable(text)) if text.contains("WRONGTYPE")), "{answers:?}");
    // nor the leases of others, nor the sweep
    let tokens = answers.into_iter().filter_map(|answer| match answer {
        Ok(Claimed::Run(assignment)) => Some(assignment.token),
        _ => None,
    });
    let tokens: Vec<Token> = tokens.collect();
    let renewals = vec![
        renewal("good", "a", &tokens[0]),
        renewal("spoilt", "a", &tokens[0]),
        renewal("fine", "a", &tokens[1]),
    ];
    let renewed = stage.store.renew(renewals).await.unwrap();
    assert_eq!(renewed, [Renewed::Held, Renewed::Lost, Renewed::Held]);
    for member in ["spoilt:a", "not an entry", "good:a"] {
        let _: () = link.zadd(stage.key("due"), member, 1).await.unwrap();
    }
    stage.hints.lock().unwrap().clear();
    let swept = stage.store.sweep().await.unwrap();
    assert_eq!((swept.looked, swept.hints, swept.more), (3, 1, false));
    assert_eq!(stage.hints.lock().unwrap().len(), 1, "the lease of the good one had run out");
    let put_off: Vec<Option<f64>> = redis::cmd("ZMSCORE")
        .arg(stage.key("due"))
        .arg(&["spoilt:a", "not an entry"])
        .query_async(&mut link)
        .await
        .unwrap();
    assert!(put_off.iter().all(|score| score.is_some_and(|score| score > 1.0)), "{put_off:?}");
    stage.clean().await;
}

#[tokio::test]
async fn lists_runs_newest_first_over_all_shards_and_pages() {
    let time = Arc::new(std::sync::atomic::AtomicU64::new(1_700_000_000_000));
    let clock = time.clone();
    let mut config = Config::new(shared_redis(), unique("store"));
    config.shards = 3;
    config.clock = Some(Arc::new(move || clock.load(std::sync::atomic::Ordering::Relaxed)));
    let stage = Stage::with(config).await.unwrap();
    let mut expected = Vec::new();
    for at in 0..40 {
        let name = format!("run-{at:02}");
        // some at the same time
        time.fetch_add(at % 3, std::sync::atomic::Ordering::Relaxed);
        let mut submit = submit(&name);
        submit.name = if at % 4 == 0 { "fourth" } else { "other" }.into();
        stage.store.submit(submit).await.unwrap();
        expected.push((time.load(std::sync::atomic::Ordering::Relaxed), name));
    }
    expected.sort();
    expected.reverse();
    let listed = pages(&stage, ListQuery { limit: 7, ..ListQuery::default() }).await;
    assert_eq!(listed, expected.iter().map(|(_, name)| name.clone()).collect::<Vec<_>>());
    let fourth =
        pages(&stage, ListQuery { limit: 4, name: Some("fourth".into()), ..ListQuery::default() }).await;
    assert_eq!(fourth.len(), 10);
    let ended = ListQuery { limit: 4, status: Some(RunStatus::Succeeded), ..ListQuery::default() };
    assert_eq!(pages(&stage, ended).await, Vec::<String>::new());
    stage.clean().await;
}

async fn pages(stage: &Stage, mut query: ListQuery) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..100 {
        let page = stage.store.list(query.clone()).await.unwrap();
        assert!(page.runs.len() <= query.limit);
        names.extend(page.runs.into_iter().map(|run| run.run_id.to_string()));
        let Some(next) = page.next else { return names };
        query.after = Some(next);
    }
    panic!("the list does not end: {names:?}")
}

#[tokio::test]
async fn announces_growth_to_watchers_in_every_process() {
    let stage = Stage::new(&shared_redis()).await;
    let other = Stage::with(Config::new(&stage.url, &stage.prefix)).await.unwrap();
    // before there is a run, and from another process
    let mut early = stage.store.watch(&run("r")).await.unwrap();
    stage.store.submit(submit("r")).await.unwrap();
    tokio::time::timeout(SOON, early.changed()).await.unwrap();
    let mut watch = other.store.watch(&run("r")).await.unwrap();
    let delta = Delta { run: run("r"), task: id("a"), attempt: 1, text: "say \"hi\"\n".into() };
    stage.store.append(vec![delta.clone(), Delta { run: run("nobody"), ..delta.clone() }]).await.unwrap();
    tokio::time::timeout(SOON, watch.changed()).await.unwrap();
    let mut aborts = other.store.aborts();
    stage.store.cancel(&run("r")).await.unwrap();
    tokio::time::timeout(SOON, watch.changed()).await.unwrap();
    let abort = tokio::time::timeout(SOON, aborts.recv()).await.unwrap().unwrap();
    assert_eq!((abort.run, abort.task), (run("r"), None));
    stage.store.append(vec![delta.clone()]).await.unwrap();
    let events = other.store.events(&run("r"), 1, 10).await.unwrap().unwrap();
    let kinds: Vec<_> = events.events.iter().map(|(number, event)| (*number, event.what.name())).collect();
    assert_eq!(kinds, [(1, "task.delta"), (2, "run.cancelled")]);
    assert_eq!(events.length, 3);
    let What::TaskDelta { text, .. } = &events.events[0].1.what else { panic!("{events:?}") };
    assert_eq!(*text, delta.text);
    other.store.close().await;
    stage.clean().await;
}

#[tokio::test]
async fn many_callers_at_once_get_each_their_own_answer() {
    let stage = Stage::new(&shared_redis()).await;
    let names: Vec<String> = (0..300).map(|at| format!("run-{at}")).collect();
    let submits = names.iter().map(|name| stage.store.submit(submit(name)));
    for answer in futures::future::join_all(submits).await {
        assert_eq!(answer.unwrap(), Submitted::Created);
    }
    assert_eq!(stage.hints.lock().unwrap().len(), 300);
    let claims = names.iter().chain(&names).map(|name| stage.claim(name, "a"));
    let answers = futures::future::join_all(claims).await;
    let mut owners = std::collections::HashMap::new();
    for (name, answer) in names.iter().chain(&names).zip(answers) {
        match answer.unwrap() {
            Claimed::Run(assignment) => {
                assert_eq!(assignment.run.as_str(), name);
                assert!(owners.insert(name.clone(), assignment.token).is_none(), "two hold {name}");
            }
            other => assert_eq!(other, Claimed::Busy),
        }
    }
    assert_eq!(owners.len(), 300);
    let renewals = owners.iter().map(|(name, token)| renewal(name, "a", token)).collect::<Vec<_>>();
    assert!(stage.store.renew(renewals).await.unwrap().iter().all(|answer| *answer == Renewed::Held));
    stage.clean().await;
}

/// The script reads a run once per batch: what an item adds must be there for those behind it.
#[tokio::test]
async fn what_an_item_of_a_batch_adds_the_next_ones_see() {
    let stage = Stage::new(&tokio::task::spawn_blocking(shared_redis).await.unwrap()).await;
    let agent = TaskSpec { exec: Exec { kind: Kind::Agent, ..task("a", &[]).exec }, ..task("a", &[]) };
    stage.store.submit(Submit { graph: Graph::new(vec![agent]).unwrap(), ..submit("r") }).await.unwrap();
    let call = |name: &str, inputs: &[&str]| Added { spec: task(name, inputs), vital: false, resource: None };
    let extend = |task: &str, token: &Token, tasks: Vec<Added>| {
        let (run, task, token) = (run("r"), id(task), token.clone());
        stage.store.extend(Extend { run, task, token, more: More::Tasks(tasks) })
    };
    let token = stage.take("r", "a").await;
    extend("a", &token, vec![call("a/bad", &[])]).await.unwrap();
    let bad = stage.take("r", "a/bad").await;
    let error = Payload::from_json(r#"{"class":"x","message":"y"}"#);
    let fail = Fail {
        run: run("r"),
        task: id("a/bad"),
        token: bad,
        class: FailureClass::Permanent,
        error,
        retry_after: None,
        jitter: 0,
        usage: Usage::default(),
    };
    stage.store.fail(fail).await.unwrap();
    let policy = JoinPolicy { need: Need::All, within: None, on_miss: OnMiss::Fail };
    let unmet = TaskSpec {
        exec: Exec { kind: Kind::Join, ..task("a", &[]).exec },
        policy: Some(policy),
        ..task("a/unmet", &["a/bad"])
    };
    let behind = Added { vital: true, ..call("a/behind", &["a/unmet"]) };
    let answers = futures::future::join_all([
        // these two go out alone, and what gathers meanwhile in one call
        extend("nobody", &token, vec![call("a/x", &[])]),
        extend("nobody", &token, vec![call("a/x", &[])]),
        extend("a/x", &token, vec![call("a/y", &[])]),
        extend("a", &token, vec![call("a/x", &[]), Added { spec: unmet, vital: false, resource: None }]),
        extend("a", &token, vec![call("a/y", &["a/x"]), behind]),
    ]);
    let answers: Vec<Extended> = answers.await.into_iter().map(Result::unwrap).collect();
    use Extended::{Added as New, Gone};
    assert_eq!(answers, [Gone, Gone, Gone, New(2), New(2)]);
    let state = stage.store.run(&run("r")).await.unwrap().unwrap();
    assert_eq!(state.added, ["a/bad", "a/x", "a/unmet", "a/y", "a/behind"].map(id));
    assert_eq!(state.tasks["a/x"].successors, [id("a/y")]);
    let error = format!("{:?}", state.tasks["a"].error);
    assert!(error.contains("join_unmet"), "of the join, and not of a task that left no error: {error}");
    stage.clean().await;
}
