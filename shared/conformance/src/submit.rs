//! Accepting runs, once.

use trireme_backend::ListQuery;
use trireme_model::{Cancelled, Renew, Renewed, Submit, Submitted, Token};

use crate::stage::{Stage, id};

pub(crate) async fn a_repeat_is_the_same_run(stage: Stage) {
    let request = stage.request("run", stage.draw().tool("a", &[]));
    let run = request.run.clone();
    assert_eq!(stage.backend().submit(request.clone()).await.unwrap(), Submitted::Created);
    stage.does(&run, "a", 1.into()).await;
    let before = stage.run(&run).await;
    assert_eq!(stage.backend().submit(request).await.unwrap(), Submitted::Exists);
    assert_eq!(stage.run(&run).await, before, "a repeat changed the run");
}

pub(crate) async fn another_request_under_the_same_id_conflicts(stage: Stage) {
    let request = stage.request("run", stage.draw().tool("a", &[]));
    let run = request.run.clone();
    assert_eq!(stage.backend().submit(request.clone()).await.unwrap(), Submitted::Created);
    let before = stage.run(&run).await;
    let other = Submit { fingerprint: "two".into(), ..stage.request("run", stage.draw().tool("b", &[])) };
    assert_eq!(stage.backend().submit(other).await.unwrap(), Submitted::Conflict);
    assert_eq!(stage.run(&run).await, before, "a conflict changed the run");
}

pub(crate) async fn at_the_same_time_one_wins(stage: Stage) {
    let request = stage.request("run", stage.draw().tool("a", &[]));
    let submits = (0..20).map(|_| stage.backend().submit(request.clone()));
    let answers = futures::future::join_all(submits).await;
    let created = answers.iter().filter(|answer| *answer.as_ref().unwrap() == Submitted::Created).count();
    assert_eq!(created, 1);
    let query = ListQuery { name: Some(request.name.clone()), limit: 10, ..ListQuery::default() };
    assert_eq!(stage.backend().list(query).await.unwrap().runs.len(), 1);
}

pub(crate) async fn every_way_to_ask_for_an_unknown_run(stage: Stage) {
    let run = stage.run_id("unknown");
    let backend = stage.backend();
    assert_eq!(stage.try_claim(&run, "a").await, trireme_model::Claimed::Gone);
    let token = Token::new("e", 1, "c");
    let renewed = backend.renew(vec![Renew { run: run.clone(), task: id("a"), token }]).await.unwrap();
    assert_eq!(renewed, [Renewed::Lost]);
    assert_eq!(backend.cancel(&run).await.unwrap(), Cancelled::Gone);
    assert_eq!(backend.run(&run).await.unwrap(), None);
    assert_eq!(backend.summary(&run).await.unwrap(), None);
    assert_eq!(backend.events(&run, 0, 10).await.unwrap(), None);
    assert_eq!(backend.recorded(&run, &[id("a"), id("b")]).await.unwrap(), [None, None]);
}
