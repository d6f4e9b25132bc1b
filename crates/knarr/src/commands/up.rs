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
    stay(cluster, args.keep_workloads, &steps).await
}

/// Runs until it is told to stop, or must not go on.
pub async fn stay(cluster: Cluster, keep_workloads: bool, steps: &Steps) -> Result<()> {
    let failed = tokio::select! {
        stopped = wait_for_stop() => { stopped?; None }
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
    let what = match (cluster.has_node(), keep_workloads) {
        (false, _) => "stopped",
        (true, true) => "stopped; workloads go on",
        (true, false) => "stopped; workloads removed",
    };
    steps.run(what, cluster.stop(keep_workloads)).await
}
