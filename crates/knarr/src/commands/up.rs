//! `knarr up`: a cluster in the foreground.

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::UpArgs;
use crate::cluster::{Cluster, ClusterConfig};
use crate::steps::Steps;

pub async fn run(args: UpArgs) -> Result<()> {
    let steps = Steps::new();
    let cluster = Cluster::start(ClusterConfig::new(&args)?, &steps).await?;
    steps.say(&format!("\nThe cluster is up ({} ms). Next:\n", steps.elapsed().as_millis()));
    steps.say(&next_commands(&cluster.config));
    wait_for_stop().await?;
    stop(cluster, args.keep_workloads, &steps).await
}

/// What to type now.
pub fn next_commands(config: &ClusterConfig) -> String {
    format!(
        "  export KUBECONFIG={}\n  kubectl get nodes\n  knarr image build app.wasm --tag app:v1\n",
        config.kubeconfig.display()
    )
}

/// Ctrl-C or a polite kill.
pub async fn wait_for_stop() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Stops with a step line.
pub async fn stop(cluster: Cluster, keep_workloads: bool, steps: &Steps) -> Result<()> {
    let what = if keep_workloads { "stopped; workloads go on" } else { "stopped; workloads removed" };
    steps.run(what, cluster.stop(keep_workloads)).await
}
