//! `trireme simulate`: models and tools over real wire formats, as a scenario says.

use trireme_simulator::{Scenario, Simulator};

use crate::{
    command::Simulate,
    exit::{Code, Failure},
    signal,
};

/// Serves until it is told to stop.
pub async fn simulate(args: Simulate) -> Result<(), Failure> {
    let scenario = match &args.scenario {
        Some(file) => Scenario::from_file(file).map_err(Failure::usage)?,
        None => Scenario::parse("{}").map_err(Failure::usage)?,
    };
    let shutdown = signal::shutdown()?;
    let simulator = Simulator::start(scenario, args.listen).await;
    let simulator = simulator.map_err(|error| Failure::new(Code::Unavailable, error))?;
    eprintln!("OpenAI-compatible  {}", simulator.openai_base_url());
    eprintln!("Anthropic          {}", simulator.anthropic_base_url());
    eprintln!("tools              {}/tools/NAME", simulator.base_url());
    eprintln!("ledger             {}/_simulator/ledger", simulator.base_url());
    simulator.run(shutdown).await;
    Ok(())
}
