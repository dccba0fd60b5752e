//! Tasks of a run that touch the same thing do so one after the other, whoever added them.

use serde_json::json;
use trireme_model::{
    Added, Assignment, Claimed, Completed, Extend, Extended, More, TaskStatus, limits::LEASE_MS,
    limits::MAX_RESOURCE,
};

use crate::stage::Stage;

use TaskStatus::{Ready, Succeeded, Waiting};

impl Stage {
    /// A call that touches `resource`.
    fn touching(&self, task: &str, resource: &str) -> Added {
        Added { resource: Some(resource.to_owned()), ..self.call(task, &[]) }
    }

    async fn touches(&self, by: &Assignment, resource: &str) -> Extended {
        let (run, task, token) = (by.run.clone(), by.task.clone(), by.token.clone());
        let more = More::Resource(resource.to_owned());
        self.backend().extend(Extend { run, task, token, more }).await.unwrap()
    }
}

pub(crate) async fn calls_of_two_agents_wait_for_each_other(stage: Stage) {
    let run = stage.submit(stage.draw().agent("a", &[]).agent("b", &[]).tool("end", &["a", "b"])).await;
    let (a, b) = (stage.begins(&run, "a").await, stage.begins(&run, "b").await);
    let first = vec![stage.touching("a/0/x", "file"), stage.touching("a/0/y", "file")];
    assert_eq!(stage.adds(&a, first.clone()).await, Extended::Added(2));
    assert_eq!(stage.adds(&a, first).await, Extended::Added(0), "a repeat changed the line");
    let second = vec![stage.touching("b/0/x", "file"), stage.touching("b/0/y", "other")];
    assert_eq!(stage.adds(&b, second).await, Extended::Added(2));
    for (task, status) in [("a/0/x", Ready), ("a/0/y", Waiting), ("b/0/x", Waiting), ("b/0/y", Ready)] {
        assert_eq!(stage.task_status(&run, task).await, status, "{task}");
    }
    assert_eq!(stage.try_claim(&run, "a/0/y").await, Claimed::NotReady);
    // one after the other, in the order in which they were added; each is ready in the step that ends the one before
    for (task, next) in [("a/0/x", "a/0/y"), ("a/0/y", "b/0/x")] {
        let attempt = stage.take(&run, task).await;
        stage.finish(&attempt, json!(task)).await;
        assert_eq!(stage.task_status(&run, task).await, Succeeded);
        assert_eq!(stage.task_status(&run, next).await, Ready, "after {task}");
    }
    let lines = stage.run(&run).await.lines;
    assert!(lines.keys().eq(["file", "other"]), "{lines:?}");
}

pub(crate) async fn what_a_task_touches_may_be_known_late(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[]).tool("b", &[]).tool("end", &["a", "b"])).await;
    let (a, b) = (stage.take(&run, "a").await, stage.take(&run, "b").await);
    for bad in [String::new(), "x".repeat(MAX_RESOURCE + 1)] {
        assert_eq!(stage.touches(&a, &bad).await, Extended::Refused);
    }
    assert_eq!(stage.touches(&a, "file").await, Extended::Held);
    assert_eq!(stage.touches(&a, "file").await, Extended::Held, "a repeat");
    assert_eq!(stage.touches(&b, "file").await, Extended::Queued);
    assert_eq!(stage.touches(&b, "file").await, Extended::Stale, "its attempt has ended");
    assert_eq!(stage.task_status(&run, "b").await, Waiting);
    assert_eq!(stage.finish(&b, json!(1)).await, Completed::Stale);
    stage.finish(&a, json!("a")).await;
    let b = stage.take(&run, "b").await;
    assert_eq!(stage.touches(&b, "file").await, Extended::Held);
    stage.finish(&b, json!("b")).await;
    assert_eq!(stage.task_status(&run, "end").await, Ready);
}

pub(crate) async fn what_an_ended_agent_leaves_behind_moves_on(stage: Stage) {
    let run = stage.submit(stage.draw().agent("a", &[]).agent("b", &[]).tool("end", &["a", "b"])).await;
    let (a, b) = (stage.begins(&run, "a").await, stage.begins(&run, "b").await);
    let team = Added { spec: stage.draw().agent("a/0/team", &[]).last(), vital: false, resource: None };
    assert_eq!(stage.adds(&a, vec![team]).await, Extended::Added(1));
    let inner = stage.begins(&run, "a/0/team").await;
    let calls = vec![stage.touching("a/0/team/0/x", "file"), stage.touching("a/0/team/0/y", "file")];
    assert_eq!(stage.adds(&inner, calls).await, Extended::Added(2));
    assert_eq!(stage.adds(&b, vec![stage.touching("b/0/x", "file")]).await, Extended::Added(1));
    stage.take(&run, "a/0/team/0/x").await;
    // its answer ends the outer agent while the inner one is at work
    stage.answers(&a, json!("enough")).await;
    assert_eq!(stage.task_status(&run, "b/0/x").await, Waiting, "the call may still be at work");
    stage.after(LEASE_MS, async || stage.task_status(&run, "b/0/x").await == Ready).await;
}
