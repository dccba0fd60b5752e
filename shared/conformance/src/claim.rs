//! Who gets to execute a task.

use serde_json::json;
use trireme_model::{Budget, Claim, Claimed, Complete, RunStatus, Submit, Usage};

use crate::stage::{ALL, Stage, id};

pub(crate) async fn says_why_not(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[]).tool("b", &["a"])).await;
    assert_eq!(stage.try_claim(&run, "b").await, Claimed::NotReady);
    assert_eq!(stage.try_claim(&run, "nobody").await, Claimed::Gone);
    let held = stage.take(&run, "a").await;
    assert_eq!(stage.try_claim(&run, "a").await, Claimed::Busy);
    stage.finish(&held, json!(1)).await;
    assert_eq!(stage.try_claim(&run, "a").await, Claimed::Done);
    stage.backend().cancel(&run).await.unwrap();
    assert_eq!(stage.try_claim(&run, "b").await, Claimed::Cancelled);
}

pub(crate) async fn hands_over_what_the_attempt_needs(stage: Stage) {
    let draw = stage.draw().tool("a", &[]).tool("b", &["a"]).map("m", &["b"], 5, ALL);
    let request = Submit { deadline: Some(60_000), ..stage.request("run", draw) };
    let run = request.run.clone();
    stage.backend().submit(request).await.unwrap();
    let claim = Claim { run: run.clone(), task: id("a"), claim: "first".into(), has_input: false };
    let Claimed::Run(a) = stage.backend().claim(claim).await.unwrap() else { panic!("not ready") };
    assert_eq!(a.input.as_ref().unwrap().parse::<serde_json::Value>().unwrap(), json!({"company": "Acme"}));
    assert_eq!(a.token.claim(), "first");
    assert_eq!((a.attempt, a.max_attempts, &a.pool), (1, 3, &stage.pool()));
    let state = stage.run(&run).await;
    assert_eq!((a.deadline, a.ready_at), (state.deadline, state.created));
    assert!(a.now >= state.created && a.now < a.deadline, "{a:?}");
    stage.finish(&a, json!(1)).await;
    let b = stage.take(&run, "b").await;
    assert_eq!(b.inputs, [id("a")]);
    assert_eq!(b.body.parse::<serde_json::Value>().unwrap(), json!({"does": "b"}));
    assert!(b.input.is_none() && b.arg.is_none(), "it has the input already: {b:?}");
    stage.finish(&b, json!(2)).await;
    stage.expand(&run, "m", &[json!({"n": []}), json!("two")]).await;
    let child = stage.take(&run, "m/0").await;
    assert_eq!(child.arg.unwrap().as_bytes().as_ref(), br#"{"n":[]}"#);
    assert_eq!(child.inputs, [id("b")], "a child reads what its map reads");
}

pub(crate) async fn one_of_many_at_once_gets_it(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[])).await;
    let answers = futures::future::join_all((0..20).map(|_| stage.try_claim(&run, "a"))).await;
    let got = answers.iter().filter(|answer| matches!(answer, Claimed::Run(_))).count();
    let busy = answers.iter().filter(|answer| matches!(answer, Claimed::Busy)).count();
    assert_eq!((got, busy), (1, 19));
    assert_eq!(stage.task(&run, "a").await.attempt, 1);
}

pub(crate) async fn a_repeat_gets_the_same_answer(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[])).await;
    let claim = Claim { run: run.clone(), task: id("a"), claim: "mine".into(), has_input: true };
    let Claimed::Run(first) = stage.backend().claim(claim.clone()).await.unwrap() else {
        panic!("not ready")
    };
    let before = stage.run(&run).await;
    let Claimed::Run(again) = stage.backend().claim(claim).await.unwrap() else { panic!("not repeatable") };
    assert_eq!((&first.token, first.attempt), (&again.token, again.attempt));
    assert_eq!(stage.run(&run).await, before, "a repeat changed the run");
}

pub(crate) async fn a_used_up_budget_ends_paid_work(stage: Stage) {
    let draw = stage.draw().tool("a", &[]).tool("b", &["a"]).with(|task| task.exec.paid = true);
    let budget = Budget { tokens: Some(100), usd_micros: None };
    let request = Submit { budget, ..stage.request("run", draw) };
    let run = request.run.clone();
    stage.backend().submit(request).await.unwrap();
    let a = stage.take(&run, "a").await;
    let usage = Usage { input_tokens: 60, output_tokens: 40, ..Usage::default() };
    stage.backend().complete(Complete { usage, ..stage.completion(&a, json!(1)) }).await.unwrap();
    assert_eq!(stage.try_claim(&run, "b").await, Claimed::Done);
    assert_eq!(stage.error_class(&run, "b").await, "budget");
    assert_eq!(stage.status(&run).await, RunStatus::Failed);
}
