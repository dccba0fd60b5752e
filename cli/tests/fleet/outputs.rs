//! Every example gives the same output on a fleet as in one process.

use crate::support::{
    SOON, agent_names, example_names, examples,
    fleet::Fleet,
    process::{finish_with, run, trireme},
    simulator::Simulator,
    wide,
};

#[tokio::test(flavor = "multi_thread")]
async fn examples_give_the_output_of_one_process() {
    let simulator = Simulator::examples().await;
    let fleet = Fleet::shared(Some(simulator.config.clone())).await;
    let (first, second) = (fleet.coordinator("c1").await, fleet.coordinator("c2").await);
    let workers = [fleet.worker("w1", &[]).await, fleet.worker("w2", &[]).await];
    for (at, name) in example_names().iter().enumerate() {
        let file = examples().join(format!("{name}.yaml"));
        let file = file.to_str().unwrap();
        let server = if at % 2 == 0 { &first } else { &second };
        let there = run(&["submit", file, "--follow", "--server", &server.api.base]).await;
        there.expect(0, &["run started", "run succeeded"]);
        if name == "quorum" {
            // any two of the three may come first
            assert!(!there.out.is_empty());
        } else {
            let here = run(&["run", file, "--config", simulator.config()]).await;
            assert_eq!(there.out, here.expect(0, &[]).out, "{name}");
        }
    }
    // a run of one coordinator is a run of the other
    let hello = std::fs::read(examples().join("hello.yaml")).unwrap();
    let submitted = finish_with(trireme(&["submit", "-", "--server", &first.api.base]), &hello).await;
    let id = submitted.expect(0, &[]).out.trim().to_owned();
    assert_eq!(second.api.ended(&id, SOON).await["output"]["total"], 52);
    let id = second.api.submit(&wide()).await;
    assert_eq!(first.api.ended(&id, SOON).await["output"], 49_995_000);
    for member in workers.into_iter().chain([first, second]) {
        member.stop().await;
    }
    fleet.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_give_the_output_of_one_process() {
    let simulator = Simulator::agents().await;
    let config = simulator.with_mcp().await;
    let fleet = Fleet::shared(Some(config.clone())).await;
    let coordinator = fleet.coordinator("c").await;
    let workers = [fleet.worker("w1", &[]).await, fleet.worker("w2", &[]).await];
    for name in agent_names() {
        let file = examples().join(format!("{name}.yaml"));
        let file = file.to_str().unwrap();
        let there = run(&["submit", file, "--follow", "--server", &coordinator.api.base]).await;
        there.expect(0, &["run started", "run succeeded"]);
        let here = run(&["run", file, "--config", config.to_str().unwrap()]).await;
        assert_eq!(there.out, here.expect(0, &[]).out, "{name}");
    }
    for member in workers.into_iter().chain([coordinator]) {
        member.stop().await;
    }
    fleet.clean().await;
}
