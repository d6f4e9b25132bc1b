//! `knarr up`: a cluster in the foreground.

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::UpArgs;
use crate::cluster::{Cluster, ClusterConfig};
use crate::steps::Steps;

pub async fn run(args: UpArgs) -> Result<()> {
    let steps = Steps::new();
    let (cluster, stop) = start(ClusterConfig::new(&args)?, &steps).await?;
    steps.say(&format!("\nThe cluster is up ({} ms). Next:\n", steps.elapsed().as_millis()));
    steps.say(&next_commands(&cluster.config));
    stay(cluster, stop, args.keep_workloads, &steps).await
}

/// Starts a cluster. From the first step on nothing that a person sends is lost: whoever sees the last step may stop it
/// at once.
pub async fn start(config: ClusterConfig, steps: &Steps) -> Result<(Cluster, StopSignal)> {
    let mut stop = StopSignal::listen()?;
    tokio::select! {
        started = Cluster::start(config, steps) => Ok((started?, stop)),
        () = stop.wait() => bail!("stopped before everything was up"),
    }
}

/// Runs until it is told to stop, or must not go on.
pub async fn stay(cluster: Cluster, mut signal: StopSignal, keep_workloads: bool, steps: &Steps) -> Result<()> {
    let failed = tokio::select! {
        () = signal.wait() => None,
        failed = cluster.failed() => Some(failed),
    };
    // What runs goes on when the control plane here had to end.
    let stopped = stop(cluster, keep_workloads || failed.is_some(), steps).await;
    match failed {
        Some(why) => Err(why),
        None => stopped,
    }
}

/// What to type now.
pub fn next_commands(config: &ClusterConfig) -> String {
    format!(
        "  export KUBECONFIG={}\n  kubectl get nodes\n  knarr image build app.wasm --tag app:v1\n",
        config.kubeconfig.display()
    )
}

/// Ctrl-C or a polite kill, from when it was made on.
pub struct StopSignal {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignal {
    pub fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Ctrl-C or a polite kill.
pub async fn wait_for_stop() -> Result<()> {
    StopSignal::listen()?.wait().await;
    Ok(())
}

/// Stops with a step line.
pub async fn stop(cluster: Cluster, keep_workloads: bool, steps: &Steps) -> Result<()> {
    let what = match (cluster.has_node(), keep_workloads) {
        (false, _) => "stopped",
        (true, true) => "stopped; workloads go on",
        (true, false) => "stopped; workloads removed",
    };
    steps.run(what, cluster.stop(keep_workloads)).await
}
