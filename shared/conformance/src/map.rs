//! Maps: children that come chunk by chunk, so many at once, merged in order.

use serde_json::{Value, json};
use trireme_model::{
    Claimed, Complete, Completed, Extended, FailureClass, JoinPolicy, OnMiss, RunStatus, TaskStatus, Token,
};

use crate::stage::{ALL, Stage, id, need};

pub(crate) async fn children_in_order(stage: Stage) {
    let run = stage.submit(stage.draw().map("m", &[], 10, ALL).tool("end", &["m"])).await;
    stage.expand(&run, "m", &[json!("x"), json!("y"), json!("z")]).await;
    for child in ["m/2", "m/0", "m/1"] {
        assert_eq!(stage.task_status(&run, "m").await, TaskStatus::Expanded);
        stage.does(&run, child, json!(child)).await;
    }
    assert_eq!(stage.value(&run, "m").await, Some(json!(["m/0", "m/1", "m/2"])));
    stage.does(&run, "end", json!("end")).await;
    assert_eq!(stage.output(&run).await, json!("end"));
}

pub(crate) async fn extending_again_changes_nothing(stage: Stage) {
    let run = stage.submit(stage.draw().map("m", &[], 10, ALL)).await;
    let map = stage.take(&run, "m").await;
    let items = [json!(0), json!(1), json!(2)];
    assert_eq!(stage.extend(&run, "m", &map.token, 0, &items[..2]).await, Extended::Width(2));
    assert_eq!(stage.extend(&run, "m", &map.token, 1, &items[1..]).await, Extended::Width(3), "overlapping");
    let before = stage.run(&run).await;
    assert_eq!(stage.extend(&run, "m", &map.token, 0, &items).await, Extended::Width(3));
    assert_eq!(stage.run(&run).await, before, "a repeat changed the run");
    assert_eq!(stage.extend(&run, "m", &map.token, 9, &items).await, Extended::Refused, "a gap");
    let stale = Token::new("e", 1, "x");
    assert_eq!(stage.extend(&run, "m", &stale, 3, &items).await, Extended::Stale);
    assert_eq!(stage.extend(&run, "nobody", &stale, 0, &items).await, Extended::Gone);
    let many: Vec<Value> = (0..501).map(Value::from).collect();
    assert_eq!(stage.extend(&run, "m", &map.token, 3, &many).await, Extended::Refused, "over one chunk");
}

pub(crate) async fn no_more_than_at_once(stage: Stage) {
    let run = stage.submit(stage.draw().map("m", &[], 2, ALL)).await;
    let items: Vec<Value> = (0..5).map(Value::from).collect();
    stage.expand(&run, "m", &items).await;
    for done in 0..5_u32 {
        let state = stage.run(&run).await;
        let group = state.tasks["m"].group.as_ref().unwrap();
        assert_eq!(group.active, 2.min(5 - done), "after {done}");
        assert_eq!(group.next, (done + 2).min(5));
        if done < 3 {
            assert_eq!(stage.try_claim(&run, &format!("m/{}", done + 2)).await, Claimed::NotReady);
        }
        stage.does(&run, &format!("m/{done}"), json!(done)).await;
    }
    assert_eq!(stage.output(&run).await, json!([0, 1, 2, 3, 4]));
}

pub(crate) async fn empty(stage: Stage) {
    // the value is that of its children, none, and never that of its own inputs
    let run = stage.submit(stage.draw().tool("a", &[]).map("m", &["a"], 2, ALL)).await;
    stage.does(&run, "a", json!("input")).await;
    stage.expand(&run, "m", &[]).await;
    assert_eq!(stage.output(&run).await, json!([]));
}

pub(crate) async fn partial(stage: Stage) {
    let policy = JoinPolicy { on_miss: OnMiss::Partial, ..ALL };
    let run = stage.submit(stage.draw().map("m", &[], 3, policy)).await;
    stage.expand(&run, "m", &[json!(0), json!(1), json!(2)]).await;
    let broken = stage.take(&run, "m/1").await;
    stage.fails(&broken, FailureClass::Permanent).await;
    stage.does(&run, "m/2", json!("two")).await;
    stage.does(&run, "m/0", json!("zero")).await;
    assert_eq!(stage.output(&run).await, json!(["zero", "two"]));
    assert!(stage.run(&run).await.degraded);
}

pub(crate) async fn ten_thousand_wide(stage: Stage) {
    const WIDTH: usize = 10_000;
    const AT_ONCE: usize = 50;
    let run = stage.submit(stage.draw().map("m", &[], AT_ONCE as u32, ALL).tool("end", &["m"])).await;
    let items: Vec<Value> = (0..WIDTH).map(Value::from).collect();
    stage.expand(&run, "m", &items).await;
    let lanes = (0..AT_ONCE).map(async |lane| {
        let mut next = Some(stage.take(&run, &format!("m/{lane}")).await);
        let mut done = 0;
        while let Some(child) = next.take() {
            if child.task == id("end") {
                stage.finish(&child, json!("end")).await;
                break;
            }
            let result = child.arg.as_ref().unwrap().parse().unwrap();
            let complete = Complete { next: stage.next(), ..stage.completion(&child, result) };
            let Completed::Recorded { next: given } = stage.backend().complete(complete).await.unwrap()
            else {
                panic!("{} was not recorded", child.task);
            };
            done += 1;
            next = given.map(|next| *next);
        }
        done
    });
    let done: usize = futures::future::join_all(lanes).await.into_iter().sum();
    assert_eq!(done, WIDTH);
    assert_eq!(stage.output(&run).await, json!("end"));
    let state = stage.run(&run).await;
    let map = &state.tasks["m"];
    assert_eq!((map.done, map.missed, map.frozen.as_deref()), (WIDTH as u32, 0, Some("*")));
    assert_eq!(stage.value(&run, "m").await.unwrap(), Value::Array(items));
}

pub(crate) async fn a_child_of_an_ended_map_is_cancelled(stage: Stage) {
    let draw = stage.draw().map("m", &[], 10, need(1, OnMiss::Fail)).tool("end", &["m"]);
    let run = stage.submit(draw).await;
    stage.expand(&run, "m", &[json!(0), json!(1), json!(2)]).await;
    let running = stage.take(&run, "m/1").await;
    stage.does(&run, "m/0", json!("zero")).await;
    assert_eq!(stage.value(&run, "m").await, Some(json!(["zero"])));
    assert_eq!(stage.finish(&running, json!("late")).await, Completed::Cancelled);
    assert_eq!(stage.try_claim(&run, "m/2").await, Claimed::Cancelled);
    assert_eq!(stage.status(&run).await, RunStatus::Running);
    stage.does(&run, "end", json!(1)).await;
}
