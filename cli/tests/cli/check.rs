//! `trireme check`.

use crate::support::{
    example_names, examples,
    process::{finish_with, run, trireme},
    simulator::Simulator,
};

#[tokio::test]
async fn the_tree_shows_what_runs_at_once() {
    let file = examples().join("hello.yaml");
    let tree = run(&["check", file.to_str().unwrap()]).await;
    let tree = &tree.expect(0, &[]).out;
    assert!(tree.starts_with("hello: 6 tasks"), "{tree}");
    let lines: Vec<Vec<&str>> = tree.lines().map(|line| line.split_whitespace().collect()).collect();
    let at = |start: &[&str]| {
        let found = lines.iter().position(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("{start:?} is not in {tree}"))
    };
    assert!(at(&["level", "1"]) < at(&["net"]) && at(&["fee"]) < at(&["level", "2"]));
    assert!(lines[at(&["total"])].ends_with(&["<-", "net,", "fee"]), "{tree}");
}

#[tokio::test]
async fn mermaid_has_an_arrow_for_every_edge() {
    let file = examples().join("hello.yaml");
    let chart = run(&["check", "--mermaid", file.to_str().unwrap()]).await;
    let chart = &chart.expect(0, &[]).out;
    assert!(chart.starts_with("flowchart"), "{chart}");
    assert!(chart.contains("t_net --> t_total") && chart.contains("t_total --> t_output"), "{chart}");
    assert_eq!(chart.matches("-->").count(), 8, "{chart}");
}

#[tokio::test]
async fn every_error_is_named_with_its_place() {
    let spec = "tasks:\n  a: {tool: {name: nope}}\n  b: {llm: {model: gpt, prompt: \"{{ zzz }}\"}}\n  c: {join: {from: [a], need: 3}}\n";
    let ended = finish_with(trireme(&["check", "-"]), spec.as_bytes()).await;
    ended.expect(
        64,
        &[
            "standard input: ",
            "tasks.a.tool.name (line 2, column 20): unknown tool",
            "tasks.b.llm.model (line 3, column 20): unknown model `gpt`",
            "tasks.b.llm.prompt (line 3, column 33): unknown reference `zzz`",
            "tasks.c.join.need (line 4",
        ],
    );
    assert_eq!(ended.out, "");
}

#[tokio::test]
async fn a_check_needs_no_keys_and_says_which_a_run_does() {
    let spec = "tasks: {a: {llm: {model: openai/gpt-5, prompt: hi}}}";
    let ended = finish_with(trireme(&["check", "-"]), spec.as_bytes()).await;
    assert!(ended.expect(0, &["OPENAI_API_KEY"]).out.contains("llm openai/gpt-5"), "{}", ended.out);
}

#[tokio::test]
async fn every_example_is_sound() {
    let simulator = Simulator::examples().await;
    for name in example_names() {
        let file = examples().join(format!("{name}.yaml"));
        let args = ["check", file.to_str().unwrap(), "--config", simulator.config()];
        let tree = run(&args).await;
        assert!(tree.expect(0, &[]).out.starts_with(&format!("{name}: ")), "{}", tree.out);
    }
    assert_eq!(simulator.calls().await.len(), 0, "a check calls nothing");
}
