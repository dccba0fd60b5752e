//! `trireme demo`: the same graph one task at a time and in parallel, against simulated models and tools.

use serde_json::json;
use tokio_util::sync::CancellationToken;
use trireme_model::{RunStatus, attribution::attribution, view::RunView};
use trireme_simulator::{Scenario, Simulator};

use crate::{
    check,
    command::Demo,
    exit::{Code, Failure, note, say},
    progress::Progress,
    run::execute,
    settings::Settings,
    signal, source,
    stack::Stack,
    waterfall,
};

const SPEC: &str = include_str!("../../examples/market-brief.yaml");
const SCENARIO: &str = include_str!("../../examples/scenarios/market-brief.yaml");
const SIMULATED: &str = include_str!("../../examples/simulated.toml");
/// Where the example configuration expects the simulator.
const EXAMPLE_ADDRESS: &str = "http://127.0.0.1:9900";

/// Runs the demo.
pub async fn demo(args: Demo) -> Result<(), Failure> {
    let scenario = Scenario::parse(SCENARIO).map_err(|error| Failure::new(Code::Internal, error))?;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let simulator = Simulator::start(scenario, address).await;
    let simulator = simulator.map_err(|error| Failure::new(Code::Unavailable, error))?;
    eprintln!(
        "The models and tools of this demo are simulated: real HTTP servers on {} with the latencies of a \
         typical market.",
        simulator.base_url()
    );
    let interrupt = signal::shutdown()?;
    let sequential = brief(&simulator, true, &interrupt).await?;
    // both runs draw the same latencies
    simulator.reset();
    let parallel = brief(&simulator, false, &interrupt).await?;
    simulator.shutdown().await;
    let (sequential_ms, parallel_ms) = (wall(&sequential)?, wall(&parallel)?);
    let ratio = sequential_ms as f64 / parallel_ms as f64;
    let outputs_equal = sequential.output == parallel.output;
    if args.json {
        let result = json!({
            "sequential_ms": sequential_ms,
            "parallel_ms": parallel_ms,
            "ratio": (ratio * 100.0).round() / 100.0,
            "outputs_equal": outputs_equal,
            "run": parallel,
        });
        say(&result);
    } else {
        let drawn = |run: &RunView| waterfall::draw(run, &attribution(run), source::colour());
        say(format_args!("\nOne task at a time:\n\n{}", drawn(&sequential)));
        say(format_args!("In parallel:\n\n{}", drawn(&parallel)));
        say(format_args!("one task at a time {:>7.2} s", sequential_ms as f64 / 1000.0));
        say(format_args!("in parallel        {:>7.2} s", parallel_ms as f64 / 1000.0));
        say(format_args!("ratio              {ratio:>7.2}"));
        say(format_args!("outputs            {}", if outputs_equal { "equal" } else { "DIFFERENT" }));
        say("(simulated models and tools; latencies set in examples/scenarios/market-brief.yaml)");
    }
    if outputs_equal { Ok(()) } else { Err(Failure::new(Code::RunFailed, "the two outputs differ")) }
}

/// The settings of the examples, with the simulator at `base`.
fn settings(base: &str) -> Result<Settings, Failure> {
    let text = SIMULATED.replace(EXAMPLE_ADDRESS, base);
    let parsed = config::Config::builder()
        .add_source(config::File::from_str(&text, config::FileFormat::Toml))
        .build()
        .and_then(config::Config::try_deserialize);
    parsed.map_err(|error| Failure::new(Code::Internal, error))
}

async fn brief(
    simulator: &Simulator,
    sequential: bool,
    interrupt: &CancellationToken,
) -> Result<RunView, Failure> {
    let mut settings = settings(&simulator.base_url())?;
    settings.worker.slots = sequential.then_some(1);
    let mut stack = Stack::start(&settings).await?;
    stack.sweep(settings.coordinator.sweep_interval)?;
    let compiled = check::compile("examples/market-brief.yaml".as_ref(), SPEC, &[], &stack.capabilities)?;
    let label = if sequential { "one task at a time" } else { "in parallel" };
    note(format_args!("{label} ..."));
    let mut progress = Progress::new(label, true);
    let trace = stack.traces.begin(None);
    let view = execute(&stack.backend, &compiled, trace, &mut progress, interrupt).await?;
    progress.finish();
    stack.stop().await?;
    Ok(view)
}

fn wall(run: &RunView) -> Result<u64, Failure> {
    match (run.status, run.wall_ms) {
        (RunStatus::Succeeded, Some(wall)) => Ok(wall.max(1)),
        _ => Err(Failure::new(Code::RunFailed, format!("the demo's run failed: {:?}", run.error))),
    }
}
