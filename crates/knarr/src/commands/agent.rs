//! `knarr agent`: one node of a cluster whose servers are elsewhere, in the foreground.

use anyhow::{Result, bail};

use super::up::StopSignal;
use crate::agent::{Agent, AgentConfig};
use crate::cli::AgentArgs;
use crate::steps::Steps;

/// Said when everything runs; tests wait for it.
pub const UP: &str = "The node is up";

pub async fn run(args: AgentArgs) -> Result<()> {
    let steps = Steps::new();
    let config = AgentConfig::new(&args)?;
    let mut signal = StopSignal::listen()?;
    let agent = tokio::select! {
        started = Agent::start(&config, &steps) => started?,
        () = signal.wait() => bail!("stopped before everything was up"),
    };
    steps.say(&format!("\n{UP} ({} ms).\n", steps.elapsed().as_millis()));
    signal.wait().await;
    let what = if args.keep_workloads { "stopped; workloads go on" } else { "stopped; workloads removed" };
    steps.run(what, agent.stop(args.keep_workloads)).await
}
