//! Large runs: the time may grow with the tasks, not with their square.

use std::time::Instant;

use super::*;

/// Far above the 70 ms that it takes without optimisation; the square of the tasks would take minutes.
const MOST_MS: u128 = 2_000;

fn quick(run: &RunView) {
    let begun = Instant::now();
    let found = attribution(run);
    let took = begun.elapsed().as_millis();
    assert_eq!(found.categories.total(), found.wall_ms);
    assert!(took < MOST_MS, "{took} ms for {} tasks", run.tasks.len());
}

#[test]
fn ten_thousand_tasks_in_a_chain_in_a_map_and_in_an_agent() {
    let count = 10_000;
    let label = |index: Ms| format!("t{}", index % 30);
    let mut chain: Vec<TaskView> = Vec::new();
    for at in 0..count {
        let input = chain.last().map(|task| task.id.to_string());
        let inputs: Vec<&str> = input.iter().map(String::as_str).collect();
        chain.push(TaskView { label: label(at), ..tool(&format!("c{at}"), at, at + 1, &inputs) });
    }
    quick(&run(count, chain));

    let mut map = vec![task("each", Kind::Map, "read", [0, 0, 0, count], &[])];
    // all end in one millisecond, again and again
    map.extend((0..count).map(|at| tool(&format!("each/{at}"), at / 100 * 100, (at / 100 + 1) * 100, &[])));
    quick(&run(count, map));

    let mut agent = vec![task("a", Kind::Agent, "model", [0, 0, 0, 2 * count], &[])];
    agent.extend((0..count).map(|at| {
        let input = format!("a/step-{}", at.saturating_sub(1));
        let inputs: &[&str] = if at == 0 { &[] } else { &[&input] };
        owned("a", llm(&format!("a/step-{at}"), 2 * at, 1, 2 * at + 2, inputs))
    }));
    quick(&run(2 * count, agent));

    let names: Vec<String> = (0..count).map(|at| format!("w{at}")).collect();
    let mut wide: Vec<TaskView> = names.iter().zip(1..).map(|(name, at)| tool(name, 0, at, &[])).collect();
    wide.push(join("all", count, &names.iter().map(String::as_str).collect::<Vec<_>>()));
    quick(&run(count, wide));
}
