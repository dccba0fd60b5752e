//! API keys: whose runs are whose, and how many.

use std::collections::BTreeSet;

use serde_json::json;
use trireme_backend::{ApiKey, ListQuery, Quota, Scope};
use trireme_model::{
    Caller, FailureClass, JoinPolicy, KeyId, Need, OnMiss, Rate, Replayed, RunId, RunStatus, Submit,
    Submitted, TaskStatus, Tenant,
};

use crate::stage::{Stage, need};

fn tenant(stage: &Stage, name: &str) -> Tenant {
    Tenant::new(stage.run_id(name).as_str()).unwrap()
}

fn key_id() -> KeyId {
    KeyId::new(&uuid::Uuid::new_v4().simple().to_string()[..16]).unwrap()
}

fn key(stage: &Stage) -> ApiKey {
    ApiKey {
        id: key_id(),
        name: "of a story".into(),
        tenant: tenant(stage, "t"),
        scopes: BTreeSet::from([Scope::Read, Scope::Write]),
        quota: Quota { submits: Some(Rate { per_minute: 60, burst: 2 }), in_flight: None },
        sha256: "5".repeat(64),
        created_ms: 7,
    }
}

fn of(stage: &Stage, caller: &Caller, name: &str) -> Submit {
    Submit { caller: caller.clone(), ..stage.request(name, stage.draw().tool("a", &[])) }
}

pub(crate) async fn keys_are_kept_until_they_are_dropped(stage: Stage) {
    let access = stage.backend().access();
    let (mut one, other) = (key(&stage), key(&stage));
    assert_eq!(access.key(&one.id).await.unwrap(), None);
    assert!(!access.drop_key(&one.id).await.unwrap());
    for key in [&one, &other, &one] {
        access.put_key(key.clone()).await.unwrap();
    }
    one.name = "another".into();
    access.put_key(one.clone()).await.unwrap();
    assert_eq!(access.key(&one.id).await.unwrap(), Some(one.clone()));
    let mine = async || {
        let mut all = access.keys().await.unwrap();
        assert!(all.windows(2).all(|pair| pair[0].id < pair[1].id), "by their ids");
        all.retain(|key| key.tenant == one.tenant);
        all
    };
    let mut both = vec![one.clone(), other.clone()];
    both.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(mine().await, both);
    assert!(access.drop_key(&one.id).await.unwrap());
    assert!(!access.drop_key(&one.id).await.unwrap(), "only once");
    assert_eq!(access.key(&one.id).await.unwrap(), None);
    assert_eq!(mine().await, std::slice::from_ref(&other));
    access.drop_key(&other.id).await.unwrap();
}

pub(crate) async fn a_rate_is_held(stage: Stage) {
    let access = stage.backend().access();
    let (id, rate) = (key_id(), Rate { per_minute: 1, burst: 2 });
    let take = async || {
        let admitted = access.admit(&id, rate).await.unwrap();
        (admitted.allowed, admitted.left)
    };
    assert_eq!([take().await, take().await, take().await], [(true, 1), (true, 0), (false, 0)]);
    // each key has its own
    assert!(access.admit(&key_id(), rate).await.unwrap().allowed);
    let wait = access.admit(&id, rate).await.unwrap().wait;
    assert!((1..=60_000).contains(&wait), "{wait} ms");
    if let Some(advance) = &stage.subject.advance {
        advance(wait - 1);
        assert!(!access.admit(&id, rate).await.unwrap().allowed, "a moment too early");
        advance(1);
        assert!(access.admit(&id, rate).await.unwrap().allowed);
        assert_eq!(take().await, (false, 0));
    }
}

pub(crate) async fn a_run_belongs_to_a_tenant(stage: Stage) {
    let caller = Caller { tenant: tenant(&stage, "t"), key: Some(key_id()), in_flight: None };
    let request = of(&stage, &caller, "run");
    let run = request.run.clone();
    assert_eq!(stage.backend().submit(request).await.unwrap(), Submitted::Created);
    let (state, summary) = (stage.run(&run).await, stage.backend().summary(&run).await.unwrap().unwrap());
    assert_eq!((state.tenant, state.key), (caller.tenant.clone(), caller.key));
    assert_eq!(summary.tenant, caller.tenant);
}

pub(crate) async fn tenants_list_their_own_runs(stage: Stage) {
    // one that is another's beginning, and one between the two in the alphabet
    let tenants = ["t", "t-", "t-u", "u"].map(|name| tenant(&stage, name));
    let mut expected: Vec<Vec<RunId>> = vec![Vec::new(); tenants.len()];
    for round in 0..3 {
        for (at, tenant) in tenants.iter().enumerate() {
            let caller = Caller { tenant: tenant.clone(), ..Caller::default() };
            let request = of(&stage, &caller, &format!("r{round}-{at}"));
            expected[at].push(request.run.clone());
            stage.backend().submit(request).await.unwrap();
        }
    }
    for (tenant, mut expected) in tenants.into_iter().zip(expected) {
        let mut query = ListQuery { tenant, limit: 2, ..ListQuery::default() };
        let mut listed = Vec::new();
        loop {
            let page = stage.backend().list(query.clone()).await.unwrap();
            listed.extend(page.runs.into_iter().map(|run| run.run_id));
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        listed.sort();
        expected.sort();
        assert_eq!(listed, expected);
    }
}

pub(crate) async fn only_so_many_runs_of_a_key_at_once(stage: Stage) {
    let caller = Caller { tenant: tenant(&stage, "t"), key: Some(key_id()), in_flight: Some(2) };
    let submit = async |name: &str| stage.backend().submit(of(&stage, &caller, name)).await.unwrap();
    assert_eq!([submit("a").await, submit("b").await], [Submitted::Created; 2]);
    assert_eq!(submit("c").await, Submitted::Limited);
    assert_eq!(stage.backend().summary(&stage.run_id("c")).await.unwrap(), None);
    // a repeat of what was accepted is no run more
    assert_eq!(submit("a").await, Submitted::Exists);
    // nor does another key count, or one without a limit
    let other = Caller { key: Some(key_id()), ..caller.clone() };
    assert_eq!(stage.backend().submit(of(&stage, &other, "d")).await.unwrap(), Submitted::Created);
    let free = Caller { in_flight: None, ..caller.clone() };
    assert_eq!(stage.backend().submit(of(&stage, &free, "e")).await.unwrap(), Submitted::Created);
    assert_eq!(submit("c").await, Submitted::Limited);
    // whichever way they end
    stage.does(&stage.run_id("a"), "a", json!(1)).await;
    assert_eq!(submit("c").await, Submitted::Limited, "there were three");
    stage.backend().cancel(&stage.run_id("b")).await.unwrap();
    stage.backend().cancel(&stage.run_id("b")).await.unwrap();
    assert_eq!(submit("c").await, Submitted::Created);
    assert_eq!(submit("f").await, Submitted::Limited, "a repeated cancel frees nothing twice");
    let failed = stage.take(&stage.run_id("c"), "a").await;
    stage.fails(&failed, FailureClass::Permanent).await;
    assert_eq!(submit("f").await, Submitted::Created);
    // a replay is one more of whoever asks for it, not of whoever's the failed run is
    let replay = async |caller: &Caller| stage.backend().replay(&stage.run_id("c"), caller).await.unwrap();
    assert_eq!(replay(&caller).await, Replayed::Limited);
    assert!(!stage.run(&stage.run_id("c")).await.replayed);
    stage.backend().cancel(&stage.run_id("f")).await.unwrap();
    let again = stage.run_id("c").next_replay().unwrap();
    assert_eq!(replay(&caller).await, Replayed::Created(again.clone()));
    assert_eq!(replay(&caller).await, Replayed::Exists(again.clone()));
    assert_eq!(submit("h").await, Submitted::Limited);
    stage.does(&again, "a", json!(1)).await;
    assert_eq!(submit("h").await, Submitted::Created);
    let none = Caller { in_flight: Some(0), ..caller.clone() };
    assert_eq!(stage.backend().submit(of(&stage, &none, "g")).await.unwrap(), Submitted::Limited);
}

pub(crate) async fn a_replay_that_ends_at_once_frees_its_place(stage: Stage) {
    let caller = Caller { tenant: tenant(&stage, "t"), key: Some(key_id()), in_flight: Some(1) };
    let soon = JoinPolicy { need: Need::All, within: Some(500), on_miss: OnMiss::Fail };
    let draw = stage.draw().tool("a", &[]).tool("b", &[]).join("both", &["a", "b"], soon);
    let draw = draw.tool("late", &["a", "b"]).join("end", &["both", "late"], need(1, OnMiss::Fail));
    let submit = Submit { caller: caller.clone(), ..stage.request("r", draw) };
    let run = submit.run.clone();
    assert_eq!(stage.backend().submit(submit).await.unwrap(), Submitted::Created);
    stage.after(500, async || stage.task_status(&run, "both").await == TaskStatus::Failed).await;
    stage.does(&run, "a", json!(1)).await;
    stage.does(&run, "b", json!(2)).await;
    let late = stage.take(&run, "late").await;
    stage.fails(&late, FailureClass::Permanent).await;
    assert_eq!(stage.status(&run).await, RunStatus::Failed);
    // what came too late for the join is there from the start now
    let again = run.next_replay().unwrap();
    assert_eq!(stage.backend().replay(&run, &caller).await.unwrap(), Replayed::Created(again.clone()));
    assert_eq!(stage.status(&again).await, RunStatus::Succeeded);
    assert_eq!(stage.backend().submit(of(&stage, &caller, "s")).await.unwrap(), Submitted::Created);
}

pub(crate) async fn a_deadline_frees_its_place(stage: Stage) {
    let caller = Caller { tenant: tenant(&stage, "t"), key: Some(key_id()), in_flight: Some(1) };
    let request = Submit { deadline: Some(300), ..of(&stage, &caller, "a") };
    assert_eq!(stage.backend().submit(request).await.unwrap(), Submitted::Created);
    let run = stage.run_id("a");
    stage.after(300, async || stage.status(&run).await == RunStatus::Failed).await;
    assert_eq!(stage.backend().submit(of(&stage, &caller, "b")).await.unwrap(), Submitted::Created);
}
