//! Agents: turns, calls that begin while the turn is written, plans, agents inside agents.

use super::*;

fn agent(name: &str, times: [Ms; 4], inputs: &[&str]) -> TaskView {
    task(name, Kind::Agent, "model", times, inputs)
}

/// A run of one agent: two turns, two calls in the first, the second begins while the turn is written.
fn turns() -> RunView {
    let own = |task| owned("a", task);
    run(
        500,
        vec![
            agent("a", [0, 0, 4, 500], &[]),
            own(llm("a/step-0", 6, 50, 206, &[])),
            own(tool("a/step-0/fast", 80, 180, &[])),
            own(task("a/step-0/slow", Kind::Tool, "search", [106, 106, 110, 310], &[])),
            own(join("a/step-0/join", 310, &["a/step-0/fast", "a/step-0/slow"])),
            own(llm("a/step-1", 310, 60, 500, &["a/step-0/join"])),
        ],
    )
}

#[test]
fn a_turn_counts_until_its_call_is_ready() {
    let found = check(&turns());
    assert_eq!(
        path(&found),
        [
            "a queue 0+4",
            "a dispatch 4+2",
            "a/step-0 first_token 6+50",
            "a/step-0 decode 56+50",
            "a/step-0/slow queue 106+4",
            "a/step-0/slow tool 110+200",
            "a/step-0/join join 310+0",
            "a/step-1 first_token 310+60",
            "a/step-1 decode 370+130",
        ]
    );
    assert_eq!(
        slack(&found),
        [
            ("a", 0),
            ("a/step-0", 0),
            ("a/step-0/fast", 130),
            ("a/step-0/join", 0),
            ("a/step-0/slow", 0),
            ("a/step-1", 0)
        ]
    );
}

#[test]
fn a_faster_model_begins_its_calls_sooner_and_a_faster_tool_waits_for_the_turn() {
    let gains: Vec<_> = check(&turns())
        .what_if
        .iter()
        .map(|what| (what.label.clone(), what.share_of_wall, what.half_time_gain_percent))
        .collect();
    // the model: its first turn gives out the call 50 ms sooner, its second ends 95 ms sooner; the tool: the call
    // would end at 210, just behind the turn
    assert_eq!(gains, [("model".into(), 0.58, 29.0), ("search".into(), 0.4, 20.0)]);
    let mut run = turns();
    // a turn that is written until 260: the join can't fire before
    run.tasks[1].ended_ms = Some(START + 260);
    assert_eq!(check(&run).what_if[1].half_time_gain_percent, 10.0);
}

#[test]
fn calls_that_ended_before_their_turn() {
    let own = |task| owned("a", task);
    let found = check(&run(
        400,
        vec![
            agent("a", [0, 0, 0, 400], &[]),
            own(llm("a/step-0", 0, 50, 300, &[])),
            own(tool("a/step-0/fast", 80, 180, &[])),
            own(join("a/step-0/join", 300, &["a/step-0/fast"])),
            own(llm("a/step-1", 300, 60, 400, &["a/step-0/join"])),
        ],
    ));
    assert_eq!(
        path(&found)[..3],
        ["a/step-0 first_token 0+50", "a/step-0 decode 50+250", "a/step-0/join join 300+0"]
    );
    assert_eq!(found.slack_ms[&id("a/step-0/fast")], 120);
    assert_eq!(found.slack_ms[&id("a/step-0")], 0);
}

#[test]
fn a_turns_join_whose_window_closed() {
    let own = |task| owned("a", task);
    let found = check(&run(
        700,
        vec![
            agent("a", [0, 0, 0, 700], &[]),
            own(llm("a/step-0", 0, 50, 200, &[])),
            own(tool("a/step-0/fast", 80, 250, &[])),
            own(cut(tool("a/step-0/slow", 90, 90, &[]))),
            own(join("a/step-0/join", 600, &["a/step-0/fast", "a/step-0/slow"])),
            own(llm("a/step-1", 600, 60, 700, &["a/step-0/join"])),
        ],
    ));
    assert_eq!(
        path(&found)[2..4],
        ["a/step-0/fast tool 80+170", "a/step-0/join join 250+350"].map(String::from)[..]
    );
    // the window opened when the turn ended: a faster model opens it 100 ms sooner
    assert_eq!((found.what_if[0].label.as_str(), found.what_if[0].half_time_gain_percent), ("model", 21.4));
}

#[test]
fn a_plan_whose_tasks_wait_for_each_other() {
    let own = |task| owned("a", task);
    let found = check(&run(
        600,
        vec![
            agent("a", [0, 0, 0, 600], &[]),
            own(llm("a/plan-0", 0, 50, 200, &[])),
            own(tool("a/plan-0/1", 80, 180, &[])),
            own(tool("a/plan-0/2", 180, 400, &["a/plan-0/1"])),
            own(llm("a/plan-0/3", 150, 10, 190, &[])),
            own(tool("a/plan-0/4", 170, 300, &[])),
            own(llm("a/join-0", 400, 60, 600, &["a/plan-0/2", "a/plan-0/3", "a/plan-0/4"])),
        ],
    ));
    assert_eq!(
        path(&found)[..4],
        [
            "a/plan-0 first_token 0+50",
            "a/plan-0 decode 50+30",
            "a/plan-0/1 tool 80+100",
            "a/plan-0/2 tool 180+220"
        ]
    );
    // the fourth was added by the planner, not by the model's call of the plan that ran at that time
    let slack = &found.slack_ms;
    assert_eq!((slack[&id("a/plan-0/3")], slack[&id("a/plan-0/4")], slack[&id("a/plan-0")]), (210, 100, 0));
}

#[test]
fn an_agent_inside_an_agent_and_one_that_ran_out_of_time() {
    let own = |task| owned("a", task);
    let team = |task| owned("a/step-0/team", task);
    let tasks = vec![
        agent("a", [0, 0, 0, 500], &[]),
        own(llm("a/step-0", 0, 50, 100, &[])),
        own(agent("a/step-0/team", [70, 70, 75, 400], &[])),
        team(llm("a/step-0/team/step-0", 80, 100, 400, &[])),
        own(join("a/step-0/join", 400, &["a/step-0/team"])),
        own(llm("a/step-1", 400, 60, 500, &["a/step-0/join"])),
    ];
    let found = check(&run(500, tasks.clone()));
    assert_eq!(
        path(&found)[2..6],
        [
            "a/step-0/team queue 70+5",
            "a/step-0/team dispatch 75+5",
            "a/step-0/team/step-0 first_token 80+100",
            "a/step-0/team/step-0 decode 180+220",
        ]
    );
    assert_eq!(found.categories.join, 0);
    let mut late = run(400, tasks[..4].to_vec());
    late.tasks[0].ended_ms = Some(START + 400);
    late.tasks[0].status = TaskStatus::Failed;
    late.tasks[2] = cut(late.tasks[2].clone());
    late.tasks[3] = cut(late.tasks[3].clone());
    late.status = RunStatus::Failed;
    // the call had brought no end to measure: it counts until the agent was ended
    assert_eq!(
        path(&check(&late))[4..],
        ["a/step-0/team/step-0 first_token 80+100", "a/step-0/team/step-0 decode 180+220"]
    );
}

#[test]
fn a_wait_for_a_resource_is_the_time_of_the_task_that_had_it() {
    let touching = |task: TaskView| TaskView { resource: Some("file".into()), ..task };
    let tasks = vec![
        touching(tool("slow", 0, 100, &[])),
        touching(tool("next", 100, 130, &[])),
        tool("other", 0, 20, &[]),
        join("end", 130, &["next", "other"]),
    ];
    let found = check(&run(130, tasks));
    let path: Vec<(&str, Ms)> = found.path.iter().map(|part| (part.task.as_str(), part.ms)).collect();
    assert!(path.starts_with(&[("slow", 100), ("next", 30)]), "{path:?}");
}
