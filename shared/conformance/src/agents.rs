//! Agents: tasks that are added while others run, what they are tied to, and how they end together.

use serde_json::{Value, json};
use trireme_backend::{Abort, Recorded};
use trireme_model::{
    Added, Assignment, Budget, Claimed, Complete, Completed, Extend, Extended, Failed, FailureClass,
    JoinPolicy, Kind, More, OnMiss, Outcome, Payload, Renew, Renewed, RunId, RunStatus, Submit, TaskStatus,
    Usage, What, limits::ADD_CHUNK,
};

use crate::stage::{Stage, class_of, id, need, soon};

impl Stage {
    pub(crate) fn call(&self, task: &str, inputs: &[&str]) -> Added {
        Added { spec: self.draw().tool(task, inputs).last(), vital: false, resource: None }
    }

    fn step(&self, task: &str, inputs: &[&str]) -> Added {
        Added { vital: true, ..self.call(task, inputs) }
    }

    /// Goes on with whatever came of its inputs.
    fn gather(&self, task: &str, inputs: &[&str]) -> Added {
        let policy = need(inputs.len() as u32, OnMiss::Partial);
        Added { spec: self.draw().join(task, inputs, policy).last(), vital: false, resource: None }
    }

    pub(crate) async fn adds(&self, by: &Assignment, tasks: Vec<Added>) -> Extended {
        let (run, task, token) = (by.run.clone(), by.task.clone(), by.token.clone());
        self.backend().extend(Extend { run, task, token, more: More::Tasks(tasks) }).await.unwrap()
    }

    async fn ends(&self, by: &Assignment, outcome: Outcome, tasks: Vec<Added>) -> Completed {
        let complete = Complete { outcome, tasks, ..self.completion(by, json!(null)) };
        self.backend().complete(complete).await.unwrap()
    }

    async fn turns(&self, by: &Assignment, tasks: Vec<Added>) {
        let outcome = Outcome::Result(Payload::of("turn"));
        assert_eq!(self.ends(by, outcome, tasks).await, Completed::Recorded { next: None });
    }

    pub(crate) async fn answers(&self, by: &Assignment, value: Value) -> Completed {
        self.ends(by, Outcome::Answer { value: Payload::of(&value), degraded: false }, Vec::new()).await
    }

    /// Takes the agent, which hands over to its first step, and takes that.
    pub(crate) async fn begins(&self, run: &RunId, agent: &str) -> Assignment {
        let own = self.take(run, agent).await;
        let first = format!("{agent}/0");
        let expanded = self.ends(&own, Outcome::Expanded, vec![self.step(&first, &[])]).await;
        assert_eq!(expanded, Completed::Recorded { next: None });
        self.take(run, &first).await
    }

    /// A run of one agent, followed by `end`, whose first step is running.
    async fn begun(&self) -> (RunId, Assignment) {
        let run = self.submit(self.draw().agent("a", &[]).tool("end", &["a"])).await;
        let first = self.begins(&run, "a").await;
        (run, first)
    }
}

async fn told(aborts: &mut tokio::sync::broadcast::Receiver<Abort>, run: &RunId) -> Abort {
    soon(async {
        loop {
            let abort = aborts.recv().await.unwrap();
            if abort.run == *run {
                return abort;
            }
        }
    })
    .await
}

pub(crate) async fn a_turn_its_calls_and_the_answer(stage: Stage) {
    let (run, first) = stage.begun().await;
    assert_eq!(stage.task_status(&run, "a").await, TaskStatus::Expanded);
    assert_eq!(stage.adds(&first, vec![stage.call("a/0/x", &[])]).await, Extended::Added(1));
    // a call runs while the turn is still being written
    stage.does(&run, "a/0/x", json!("x")).await;
    let both = vec![stage.call("a/0/x", &[]), stage.call("a/0/y", &[])];
    assert_eq!(stage.adds(&first, both).await, Extended::Added(1), "overlapping");
    let turn = vec![stage.gather("a/0/join", &["a/0/x", "a/0/y"]), stage.step("a/1", &["a/0/join"])];
    stage.turns(&first, turn).await;
    assert_eq!(stage.task_status(&run, "a/1").await, TaskStatus::Waiting);
    stage.does(&run, "a/0/y", json!("y")).await;
    assert_eq!(stage.value(&run, "a/0/join").await, Some(json!({"a/0/x": "x", "a/0/y": "y"})));
    let second = stage.take(&run, "a/1").await;
    assert_eq!(second.inputs, [id("a/0/join")]);
    assert_eq!(stage.answers(&second, json!("answer")).await, Completed::Recorded { next: None });
    assert_eq!(stage.value(&run, "a").await, Some(json!("answer")));
    assert_eq!(stage.value(&run, "a/1").await, Some(json!("answer")));
    let state = stage.run(&run).await;
    let added = ["a/0", "a/0/x", "a/0/y", "a/0/join", "a/1"].map(id);
    assert_eq!(state.added, added);
    assert!(added.iter().all(|task| state.tasks[task].owner == Some(id("a"))));
    assert_eq!(state.tasks["a/0"].added, [id("a/0/x"), id("a/0/y")]);
    assert!(state.tasks["a/1"].vital && !state.tasks["a/0/x"].vital);
    let log = stage.log(&run).await.into_iter().map(|event| event.what);
    let told: Vec<What> = log.filter(|what| what.name() == "task.added").collect();
    let kinds = [Kind::Tool, Kind::Tool, Kind::Tool, Kind::Join, Kind::Tool];
    let expected = added.into_iter().zip(kinds).map(|(task, kind)| {
        let label = format!("label of {task}");
        What::TaskAdded { task, kind, label }
    });
    assert_eq!(told, expected.collect::<Vec<_>>(), "in the order in which they were added");
    stage.does(&run, "end", json!("end")).await;
    assert_eq!(stage.output(&run).await, json!("end"));
}

pub(crate) async fn a_repeat_adds_nothing(stage: Stage) {
    let (run, first) = stage.begun().await;
    let tasks = vec![stage.call("a/0/x", &[]), stage.gather("a/0/join", &["a/0/x"])];
    assert_eq!(stage.adds(&first, tasks.clone()).await, Extended::Added(2));
    let before = stage.run(&run).await;
    assert_eq!(stage.adds(&first, tasks).await, Extended::Added(0));
    assert_eq!(stage.run(&run).await, before, "a repeat changed the run");
    let complete = Complete {
        outcome: Outcome::Answer { value: Payload::of("answer"), degraded: true },
        usage: Usage { calls: 1, ..Usage::default() },
        first_token: Some(7),
        ..stage.completion(&first, json!(null))
    };
    let recorded = Completed::Recorded { next: None };
    assert_eq!(stage.backend().complete(complete.clone()).await.unwrap(), recorded);
    let before = stage.run(&run).await;
    assert!(before.degraded && before.tasks["a"].degraded);
    assert_eq!((before.usage.calls, before.tasks["a/0"].first_token), (1, 7));
    // as if its answer had been lost on the way
    assert_eq!(stage.backend().complete(complete).await.unwrap(), recorded);
    assert_eq!(stage.run(&run).await, before, "a repeat changed the run");
    assert_eq!(stage.adds(&first, vec![stage.call("a/0/y", &[])]).await, Extended::Cancelled);
}

pub(crate) async fn what_does_not_fit_is_refused_whole(stage: Stage) {
    let (run, first) = stage.begun().await;
    let long = "x".repeat(129);
    let bad = [
        stage.call("b/x", &[]),
        stage.call("ab", &[]),
        stage.call("end", &[]),
        stage.call("a/x", &["a"]),
        stage.call("a/x", &["a/unknown"]),
        stage.call("a/x", &["a/x"]),
        stage.call("a/x", &["a/0", "a/0"]),
        Added {
            spec: stage.draw().map("a/m", &[], 1, need(1, OnMiss::Fail)).last(),
            vital: false,
            resource: None,
        },
        Added {
            spec: stage.draw().tool("a/x", &[]).with(|task| task.label = long).last(),
            vital: false,
            resource: None,
        },
    ];
    let before = stage.run(&run).await;
    for bad in bad {
        let (name, tasks) = (format!("{bad:?}"), vec![stage.call("a/good", &[]), bad]);
        assert_eq!(stage.adds(&first, tasks.clone()).await, Extended::Refused, "{name}");
        let outcome = Outcome::Result(Payload::of("turn"));
        assert_eq!(stage.ends(&first, outcome, tasks).await, Completed::Refused, "{name}");
    }
    let names: Vec<String> = (0..=ADD_CHUNK).map(|at| format!("a/x{at}")).collect();
    let many: Vec<Added> = names.iter().map(|name| stage.call(name, &[])).collect();
    assert_eq!(stage.adds(&first, many).await, Extended::Refused, "over one chunk");
    assert_eq!(stage.adds(&first, Vec::new()).await, Extended::Refused, "nothing");
    let expanded = stage.ends(&first, Outcome::Expanded, Vec::new()).await;
    assert_eq!(expanded, Completed::Refused, "it is no agent");
    assert_eq!(stage.run(&run).await, before, "a refusal left a trace");
    stage.turns(&first, Vec::new()).await;

    let plain = stage.request("plain", stage.draw().tool("t", &[]));
    let run = plain.run.clone();
    stage.backend().submit(plain).await.unwrap();
    let task = stage.take(&run, "t").await;
    assert_eq!(task.left, None, "what is left is told to the tasks of agents");
    assert_eq!(stage.adds(&task, vec![stage.call("t/x", &[])]).await, Extended::Refused);
    assert_eq!(stage.answers(&task, json!("answer")).await, Completed::Refused, "nobody's answer");
    assert_eq!(stage.finish(&task, json!(1)).await, Completed::Recorded { next: None });
}

/// `a/m` is a map of the graph, whose children have names like those of the agent's tasks.
pub(crate) async fn a_maps_child_keeps_its_name(stage: Stage) {
    let map = stage.draw().agent("a", &[]).map("a/m", &[], 1, need(2, OnMiss::Fail));
    let run = stage.submit(map.tool("end", &["a", "a/m"])).await;
    let first = stage.begins(&run, "a").await;
    assert_eq!(stage.adds(&first, vec![stage.call("a/m/1", &[])]).await, Extended::Refused);
    stage.expand(&run, "a/m", &[json!(0), json!(1)]).await;
    stage.does(&run, "a/m/0", json!(0)).await;
    assert_eq!(stage.adds(&first, vec![stage.call("a/m/1", &[])]).await, Extended::Refused);
    stage.does(&run, "a/m/1", json!(1)).await;
    assert_eq!(stage.value(&run, "a/m").await, Some(json!([0, 1])));
}

pub(crate) async fn behind_inputs_that_have_ended(stage: Stage) {
    use TaskStatus::{Failed, Ready, Skipped, Succeeded};
    let (run, first) = stage.begun().await;
    stage.adds(&first, vec![stage.call("a/good", &[]), stage.call("a/bad", &[])]).await;
    stage.does(&run, "a/good", json!("good")).await;
    let bad = stage.take(&run, "a/bad").await;
    stage.fails(&bad, FailureClass::Permanent).await;
    let late = vec![
        stage.call("a/1", &["a/good"]),
        stage.call("a/2", &["a/bad", "a/good"]),
        stage.gather("a/3", &["a/bad", "a/good"]),
        stage.call("a/4", &["a/3"]),
        Added {
            spec: stage.draw().join("a/5", &["a/bad"], need(1, OnMiss::Fail)).last(),
            vital: false,
            resource: None,
        },
        stage.call("a/6", &["a/2"]),
    ];
    assert_eq!(stage.adds(&first, late).await, Extended::Added(6));
    let state = stage.run(&run).await;
    let statuses = ["a/1", "a/2", "a/3", "a/4", "a/5", "a/6"].map(|task| state.tasks[task].status);
    assert_eq!(statuses, [Ready, Skipped, Succeeded, Ready, Failed, Skipped]);
    assert_eq!(state.tasks["a/3"].frozen.as_deref(), Some("01"));
    assert_eq!(stage.value(&run, "a/3").await, Some(json!({"a/good": "good"})));
    let asked = ["a/bad", "a/2", "a/1", "a/nobody"].map(id);
    let recorded = stage.backend().recorded(&run, &asked).await.unwrap();
    let error = Payload::of(&json!({"class": "broken", "message": "it broke"}));
    assert_eq!(recorded, [Some(Recorded::Failed(Some(error))), Some(Recorded::Failed(None)), None, None]);
}

pub(crate) async fn what_nobody_waits_for_ends_with_its_adder(stage: Stage) {
    let (run, first) = stage.begun().await;
    stage.adds(&first, vec![stage.call("a/0/x", &[]), stage.call("a/0/y", &[])]).await;
    let x = stage.take(&run, "a/0/x").await;
    // the turn is written again and asks for one of them only
    stage.fails(&first, FailureClass::Released).await;
    let again = stage.take(&run, "a/0").await;
    assert_eq!(stage.adds(&first, vec![stage.call("a/0/z", &[])]).await, Extended::Stale);
    assert_eq!(stage.adds(&again, vec![stage.call("a/0/y", &[])]).await, Extended::Added(0));
    let mut aborts = stage.backend().aborts();
    stage.turns(&again, vec![stage.gather("a/0/join", &["a/0/y"]), stage.step("a/1", &["a/0/join"])]).await;
    assert_eq!(stage.task_status(&run, "a/0/x").await, TaskStatus::Cancelled);
    assert_eq!(stage.task_status(&run, "a/0/y").await, TaskStatus::Ready);
    assert_eq!(stage.finish(&x, json!("late")).await, Completed::Cancelled);
    assert_eq!(told(&mut aborts, &run).await.task, Some(id("a/0/x")));
}

pub(crate) async fn a_vital_task_takes_its_agent_along(stage: Stage) {
    let (run, first) = stage.begun().await;
    stage.adds(&first, vec![stage.call("a/0/x", &[]), stage.call("a/0/y", &["a/0/x"])]).await;
    let x = stage.take(&run, "a/0/x").await;
    assert_eq!(stage.fails(&first, FailureClass::Permanent).await, Failed::Ended);
    let state = stage.run(&run).await;
    assert_eq!((state.status, state.tasks["a"].status), (RunStatus::Failed, TaskStatus::Failed));
    assert_eq!(state.failure.as_ref().unwrap().task, Some(id("a")));
    let error = state.view().error.unwrap();
    assert_eq!(
        (error.task, class_of(&error.error)),
        (Some(id("a/0")), "broken".into()),
        "the root of it is named"
    );
    assert_eq!(stage.finish(&x, json!("late")).await, Completed::Cancelled);
    stage.log(&run).await;
}

pub(crate) async fn a_skipped_vital_task_takes_its_agent_along(stage: Stage) {
    let draw = stage.draw().agent("a", &[]).with(|task| task.exec.fallback = Some(Payload::of("instead")));
    let run = stage.submit(draw.tool("end", &["a"])).await;
    let first = stage.begins(&run, "a").await;
    stage.adds(&first, vec![stage.call("a/0/x", &[])]).await;
    let x = stage.take(&run, "a/0/x").await;
    stage.turns(&first, vec![stage.step("a/1", &["a/0/x"])]).await;
    stage.fails(&x, FailureClass::Permanent).await;
    assert_eq!(stage.task_status(&run, "a/1").await, TaskStatus::Skipped);
    assert_eq!(stage.value(&run, "a").await, Some(json!("instead")), "an agent has its fallback too");
    stage.does(&run, "end", json!("end")).await;
    assert!(stage.run(&run).await.degraded);
}

pub(crate) async fn orphans_are_told(stage: Stage) {
    let (run, first) = stage.begun().await;
    let team = Added { spec: stage.draw().agent("a/0/team", &[]).last(), vital: false, resource: None };
    stage.adds(&first, vec![stage.call("a/0/x", &[]), stage.call("a/0/y", &[]), team]).await;
    let inner = stage.begins(&run, "a/0/team").await;
    let x = stage.take(&run, "a/0/x").await;
    let join = stage.gather("a/0/join", &["a/0/x", "a/0/y", "a/0/team"]);
    stage.turns(&first, vec![join, stage.step("a/1", &[])]).await;
    let second = stage.take(&run, "a/1").await;
    let mut aborts = stage.backend().aborts();
    assert_eq!(stage.answers(&second, json!("answer")).await, Completed::Recorded { next: None });
    assert_eq!(told(&mut aborts, &run).await.task, Some(id("a")), "and with it everything below");
    assert_eq!(stage.try_claim(&run, "a/0/y").await, Claimed::Cancelled);
    let renew = |of: &Assignment| Renew { run: run.clone(), task: of.task.clone(), token: of.token.clone() };
    let renewed = stage.backend().renew(vec![renew(&x), renew(&inner)]).await.unwrap();
    assert_eq!(renewed, [Renewed::Cancelled, Renewed::Cancelled], "at any depth");
    assert_eq!(stage.adds(&inner, vec![stage.call("a/0/team/x", &[])]).await, Extended::Cancelled);
    assert_eq!(stage.answers(&inner, json!("late")).await, Completed::Cancelled);
    assert_eq!(stage.fails(&x, FailureClass::Permanent).await, Failed::Cancelled);
    assert_eq!(stage.value(&run, "a/0/team").await, None);
    let views = stage.run(&run).await.view().tasks;
    let view = views.iter().find(|task| task.id == id("a/0/team/0")).unwrap();
    assert_eq!((view.status, view.owner.as_ref()), (TaskStatus::Cancelled, Some(&id("a/0/team"))));
    stage.does(&run, "end", json!("end")).await;
    assert_eq!(stage.output(&run).await, json!("end"));
}

/// The agent has its result without having been expanded, while what it added is at work.
pub(crate) async fn an_agent_that_needs_no_steps(stage: Stage) {
    let run = stage.submit(stage.draw().agent("a", &[]).tool("end", &["a"])).await;
    let own = stage.take(&run, "a").await;
    stage.adds(&own, vec![stage.call("a/x", &[]), stage.call("a/y", &["a/x"])]).await;
    let x = stage.take(&run, "a/x").await;
    let mut aborts = stage.backend().aborts();
    stage.turns(&own, Vec::new()).await;
    assert_eq!(told(&mut aborts, &run).await.task, Some(id("a")), "and with it everything below");
    assert_eq!(stage.finish(&x, json!("late")).await, Completed::Cancelled);
    assert_eq!(stage.value(&run, "a").await, Some(json!("turn")));
}

pub(crate) async fn an_agent_inside_an_agent(stage: Stage) {
    let (run, first) = stage.begun().await;
    let team = Added { spec: stage.draw().agent("a/0/team", &[]).last(), vital: false, resource: None };
    stage.adds(&first, vec![team]).await;
    stage
        .turns(&first, vec![stage.gather("a/0/join", &["a/0/team"]), stage.step("a/1", &["a/0/join"])])
        .await;
    let inner = stage.begins(&run, "a/0/team").await;
    assert_eq!(stage.answers(&inner, json!("inner")).await, Completed::Recorded { next: None });
    assert_eq!(stage.value(&run, "a/0/join").await, Some(json!({"a/0/team": "inner"})));
    assert_eq!(stage.status(&run).await, RunStatus::Running);
    let second = stage.take(&run, "a/1").await;
    stage.answers(&second, json!("outer")).await;
    assert_eq!(stage.value(&run, "a").await, Some(json!("outer")));
}

pub(crate) async fn the_next_step_goes_on_in_the_same_hands(stage: Stage) {
    let run = stage.submit(stage.draw().agent("a", &[])).await;
    let own = stage.take(&run, "a").await;
    let complete = Complete {
        outcome: Outcome::Expanded,
        tasks: vec![stage.step("a/0", &[])],
        next: stage.next(),
        ..stage.completion(&own, json!(null))
    };
    let answer = stage.backend().complete(complete.clone()).await.unwrap();
    let Completed::Recorded { next: Some(step) } = &answer else { panic!("no successor: {answer:?}") };
    assert_eq!((step.task.as_str(), &step.body), ("a/0", &stage.step("a/0", &[]).spec.body));
    assert!(step.left.is_some());
    let again = stage.backend().complete(complete).await.unwrap();
    let Completed::Recorded { next: Some(repeated) } = &again else { panic!("not repeatable: {again:?}") };
    assert_eq!((&step.task, &step.token), (&repeated.task, &repeated.token));
    let turn = Complete {
        tasks: vec![stage.call("a/0/x", &[]), stage.call("a/0/y", &[])],
        next: stage.next(),
        ..stage.completion(step, json!("turn"))
    };
    let answer = stage.backend().complete(turn).await.unwrap();
    let Completed::Recorded { next: Some(call) } = answer else { panic!("no successor: {answer:?}") };
    assert_eq!(call.task, id("a/0/x"), "the first that became ready");
}

pub(crate) async fn what_is_left_of_the_budget(stage: Stage) {
    let left = |tokens| Some(Budget { tokens: Some(tokens), usd_micros: None });
    let spends = |input_tokens, output_tokens| Usage { input_tokens, output_tokens, ..Usage::default() };
    let budget = left(100).unwrap();
    let request = Submit { budget, ..stage.request("run", stage.draw().agent("a", &[])) };
    let run = request.run.clone();
    stage.backend().submit(request).await.unwrap();
    let own = stage.take(&run, "a").await;
    assert_eq!(own.left, None);
    let (outcome, tasks) = (Outcome::Expanded, vec![stage.step("a/0", &[])]);
    let complete = Complete { outcome, tasks, usage: spends(20, 5), ..stage.completion(&own, json!(0)) };
    stage.backend().complete(complete).await.unwrap();
    let first = stage.take(&run, "a/0").await;
    assert_eq!(first.left, left(75));
    let tasks = vec![stage.step("a/1", &[])];
    let complete = Complete { tasks, usage: spends(60, 60), ..stage.completion(&first, json!(0)) };
    stage.backend().complete(complete).await.unwrap();
    assert_eq!(stage.take(&run, "a/1").await.left, left(0));
}

pub(crate) async fn the_time_of_its_tasks_ends_with_it(stage: Stage) {
    let draw = stage.draw().agent("a", &[]).with(|task| task.exec.timeout = Some(3_000)).tool("end", &["a"]);
    let run = stage.submit(draw).await;
    let first = stage.begins(&run, "a").await;
    let limit = stage.task(&run, "a").await.deadline;
    assert!(limit > 0 && first.deadline == limit, "{} is not {limit}", first.deadline);
    let late = stage.draw().tool("a/0/x", &[]).with(|task| task.exec.timeout = Some(900_000)).last();
    let soon = stage.draw().tool("a/0/y", &[]).with(|task| task.exec.timeout = Some(1)).last();
    stage.adds(&first, [late, soon].map(|spec| Added { spec, vital: false, resource: None }).into()).await;
    let state = stage.run(&run).await;
    assert_eq!(state.tasks["a/0/x"].deadline, limit);
    assert!(state.tasks["a/0/y"].deadline < limit);
    stage.after(3_000, async || stage.task_status(&run, "a").await == TaskStatus::Failed).await;
    assert_eq!(stage.status(&run).await, RunStatus::Failed);
}

/// A join that is added behind what runs already waits no longer than it says.
pub(crate) async fn the_window_of_an_added_join(stage: Stage) {
    let (run, first) = stage.begun().await;
    stage.adds(&first, vec![stage.call("a/0/x", &[]), stage.call("a/0/y", &["a/0/x"])]).await;
    let policy = JoinPolicy { within: Some(3_000), ..need(1, OnMiss::Partial) };
    let open = stage.draw().join("a/open", &["a/0/x"], policy).last();
    let shut = stage.draw().join("a/shut", &["a/0/y"], policy).last();
    let mut unlimited = stage.gather("a/unlimited", &["a/0/x"]);
    // of a join, only how it is merged and its fallback matter
    unlimited.spec.exec.timeout = Some(1);
    stage.adds(&first, [open, shut].map(|spec| Added { spec, vital: false, resource: None }).into()).await;
    stage.adds(&first, vec![unlimited]).await;
    let state = stage.run(&run).await;
    let limited = ["a/open", "a/shut", "a/unlimited"].map(|task| state.tasks[task].deadline > 0);
    assert_eq!(limited, [true, false, false]);
    stage.does(&run, "a/0/x", json!("x")).await;
    assert!(stage.task(&run, "a/shut").await.deadline > 0, "its input is ready now");
    assert_eq!(stage.task_status(&run, "a/open").await, TaskStatus::Succeeded);
    stage.after(3_000, async || stage.task_status(&run, "a/shut").await == TaskStatus::Succeeded).await;
    assert!(stage.task(&run, "a/shut").await.degraded);
}
